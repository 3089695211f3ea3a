//! What a value violates of a JSON Schema, in words for the person who wrote the value. People who write settings or a `with:`
//! block know their keys, not JSON Schema.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

/// Longest value that is quoted in a message, in characters.
const MAX_QUOTED: usize = 80;

/// Most alternatives whose violations are listed.
const MAX_ALTERNATIVES: usize = 3;

/// Each violation that `error` stands for: a JSON pointer into the value, and a message. `schema` is the whole schema, `value`
/// the whole value.
pub(crate) fn explain(error: &ValidationError<'_>, schema: &Value, value: &Value) -> Vec<(String, String)> {
    let pointer = error.instance_path().to_string();
    let of_place = subschema(schema, &pointer);
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            unknown_keys(unexpected.iter(), &pointer, of_place)
        }
        // The validator reports only the first key of an object in which the schema allows none.
        ValidationErrorKind::FalseSchema
            if of_place.get("additionalProperties") == Some(&Value::Bool(false))
                && let Some(Value::Object(entries)) = value.pointer(&pointer) =>
        {
            unknown_keys(entries.keys(), &pointer, of_place)
        }
        _ => vec![(pointer, message(error, of_place))],
    }
}

fn unknown_keys<'k>(keys: impl Iterator<Item = &'k String>, pointer: &str, of_place: &Value) -> Vec<(String, String)> {
    let known = known_keys(of_place);
    let at = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
    keys.map(|key| (at(key), unknown_key(key, &known, pointer.is_empty()))).collect()
}

/// `of_place` is the schema of the value.
fn message(error: &ValidationError<'_>, of_place: &Value) -> String {
    if let Some(message) = bound(error) {
        return message;
    }
    let found = quoted(error.instance());
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            format!("`{key}` is missing{}", described(of_place.get("properties").and_then(|all| all.get(key))))
        }
        ValidationErrorKind::MinProperties { limit: 1 } if !known_keys(of_place).is_empty() => {
            format!("expected at least one of {}", listed(&known_keys(of_place)))
        }
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
        ValidationErrorKind::Constant { expected_value } => format!("expected {expected_value}, found {found}"),
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            let first = context.iter().filter_map(|errors| errors.first()).map(|error| message(error, &Value::Null));
            let all: Vec<String> = first.take(MAX_ALTERNATIVES).collect();
            format!("no alternative fits: {}", all.join("; or: "))
        }
        ValidationErrorKind::OneOfMultipleValid { .. } => {
            format!("{found} fits several alternatives, but only one may fit{}", described(Some(of_place)))
        }
        ValidationErrorKind::PropertyNames { error } => {
            format!("the key {} does not have the expected form{}", quoted(error.instance()), described(Some(of_place)))
        }
        ValidationErrorKind::Not { .. } | ValidationErrorKind::FalseSchema => {
            format!("{found} is not allowed here{}", described(Some(of_place)))
        }
        ValidationErrorKind::BacktrackLimitExceeded { .. } | ValidationErrorKind::RegexEngineFailure { .. } => {
            "the plugin's pattern for this text is too expensive to evaluate".to_owned()
        }
        ValidationErrorKind::Custom { .. } | ValidationErrorKind::Referencing(_) => error.to_string(),
        _ => format!("{found} does not have the expected form{}", described(Some(of_place))),
    }
}

/// The message for a value that is too small or too large, or has too few or too many parts.
fn bound(error: &ValidationError<'_>) -> Option<String> {
    let found = quoted(error.instance());
    Some(match error.kind() {
        ValidationErrorKind::MinItems { limit } => format!("expected at least {limit} {}", entries(*limit)),
        ValidationErrorKind::MaxItems { limit } => format!("expected at most {limit} {}", entries(*limit)),
        ValidationErrorKind::AdditionalItems { limit } => format!("expected at most {limit} entries"),
        ValidationErrorKind::UnevaluatedItems { .. } => "the list has more entries than allowed".to_owned(),
        ValidationErrorKind::UniqueItems => "an entry is listed twice".to_owned(),
        ValidationErrorKind::MinProperties { limit } if *limit > 1 => format!("expected at least {limit} keys"),
        ValidationErrorKind::MaxProperties { limit } => format!("expected at most {limit} keys"),
        ValidationErrorKind::MinLength { limit: 1 } => "expected a text that is not empty".to_owned(),
        ValidationErrorKind::MinLength { limit } => format!("expected at least {limit} characters, found {found}"),
        ValidationErrorKind::MaxLength { limit } => format!("expected at most {limit} characters, found {found}"),
        ValidationErrorKind::Minimum { limit } => format!("expected {limit} or more, found {found}"),
        ValidationErrorKind::Maximum { limit } => format!("expected {limit} or less, found {found}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("expected more than {limit}, found {found}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("expected less than {limit}, found {found}"),
        ValidationErrorKind::MultipleOf { multiple_of } => format!("expected a multiple of {multiple_of}, found {found}"),
        _ => return None,
    })
}

/// The part of the schema that describes the value at `pointer`. Missing parts are empty.
fn subschema<'a>(schema: &'a Value, pointer: &str) -> &'a Value {
    pointer.split('/').skip(1).fold(schema, |schema, part| {
        let key = part.replace("~1", "/").replace("~0", "~");
        let of_key = schema.get("properties").and_then(|all| all.get(key));
        of_key.or_else(|| schema.get("items")).unwrap_or(&Value::Null)
    })
}

