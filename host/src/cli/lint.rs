//! `beespace lint`: checks a pipeline file without a server.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use beespace_core::diagnostic::Diagnostic;
use beespace_core::pipeline::{self, MAX_BYTES, ParsedPipeline};
use serde_json::json;

use super::diagnostics::render;
use super::exit::{Exit, Failure};
use super::output::Output;

/// Check a pipeline file; print every problem with its line and a remedy
#[derive(Debug, Clone, clap::Args)]
pub struct LintArgs {
    /// Pipeline file; `-` reads stdin [default: `.beespace.yml` or `.beespace.yaml`]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Checks the file and prints the result.
///
/// # Errors
/// [`Failure`] if the file cannot be read.
pub fn run(args: &LintArgs) -> Result<Exit, Failure> {
    let (name, bytes) = read_file(&args.file.clone().unwrap_or_else(default_file))?;
    let result = pipeline::read(&name, &bytes);
    let text = match args.output {
        Output::Table => to_text(&name, &bytes, &result),
        Output::Json => to_json(&name, &result),
    };
    // `beespace lint | head` may close stdout early; the exit code still reports the result.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(if result.is_ok() { Exit::Ok } else { Exit::Config })
}

/// The pipeline file of the current directory, under the name that it has.
fn default_file() -> PathBuf {
    let [usual, _] = pipeline::FILE_NAMES;
    PathBuf::from(pipeline::FILE_NAMES.into_iter().find(|name| Path::new(name).exists()).unwrap_or(usual))
}

fn read_file(path: &Path) -> Result<(String, Vec<u8>), Failure> {
    let unreadable = |name: &str, error: &io::Error| Failure::new(Exit::NotFound, format!("cannot read {name}: {error}"));
    if path == Path::new("-") {
        let bytes = read_capped(io::stdin().lock()).map_err(|error| unreadable("stdin", &error))?;
        return Ok(("<stdin>".to_owned(), bytes));
    }
    let name = path.display().to_string();
    match File::open(path).and_then(read_capped) {
        Ok(bytes) => Ok((name, bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let help = "run this in the directory that contains the file, or pass its path: beespace lint FILE";
            Err(Failure::new(Exit::NotFound, format!("{name} does not exist")).help(help))
        }
        Err(error) => Err(unreadable(&name, &error)),
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
        LintArgs { file: Some(file), output: Output::Json }
    }

    #[test]
    fn exit_codes_distinguish_valid_invalid_and_missing_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.yml");
        assert_eq!(run(&args(file.clone())).unwrap_err().exit, Exit::NotFound);
        fs::write(&file, "steps: [{name: a, image: x}]\n").unwrap();
        assert_eq!(run(&args(file.clone())).unwrap(), Exit::Ok);
        fs::write(&file, "stpes: []\n").unwrap();
        assert_eq!(run(&args(file)).unwrap(), Exit::Config);
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
