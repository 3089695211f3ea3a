//! The reader: converts the bytes of a file into the normal form of its pipelines, or reports all problems at once.

use std::collections::{BTreeMap, BTreeSet};

use super::check_texts::DeclaredNames;
use super::decode::{Fields, Reader};
use super::diagnostics::Diagnostics;
use super::files::{SourceFile, default_name};
use super::keywords::{CLONE, PIPELINE};
use super::matrix::Cell;
use super::spans::{Place, Spans, YamlPath};
use super::step::{first_key_span, name_problem};
use super::substitution::Path;
use super::yaml::{self, MapEntry, Node, Scalar, Value};
use super::{CloneOptions, Param, Pipeline, PullRequestCheckout, Step, When, eval_when};
use crate::diagnostic::Span;

/// A pipeline that was read without regard to the others.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) pipeline: Pipeline,
    pub(super) spans: Spans,
    pub(super) substitutions: BTreeSet<Path>,
    pub(super) place: Place,
    /// The location of its name; if it has none, of its first key.
    pub(super) name_span: Span,
    /// Whether its file gives it a name.
    pub(super) is_named: bool,
    /// The names of pipelines that must finish first. They are checked when all pipelines are known.
    pub(super) needs: Vec<(String, Span)>,
    /// The cells of its matrix; empty without one.
    pub(super) cells: Vec<Cell>,
}

/// Reads the documents of one file, with all problems of the file. `index` is its place among the files, `left` what the files
/// of the build may still contain.
pub(super) fn read_file(file: SourceFile<'_>, index: u16, left: &mut yaml::Budget) -> (Diagnostics, Vec<Draft>) {
    let mut problems = Diagnostics::new(file.path);
    let roots = text(file.bytes, &mut problems).and_then(|text| yaml::parse(text, &mut problems, left));
    let mut reader = Reader::new(problems);
    let Some(roots) = roots.map(without_empty) else { return (reader.diagnostics, Vec::new()) };
    if roots.is_empty() && reader.diagnostics.is_empty() {
        reader.diagnostics.add_with_help("missing-key", None, "the file is empty", "a pipeline needs at least `steps`");
    }
    let mut drafts = Vec::with_capacity(roots.len());
    for (root, document) in roots.iter().zip(0..) {
        drafts.extend(reader.draft_of_document(root, file.path, Place { file: index, document }));
    }
    (reader.diagnostics, drafts)
}

/// Leaves out the empty documents before and after `---`, unless all are empty.
fn without_empty(mut roots: Vec<Node>) -> Vec<Node> {
    let is_empty = |root: &Node| matches!(root.value, Value::Null);
    if roots.iter().all(is_empty) {
        roots.truncate(1);
    } else {
        roots.retain(|root| !is_empty(root));
    }
    roots
}

fn text<'a>(bytes: &'a [u8], problems: &mut Diagnostics) -> Option<&'a str> {
    if bytes.len() > yaml::MAX_BYTES {
        let message = "the file is larger than 256 KiB";
        problems.add_with_help("too-large", None, message, "move long scripts into files of the repository");
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let before = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let (line, column) = (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX));
            let span = Span { line, column, end_line: line, end_column: column };
            problems.add_with_help("not-utf8", span, "the text is not valid UTF-8", "save the file as UTF-8");
            None
        }
    }
}

impl Reader {
    fn draft_of_document(&mut self, root: &Node, file: &str, place: Place) -> Option<Draft> {
        let pipeline = self.pipeline(root, default_name(file));
        let (spans, substitutions) = (std::mem::take(&mut self.spans), std::mem::take(&mut self.substitutions));
        let written_name = spans.find("/name").filter(|span| Some(*span) != spans.find(""));
        let name_span = written_name.unwrap_or_else(|| first_key_span(root));
        if let (None, Some(problem)) = (written_name, name_problem(default_name(file))) {
            let help = "rename the file, or add a `name` to its pipeline";
            self.diagnostics.add_with_help("bad-value", name_span, format!("{problem} (the name of the file)"), help);
        }
        let (needs, cells) = (std::mem::take(&mut self.pipeline_needs), std::mem::take(&mut self.pipeline_cells));
        Some(Draft {
            pipeline: pipeline?,
            spans,
            substitutions,
            place,
            name_span,
            is_named: written_name.is_some(),
            needs,
            cells,
        })
    }

