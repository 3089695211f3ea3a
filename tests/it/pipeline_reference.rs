//! The JSON schema of the pipeline file agrees with the reader.

use std::fs;
use std::path::{Path, PathBuf};

use beespace_core::pipeline::reference::{SCHEMA_PATH, documents_as_json, json_schema};
use beespace_core::pipeline::{SourceFile, read, read_files};
use serde_json::{Value, json};

use crate::flow;

/// Problems that are visible in the form of a file alone.
const STRUCTURAL: [&str; 4] = ["unknown-key", "missing-key", "foreign-word", "not-yet"];

fn schema() -> Value {
    json_schema()
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/pipeline");
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The files of a golden case.
fn files(case: &Path) -> Vec<(String, Vec<u8>)> {
    let in_folder = fs::read_dir(case.join(".beespace")).into_iter().flatten().map(|entry| entry.unwrap().path());
    let paths: Vec<PathBuf> = in_folder.chain([case.join("pipeline.yml")]).filter(|path| path.exists()).collect();
    paths.into_iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

#[test]
fn the_schema_agrees_with_the_reader_about_every_golden_case() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let mut wrong = Vec::new();
    let (mut accepted, mut refused) = (0, 0);
    for case in cases() {
        let files = files(&case);
        let documents: Option<Vec<Vec<Value>>> =
            files.iter().map(|(_, bytes)| documents_as_json(std::str::from_utf8(bytes).ok()?)).collect();
        // Text that is not YAML has no form.
        let Some(documents) = documents else { continue };
        let documents: Vec<&Value> = documents.iter().flatten().filter(|document| !document.is_null()).collect();
        let problems: Vec<String> =
            documents.iter().flat_map(|one| validator.iter_errors(one)).map(|error| error.to_string()).collect();
        let sources: Vec<SourceFile<'_>> = files.iter().map(|(path, bytes)| SourceFile { path, bytes }).collect();
        let name = case.file_name().unwrap().to_string_lossy();
        match read_files(&sources) {
            Ok(_) if problems.is_empty() => accepted += 1,
            Ok(_) => wrong.push(format!("{name} is valid, but the schema refuses it: {problems:?}")),
            Err(found) if found.iter().any(|one| STRUCTURAL.contains(&one.code.as_str())) && !documents.is_empty() => {
                refused += 1;
                if problems.is_empty() {
                    wrong.push(format!("{name} is invalid, but the schema accepts it: {found:?}"));
                }
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(accepted > 60 && refused > 20, "{accepted} accepted, {refused} refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_serves_the_schema_to_everybody() {
    let (_gogs, beespace) = flow::world("").await;
    let response = beespace.anonymous().get(&format!("/{SCHEMA_PATH}")).await.unwrap();
    assert_eq!(response.json().unwrap(), schema());
}

#[test]
fn the_schema_accepts_what_the_reader_accepts() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let step = |rest: Value| {
        let mut step = json!({ "name": "a", "image": "x" });
        step.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({ "steps": [step] })
    };
    let with = |rest: Value| {
        let mut file = json!({ "steps": [{ "name": "a", "image": "x" }] });
        file.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        file
    };
    let valid = [
        with(json!({ "name": "n", "when": { "event": "push", "branch": ["main", "!old"], "paths": { "include": "src/**" } } })),
        with(json!({ "when": [{ "branch": "main" }, { "paths": ["a", "b"] }], "timeout": "1h30m", "x-any": [1] })),
        with(json!({ "clone": false, "env": { "A": 1, "B": true, "C": "", "D": { "from_secret": "d-1.x_y" } } })),
        with(json!({ "clone": { "depth": 0 } })),
        with(json!({ "matrix": { "axes": { "rust": ["1.94", "1.95"], "db": "pg" }, "exclude": [{ "rust": "1.94" }] } })),
        with(json!({ "matrix": { "include": [{ "rust": "1.94" }, { "rust": "1.95" }] } })),
        with(json!({ "needs": [], "when": [{ "branch": "main" }, { "status": ["success", "failure"] }] })),
        with(json!({ "when": { "cron": "nightly" }, "schedules": [{ "name": "nightly", "cron": "@daily", "zone": "UTC" }] })),
        with(json!({ "when": { "tag": "v*", "ref": "refs/tags/**", "target": ["production", "!test"] } })),
        with(
            json!({ "params": { "level": { "type": "choice", "options": ["a", "b"], "default": "a" }, "n": { "about": "x" } } }),
        ),
        step(json!({ "run": "a", "shell": "bash -eo pipefail", "user": "1000:1000", "tmpfs": { "/tmp": "1GiB" } })),
        step(json!({ "settings": { "a": [1, { "b": true }] }, "network": "none", "privileged": true, "devices": ["/dev/kvm"] })),
        step(json!({ "limits": { "cpu": 0.5, "memory": "2GiB", "pids": 9 } })),
        step(json!({ "run": ["one", "two"], "env": { "A": "b" }, "needs": [], "timeout": "5m", "failure": "ignore",
            "workdir": "web" })),
        with(json!({ "env": { "CI": "false", "BEESPACES": "x" } })),
        step(json!({ "entrypoint": "a", "args": ["b c", 1], "workdir": "/srv/..x" })),
        step(json!({ "entrypoint": ["a"], "args": [], "when": { "status": ["success", "failure"] } })),
        json!({ "steps": [
            { "name": "a", "uses": "check", "with": { "any": [1, { "b": null }] } },
            { "name": "b", "image": "x", "needs": ["a"] }
        ] }),
    ];
    let invalid = [
        json!([]),
        json!({}),
        json!({ "steps": [] }),
        json!({ "steps": [{ "name": "a" }] }),
        json!({ "steps": [{ "image": "x" }] }),
        json!({ "steps": [{ "name": "a", "image": "x", "uses": "y" }] }),
        json!({ "steps": [{ "name": "a", "uses": "y", "run": "z" }] }),
        with(json!({ "branch": "main" })),
        with(json!({ "when": "push" })),
        with(json!({ "when": {} })),
        with(json!({ "needs": { "lint": true } })),
        with(json!({ "matrix": { "rust": ["1.94", "1.95"] } })),
        with(json!({ "matrix": { "axes": {} } })),
        with(json!({ "matrix": { "axes": { "rust": [] } } })),
        with(json!({ "timeout": "10" })),
        with(json!({ "clone": { "depth": -1 } })),
        with(json!({ "when": { "event": "cron" }, "schedules": [{ "name": "nightly" }] })),
        with(json!({ "params": { "level": { "type": "choice" } } })),
        with(json!({ "params": { "level": { "type": "bool", "options": ["true"] } } })),
        with(json!({ "params": { "1": {} } })),
        with(json!({ "env": { "BEESPACE_X": "a" } })),
        with(json!({ "env": { "A": { "secret": "a" } } })),
        with(json!({ "env": { "1A": "a" } })),
        step(json!({ "run": { "a": "b" } })),
        step(json!({ "run": "a", "args": ["b"] })),
        step(json!({ "entrypoint": "a b" })),
        step(json!({ "args": "a b" })),
        step(json!({ "workdir": "../x" })),
        step(json!({ "workdir": "/tmp/.." })),
        step(json!({ "with": {} })),
        step(json!({ "settings": [] })),
        step(json!({ "limits": {} })),
        step(json!({ "limits": { "cpu": 1, "cpus": 1 } })),
        step(json!({ "network": "bridge" })),
        step(json!({ "privileged": "yes" })),
        step(json!({ "failure": "always" })),
        step(json!({ "when": { "banana": "main" } })),
    ];
    for (files, expected) in [(&valid[..], true), (&invalid[..], false)] {
        for file in files {
            let read = read("f", file.to_string().as_bytes());
            assert_eq!(read.is_ok(), expected, "the reader: {file}\n{read:?}");
            let problems: Vec<String> = validator.iter_errors(file).map(|error| error.to_string()).collect();
            assert_eq!(problems.is_empty(), expected, "the schema: {file}\n{problems:?}");
        }
    }
}
