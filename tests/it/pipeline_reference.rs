//! The reference of the pipeline file in `docs/` and its JSON schema name exactly the keys that the reader supports.

use std::collections::BTreeSet;
use std::path::Path;

use beespace_core::pipeline::{read, supported_keys};
use serde_json::{Value, json};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn schema() -> Value {
    serde_json::from_str(&document("pipeline.schema.json")).unwrap()
}

/// The first column of the table under a heading.
fn documented(page: &str, heading: &str) -> BTreeSet<String> {
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("no section {heading:?}"));
    let keys = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(key, _)| key.to_owned()));
    keys.collect()
}

#[test]
fn the_page_documents_every_key() {
    let page = document("pipeline.md");
    for (location, keys) in supported_keys() {
        let heading = format!("I{}", &location[1..]);
        let known: BTreeSet<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(documented(&page, &heading), known, "{heading}");
    }
}

#[test]
fn the_schema_has_every_key() {
    let schema = schema();
    let properties = |pointer: &str| -> BTreeSet<String> {
        let object = schema.pointer(pointer).and_then(Value::as_object).unwrap_or_else(|| panic!("{pointer}"));
        object.keys().cloned().collect()
    };
    for (location, keys) in supported_keys() {
        let pointer = match location {
            "in a pipeline" => "/properties",
            "in a step" => "/$defs/step/properties",
            "in a `when`" => "/$defs/conditions/properties",
            "in a condition" => "/$defs/patterns/anyOf/1/properties",
            "in `clone`" => "/$defs/clone/properties",
            "in `limits`" => "/$defs/limits/properties",
            "in `retry`" => "/$defs/retry/properties",
            "in the value of a variable" => "/$defs/secret/properties",
            "in a param" => "/$defs/param/properties",
            "in a schedule" => "/$defs/schedule/properties",
            other => panic!("the schema has no place for keys {other}"),
        };
        assert_eq!(properties(pointer), keys.iter().map(|key| (*key).to_owned()).collect(), "{pointer}");
    }
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
        with(json!({ "needs": [], "when": [{ "branch": "main" }, { "status": ["success", "failure"] }] })),
        with(json!({ "when": { "cron": "nightly" }, "schedules": [{ "name": "nightly", "cron": "@daily", "zone": "UTC" }] })),
        with(json!({ "when": { "tag": "v*", "ref": "refs/tags/**", "target": ["production", "!test"] } })),
        with(
            json!({ "params": { "level": { "type": "choice", "options": ["a", "b"], "default": "a" }, "n-1": { "about": "x" } } }),
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