    fn pipeline(&mut self, root: &Node, default_name: &str) -> Option<Pipeline> {
        let entries = match &root.value {
            Value::Map(entries) => entries,
            _ => {
                self.wrong_type(root, "a pipeline to be a map with `steps`");
                return None;
            }
        };
        let is_meant = |key: &str| !key.starts_with("x-");
        let own =
            Node { span: root.span, value: Value::Map(entries.iter().filter(|entry| is_meant(&entry.key)).cloned().collect()) };
        self.check_texts(&own);
        let fields = self.fields(&own, "a pipeline", &PIPELINE)?;
        let path = YamlPath::root();
        path.record(&mut self.spans, first_key_span(root));
        if let Some(entry) = fields.get("version") {
            self.version(entry);
        }
        let name = fields.get("name").and_then(|entry| self.name(entry, &path));
        let steps = match fields.get("steps") {
            Some(entry) => {
                let (drafts, is_complete) = self.drafts(entry, &path);
                self.resolve_needs(drafts, is_complete)
            }
            None => {
                if !fields.has_typo_of("steps") {
                    let message = "the pipeline has no `steps`";
                    self.diagnostics.add_with_help("missing-key", first_key_span(root), message, "list the steps to run");
                }
                Vec::new()
            }
        };
        self.pipeline_needs = fields.get("needs").map(|entry| self.needs(entry, "pipeline", &path)).unwrap_or_default();
        let params = fields.get("params").map(|entry| self.params(entry, &path)).unwrap_or_default();
        self.cells_and_used_paths(fields, &steps, &params, &path);
        let when = fields.get("when").and_then(|entry| self.when_of_pipeline(entry, &path));
        let schedules = fields.get("schedules").map(|entry| self.schedules(entry, &params, when.as_ref(), &path));
        Some(Pipeline {
            name: name.unwrap_or_else(|| default_name.to_owned()),
            when,
            schedules: schedules.unwrap_or_default(),
            needs: Vec::new(),
            cell: Cell::new(),
            env: fields.get("env").map(|entry| self.env(entry, &path)).unwrap_or_default(),
            timeout: fields.get("timeout").and_then(|entry| self.duration(entry, &path)),
            params,
            platform: fields.get("platform").and_then(|entry| self.platform(entry, &path)),
            labels: fields.get("labels").map(|entry| self.labels(entry, &path)).unwrap_or_default(),
            workspace: fields.get("workspace").and_then(|entry| self.workspace(entry, &path)),
            clone: fields.get("clone").map(|entry| self.clone_options(&entry.value, &path)).unwrap_or_default(),
            steps,
        })
    }

    /// Reads the cells of the matrix, and checks that the names exist that substitutions use.
    fn cells_and_used_paths(&mut self, fields: Fields<'_>, steps: &[Step], params: &BTreeMap<String, Param>, path: &YamlPath) {
        let cells = fields.get("matrix").map_or(Some(Vec::new()), |entry| self.matrix(entry, path));
        let Some(cells) = cells else {
            // A matrix that could not be read may have the axes that substitutions name.
            self.used_paths.clear();
            return;
        };
        let axes: Vec<&str> = cells.first().into_iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
        let params: Vec<&str> = params.keys().map(String::as_str).collect();
        self.check_used_paths(&DeclaredNames { steps, params: &params, axes: &axes });
        self.pipeline_cells = cells;
    }

    fn when_of_pipeline(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<When> {
        let when = self.when(entry, path)?;
        if self.pipeline_needs.is_empty() && eval_when::needs_failure(&when) {
            let message = "the pipeline needs no other pipeline, so `status: failure` never matches";
            self.diagnostics.add_with_help("bad-value", entry.value.span, message, "add `needs`, or remove `status`");
        }
        Some(when)
    }

    fn clone_options(&mut self, node: &Node, path: &YamlPath) -> CloneOptions {
        const EXPECTED: &str = "`clone` to be `false` or a map such as `{ depth: 50 }`";
        let mut options = CloneOptions::default();
        let path = path.child("clone");
        path.record(&mut self.spans, node.span);
        match &node.value {
            Value::Scalar(Scalar { text, is_plain: true }) if text == "false" => options.enabled = false,
            Value::Scalar(Scalar { text, is_plain: true }) if text == "true" => {}
            Value::Map(_) => {
                let fields = self.fields(node, EXPECTED, &CLONE);
                if let Some(depth) = fields.as_ref().and_then(|fields| fields.get("depth")) {
                    path.child("depth").record(&mut self.spans, depth.value.span);
                    options.depth = self.depth(&depth.value).unwrap_or(options.depth);
                }
                if let Some(entry) = fields.as_ref().and_then(|fields| fields.get("pull_request")) {
                    let words = [("head", PullRequestCheckout::Head), ("merge", PullRequestCheckout::Merge)];
                    options.pull_request = self.keyword_of(entry, &path, &words, &[]).unwrap_or_default();
                }
            }
            _ => self.wrong_type(node, EXPECTED),
        }
        options
    }

    fn depth(&mut self, node: &Node) -> Option<u32> {
        const EXPECTED: &str = "`depth` to be a number of commits, or 0 for all commits";
        let text = self.text(node, EXPECTED)?;
        let depth = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        if depth.is_none() {
            self.wrong_type(node, EXPECTED);
        }
        depth
    }
}
