//! Golden tests for the pipeline file: each folder of `tests/fixtures/pipeline` is one case.
//!
//! | file | content |
//! |---|---|
//! | `pipeline.yml` | the pipeline file; instead of it, a folder `.beespace` with several files |
//! | `event.json` | facts, if the case tests `when`; `failed` are the names of steps that have failed so far |
//! | `values.json` | values of paths, if the case tests substitutions |
//! | `expected.json` | for valid files: normal forms, plans of the image steps, and with facts what runs; a list if several |
//! | `expected.txt` | for an invalid file: all diagnostics |
//! | `spans.txt` | optional: the location of each part of the normal form |
//!
//! `UPDATE=1 cargo test -p beespace-core --test pipeline` rewrites the expected files; review the diff before you commit it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "an unexpected value fails the test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use beespace_core::diagnostic::Diagnostic;
use beespace_core::ids::StepNumber;
use beespace_core::pipeline::eval_when::{Facts, StageConditions, pipeline_matches};
use beespace_core::pipeline::substitution::{self, Values};
use beespace_core::pipeline::{Action, ParsedPipeline, SourceFile, Step, read_files, substitute};
use beespace_core::plan;
use beespace_core::reason::Reason;
use serde::Deserialize;
use serde_json::{Value, json};

const ALLOWED: [&str; 7] =
    ["pipeline.yml", ".beespace", "event.json", "values.json", "expected.json", "expected.txt", "spans.txt"];

