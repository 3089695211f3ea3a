//! `beespace lint`: what is wrong with a pipeline file, without a server.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use beespace_core::diagnostic::Diagnostic;
use beespace_core::pipeline::{self, MAX_BYTES, ParsedPipeline};
use serde_json::json;

use super::diagnostics::render;
use super::output::Output;

/// Check a pipeline file: every problem at once, with its line and what to do about it.
#[derive(Debug, Clone, clap::Args)]
pub struct LintArgs {
    /// The file; `-` reads standard input.
    #[arg(value_name = "FILE", default_value = ".beespace.yml")]
    pub file: PathBuf,
    /// What the result is written as.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Exit code of a file with problems.
const INVALID: u8 = 3;
/// Exit code of a file that is not there.
const NOT_FOUND: u8 = 4;

/// Reads the file, writes what is to be said about it, and tells how the program ends: 0 for a good file, 3 for one with problems,
/// 4 where there is none to read.
#[must_use]
pub fn run(args: &LintArgs) -> ExitCode {
    let (name, bytes) = match read_file(&args.file) {
        Ok(loaded) => loaded,
        Err(message) => {
            // Who closed stderr does not want to know.
            let _ = writeln!(io::stderr(), "{message}");
            return ExitCode::from(NOT_FOUND);
        }
    };
    let result = pipeline::read(&name, &bytes);
    let text = match args.output {
        Output::Table => to_text(&name, &bytes, &result),
        Output::Json => to_json(&name, &result),
    };
    // `beespace lint | head` ends early, and that is fine: the exit code tells the rest.
    let _ = io::stdout().write_all(text.as_bytes());
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(INVALID) }
}

fn read_file(path: &Path) -> Result<(String, Vec<u8>), String> {
    if path == Path::new("-") {
        let bytes = read_capped(io::stdin().lock()).map_err(|error| format!("standard input cannot be read: {error}"))?;
        return Ok(("<stdin>".to_owned(), bytes));
    }
    let name = path.display().to_string();
    match File::open(path).and_then(read_capped) {
        Ok(bytes) => Ok((name, bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("there is no {name} here\nRun this in the directory that holds the file, or name it: beespace lint FILE"))
        }
        Err(error) => Err(format!("{name} cannot be read: {error}")),
    }
}

/// One byte more than is allowed is enough to say that it is too much.
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

/// `pipeline` is the normal form, the document that policies judge.
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
    fn the_exit_code_tells_good_bad_and_missing_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.yml");
        assert_eq!(run(&args(file.clone())), ExitCode::from(NOT_FOUND));
        fs::write(&file, "steps: [{name: a, image: x}]\n").unwrap();
        assert_eq!(run(&args(file.clone())), ExitCode::SUCCESS);
        fs::write(&file, "stpes: []\n").unwrap();
        assert_eq!(run(&args(file)), ExitCode::from(INVALID));
    }

    #[test]
    fn programs_get_the_normal_form_or_the_problems() {
        let good = to_json("f", &pipeline::read("f", b"steps: [{name: a, image: x}]"));
        let good: serde_json::Value = serde_json::from_str(&good).unwrap();
        assert_eq!(good["pipeline"]["steps"][0]["action"]["image"], "x");
        assert_eq!(good["diagnostics"], json!([]));
        let bad: serde_json::Value = serde_json::from_str(&to_json("f", &pipeline::read("f", b"- a"))).unwrap();
        assert_eq!(bad["pipeline"], json!(null));
        assert_eq!(bad["diagnostics"][0]["span"]["line"], 1);
    }

    #[test]
    fn endless_input_is_read_only_as_far_as_is_needed() {
        assert_eq!(read_capped(io::repeat(b'x')).unwrap().len(), MAX_BYTES + 1);
    }
}