fn known_keys(schema: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> =
        schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys
}

/// `is_top` is true for a key of the settings themselves, false for a key of a value in them.
fn unknown_key(key: &str, known: &[&str], is_top: bool) -> String {
    let near = known.iter().map(|candidate| (strsim::damerau_levenshtein(key, candidate), *candidate)).min();
    match near {
        Some((distance, candidate)) if distance <= 1 + key.chars().count() / 3 || candidate.starts_with(key) => {
            format!("unknown key `{key}`: did you mean `{candidate}`?")
        }
        None if is_top => format!("unknown key `{key}`: this plugin has no settings"),
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
        violations(&schema, value)
    }

    fn violations(schema: &Value, value: &Value) -> Vec<String> {
        let validator = jsonschema::validator_for(schema).unwrap();
        validator.iter_errors(value).flat_map(|error| explain(&error, schema, value)).map(|(_, message)| message).collect()
    }

    #[test]
    fn a_key_of_a_plugin_without_settings_is_unknown() {
        let schema = json!({ "type": "object", "additionalProperties": false });
        let found = violations(&schema, &json!({ "a": 1, "b": 2 }));
        assert_eq!(found, ["a", "b"].map(|key| format!("unknown key `{key}`: this plugin has no settings")));
        let nested = json!({ "properties": { "x": schema } });
        assert_eq!(violations(&nested, &json!({ "x": { "a": 1 } })), ["unknown key `a`; no keys are allowed here"]);
    }

    #[test]
    fn every_keyword_of_json_schema_has_words() {
        for (schema, value, expected) in [
            (json!(false), json!(1), "1 is not allowed here"),
            (json!({ "not": { "type": "string" } }), json!("a"), "\"a\" is not allowed here"),
            (json!({ "const": 3 }), json!(1), "expected 3, found 1"),
            (json!({ "exclusiveMinimum": 3 }), json!(3), "expected more than 3, found 3"),
            (json!({ "exclusiveMaximum": 3 }), json!(3), "expected less than 3, found 3"),
            (json!({ "multipleOf": 5 }), json!(3), "expected a multiple of 5, found 3"),
            (json!({ "uniqueItems": true }), json!([1, 1]), "an entry is listed twice"),
            (json!({ "contains": { "const": 1 } }), json!([2]), "[2] does not have the expected form"),
            (json!({ "maxProperties": 1 }), json!({ "a": 1, "b": 2 }), "expected at most 1 keys"),
            (json!({ "minProperties": 2 }), json!({ "a": 1 }), "expected at least 2 keys"),
            (json!({ "minLength": 3 }), json!("a"), "expected at least 3 characters, found \"a\""),
            (
                json!({ "propertyNames": { "pattern": "^[a-z]+$" } }),
                json!({ "A b": 1 }),
                "the key \"A b\" does not have the expected form",
            ),
            (
                json!({ "anyOf": [{ "type": "string" }, { "type": "array" }] }),
                json!(1),
                "no alternative fits: expected a string, found a whole number (1); or: expected a list, found a whole number (1)",
            ),
            (
                json!({ "oneOf": [{ "type": "integer" }, { "minimum": 0 }], "description": "Either. Or" }),
                json!(1),
                "1 fits several alternatives, but only one may fit (Either)",
            ),
        ] {
            assert_eq!(violations(&schema, &value), [expected], "{schema}");
        }
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
