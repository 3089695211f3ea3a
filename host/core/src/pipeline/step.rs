//! Parser for `steps`: each step has an `image:` with its script or command, or a step type under `uses:`.

use serde_json::Value as Json;

use super::decode::{Fields, Reader};
use super::diagnostics::quote;
use super::keywords::{FOREIGN_FAILURES, FOREIGN_PULLS, STEP};
use super::spans::YamlPath;
use super::substitution::sample;
use super::yaml::{MapEntry, Node, Value};
use super::{Action, ImageAction, OnFailure, Pull, Step, UsesAction};
use crate::diagnostic::Span;
use crate::image_ref::ImageRef;
use crate::sanitize;

/// Most steps of a build.
pub const MAX_STEPS: usize = 500;
/// Keys that only a step with `image` has.
const IMAGE_KEYS: [&str; 13] = [
    "run",
    "entrypoint",
    "args",
    "workdir",
    "pull",
    "shell",
    "settings",
    "user",
    "limits",
    "network",
    "privileged",
    "devices",
    "tmpfs",
];
/// Longest name, in characters.
const MAX_NAME: usize = 100;

/// A parsed step whose `needs` are not resolved yet.
#[derive(Debug)]
pub(super) struct StepDraft {
    pub(super) step: Step,
    pub(super) name_span: Span,
    /// The `needs` in the file; `None` if the step has none.
    pub(super) needs: Option<Vec<(String, Span)>>,
}

impl Reader {
    /// The parsed steps, and whether all steps of the file could be parsed.
    pub(super) fn drafts(&mut self, entry: &MapEntry, path: &YamlPath) -> (Vec<StepDraft>, bool) {
        let node = &entry.value;
        let items = match &node.value {
            Value::List(items) if !items.is_empty() => items.as_slice(),
            Value::Map(_) => {
                let message = "expected `steps` to be a list, found a map";
                let help = "a map of steps is Woodpecker's syntax; write a list with one `- name: …` per step";
                self.diagnostics.add_with_help("wrong-type", node.span, message, help);
                return (Vec::new(), false);
            }
            _ => {
                self.wrong_type(node, "`steps` to be a list of steps");
                return (Vec::new(), false);
            }
        };
        if items.len() > MAX_STEPS {
            let message = format!("the pipeline has {} steps; at most {MAX_STEPS} are allowed", items.len());
            self.diagnostics.add("too-large", entry.key_span, message);
            return (Vec::new(), false);
        }
        let path = path.child("steps");
        path.record(&mut self.spans, node.span);
        let drafts: Vec<StepDraft> =
            items.iter().enumerate().filter_map(|(index, item)| self.draft(item, &path.child(index))).collect();
        let is_complete = drafts.len() == items.len();
        (drafts, is_complete)
    }

    fn draft(&mut self, node: &Node, path: &YamlPath) -> Option<StepDraft> {
        path.record(&mut self.spans, node.span);
        let fields = self.fields(node, "a step to be a map with `name` and `image` or `uses`", &STEP)?;
        let name = fields.get("name").and_then(|entry| self.name(entry, path));
        if fields.get("name").is_none() && !fields.has_typo_of("name") {
            let span = first_key_span(node);
            self.diagnostics.add_with_help(
                "missing-key",
                span,
                "the step has no `name`",
                "add a name; it identifies the step's log",
            );
        }
        let step = Step {
            name: name.unwrap_or_default(),
            action: self.action(node, fields, path).unwrap_or_else(placeholder_action),
            env: fields.get("env").map(|entry| self.env(entry, path)).unwrap_or_default(),
            when: fields.get("when").and_then(|entry| self.when(entry, path)),
            needs: Vec::new(),
            timeout: fields.get("timeout").and_then(|entry| self.duration(entry, path)),
            failure: fields.get("failure").and_then(|entry| self.failure(entry, path)).unwrap_or_default(),
            retry: fields.get("retry").and_then(|entry| self.retry(entry, path)),
        };
        let needs = fields.get("needs").map(|entry| self.needs(entry, "step", path));
        let name_span = fields.get("name").map_or(node.span, |entry| entry.value.span);
        (!step.name.is_empty()).then_some(StepDraft { step, name_span, needs })
    }

