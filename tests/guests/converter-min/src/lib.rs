//! A minimal converter: each line `image: command` of `.min` becomes a step.

#[allow(clippy::all, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "converter-plugin" });
}

use bindings::beespace::plugin::types::{Context, Diagnostic, Document, Severity};
use bindings::exports::beespace::plugin::converter::{self, Converted, SourceFile};
use bindings::exports::beespace::plugin::lifecycle;
use serde_json::json;

const FILE: &str = ".min";

struct Plugin;

impl lifecycle::Guest for Plugin {
    fn validate_config(_config: String) -> Result<(), Vec<Diagnostic>> {
        Ok(())
    }
}

impl converter::Guest for Plugin {
    fn detect(paths: Vec<String>) -> u8 {
        if paths.iter().any(|path| path == FILE) { 100 } else { 0 }
    }

    fn convert(_ctx: Context, files: Vec<SourceFile>) -> Result<Converted, Vec<Diagnostic>> {
        let mut steps = Vec::new();
        let mut problems = Vec::new();
        for file in files.iter().filter(|file| file.path == FILE) {
            let text = String::from_utf8_lossy(&file.content);
            for (number, line) in (1..).zip(text.lines()) {
                match line.split_once(": ") {
                    Some((image, command)) => steps.push(step(number, image, command)),
                    None => problems.push(problem(number)),
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let json = json!([{ "name": "default", "steps": steps }]).to_string();
        Ok(Converted { pipelines: Document { schema: "beespace.pipelines/v1".to_owned(), json }, notes: Vec::new() })
    }
}

fn step(number: u32, image: &str, command: &str) -> serde_json::Value {
    json!({ "name": format!("line {number}"), "action": { "kind": "image", "image": image, "run": [command] }, "needs": [] })
}

fn problem(line: u32) -> Diagnostic {
    let message = "expected `image: command`".to_owned();
    Diagnostic {
        severity: Severity::High,
        message,
        pointer: None,
        file: Some(FILE.to_owned()),
        line: Some(line),
        column: Some(1),
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Plugin with_types_in bindings);
