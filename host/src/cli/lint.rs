//! `beespace lint`: checks pipeline files without a server.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use beespace_core::diagnostic::Diagnostic;
use beespace_core::pipeline::{self, FILE_NAMES, FOLDER, MAX_BYTES, ParsedPipeline, SourceFile, matrix};
use serde_json::json;

use super::diagnostics::render;
use super::exit::{Exit, Failure};

/// Check pipeline files; print every problem with its line and a remedy
#[derive(Debug, Clone, clap::Args)]
pub struct LintArgs {
    /// Pipeline files of one build; `-` reads stdin [default: `.beespace.yml`, `.beespace.yaml` or `.beespace/*.yml`]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Output format
    #[arg(long, visible_alias = "output", value_enum, default_value_t)]
    pub format: LintFormat,
}

/// The format of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LintFormat {
    /// For people, with the lines of the file
    #[default]
    #[value(alias = "table")]
    Text,
    /// Normal forms and problems
    Json,
    /// Workflow commands that GitHub, Gitea and other servers show beside the lines
    Github,
}

/// A file under the name that messages use.
type NamedFile = (String, Vec<u8>);

/// Checks the files and prints the result.
///
/// # Errors
/// [`Failure`] if a file cannot be read, or if the files exclude each other.
pub fn run(args: &LintArgs) -> Result<Exit, Failure> {
    let paths = if args.files.is_empty() { default_files()? } else { args.files.clone() };
    let files = paths.iter().map(|path| read_file(path)).collect::<Result<Vec<_>, _>>()?;
    let sources: Vec<SourceFile<'_>> = files.iter().map(|(path, bytes)| SourceFile { path, bytes }).collect();
    let result = pipeline::read_files(&sources);
    let text = match (args.format, &result) {
        (LintFormat::Github, Err(diagnostics)) => to_workflow_commands(diagnostics),
        (LintFormat::Text | LintFormat::Github, _) => to_text(&files, &result),
        (LintFormat::Json, _) => to_json(&files, &result),
    };
    // `beespace lint | head` may close stdout early; the exit code still reports the result.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(if result.is_ok() { Exit::Ok } else { Exit::Config })
}

/// The pipeline files of the current directory, as the server selects them in a commit.
fn default_files() -> Result<Vec<PathBuf>, Failure> {
    let in_root = FILE_NAMES.into_iter().filter(|name| Path::new(name).exists()).map(str::to_owned);
    let in_folder = fs::read_dir(FOLDER).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let found: Vec<String> = in_root.chain(in_folder.map(|name| format!("{FOLDER}/{name}"))).collect();
    let selected = pipeline::select_files(found.iter().map(String::as_str)).map_err(|reason| {
        let failure = Failure::new(Exit::Config, reason.message);
        reason.help.into_iter().fold(failure, Failure::help)
    })?;
    // Without a pipeline file, the message names the usual one.
    let [usual, _] = FILE_NAMES;
    Ok(if selected.is_empty() { vec![usual.into()] } else { selected.into_iter().map(PathBuf::from).collect() })
}

fn read_file(path: &Path) -> Result<NamedFile, Failure> {
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

fn to_text(files: &[NamedFile], result: &Result<Vec<ParsedPipeline>, Vec<Diagnostic>>) -> String {
    let pipelines = match result {
        Ok(pipelines) => pipelines,
        Err(diagnostics) => return render(diagnostics, files),
    };
    let line = |parsed: &ParsedPipeline| {
        let file = files.get(usize::from(parsed.place.file)).map_or("", |(name, _)| name.as_str());
        let count = parsed.pipeline.steps.len();
        let steps = if count == 1 { "step" } else { "steps" };
        format!(
            "{file}: pipeline \"{}\", {count} {steps}, no problems\n",
            matrix::title(&parsed.pipeline.name, &parsed.pipeline.cell)
        )
    };
    pipelines.iter().map(line).collect()
}

/// One command per problem: `::error file=F,line=1,col=2::message`.
fn to_workflow_commands(diagnostics: &[Diagnostic]) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let command = |problem: &Diagnostic| {
        let place = problem.span.map_or(String::new(), |span| {
            format!(",line={},col={},endLine={},endColumn={}", span.line, span.column, span.end_line, span.end_column)
        });
        let help = problem.help.as_ref().map_or(String::new(), |help| format!("\n{help}"));
        let message = data(&format!("{}{help}", problem.message));
        format!("::error file={}{place},title={}::{message}\n", property(&problem.file), property(&problem.code))
    };
    diagnostics.iter().map(command).collect()
}

