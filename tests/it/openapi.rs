//! The API description at `/api/openapi.json`.
//!
//! `UPDATE=1 cargo test --workspace --test it openapi` writes it. Review the difference before you commit it: programs rely on
//! the document.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn document() -> Value {
    serde_json::to_value(beespace::api::document()).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/openapi").join(name)
}

#[test]
fn the_document_equals_the_stored_one() {
    let path = fixture("document.json");
    let text = format!("{:#}\n", document());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = similar::TextDiff::from_lines(&known, &text);
    assert!(known == text, "UPDATE=1 to accept:\n{}", difference.unified_diff().context_radius(3));
}

/// Checked against the official schema, <https://spec.openapis.org/oas/3.1/schema/2022-10-07>.
#[test]
fn the_document_is_openapi() {
    let schema = serde_json::from_str(&std::fs::read_to_string(fixture("schema-3.1.json")).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let problems = |document: &Value| -> Vec<String> {
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
    };
    let mut document = document();
    assert_eq!(problems(&document), Vec::<String>::new());
    document["paths"]["/api/v1/builds"]["get"]["responses"] = Value::Null;
    assert!(!problems(&document).is_empty(), "a mistake is found");
}

/// Calls `see` with every value in `value` and its path.
fn walk(value: &Value, way: &str, see: &mut impl FnMut(&str, &Value)) {
    see(way, value);
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| walk(value, &format!("{way}/{name}"), see)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| walk(value, &format!("{way}/{index}"), see)),
        _ => {}
    }
}

/// Every operation with its path.
fn operations(document: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| item.as_object().unwrap().values().map(move |operation| (path, operation)))
}

#[test]
fn every_reference_in_the_document_resolves() {
    let document = document();
    walk(&document, "", &mut |way, value| {
        if let Some(target) = value.get("$ref").and_then(Value::as_str) {
            assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{way}: {target}");
        }
    });
    let mut names = BTreeSet::new();
    for (path, operation) in operations(&document) {
        assert!(names.insert(operation["operationId"].as_str().unwrap()), "{path}: two operations of one name");
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let declared: BTreeSet<&str> =
            parameters.iter().filter(|one| one["in"] == "path").filter_map(|one| one["name"].as_str()).collect();
        let holes: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        assert_eq!(declared, holes, "{path}");
    }
}

#[test]
fn everything_in_the_document_has_a_description() {
    let document = document();
    let has_words = |value: &Value, key: &str| value[key].as_str().is_some_and(|text| !text.trim().is_empty());
    // An optional value is a choice of two schemas and is described there.
    let is_explained = |value: &Value, key: &str| {
        has_words(value, key) || value["oneOf"].as_array().into_iter().flatten().any(|one| has_words(one, key))
    };
    let mut silent = Vec::new();
    for (path, operation) in operations(&document) {
        if !is_explained(operation, "summary") {
            silent.push(format!("{path}: {}", operation["operationId"]));
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten().filter(|one| !is_explained(one, "description"))
        {
            silent.push(format!("{path}: {}", parameter["name"]));
        }
        for (status, _) in operation["responses"].as_object().unwrap().iter().filter(|(_, one)| !is_explained(one, "description"))
        {
            silent.push(format!("{} {path}: {status}", operation["operationId"]));
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if !is_explained(schema, "description") {
            silent.push(name.clone());
        }
        for (field, _) in
            schema["properties"].as_object().into_iter().flatten().filter(|(_, one)| !is_explained(one, "description"))
        {
            silent.push(format!("{name}.{field}"));
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}
