//! All pipelines of a build: the documents of its pipeline files. Names are unique across files, and their number is limited.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Pipeline;
use super::diagnostics::{Diagnostics, did_you_mean, quote};
use super::files::{FOLDER, SourceFile};
use super::matrix::Cell;
use super::needs::{cycle_message, cycles};
use super::read::{Draft, read_file};
use super::spans::{Place, Spans};
use super::substitution::Path;
use super::yaml::Budget;
use crate::diagnostic::{Diagnostic, Span};

/// Most stages of a build.
pub const MAX_STAGES: usize = 1_000;
/// Most steps of all stages of a build.
pub const MAX_ALL_STEPS: usize = 5_000;
/// Most pairs of stages of which one needs the other. Each end of a stage looks at all that wait for it.
const MAX_EDGES: usize = 20_000;
/// Most bytes of the normal forms of all cells together.
const MAX_CELL_BYTES: usize = 16 << 20;
/// Most diagnostics of all files together. A build's row has to hold them.
const MAX_DIAGNOSTICS: usize = 100;

/// A pipeline, or one cell of its matrix, where it comes from, and the location of each of its parts in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedPipeline {
    pub pipeline: Pipeline,
    /// Shared by the cells of a matrix.
    pub spans: Arc<Spans>,
    /// The paths of its substitutions.
    pub substitutions: BTreeSet<Path>,
    pub place: Place,
}

/// Reads the only pipeline of a file, or the first of several. `file` is its path, for messages.
///
/// # Errors
/// All problems of the file, in the order of lines.
pub fn read(file: &str, bytes: &[u8]) -> Result<ParsedPipeline, Vec<Diagnostic>> {
    let mut all = read_files(&[SourceFile { path: file, bytes }])?;
    Ok(all.swap_remove(0))
}