/// `pipelines` are the normal forms: the documents that policies evaluate.
fn to_json(files: &[NamedFile], result: &Result<Vec<ParsedPipeline>, Vec<Diagnostic>>) -> String {
    let (pipelines, diagnostics) = match result {
        Ok(pipelines) => (pipelines.as_slice(), [].as_slice()),
        Err(diagnostics) => ([].as_slice(), diagnostics.as_slice()),
    };
    let names: Vec<&String> = files.iter().map(|(name, _)| name).collect();
    let pipelines: Vec<_> = pipelines.iter().map(|parsed| &parsed.pipeline).collect();
    format!("{:#}\n", json!({ "files": names, "diagnostics": diagnostics, "pipelines": pipelines }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(file: PathBuf) -> LintArgs {
        LintArgs { files: vec![file], format: LintFormat::Json }
    }

    fn json_of(files: &[(&str, &str)]) -> serde_json::Value {
        let files: Vec<NamedFile> = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect();
        let sources: Vec<_> = files.iter().map(|(path, bytes)| SourceFile { path, bytes }).collect();
        serde_json::from_str(&to_json(&files, &pipeline::read_files(&sources))).unwrap()
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
    fn json_contains_the_normal_forms_or_the_diagnostics() {
        let good =
            json_of(&[(".beespace/a.yml", "steps: [{name: a, image: x}]"), (".beespace/b.yml", "steps: [{name: a, image: y}]")]);
        assert_eq!(good["files"], json!([".beespace/a.yml", ".beespace/b.yml"]));
        assert_eq!(good["pipelines"][1]["steps"][0]["action"]["image"], "y");
        assert_eq!(good["diagnostics"], json!([]));
        let bad = json_of(&[("f", "- a")]);
        assert_eq!(bad["pipelines"], json!([]));
        assert_eq!(bad["diagnostics"][0]["span"]["line"], 1);
    }

    #[test]
    fn text_names_the_file_of_each_pipeline() {
        let files = [("one".to_owned(), b"name: a\nsteps: [{name: a, image: x}]".to_vec()), ("two".to_owned(), b"- b".to_vec())];
        let sources: Vec<_> = files.iter().map(|(path, bytes)| SourceFile { path, bytes }).collect();
        let good = to_text(&files, &pipeline::read_files(&sources[..1]));
        assert_eq!(good, "one: pipeline \"a\", 1 step, no problems\n");
        let bad = to_text(&files, &pipeline::read_files(&sources));
        assert!(bad.contains("--> two:1:1") && bad.contains("1 | - b"), "{bad}");
    }

    #[test]
    fn workflow_commands_have_one_line_per_problem() {
        let file = SourceFile { path: "a,b.yml", bytes: b"stpes: []\nsteps: [{ name: a, image: \"100%\" }]\n" };
        let text = to_workflow_commands(&pipeline::read_files(&[file]).unwrap_err());
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0]
                .starts_with("::error file=a%2Cb.yml,line=1,col=1,endLine=1,endColumn=6,title=unknown-key::unknown key `stpes`"),
            "{text}"
        );
        assert!(lines[0].ends_with("%0Adid you mean `steps`?"), "{text}");
        assert!(lines[1].contains("`100%25` is not a valid image name"), "{text}");
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn endless_input_is_read_up_to_the_limit() {
        assert_eq!(read_capped(io::repeat(b'x')).unwrap().len(), MAX_BYTES + 1);
    }
}
