//! `beespace lint`: checks a pipeline file without a server.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use beespace_core::diagnostic::Diagnostic;
use beespace_core::pipeline::{self, MAX_BYTES, ParsedPipeline};
use serde_json::json;

use super::diagnostics::render;
use super::output::Output;

/// Check a pipeline file; prints every problem with its line and a remedy
#[derive(Debug, Clone, clap::Args)]
pub struct LintArgs {
    /// Pipeline file; `-` reads standard input
    #[arg(value_name = "FILE", default_value = ".beespace.yml")]
    pub file: PathBuf,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Exit code for an invalid file.
const INVALID: u8 = 3;
/// Exit code for a missing or unreadable file.
const NOT_FOUND: u8 = 4;

/// Checks the file, prints the result and returns the exit code: 0 for a valid file, 3 for an invalid one, 4 if it cannot be read.
#[must_use]
pub fn run(args: &LintArgs) -> ExitCode {
    let (name, bytes) = match read_file(&args.file) {
        Ok(loaded) => loaded,
        Err(message) => {
            // If stderr is closed, there is nowhere to report it.
            let _ = writeln!(io::stderr(), "{message}");
            return ExitCode::from(NOT_FOUND);
        }
    };
    let result = pipeline::read(&name, &bytes);
    let text = match args.output {
        Output::Table => to_text(&name, &bytes, &result),
        Output::Json => to_json(&name, &result),
    };
    // `beespace lint | head` may close stdout early; the exit code still reports the result.
    let _ = io::stdout().write_all(text.as_bytes());
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(INVALID) }
}

fn read_file(path: &Path) -> Result<(String, Vec<u8>), String> {
    if path == Path::new("-") {
        let bytes = read_capped(io::stdin().lock()).map_err(|error| format!("cannot read standard input: {error}"))?;
        return Ok(("<stdin>".to_owned(), bytes));
    }
    let name = path.display().to_string();
    match File::open(path).and_then(read_capped) {
        Ok(bytes) => Ok((name, bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "error: {name} does not exist\n  help: run this in the directory that contains the file, or pass its path: beespace lint FILE"
        )),
        Err(error) => Err(format!("cannot read {name}: {error}")),
    }
}

/// Reads one byte more than the limit at most: enough to report that the file is too large.
fn read_capped(reader: impl Read) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    reader.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn to_text(name: &str, bytes: &[u8], result: &Result<ParsedPipeline, Vec<Diagnostic>>) -> String {
    match result {
        Ok(ParsedPipeline { pipeline, .. }) => {
            let steps = if pipeline.steps.len() == 1 { "step" } else { "steps" };
            format!("{name}: pipeline \"{}\", {} {steps}, no problems\n", pipeline.name, pipeline.steps.len())
        }
        Err(diagnostics) => render(diagnostics, &String::from_utf8_lossy(bytes)),
    }
}

/// `pipeline` is the normal form: the document that policies evaluate.
fn to_json(name: &str, result: &Result<ParsedPipeline, Vec<Diagnostic>>) -> String {
    let (pipeline, diagnostics) = match result {
        Ok(located) => (Some(&located.pipeline), [].as_slice()),
        Err(diagnostics) => (None, diagnostics.as_slice()),
    };
    format!("{:#}\n", json!({ "file": name, "diagnostics": diagnostics, "pipeline": pipeline }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn args(file: PathBuf) -> LintArgs {
        LintArgs { file, output: Output::Json }
    }

    #[test]
    fn exit_codes_distinguish_valid_invalid_and_missing_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.yml");
        assert_eq!(run(&args(file.clone())), ExitCode::from(NOT_FOUND));
        fs::write(&file, "steps: [{name: a, image: x}]\n").unwrap();
        assert_eq!(run(&args(file.clone())), ExitCode::SUCCESS);
        fs::write(&file, "stpes: []\n").unwrap();
        assert_eq!(run(&args(file)), ExitCode::from(INVALID));
    }

    #[test]
    fn json_contains_the_normal_form_or_the_diagnostics() {
        let good = to_json("f", &pipeline::read("f", b"steps: [{name: a, image: x}]"));
        let good: serde_json::Value = serde_json::from_str(&good).unwrap();
        assert_eq!(good["pipeline"]["steps"][0]["action"]["image"], "x");
        assert_eq!(good["diagnostics"], json!([]));
        let bad: serde_json::Value = serde_json::from_str(&to_json("f", &pipeline::read("f", b"- a"))).unwrap();
        assert_eq!(bad["pipeline"], json!(null));
        assert_eq!(bad["diagnostics"][0]["span"]["line"], 1);
    }

    #[test]
    fn endless_input_is_read_up_to_the_limit() {
        assert_eq!(read_capped(io::repeat(b'x')).unwrap().len(), MAX_BYTES + 1);
    }
}
