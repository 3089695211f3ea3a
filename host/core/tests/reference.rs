//! The files in `docs/` that are made from the list of all keys of the pipeline file.
//!
//! `UPDATE=1 cargo test -p beespace-core --test reference` rewrites them.
#![expect(clippy::unwrap_used, reason = "an unexpected value fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use beespace_core::diagnostic::Diagnostic;
use beespace_core::pipeline::reference::{KeyTable, SCHEMA_PATH, json_schema, key_tables};
use beespace_core::pipeline::{SourceFile, read_files};

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

fn compare(file: &Path, actual: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, actual).unwrap();
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    assert!(expected == actual, "{} is not up to date (UPDATE=1 rewrites it)", file.display());
}

#[test]
fn the_schema_is_made_from_the_list_of_keys() {
    compare(&docs(SCHEMA_PATH), &format!("{:#}\n", json_schema()));
}

#[test]
fn the_page_has_the_table_of_every_kind_of_map() {
    let page = fs::read_to_string(docs("pipeline.md")).unwrap();
    let mut actual = page.clone();
    for table in key_tables() {
        let (begin, end) = (format!("<!-- keys {} -->\n", table.location), "<!-- end of keys -->\n");
        let (before, rest) = actual.split_once(&begin).unwrap_or_else(|| panic!("no {begin:?} in docs/pipeline.md"));
        let (_, after) = rest.split_once(end).unwrap();
        actual = format!("{before}{begin}\n{}\n{end}{after}", table.markdown());
    }
    compare(&docs("pipeline.md"), &actual);
}

/// A file with the example of a key, and what the key needs beside it.
fn file_with(table: &KeyTable, name: &str, example: &str) -> String {
    let step = |rest: &str| format!("steps:\n  - {{ name: a, image: x, run: y, {rest} }}\n");
    let beside = |rest: &str, example: &str| format!("{rest}, {example}").trim_start_matches(", ").to_owned();
    match (table.location.as_str(), name) {
        ("in a pipeline", "steps") => example.to_owned(),
        ("in a pipeline", "needs") => format!("name: lint\n{0}---\nname: test\n{example}\n{0}", step("")),
        ("in a pipeline", "schedules") => format!("{example}\nwhen: {{ event: cron }}\nsteps: [{{ name: a, image: x }}]\n"),
        ("in a pipeline", _) => format!("{example}\nsteps: [{{ name: a, image: x }}]\n"),
        ("in a step", "name") => format!("steps: [{{ image: x, {example} }}]"),
        ("in a step", "image") => format!("steps: [{{ name: a, {example} }}]"),
        ("in a step", "uses") => format!("steps: [{{ name: a, {example} }}]"),
        ("in a step", "with") => format!("steps: [{{ name: a, uses: x, {example} }}]"),
        ("in a step", "run" | "entrypoint" | "args") => format!("steps: [{{ name: a, image: x, {example} }}]"),
        ("in a step", _) => step(example),
        ("in a `when`", _) => step(&format!("when: {{ {example} }}")),
        ("in a condition", _) => step(&format!("when: {{ paths: {{ {example} }} }}")),
        ("in `clone`", _) => format!("clone: {{ {example} }}\n{}", step("")),
        ("in `limits`", _) => step(&format!("limits: {{ {example} }}")),
        ("in `retry`", "max") => step(&format!("retry: {{ {example} }}")),
        ("in `retry`", _) => step(&format!("retry: {{ {} }}", beside("max: 1", example))),
        ("in the value of a variable", _) => step(&format!("env: {{ A: {{ {example} }} }}")),
        ("in a schedule", name) => {
            let needed = ["name: n", "cron: \"@daily\""].into_iter().filter(|other| !other.starts_with(&format!("{name}:")));
            let all: Vec<&str> = needed.chain([example]).collect();
            format!("when: {{ event: cron }}\nschedules: [{{ {} }}]\n{}", all.join(", "), step(""))
        }
        ("in `matrix`", "axes") => format!("matrix: {{ {example} }}\n{}", step("")),
        ("in `matrix`", _) => format!("matrix: {{ axes: {{ rust: [\"1.94\", \"1.95\"] }}, {example} }}\n{}", step("")),
        ("in a param", _) => format!("params: {{ a: {{ {example} }} }}\n{}", step("")),
        (other, _) => format!("no file for examples {other}"),
    }
}

fn problems(file: &str) -> Vec<Diagnostic> {
    read_files(&[SourceFile { path: "file", bytes: file.as_bytes() }]).err().unwrap_or_default()
}

#[test]
fn every_example_is_valid() {
    for table in key_tables() {
        for key in &table.keys {
            assert!(key.example.starts_with(&format!("{}:", key.name)), "{}", key.example);
            let file = file_with(&table, &key.name, &key.example);
            let problems = problems(&file);
            assert!(problems.is_empty(), "{file}\n{problems:?}");
        }
    }
}

#[test]
fn every_file_on_the_page_is_valid() {
    let page = fs::read_to_string(docs("pipeline.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let files: Vec<&str> = blocks.filter(|block| block.contains("steps:")).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        // A block may go on with the file of an earlier one.
        let problems: Vec<_> = problems(file).into_iter().filter(|problem| problem.code != "unknown-pipeline").collect();
        assert!(problems.is_empty(), "{file}\n{problems:?}");
    }
}
