//! Parser for `when`: a list means "or", a map means "and".

use super::decode::{Fields, Reader};
use super::diagnostics::{join_words, quote};
use super::keywords::{CHOICE, FOREIGN_EVENTS, WHEN};
use super::spans::YamlPath;
use super::yaml::{MapEntry, Node, Value};
use super::{Choice, Conditions, When};
use crate::event::EventKind;
use crate::git_ref::{BRANCHES, TAGS};
use crate::status::Status;

/// Longest glob, in bytes.
const MAX_GLOB: usize = 256;
/// Most globs or keywords of one condition.
const MAX_CHOICES: usize = 100;

impl Reader {
    pub(super) fn when(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<When> {
        const EXPECTED: &str = "`when` to be a map of conditions, or a list of such maps";
        let path = path.child("when");
        path.record(&mut self.spans, entry.value.span);
        let alternatives = match &entry.value.value {
            Value::List(items) if !items.is_empty() => items.as_slice(),
            Value::Map(_) => std::slice::from_ref(&entry.value),
            _ => {
                self.wrong_type_with_help(&entry.value, EXPECTED, &help_for(&entry.value));
                return None;
            }
        };
        let mut all = Vec::with_capacity(alternatives.len());
        for (index, node) in alternatives.iter().enumerate() {
            let path = path.child(index);
            path.record(&mut self.spans, node.span);
            if !matches!(node.value, Value::Map(_)) {
                self.wrong_type_with_help(node, EXPECTED, &help_for(node));
                continue;
            }
            let Some(fields) = self.fields(node, EXPECTED, &WHEN) else { continue };
            if matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
                self.diagnostics.add("bad-value", node.span, "the `when` has no conditions: add one, or remove it");
            }
            all.push(self.conditions(fields, &path));
        }
        Some(When(all))
    }

    fn conditions(&mut self, fields: Fields<'_>, path: &YamlPath) -> Conditions {
        Conditions {
            event: fields.get("event").and_then(|entry| self.choice(entry, path, (Self::event_kind, Self::event_kind))),
            branch: fields.get("branch").and_then(|entry| self.choice(entry, path, (Self::branch_glob, Self::branch_glob))),
            tag: fields.get("tag").and_then(|entry| self.choice(entry, path, (Self::tag_glob, Self::tag_glob))),
            git_ref: fields.get("ref").and_then(|entry| self.choice(entry, path, (Self::ref_glob, Self::ref_glob))),
            paths: fields.get("paths").and_then(|entry| self.choice(entry, path, (Self::path_glob, Self::path_glob))),
            target: fields.get("target").and_then(|entry| self.choice(entry, path, (Self::glob, Self::glob))),
            cron: fields.get("cron").and_then(|entry| self.choice(entry, path, (Self::glob, Self::glob))),
            status: fields.get("status").and_then(|entry| self.choice(entry, path, (Self::status, Self::status))),
        }
    }

    /// A text, a list of texts (`!` excludes) or `{ include, exclude }`. `read` parses included and excluded values.
    fn choice<T>(&mut self, entry: &MapEntry, path: &YamlPath, read: (Read<T>, Read<T>)) -> Option<Choice<T>> {
        let expected = format!("`{}` to be a text, a list of texts, or {{ include, exclude }}", entry.key);
        let path = path.child(&entry.key);
        path.record(&mut self.spans, entry.value.span);
        let mut choice = Choice { include: Vec::new(), exclude: Vec::new() };
        if let Value::Map(parts) = &entry.value.value {
            self.fields(&entry.value, &expected, &CHOICE)?;
            for part in parts {
                for (node, text) in self.choices(&part.value, &expected)? {
                    let (into, read) = match part.key.as_str() {
                        "exclude" => (&mut choice.exclude, read.1),
                        _ => (&mut choice.include, read.0),
                    };
                    if let Some(value) = read(self, node, &text) {
                        path.child(&part.key).child(into.len()).record(&mut self.spans, node.span);
                        into.push(value);
                    }
                }
            }
        } else {
            for (node, text) in self.choices(&entry.value, &expected)? {
                let (name, into, text, read) = match text.strip_prefix('!') {
                    Some(excluded) => ("exclude", &mut choice.exclude, excluded, read.1),
                    None => ("include", &mut choice.include, text.as_str(), read.0),
                };
                if let Some(value) = read(self, node, text) {
                    path.child(name).child(into.len()).record(&mut self.spans, node.span);
                    into.push(value);
                }
            }
        }
        Some(choice)
    }

