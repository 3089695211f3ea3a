//! `docs/plugins.md` lists the settings of the bundled plugins. It is generated from their manifests:
//! `UPDATE=1 cargo test --workspace --test it plugin_docs` writes it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

const INTRODUCTION: &str = "# Bundled plugins

Each bundled plugin, with the settings of its binding in `beespace.toml` and, for step types, the keys of `with:` in a
pipeline file. `beespace config check` reports settings that are wrong, with their lines. This page is generated from
`plugins/*/manifest.json`.
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn manifests() -> Vec<Value> {
    let folders = std::fs::read_dir(root().join("plugins")).unwrap();
    let mut files: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path().join("manifest.json")).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files.iter().map(|file| serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()).collect()
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for manifest in manifests() {
        let text = |key: &str| manifest[key].as_str().unwrap_or_default();
        writeln!(page, "\n## {}\n\n{}", text("name"), wrapped(&format!("A {}. {}", kind(text("kind")), text("description"))))
            .unwrap();
        for (key, title) in [("config_schema", "`settings`"), ("params_schema", "`with`")] {
            let schema = &manifest[key];
            if let Some(properties) = schema["properties"].as_object() {
                writeln!(page, "\n| {title} | type | meaning |\n|---|---|---|").unwrap();
                for (name, property) in properties {
                    let is_required = schema["required"].as_array().is_some_and(|all| all.contains(&Value::from(name.as_str())));
                    let required = if is_required { "Required. " } else { "" };
                    let meaning = property["description"].as_str().expect("each key has a description").replace('|', "\\|");
                    writeln!(page, "| `{name}` | {} | {required}{meaning} |", type_of(property)).unwrap();
                }
            }
        }
    }
    page
}

fn kind(name: &str) -> &str {
    if name == "step" { "step type" } else { name }
}

fn type_of(property: &Value) -> String {
    if let Some(options) = property["enum"].as_array() {
        return options.iter().map(|option| format!("`{option}`")).collect::<Vec<_>>().join(" or ");
    }
    match (property["type"].as_str(), property["items"]["type"].as_str()) {
        (Some("array"), Some(items)) => format!("list of {items}s"),
        (Some("boolean"), _) => "`true` or `false`".to_owned(),
        (Some(of), _) => of.to_owned(),
        (None, _) => "any".to_owned(),
    }
}

/// Breaks lines before column 120.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().unwrap();
        if last.is_empty() {
            last.push_str(word);
        } else if last.len() + word.len() < 120 {
            write!(last, " {word}").unwrap();
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

#[test]
fn the_page_lists_every_setting_of_every_bundled_plugin() {
    let path = root().join("docs/plugins.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page(), "run this test with UPDATE=1");
}