/// Reads all pipelines of a build, in the order of the files and their documents; at least one. `files` are sorted by path.
///
/// # Errors
/// All problems of all files.
pub fn read_files(files: &[SourceFile<'_>]) -> Result<Vec<ParsedPipeline>, Vec<Diagnostic>> {
    let mut problems = Vec::with_capacity(files.len());
    let (mut drafts, mut left) = (Vec::new(), Budget::OF_BUILD);
    for (file, index) in files.iter().zip(0..) {
        let (diagnostics, read) = read_file(*file, index, &mut left);
        problems.push(diagnostics);
        drafts.extend(read);
    }
    check_names(&drafts, files, &mut problems);
    // A pipeline that could not be read may have the name that another one needs.
    if problems.iter().all(Diagnostics::is_empty) {
        resolve_needs(&mut drafts, &mut problems);
    }
    check_sizes(&drafts, &mut problems);
    if drafts.is_empty() || problems.iter().any(|problems| !problems.is_empty()) {
        return Err(all_diagnostics(problems));
    }
    Ok(drafts.into_iter().flat_map(cells_of).collect())
}

/// The cells of a pipeline, or the pipeline itself.
fn cells_of(draft: Draft) -> Vec<ParsedPipeline> {
    let Draft { pipeline, spans, substitutions, place, cells, .. } = draft;
    let spans = Arc::new(spans);
    let cells = if cells.is_empty() { vec![Cell::new()] } else { cells };
    let parsed = |cell: Cell| ParsedPipeline {
        pipeline: Pipeline { cell, ..pipeline.clone() },
        spans: Arc::clone(&spans),
        substitutions: substitutions.clone(),
        place,
    };
    cells.into_iter().map(parsed).collect()
}

fn check_names(drafts: &[Draft], files: &[SourceFile<'_>], problems: &mut [Diagnostics]) {
    let mut first: BTreeMap<&str, &Draft> = BTreeMap::new();
    for draft in drafts {
        let name = draft.pipeline.name.as_str();
        let Some(other) = first.get(name) else {
            first.insert(name, draft);
            continue;
        };
        let Some(problems) = problems.get_mut(usize::from(draft.place.file)) else { continue };
        // A name with a problem of its own is not this pipeline's name.
        if problems.has_diagnostic_at(draft.name_span) {
            continue;
        }
        let line = other.name_span.line;
        let used = match files.get(usize::from(other.place.file)) {
            Some(file) if other.place.file != draft.place.file => format!("{}:{line}", file.path),
            _ => format!("line {line}"),
        };
        let message = format!("duplicate pipeline name {}; first used in {used}", quote(name));
        let help = if draft.is_named {
            "pipeline names must be unique in a build".to_owned()
        } else {
            format!("add a `name`: without one, a pipeline is named after its file in `{FOLDER}/`, or `default`")
        };
        problems.add_with_help("duplicate-name", draft.name_span, message, help);
    }
}

/// Fills in the `needs` of each pipeline. They must name other pipelines, and there must be no cycle.
fn resolve_needs(drafts: &mut [Draft], problems: &mut [Diagnostics]) {
    let names: BTreeSet<String> = drafts.iter().map(|draft| draft.pipeline.name.clone()).collect();
    for draft in drafts.iter_mut() {
        let Some(problems) = problems.get_mut(usize::from(draft.place.file)) else { continue };
        for (need, span) in &draft.needs {
            if !names.contains(need) {
                unknown_pipeline(need, *span, &draft.pipeline, &names, problems);
            } else if draft.pipeline.needs.contains(need) {
                problems.add("duplicate-name", *span, format!("{} is listed twice in `needs`", quote(need)));
            } else {
                draft.pipeline.needs.push(need.clone());
            }
        }
    }
    let order: Vec<&str> = drafts.iter().map(|draft| draft.pipeline.name.as_str()).collect();
    let needs = drafts.iter().map(|draft| {
        let pipeline = &draft.pipeline;
        (pipeline.name.as_str(), pipeline.needs.iter().map(String::as_str).collect())
    });
    for cycle in cycles(needs.collect(), &order) {
        let first = drafts.iter().find(|draft| Some(&draft.pipeline.name.as_str()) == cycle.first());
        let Some((draft, problems)) = first.and_then(|draft| Some((draft, problems.get_mut(usize::from(draft.place.file))?)))
        else {
            continue;
        };
        let help = if cycle.len() == 1 { "remove it from its `needs`" } else { "remove one of the `needs`" };
        problems.add_with_help("cycle", draft.name_span, cycle_message("pipeline", &cycle), help);
    }
}

fn unknown_pipeline(need: &str, span: Span, by: &Pipeline, names: &BTreeSet<String>, problems: &mut Diagnostics) {
    let help = match did_you_mean(need, names.iter().map(String::as_str)) {
        _ if by.steps.iter().any(|step| step.name == need) => {
            "it is a step of this pipeline; the `needs` of a pipeline name other pipelines".to_owned()
        }
        Some(meant) => format!("did you mean {}?", quote(meant)),
        None => "the `needs` of a pipeline name other pipelines of the repository".to_owned(),
    };
    problems.add_with_help("unknown-pipeline", span, format!("no pipeline is named {}", quote(need)), help);
}

/// The limits of a build. One message names the limit that was exceeded.
fn check_sizes(drafts: &[Draft], problems: &mut [Diagnostics]) {
    let stages = |draft: &Draft| draft.cells.len().max(1);
    let count: usize = drafts.iter().map(stages).sum();
    let steps: usize = drafts.iter().map(|draft| stages(draft) * draft.pipeline.steps.len()).sum();
    let message = if count > MAX_STAGES {
        format!("the build has {count} stages; at most {MAX_STAGES} are allowed")
    } else if steps > MAX_ALL_STEPS {
        format!("the stages of the build have {steps} steps; at most {MAX_ALL_STEPS} are allowed")
    } else if edges(drafts) > MAX_EDGES {
        format!("the `needs` between pipelines order more than {MAX_EDGES} pairs of stages; each cell of a matrix is a stage")
    } else if drafts.iter().map(cell_bytes).sum::<usize>() > MAX_CELL_BYTES {
        format!("the cells of all matrices are larger than {} MiB together", MAX_CELL_BYTES >> 20)
    } else {
        return;
    };
    if let Some(first) = problems.first_mut() {
        first.add("too-large", None, message);
    }
}

/// The pairs of stages of which one needs the other.
fn edges(drafts: &[Draft]) -> usize {
    let stages: BTreeMap<&str, usize> =
        drafts.iter().map(|draft| (draft.pipeline.name.as_str(), draft.cells.len().max(1))).collect();
    let of = |draft: &Draft| {
        let needed = draft.pipeline.needs.iter().filter_map(|need| stages.get(need.as_str()));
        draft.cells.len().max(1).saturating_mul(needed.sum())
    };
    drafts.iter().map(of).fold(0, usize::saturating_add)
}

/// The bytes of the copies of a pipeline for its cells.
fn cell_bytes(draft: &Draft) -> usize {
    let bytes = || serde_json::to_vec(&draft.pipeline).map_or(0, |json| json.len());
    if draft.cells.is_empty() { 0 } else { bytes().saturating_mul(draft.cells.len()) }
}

/// The problems of all files. After the first [`MAX_DIAGNOSTICS`], one more states the number of the others.
fn all_diagnostics(problems: Vec<Diagnostics>) -> Vec<Diagnostic> {
    if let [_] = problems.as_slice() {
        return problems.into_iter().flat_map(Diagnostics::into_diagnostics).collect();
    }
    let mut all: Vec<Diagnostic> = problems.into_iter().flat_map(Diagnostics::into_diagnostics).collect();
    let more = all.len().saturating_sub(MAX_DIAGNOSTICS);
    if more > 0 {
        all.truncate(MAX_DIAGNOSTICS);
        let file = all.last().map(|last| last.file.clone()).unwrap_or_default();
        let message = format!("and at least {more} more problems");
        all.push(Diagnostic { code: "more".to_owned(), message, file, span: None, help: None });
    }
    all
}
