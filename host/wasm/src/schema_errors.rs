//! What a value violates of a JSON Schema, in words for the person who wrote the value. People who write settings or a `with:`
//! block know their keys, not JSON Schema.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

/// Longest value that is quoted in a message, in characters.
const MAX_QUOTED: usize = 80;

/// Each violation that `error` stands for: a JSON pointer into the value, and a message. `schema` is the whole schema.
pub(crate) fn explain(error: &ValidationError<'_>, schema: &Value) -> Vec<(String, String)> {
    let pointer = error.instance_path().to_string();
    let of_place = subschema(schema, &pointer);
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let known = keys(of_place);
            let at = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
            unexpected.iter().map(|key| (at(key), unknown_key(key, &known))).collect()
        }
        _ => vec![(pointer, message(error, of_place))],
    }
}

/// `of_place` is the schema of the value.
fn message(error: &ValidationError<'_>, of_place: &Value) -> String {
    let found = quoted(error.instance());
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            format!("`{key}` is missing{}", described(of_place.get("properties").and_then(|all| all.get(key))))
        }
        ValidationErrorKind::MinProperties { .. } => format!("expected at least one of {}", listed(&keys(of_place))),
        ValidationErrorKind::Type { kind } => {
            let expected = expected_type(kind, of_place);
            let is_whole = error.instance().is_i64() || error.instance().is_u64();
            let is = if is_whole { JsonType::Integer } else { JsonType::from(error.instance().as_ref()) };
            format!("expected {expected}, found {} ({found})", type_name(is))
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<String> = options.as_array().into_iter().flatten().map(Value::to_string).collect();
            format!("expected {}, found {found}", options.join(" or "))
        }
        ValidationErrorKind::MinItems { limit } => format!("expected at least {limit} {}", entries(*limit)),
        ValidationErrorKind::MaxItems { limit } => format!("expected at most {limit} {}", entries(*limit)),
        ValidationErrorKind::MinLength { limit: 1 } => "expected a text that is not empty".to_owned(),
        ValidationErrorKind::MinLength { limit } => format!("expected at least {limit} characters, found {found}"),
        ValidationErrorKind::MaxLength { limit } => format!("expected at most {limit} characters, found {found}"),
        ValidationErrorKind::Minimum { limit } => format!("expected {limit} or more, found {found}"),
        ValidationErrorKind::Maximum { limit } => format!("expected {limit} or less, found {found}"),
        ValidationErrorKind::Pattern { .. } | ValidationErrorKind::Format { .. } => {
            format!("{found} does not have the expected form{}", described(Some(of_place)))
        }
        _ => error.to_string(),
    }
}

/// The part of the schema that describes the value at `pointer`. Missing parts are empty.
fn subschema<'a>(schema: &'a Value, pointer: &str) -> &'a Value {
    pointer.split('/').skip(1).fold(schema, |schema, part| {
        let key = part.replace("~1", "/").replace("~0", "~");
        let of_key = schema.get("properties").and_then(|all| all.get(key));
        of_key.or_else(|| schema.get("items")).unwrap_or(&Value::Null)
    })
}

fn keys(schema: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> =
        schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    let near = known.iter().map(|candidate| (strsim::damerau_levenshtein(key, candidate), *candidate)).min();
    match near {
        Some((distance, candidate)) if distance <= 1 + key.chars().count() / 3 || candidate.starts_with(key) => {
            format!("unknown key `{key}`: did you mean `{candidate}`?")
        }
        None => format!("unknown key `{key}`; no keys are allowed here"),
        Some(_) => format!("unknown key `{key}`; known keys: {}", listed(known)),
    }
}

fn listed(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

/// The first sentence of the description, in parentheses.
fn described(schema: Option<&Value>) -> String {
    let text = schema.and_then(|schema| schema.get("description")).and_then(Value::as_str);
    let sentence = text.map(|text| text.split(". ").next().unwrap_or(text).trim_end_matches('.'));
    sentence.map_or_else(String::new, |sentence| format!(" ({sentence})"))
}

fn expected_type(kind: &TypeKind, schema: &Value) -> String {
    let expected = match kind {
        TypeKind::Single(kind) => *kind,
        TypeKind::Multiple(kinds) => return kinds.iter().map(type_name).collect::<Vec<_>>().join(" or "),
    };
    let items = schema.get("items").and_then(|items| items.get("type")).and_then(Value::as_str);
    match (expected, items) {
        (JsonType::Array, Some("string")) => "a list of strings, as in [\"…\"]".to_owned(),
        (expected, _) => type_name(expected).to_owned(),
    }
}

fn type_name(of: JsonType) -> &'static str {
    match of {
        JsonType::Array => "a list",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Number => "a number",
        JsonType::Null => "nothing",
        JsonType::Object => "a table",
        JsonType::String => "a string",
    }
}

fn quoted(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

fn entries(count: u64) -> &'static str {
    if count == 1 { "entry" } else { "entries" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(value: &Value) -> Vec<String> {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["url"], "minProperties": 1,
            "properties": {
                "url": { "type": "string", "pattern": "^https?://", "description": "URL of the receiver, with https://. More." },
                "tags": { "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1, "maxItems": 2 },
                "mode": { "enum": ["fail", "allow"] },
                "count": { "type": "integer", "minimum": 1, "maximum": 9 },
            },
        });
        let validator = jsonschema::validator_for(&schema).unwrap();
        validator.iter_errors(value).flat_map(|error| explain(&error, &schema)).map(|(_, message)| message).collect()
    }

    #[test]
    fn every_violation_is_explained_without_words_of_json_schema() {
        let url = "https://x";
        for (value, expected) in [
            (json!({ "url": url, "tag": [] }), "unknown key `tag`: did you mean `tags`?"),
            (json!({ "url": url, "colour": 1 }), "unknown key `colour`; known keys: `count`, `mode`, `tags`, `url`"),
            (json!({ "count": 1 }), "`url` is missing (URL of the receiver, with https://)"),
            (json!({ "url": url, "tags": "latest" }), "expected a list of strings, as in [\"…\"], found a string (\"latest\")"),
            (json!({ "url": url, "tags": [1] }), "expected a string, found a whole number (1)"),
            (json!({ "url": url, "tags": [""] }), "expected a text that is not empty"),
            (json!({ "url": url, "tags": [] }), "expected at least 1 entry"),
            (json!({ "url": url, "tags": ["a", "b", "c"] }), "expected at most 2 entries"),
            (json!({ "url": url, "mode": "maybe" }), "expected \"fail\" or \"allow\", found \"maybe\""),
            (json!({ "url": url, "count": 10 }), "expected 9 or less, found 10"),
            (json!({ "url": "ftp://x" }), "\"ftp://x\" does not have the expected form (URL of the receiver, with https://)"),
        ] {
            assert_eq!(messages(&value), [expected], "{value}");
        }
        let empty = messages(&json!({}));
        assert!(empty.contains(&"expected at least one of `count`, `mode`, `tags`, `url`".to_owned()), "{empty:?}");
    }

    #[test]
    fn a_long_value_is_shortened() {
        let message = messages(&json!({ "url": "x".repeat(1_000) })).remove(0);
        assert!(message.chars().count() < 200, "{message}");
    }
}
