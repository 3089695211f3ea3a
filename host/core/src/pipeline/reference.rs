//! The reference of the pipeline file: the JSON schema for editors and the tables of `docs/pipeline.md`, both made from one list
//! of all keys, `keys.json`.

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::diagnostics::Diagnostics;
use super::step::plain_json;
use super::yaml::{self, Node, Value};

/// Path and name of the schema: in `docs/` and on a server.
pub const SCHEMA_PATH: &str = "schema/beespace.pipeline.v1.json";

const KEYS: &str = include_str!("keys.json");

/// A map of the file, such as a step.
#[derive(Debug, Deserialize)]
struct Object {
    /// Where its keys occur, as messages name it: `in a step`.
    location: String,
    /// Keys of which the map has exactly one.
    #[serde(default)]
    variants: Vec<String>,
    /// Its schema without its properties.
    schema: Map<String, Json>,
    keys: Map<String, Json>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Key {
    #[serde(default)]
    pub name: String,
    /// Meaning and form of the value, as Markdown.
    pub value: String,
    /// The value of a missing key, as Markdown; empty if there is none.
    #[serde(default)]
    pub default: String,
    /// A line of a file with the key.
    pub example: String,
    /// The same key in Drone and Woodpecker, as Markdown; empty if they have none.
    #[serde(default)]
    pub peers: String,
    /// The variant of the map that has the key; `None`: all.
    #[serde(default)]
    only: Option<String>,
    schema: Json,
}

/// The keys of one kind of map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTable {
    /// Where they occur, as messages name it: `in a step`.
    pub location: String,
    pub keys: Vec<Key>,
}

impl KeyTable {
    /// The table of the documentation.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = "| key | value | default | example | Drone, Woodpecker |\n|---|---|---|---|---|\n".to_owned();
        for Key { name, value, default, example, peers, .. } in &self.keys {
            let code = format!("`{}`", example.replace('|', "\\|"));
            let cells = [format!("`{name}`"), value.clone(), default.clone(), code, peers.clone()];
            let cells = cells.map(|cell| if cell.is_empty() { " ".to_owned() } else { format!(" {cell} ") });
            text.push_str(&format!("|{}|\n", cells.join("|")));
        }
        text
    }
}

fn objects() -> Vec<(String, Object)> {
    let all: Json = serde_json::from_str(KEYS).unwrap_or_default();
    let objects = all.get("objects").and_then(Json::as_object).cloned().unwrap_or_default();
    objects.into_iter().filter_map(|(name, object)| Some((name, serde_json::from_value(object).ok()?))).collect()
}

impl Object {
    fn keys(&self) -> Vec<Key> {
        let key = |(name, key): (&String, &Json)| Some(Key { name: name.clone(), ..serde_json::from_value(key.clone()).ok()? });
        self.keys.iter().filter_map(key).collect()
    }

    fn schema(&self) -> Json {
        let keys = self.keys();
        let property = |key: &Key| {
            let mut schema = key.schema.clone();
            if let Some(schema) = schema.as_object_mut() {
                schema.insert("description".to_owned(), Json::String(description(key)));
            }
            (key.name.clone(), schema)
        };
        let mut schema = self.schema.clone();
        schema.insert("properties".to_owned(), Json::Object(keys.iter().map(property).collect()));
        if !self.variants.is_empty() {
            let variants: Vec<Json> = self.variants.iter().map(|variant| self.variant(variant, &keys)).collect();
            schema.insert("oneOf".to_owned(), Json::Array(variants));
        }
        Json::Object(schema)
    }

    /// The part of the schema for maps with the key `variant`.
    fn variant(&self, variant: &str, keys: &[Key]) -> Json {
        let others = self.variants.iter().filter(|other| *other != variant);
        let foreign = keys.iter().filter(|key| key.only.as_deref().is_some_and(|only| only != variant)).map(|key| &key.name);
        let forbidden: Map<String, Json> = others.chain(foreign).map(|name| (name.clone(), Json::Bool(false))).collect();
        json!({ "required": [variant], "properties": forbidden })
    }
}

/// Text without links, for an editor.
fn description(key: &Key) -> String {
    let mut text = String::new();
    let mut rest = key.value.as_str();
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(&before.replace('[', ""));
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    match key.default.as_str() {
        "" | "required" => text,
        default => format!("{text}. Default: {default}"),
    }
}

/// The tables of the documentation.
#[must_use]
pub fn key_tables() -> Vec<KeyTable> {
    objects().into_iter().map(|(_, object)| KeyTable { keys: object.keys(), location: object.location }).collect()
}

/// The JSON schema of a pipeline. It accepts every valid file; it does not refuse every invalid one, because some rules concern
/// names of other parts.
#[must_use]
pub fn json_schema() -> Json {
    let all: Json = serde_json::from_str(KEYS).unwrap_or_default();
    let mut defs = all.get("defs").and_then(Json::as_object).cloned().unwrap_or_default();
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pipeline of Beespace (.beespace.yml)",
    });
    for (name, object) in objects() {
        match (name.as_str(), schema.as_object_mut(), object.schema()) {
            ("pipeline", Some(root), Json::Object(pipeline)) => root.extend(pipeline),
            (_, _, other) => {
                defs.insert(name, other);
            }
        }
    }
    if let Some(root) = schema.as_object_mut() {
        root.insert("$defs".to_owned(), Json::Object(defs));
    }
    schema
}

/// The documents of a file as JSON, as an editor with the schema sees them. `None` if the text is not valid YAML, or has a key
/// twice.
#[must_use]
pub fn documents_as_json(text: &str) -> Option<Vec<Json>> {
    let mut problems = Diagnostics::new("");
    let roots = yaml::parse(text, &mut problems, &mut yaml::Budget::OF_BUILD.clone())?;
    problems.is_empty().then(|| roots.iter().map(as_json).collect())
}

fn as_json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar(scalar) if scalar.is_plain => match (plain_json(&scalar.text), scalar.text.parse::<f64>()) {
            (Json::String(text), Ok(number)) if text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-')) => {
                Json::from(number)
            }
            (other, _) => other,
        },
        Value::Scalar(scalar) => Json::String(scalar.text.clone()),
        Value::List(items) => Json::Array(items.iter().map(as_json).collect()),
        Value::Map(entries) => Json::Object(entries.iter().map(|entry| (entry.key.clone(), as_json(&entry.value))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::keywords::{ALL, Keywords};
    use super::*;

    #[test]
    fn the_reference_has_exactly_the_keys_of_the_reader() {
        let tables = key_tables();
        for Keywords { location, known, .. } in ALL {
            let table = tables.iter().find(|table| table.location == *location).unwrap_or_else(|| panic!("{location}"));
            let documented: BTreeSet<&str> = table.keys.iter().map(|key| key.name.as_str()).collect();
            assert_eq!(documented, known.iter().copied().collect(), "keys.json, {location}");
        }
        assert_eq!(tables.len(), ALL.len());
    }

    #[test]
    fn descriptions_have_no_links() {
        let text = "[conditions](#in-a-when): when, or a [secret](#x)";
        let key = Key { name: String::new(), default: "none".to_owned(), ..key_tables()[0].keys[0].clone() };
        assert_eq!(description(&Key { value: text.to_owned(), ..key }), "conditions: when, or a secret. Default: none");
    }
}