    fn choices<'n>(&mut self, node: &'n Node, expected: &str) -> Option<Vec<(&'n Node, String)>> {
        let texts = self.texts(node, expected)?;
        if texts.len() > MAX_CHOICES {
            self.diagnostics.add("too-large", node.span, format!("the condition has more than {MAX_CHOICES} values"));
            return None;
        }
        Some(texts)
    }

    fn event_kind(&mut self, node: &Node, text: &str) -> Option<EventKind> {
        let keywords: Vec<(&str, EventKind)> = EventKind::ALL.iter().map(|kind| (kind.as_str(), *kind)).collect();
        self.keyword(node.span, text, "event", &keywords, FOREIGN_EVENTS)
    }

    /// A pattern for short branch names.
    fn branch_glob(&mut self, node: &Node, text: &str) -> Option<String> {
        if let Some(short) = text.strip_prefix("refs/heads/") {
            let message = format!("the pattern {} never matches, because it is compared with short names", quote(text));
            self.diagnostics.add_with_help("bad-value", node.span, message, format!("write {}", quote(short)));
            return None;
        }
        self.glob(node, text)
    }

    /// A pattern for short names of tags.
    fn tag_glob(&mut self, node: &Node, text: &str) -> Option<String> {
        if let Some(short) = text.strip_prefix(TAGS) {
            let message = format!("the pattern {} never matches, because it is compared with short names", quote(text));
            self.diagnostics.add_with_help("bad-value", node.span, message, format!("write {}", quote(short)));
            return None;
        }
        self.glob(node, text)
    }

    /// A pattern for full names of refs.
    fn ref_glob(&mut self, node: &Node, text: &str) -> Option<String> {
        if !text.starts_with("refs/") && !text.starts_with(['*', '?', '[', '{']) {
            let message = format!("the pattern {} never matches, because it is compared with full names", quote(text));
            let help = format!("write {}, or use `branch` or `tag`", quote(&format!("{BRANCHES}{text}")));
            self.diagnostics.add_with_help("bad-value", node.span, message, help);
            return None;
        }
        self.glob(node, text)
    }

    /// A pattern for paths relative to the root of the repository. `./src`, `/src` and `src/` are other spellings of it.
    fn path_glob(&mut self, node: &Node, text: &str) -> Option<String> {
        let relative = text.trim_start_matches("./").trim_start_matches('/');
        if text.split('/').any(|part| part == "..") {
            let message = format!("the pattern {} never matches: paths are relative to the root of the repository", quote(text));
            self.diagnostics.add_with_help("bad-value", node.span, message, "remove `..`, for example `src/**`");
            return None;
        }
        match relative {
            "" if text.is_empty() => self.glob(node, text),
            "" | "." => Some("**".to_owned()),
            directory if directory.ends_with('/') => self.glob(node, &format!("{directory}**")),
            pattern => self.glob(node, pattern),
        }
    }

    fn status(&mut self, node: &Node, text: &str) -> Option<Status> {
        let keywords = [Status::Success, Status::Failure].map(|status| (status.as_str(), status));
        if let Some(other) =
            Status::ALL.iter().find(|status| status.as_str() == text && !keywords.iter().any(|w| w.1 == **status))
        {
            let known = join_words(&["`success`", "`failure`"], "or");
            let message = format!("expected `status` to be {known}, found {}", quote(other.as_str()));
            let help = "`failure` includes error, killed and declined";
            self.diagnostics.add_with_help("bad-value", node.span, message, help);
            return None;
        }
        self.keyword(node.span, text, "status", &keywords, &[])
    }

    fn glob(&mut self, node: &Node, text: &str) -> Option<String> {
        if text.len() > MAX_GLOB {
            self.diagnostics.add("too-large", node.span, format!("the pattern is longer than {MAX_GLOB} bytes"));
            return None;
        }
        if text.is_empty() {
            self.diagnostics.add("bad-value", node.span, "`!` must be followed by a pattern");
            return None;
        }
        match super::patterns::pattern(text) {
            Ok(_) => Some(text.to_owned()),
            Err(error) => {
                let message = format!("{} is not a valid pattern: {}", quote(text), error.kind());
                self.diagnostics.add("bad-value", node.span, message);
                None
            }
        }
    }
}

/// Help for a `when` that is not a map: its form, with the word that was written in place of one.
fn help_for(node: &Node) -> String {
    let word = match &node.value {
        Value::Scalar(scalar) => scalar.text.as_str(),
        _ => "",
    };
    if EventKind::ALL.iter().any(|kind| kind.as_str() == word) {
        format!("write `when: {{ event: {word} }}`")
    } else if [Status::Success, Status::Failure].iter().any(|status| status.as_str() == word) {
        format!("write `when: {{ status: {word} }}`")
    } else {
        "for example: `when: { event: push, branch: main }`".to_owned()
    }
}

/// Parses one keyword or pattern of a condition.
type Read<T> = fn(&mut Reader, &Node, &str) -> Option<T>;