#[derive(Deserialize)]
struct Given {
    #[serde(flatten)]
    facts: Facts,
    #[serde(default)]
    failed: Vec<String>,
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/pipeline");
    let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

/// The pipeline files of a case, each with its path.
fn files(case: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(folder) = fs::read_dir(case.join(".beespace")) else {
        let file = case.join("pipeline.yml");
        return vec![("pipeline.yml".to_owned(), fs::read(&file).unwrap())];
    };
    let mut files: Vec<_> = folder
        .map(|entry| {
            let path = entry.unwrap().path();
            (format!(".beespace/{}", path.file_name().unwrap().to_str().unwrap()), fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_case_reads_as_expected() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let files = files(&case);
        let given = fs::read(case.join("event.json")).ok();
        let given: Option<Given> = given.map(|json| serde_json::from_slice(&json).unwrap_or_else(|e| panic!("{name}: {e}")));
        let (file, other, actual) = match read_with_values(&case, &files) {
            Ok(all) => {
                if case.join("spans.txt").exists() {
                    compare(&case.join("spans.txt"), &all.iter().map(spans).collect::<String>(), update, &mut wrong);
                }
                ("expected.json", "expected.txt", normal_forms(&all, given.as_ref()))
            }
            Err(diagnostics) => {
                let lines = diagnostics.iter().map(|diagnostic| format!("[{}] {diagnostic}\n", diagnostic.code));
                ("expected.txt", "expected.json", lines.collect())
            }
        };
        compare(&case.join(file), &actual, update, &mut wrong);
        if case.join(other).exists() {
            wrong.push(format!("{name}: {other} exists, but the result belongs in {file}:\n{actual}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong (UPDATE=1 to accept):\n\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_file_of_a_case_is_used() {
    let cases = cases();
    let is_error = |case: &&PathBuf| case.join("expected.txt").exists();
    let errors = cases.iter().filter(is_error).count();
    assert!(cases.len() >= 200 && errors * 3 >= cases.len(), "{errors} of {} cases are errors", cases.len());
    for case in cases {
        assert!(case.is_dir(), "{} is not the folder of a case", case.display());
        for entry in fs::read_dir(&case).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(ALLOWED.contains(&name.as_str()), "{}/{name} is not read by any test", case.display());
        }
        let is_unused = case.join("event.json").exists() && case.join("expected.txt").exists();
        assert!(!is_unused, "{}: an invalid file has no use for event.json", case.display());
    }
}

/// Reads the files, and puts the values of the case into their substitutions.
fn read_with_values(case: &Path, files: &[(String, Vec<u8>)]) -> Result<Vec<ParsedPipeline>, Vec<Diagnostic>> {
    let sources: Vec<_> = files.iter().map(|(path, bytes)| SourceFile { path, bytes }).collect();
    let all = read_files(&sources)?;
    let values = fs::read(case.join("values.json")).ok();
    let has_values = values.is_some();
    let values: BTreeMap<String, String> = values.map(|json| serde_json::from_slice(&json).unwrap()).unwrap_or_default();
    let values = values
        .into_iter()
        .fold(Values::default(), |values, (path, value)| values.with(substitution::Path::parse(&path).unwrap(), value));
    let with_values = |located: ParsedPipeline| {
        if !has_values && located.pipeline.cell.is_empty() {
            return Ok(located);
        }
        let values = values.clone().with_matrix(&located.pipeline.cell);
        let pipeline = substitute(&files[usize::from(located.place.file)].0, &located, &values)?;
        Ok(ParsedPipeline { pipeline, ..located })
    };
    all.into_iter().map(with_values).collect()
}

fn compare(file: &Path, actual: &str, update: bool, wrong: &mut Vec<String>) {
    let expected = fs::read_to_string(file).unwrap_or_default();
    if expected == actual {
        return;
    }
    if update {
        fs::write(file, actual).unwrap();
    } else {
        let case = file.parent().unwrap().file_name().unwrap().to_string_lossy();
        let name = file.file_name().unwrap().to_string_lossy();
        wrong.push(format!("{case}/{name}\n--- expected\n{expected}\n--- actual\n{actual}"));
    }
}

fn normal_forms(all: &[ParsedPipeline], given: Option<&Given>) -> String {
    let forms: Vec<Value> = all.iter().map(|one| normal_form(one, given)).collect();
    let expected = match forms.as_slice() {
        [only] => only.clone(),
        several => json!(several),
    };
    let mut text = serde_json::to_string_pretty(&expected).unwrap();
    text.push('\n');
    text
}

fn normal_form(located: &ParsedPipeline, given: Option<&Given>) -> Value {
    let pipeline = &located.pipeline;
    let plan = |step: &Step| match &step.action {
        Action::Image(action) => Some(plan::plan_image_step(pipeline, step, action)),
        // Planned by its step type.
        Action::Uses(_) => None,
    };
    let plans: Vec<_> = pipeline.steps.iter().filter_map(plan).collect();
    let mut expected =
        BTreeMap::from([("pipeline", serde_json::to_value(pipeline).unwrap()), ("plans", serde_json::to_value(plans).unwrap())]);
    if let Some(given) = given {
        let failed: Vec<&str> = given.failed.iter().map(String::as_str).collect();
        let mut runs = serde_json::Map::new();
        runs.insert("(pipeline)".to_owned(), answer(pipeline_matches(located.pipeline.when.as_ref(), &given.facts)));
        let conditions = StageConditions::evaluate(pipeline, &given.facts);
        for (step, number) in pipeline.steps.iter().zip(1..) {
            runs.insert(step.name.clone(), answer(conditions.step_matches(StepNumber(number), &failed)));
        }
        expected.insert("runs", Value::Object(runs));
    }
    json!(expected)
}

fn answer(result: Result<Vec<Reason>, Reason>) -> Value {
    match result {
        Ok(remarks) if remarks.is_empty() => json!(true),
        Ok(remarks) => json!(remarks.iter().map(|remark| format!("runs: {remark}")).collect::<Vec<_>>()),
        Err(reason) => json!(format!("no: {reason}")),
    }
}

fn spans(located: &ParsedPipeline) -> String {
    let mut text = String::new();
    for (pointer, span) in located.spans.iter() {
        writeln!(text, "{}:{}-{}:{} {pointer}", span.line, span.column, span.end_line, span.end_column).unwrap();
    }
    text
}
