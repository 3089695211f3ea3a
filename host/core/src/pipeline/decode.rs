//! Typed access to the YAML tree. A value of the wrong type becomes a diagnostic.

use std::collections::BTreeSet;

use super::diagnostics::{Diagnostics, did_you_mean, join_words, quote};
use super::keywords::{ForeignKeyword, Keywords, WHEN};
use super::matrix::Cell;
use super::spans::{Spans, YamlPath};
use super::substitution::{Path, UsedPath};
use super::yaml::{MapEntry, Node, Scalar, Value};
use crate::diagnostic::Span;

/// Converts the tree into the normal form. Its methods return `None` after they have recorded a diagnostic.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) diagnostics: Diagnostics,
    pub(super) spans: Spans,
    /// The substitutions in the file whose names are not checked yet.
    pub(super) used_paths: Vec<UsedPath>,
    /// The paths of all substitutions in the document.
    pub(super) substitutions: BTreeSet<Path>,
    /// The `needs` of the pipeline.
    pub(super) pipeline_needs: Vec<(String, Span)>,
    /// The cells of its matrix.
    pub(super) pipeline_cells: Vec<Cell>,
}

/// The entries of a map, with checked keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'n>(&'n [MapEntry]);

impl<'n> Fields<'n> {
    /// Whether a key of the map looks like a typo of `word`, so that `word` is misspelled rather than missing.
    pub(super) fn has_typo_of(self, word: &str) -> bool {
        self.0.iter().any(|entry| did_you_mean(&entry.key, [word]).is_some())
    }

    /// Whether the map has a key that is not one of `keywords`.
    pub(super) fn has_unknown(self, keywords: &Keywords) -> bool {
        self.0.iter().any(|entry| !keywords.known.contains(&entry.key.as_str()))
    }

    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(self, key: &str) -> Option<&'n MapEntry> {
        self.0.iter().find(|entry| entry.key == key)
    }
}

impl Reader {
    pub(super) fn new(diagnostics: Diagnostics) -> Self {
        Self {
            diagnostics,
            spans: Spans::default(),
            used_paths: Vec::new(),
            substitutions: BTreeSet::new(),
            pipeline_needs: Vec::new(),
            pipeline_cells: Vec::new(),
        }
    }