    /// The name of a pipeline or step: text for people.
    pub(super) fn name(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<String> {
        let name = self.text(&entry.value, "`name` to be text")?;
        let span = entry.value.span;
        path.child("name").record(&mut self.spans, span);
        match name_problem(&name) {
            None => return Some(name),
            Some(problem) => self.diagnostics.add("bad-value", span, problem),
        }
        None
    }

    /// The names of the steps or pipelines (`what`) that must finish first.
    pub(super) fn needs(&mut self, entry: &MapEntry, what: &str, path: &YamlPath) -> Vec<(String, Span)> {
        let path = path.child("needs");
        path.record(&mut self.spans, entry.value.span);
        if matches!(&entry.value.value, Value::List(items) if items.is_empty()) {
            return Vec::new();
        }
        let texts = self.texts(&entry.value, &format!("`needs` to be a list of {what} names")).unwrap_or_default();
        let spans: Vec<Span> = texts.iter().map(|(node, _)| node.span).collect();
        self.record_items(texts, &path).into_iter().zip(spans).collect()
    }

    fn failure(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<OnFailure> {
        let words = [("fail", OnFailure::Fail), ("ignore", OnFailure::Ignore), ("cancel", OnFailure::Cancel)];
        self.keyword_of(entry, path, &words, FOREIGN_FAILURES)
    }

    fn action(&mut self, node: &Node, fields: Fields<'_>, path: &YamlPath) -> Option<Action> {
        let path = path.child("action");
        match (fields.get("image"), fields.get("uses")) {
            (Some(image), None) => {
                path.record(&mut self.spans, image.value.span);
                if let Some(with) = fields.get("with") {
                    let message = "`with` requires `uses`, but this step has `image`";
                    self.diagnostics.add_with_help("conflict", with.key_span, message, "use `settings` for a container plugin");
                }
                self.image_action(image, fields, &path).map(Action::Image)
            }
            (None, Some(uses)) => {
                path.record(&mut self.spans, uses.value.span);
                for key in IMAGE_KEYS {
                    if let Some(entry) = fields.get(key) {
                        let message = format!("`{key}` requires `image`, but this step has `uses`");
                        self.diagnostics.add("conflict", entry.key_span, message);
                    }
                }
                self.uses_action(uses, fields, &path).map(Action::Uses)
            }
            (Some(_), Some(uses)) => {
                let message = "a step has either `image` or `uses`, but this step has both";
                self.diagnostics.add_with_help("conflict", uses.key_span, message, "split it into two steps");
                None
            }
            (None, None) if fields.has_typo_of("image") || fields.has_typo_of("uses") => None,
            (None, None) => {
                let message = "the step has neither `image` nor `uses`, so there is nothing to run";
                let help = "add the image of a container, for example `image: debian:13`";
                self.diagnostics.add_with_help("missing-key", first_key_span(node), message, help);
                None
            }
        }
    }

    fn image_action(&mut self, image: &MapEntry, fields: Fields<'_>, path: &YamlPath) -> Option<ImageAction> {
        path.child("image").record(&mut self.spans, image.value.span);
        let reference = self.text(&image.value, "`image` to be the name of an image").and_then(|text| self.image(image, text));
        let run = fields.get("run").and_then(|entry| {
            let expected = "`run` to be the lines of a script";
            self.text_list(&entry.value, expected, &path.child("run"))
        });
        for key in ["entrypoint", "args"] {
            if let (Some(_), Some(entry)) = (fields.get("run"), fields.get(key)) {
                let message = format!("`run` and `{key}` exclude each other: a script runs in its own shell");
                self.diagnostics.add_with_help("conflict", entry.key_span, message, format!("remove `run` or `{key}`"));
            }
        }
        let action = ImageAction {
            image: String::new(),
            pull: fields.get("pull").and_then(|entry| self.pull(entry, path)),
            run,
            entrypoint: fields.get("entrypoint").and_then(|entry| self.words(entry, path)),
            args: fields.get("args").and_then(|entry| self.words(entry, path)),
            workdir: fields.get("workdir").and_then(|entry| self.workdir(entry, path)),
            shell: fields.get("shell").and_then(|entry| self.shell(entry, fields, path)),
            settings: fields.get("settings").and_then(|entry| self.settings(entry, path)),
            user: fields.get("user").and_then(|entry| self.user(entry, path)),
            limits: fields.get("limits").and_then(|entry| self.limits(entry, path)).unwrap_or_default(),
            network: fields.get("network").and_then(|entry| self.network(entry, path)),
            privileged: fields.get("privileged").is_some_and(|entry| self.flag(entry, path)),
            devices: fields.get("devices").map(|entry| self.devices(entry, path)).unwrap_or_default(),
            tmpfs: fields.get("tmpfs").map(|entry| self.tmpfs(entry, path)).unwrap_or_default(),
        };
        Some(ImageAction { image: reference?, ..action })
    }

    fn image(&mut self, entry: &MapEntry, reference: String) -> Option<String> {
        let problem = match sample(&reference).parse::<ImageRef>() {
            Ok(_) => return Some(reference),
            Err(problem) => problem,
        };
        if !self.diagnostics.has_diagnostic_at(entry.value.span) {
            let message = format!("{} is not a valid image name: {problem}", quote(&reference));
            let help = "for example `debian:13` or `ghcr.io/acme/tool:1.2`";
            self.diagnostics.add_with_help("bad-value", entry.value.span, message, help);
        }
        None
    }

    fn pull(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<Pull> {
        let words = [("always", Pull::Always), ("if-absent", Pull::IfAbsent), ("never", Pull::Never)];
        self.keyword_of(entry, path, &words, FOREIGN_PULLS)
    }

    fn uses_action(&mut self, uses: &MapEntry, fields: Fields<'_>, path: &YamlPath) -> Option<UsesAction> {
        path.child("plugin").record(&mut self.spans, uses.value.span);
        let plugin = self.text(&uses.value, "`uses` to be the name of a step type")?;
        if plugin.len() > MAX_NAME || !plugin.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            let message = format!("{} is not a valid step type name", quote(&plugin));
            let help = "a name has letters, digits, `-`, `_` and `.`; an administrator binds it to a plugin";
            if !self.diagnostics.has_diagnostic_at(uses.value.span) {
                self.diagnostics.add_with_help("bad-value", uses.value.span, message, help);
            }
            return None;
        }
        let with = match fields.get("with") {
            None => Json::Object(serde_json::Map::new()),
            Some(entry) if matches!(entry.value.value, Value::Map(_)) => self.json(&entry.value, &path.child("with")),
            Some(entry) => {
                self.wrong_type(&entry.value, "`with` to be a map of settings");
                return None;
            }
        };
        Some(UsesAction { plugin, with })
    }

    /// Settings as JSON. `true`, `false`, nothing and whole numbers keep their type. Everything else is text as it is spelled,
    /// `1.10` included: a version is more likely than a number, and a plugin can parse a number from text.
    pub(super) fn json(&mut self, node: &Node, path: &YamlPath) -> Json {
        path.record(&mut self.spans, node.span);
        match &node.value {
            Value::Null => Json::Null,
            Value::Scalar(scalar) if scalar.is_plain => plain_json(&scalar.text),
            Value::Scalar(scalar) => Json::String(scalar.text.clone()),
            Value::List(items) => {
                Json::Array(items.iter().enumerate().map(|(index, item)| self.json(item, &path.child(index))).collect())
            }
            Value::Map(entries) => Json::Object(
                entries.iter().map(|entry| (entry.key.clone(), self.json(&entry.value, &path.child(&entry.key)))).collect(),
            ),
        }
    }
}

/// Whole numbers up to this are exact in every JSON reader (RFC 8259, section 6).
const MAX_EXACT: i64 = (1 << 53) - 1;

pub(super) fn plain_json(text: &str) -> Json {
    match text {
        "true" => Json::Bool(true),
        "false" => Json::Bool(false),
        text => match text.parse::<i64>() {
            Ok(number) if number.to_string() == text && number.abs() <= MAX_EXACT => Json::from(number),
            _ => Json::String(text.to_owned()),
        },
    }
}

/// Why a text cannot be the name of a pipeline or step.
pub(super) fn name_problem(name: &str) -> Option<String> {
    if name.chars().count() > MAX_NAME {
        Some(format!("the name is longer than {MAX_NAME} characters"))
    } else if name.chars().any(sanitize::is_unsafe) {
        Some(format!("the name {} contains control or invisible characters", quote(name)))
    } else {
        None
    }
}

/// The location of the first key of a map, for diagnostics about missing keys.
pub(super) fn first_key_span(node: &Node) -> Span {
    match &node.value {
        Value::Map(entries) => entries.first().map_or(node.span, |entry| entry.key_span),
        _ => node.span,
    }
}

/// A placeholder for an action with a recorded problem; it never leaves the reader.
fn placeholder_action() -> Action {
    Action::Image(ImageAction::default())
}