    /// The entries of a map in which only `keywords` are allowed as keys.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, expected: &str, keywords: &Keywords) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.wrong_type(node, expected);
            return None;
        };
        for entry in entries {
            self.check_key(entry, keywords);
        }
        Some(Fields(entries))
    }

    fn check_key(&mut self, entry: &MapEntry, keywords: &Keywords) {
        let (key, span) = (entry.key.as_str(), entry.key_span);
        if keywords.known.contains(&key) {
            return;
        }
        let shown = quote(key);
        if keywords.planned.contains(&key) {
            let message = format!("{shown} {} is not supported yet", keywords.location);
            self.diagnostics.add_with_help("not-yet", span, message, "remove it for now");
        } else if let Some(foreign) = keywords.foreign.iter().find(|foreign| foreign.keyword == key) {
            self.foreign_keyword(span, foreign);
        } else {
            let message = format!("unknown key {shown} {}", keywords.location);
            let help = match did_you_mean(key, keywords.known.iter().chain(keywords.planned).copied()) {
                _ if keywords.known.contains(&"when") && WHEN.known.contains(&key) => {
                    format!("`{key}` is a condition: write `when: {{ {key}: … }}`")
                }
                _ if let Some(place) = keywords.other_place_of(key) => {
                    format!("`{key}` is a key {place}, not {}", keywords.location)
                }
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known keys: {}", keywords.known.join(", ")),
            };
            self.diagnostics.add_with_help("unknown-key", span, message, help);
        }
    }

    pub(super) fn foreign_keyword(&mut self, span: Span, foreign: &ForeignKeyword) {
        let message = format!("{} is a keyword of {}", quote(foreign.keyword), foreign.origin);
        self.diagnostics.add_with_help("foreign-word", span, message, foreign.advice);
    }

    /// A text: any scalar as it is spelled. Blank text is an error.
    pub(super) fn text(&mut self, node: &Node, expected: &str) -> Option<String> {
        match &node.value {
            Value::Scalar(scalar) if !scalar.text.trim().is_empty() => Some(scalar.text.clone()),
            _ => {
                self.wrong_type(node, expected);
                None
            }
        }
    }

    /// A text, or a list of texts; not empty.
    pub(super) fn texts<'n>(&mut self, node: &'n Node, expected: &str) -> Option<Vec<(&'n Node, String)>> {
        let items = match &node.value {
            Value::List(items) if !items.is_empty() => items.as_slice(),
            Value::Scalar(_) => std::slice::from_ref(node),
            _ => {
                self.wrong_type_with_help(node, expected, "write a text, or a list with one text per entry");
                return None;
            }
        };
        let texts: Vec<_> = items.iter().map(|item| Some((item, self.list_item(item, expected)?))).collect();
        texts.into_iter().collect()
    }

    /// A text in a list. YAML reads `- echo a: b` as a map.
    fn list_item(&mut self, item: &Node, expected: &str) -> Option<String> {
        let help = match &item.value {
            Value::Scalar(scalar) if !scalar.text.trim().is_empty() => return Some(scalar.text.clone()),
            Value::Scalar(_) => "remove the empty entry",
            Value::Null => "remove the entry, or write its text in quotes",
            Value::List(_) => "write its entries into the list around it",
            Value::Map(_) => "text that contains `: ` needs quotes: `- \"KEY: value\"`, or `- |` and the text in the next line",
        };
        self.wrong_type_with_help(item, expected, help);
        None
    }

    /// A list of texts; not empty. The location of each is recorded under `path`.
    pub(super) fn text_list(&mut self, node: &Node, expected: &str, path: &YamlPath) -> Option<Vec<String>> {
        let texts = self.texts(node, expected)?;
        path.record(&mut self.spans, node.span);
        Some(self.record_items(texts, path))
    }

    /// The texts without their nodes. The location of each is recorded under `path` by its index.
    pub(super) fn record_items(&mut self, texts: Vec<(&Node, String)>, path: &YamlPath) -> Vec<String> {
        let mut all = Vec::with_capacity(texts.len());
        for (index, (node, text)) in texts.into_iter().enumerate() {
            path.child(index).record(&mut self.spans, node.span);
            all.push(text);
        }
        all
    }

    /// The value of a key that is one of several keywords.
    pub(super) fn keyword_of<T: Copy>(
        &mut self,
        entry: &MapEntry,
        path: &YamlPath,
        keywords: &[(&str, T)],
        foreign: &[ForeignKeyword],
    ) -> Option<T> {
        let quoted: Vec<String> = keywords.iter().map(|(word, _)| format!("`{word}`")).collect();
        let text = self.text(&entry.value, &format!("`{}` to be {}", entry.key, join_words(&quoted, "or")))?;
        path.child(&entry.key).record(&mut self.spans, entry.value.span);
        self.keyword(entry.value.span, &text, &entry.key, keywords, foreign)
    }

    /// One of several keywords.
    pub(super) fn keyword<T: Copy>(
        &mut self,
        span: Span,
        text: &str,
        key: &str,
        keywords: &[(&str, T)],
        foreign: &[ForeignKeyword],
    ) -> Option<T> {
        if let Some((_, value)) = keywords.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        if let Some(foreign) = foreign.iter().find(|foreign| foreign.keyword == text) {
            self.foreign_keyword(span, foreign);
            return None;
        }
        let quoted: Vec<String> = keywords.iter().map(|(word, _)| format!("`{word}`")).collect();
        let message = format!("expected `{key}` to be {}, found {}", join_words(&quoted, "or"), quote(text));
        match did_you_mean(text, keywords.iter().map(|(word, _)| *word)) {
            Some(meant) => self.diagnostics.add_with_help("bad-value", span, message, format!("did you mean `{meant}`?")),
            None => self.diagnostics.add("bad-value", span, message),
        }
        None
    }

    /// Records what was expected and what was found.
    pub(super) fn wrong_type(&mut self, node: &Node, expected: &str) {
        self.wrong_type_with(node, expected, None);
    }

    /// Like [`Self::wrong_type`], with the remedy.
    pub(super) fn wrong_type_with_help(&mut self, node: &Node, expected: &str, help: &str) {
        self.wrong_type_with(node, expected, Some(help));
    }

    fn wrong_type_with(&mut self, node: &Node, expected: &str, help: Option<&str>) {
        if self.diagnostics.has_diagnostic_at(node.span) {
            return;
        }
        let found = match &node.value {
            Value::Scalar(Scalar { text, .. }) if text.trim().is_empty() => "empty text".to_owned(),
            Value::Scalar(Scalar { text, is_plain: true }) => quote(text),
            Value::Scalar(Scalar { text, is_plain: false }) => format!("the text {}", quote(text)),
            Value::List(items) if items.is_empty() => "an empty list".to_owned(),
            _ => node.kind().to_owned(),
        };
        let message = format!("expected {expected}, found {found}");
        match help {
            Some(help) => self.diagnostics.add_with_help("wrong-type", node.span, message, help),
            None => self.diagnostics.add("wrong-type", node.span, message),
        }
    }

    /// A duration above zero.
    pub(super) fn duration(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<std::time::Duration> {
        let expected = format!("`{}` to be {}", entry.key, crate::units::DURATION_EXPECTED);
        let text = self.text(&entry.value, &expected)?;
        path.child(&entry.key).record(&mut self.spans, entry.value.span);
        let span = entry.value.span;
        match crate::units::parse_duration(&text) {
            Some(duration) if !duration.is_zero() => return Some(duration),
            Some(_) => self.diagnostics.add("bad-value", span, format!("`{}` must be greater than zero", entry.key)),
            None => {
                let message = format!("expected {expected}, found {}", quote(&text));
                if text.bytes().all(|b| b.is_ascii_digit()) {
                    let help = format!("add a unit: `{text}m` for minutes, `{text}s` for seconds");
                    self.diagnostics.add_with_help("bad-value", span, message, help);
                } else {
                    self.diagnostics.add("bad-value", span, message);
                }
            }
        }
        None
    }
}
