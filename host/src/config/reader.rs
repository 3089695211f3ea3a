//! Reads the file together with the environment. Each key is named once: where it is read, with its default.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use beespace_core::diagnostic::{Diagnostic, Span};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::{Kind, Value};

const PREFIX: &str = "BEESPACE_";

/// Sections that are not supported yet, with advice.
const UNSUPPORTED_SECTIONS: [(&str, &str); 1] =
    [("converter", "add `.beespace.yml` to the repository; plugins that convert other pipeline files are planned")];

/// The layer of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// The file, at this line.
    File { line: u32 },
    /// The environment variable with this name.
    Env(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { line } => write!(f, "file, line {line}"),
            Self::Env(name) => write!(f, "env {name}"),
        }
    }
}

/// A key with its effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// `server.listen`, `policy.images.mode`.
    pub key: String,
    /// The displayable value; none if the key is not set and has no default. It contains no secrets.
    pub value: Option<String>,
    pub origin: Origin,
}

/// A value of the file with its location.
pub(super) type Node<'t> = Spanned<DeValue<'t>>;

/// The state of reading: the remaining input, the known keys, the errors and the entries.
pub(super) struct Reader<'t> {
    text: &'t str,
    file: String,
    base: PathBuf,
    root: DeTable<'t>,
    env: BTreeMap<String, String>,
    known_sections: Vec<&'static str>,
    known_env: BTreeSet<String>,
    problems: Vec<Diagnostic>,
    entries: Vec<ConfigEntry>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(
        text: &'t str,
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let file = path.map_or_else(|| "beespace.toml".to_owned(), |path| path.display().to_string());
        let root = DeTable::parse(text).map_err(|error| {
            let span = error.span().map(|range| span_of(text, &range));
            let key = error.span().and_then(|range| text.get(range)).filter(|_| error.message() == "duplicate key");
            let message = key.map_or_else(|| error.message().to_owned(), |key| format!("duplicate key `{key}`"));
            let help = key.map(|_| "remove one of them, or merge the two tables".to_owned());
            vec![Diagnostic { code: "toml".to_owned(), message, file: file.clone(), span, help }]
        })?;
        let base = path.and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        Ok(Self { text, file, base, root: root.into_inner(), ..Self::without_file(env) })
    }

    /// A reader of the environment alone.
    pub(super) fn without_file(env: impl IntoIterator<Item = (String, String)>) -> Self {
        // Only names with `__` are keys. Others, such as BEESPACE_SERVER, belong to the command line.
        let env = env.into_iter().filter(|(name, _)| name.starts_with(PREFIX) && name.contains("__")).collect();
        Self {
            text: "",
            file: "environment".to_owned(),
            base: PathBuf::new(),
            root: DeTable::new(),
            env,
            known_sections: Vec::new(),
            known_env: BTreeSet::new(),
            problems: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Whether the environment sets no key.
    pub(super) fn is_environment_empty(&self) -> bool {
        self.env.is_empty()
    }

    /// A `[section]`. The environment can override its keys.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'_, 't> {
        self.known_sections.push(name);
        let table = match self.root.remove(name).map(Spanned::into_inner) {
            Some(DeValue::Table(table)) => table,
            Some(_) => {
                self.problem("wrong-type", format!("`{name}` must be a section"), None, Some(format!("write [{name}]")));
                DeTable::new()
            }
            None => DeTable::new(),
        };
        Section { reader: self, name: name.to_owned(), span: None, env: true, table, known: Vec::new() }
    }

    /// All `[[name]]` tables. The environment cannot override them.
    pub(super) fn list<T>(&mut self, name: &'static str, read: impl Fn(&mut Section<'_, 't>) -> Option<T>) -> Vec<T> {
        self.known_sections.push(name);
        let items = match self.root.remove(name).map(Spanned::into_inner) {
            Some(DeValue::Array(items)) => items.into_iter().collect(),
            Some(_) => {
                self.problem("wrong-type", format!("`{name}` must be a list"), None, Some(format!("write [[{name}]]")));
                Vec::new()
            }
            None => Vec::new(),
        };
        let mut all = Vec::new();
        let mut first_lines = BTreeMap::new();
        for (index, item) in items.into_iter().enumerate() {
            let place = span_of(self.text, &item.span());
            let DeValue::Table(table) = item.into_inner() else { continue };
            let name = match table.get("name").map(|node| (node.get_ref(), node.span())) {
                Some((DeValue::String(text), range)) => {
                    self.reject_repeated_name(name, text, &range, &mut first_lines);
                    format!("{name}.{text}")
                }
                _ => format!("{name}.{}", index + 1),
            };
            let mut section = Section { reader: self, name, span: Some(place), env: false, table, known: Vec::new() };
            all.extend(read(&mut section));
        }
        all
    }

    /// Rejects a name that an earlier table of the list has, because the name identifies a binding in decisions and on pages.
    fn reject_repeated_name(&mut self, list: &str, name: &str, range: &Range<usize>, first_lines: &mut BTreeMap<String, u32>) {
        let span = span_of(self.text, range);
        if let Some(first) = first_lines.get(name) {
            let message = format!("two [[{list}]] are named `{name}`; the first one is in line {first}");
            self.problem("repeated-name", message, Some(span), Some("give each a unique name".to_owned()));
        } else {
            first_lines.insert(name.to_owned(), span.line);
        }
    }

    /// Returns the entries, or all errors, including those for unknown sections and variables.
    pub(super) fn finish(mut self) -> Result<Vec<ConfigEntry>, Vec<Diagnostic>> {
        let rest: Vec<_> = self.root.keys().map(|key| (key.get_ref().to_string(), key.span())).collect();
        for (key, range) in rest {
            let span = Some(span_of(self.text, &range));
            if let Some((_, help)) = UNSUPPORTED_SECTIONS.iter().find(|(later, _)| *later == key) {
                self.problem("not-yet", format!("`{key}` is not supported yet"), span, Some((*help).to_owned()));
                continue;
            }
            let help = did_you_mean(&key, self.known_sections.iter().copied());
            self.problem("unknown-section", format!("unknown section `{key}`"), span, Some(help));
        }
        let unknown: Vec<String> = self.env.keys().filter(|name| !self.known_env.contains(*name)).cloned().collect();
        for name in unknown {
            let help = did_you_mean(&name, self.known_env.iter().map(String::as_str));
            self.problems.push(env_problem(&name, "unknown-key", "unknown configuration key".to_owned(), Some(help)));
        }
        self.problems.sort_by_key(|problem| problem.span.map(|span| (span.line, span.column)));
        if self.problems.is_empty() { Ok(self.entries) } else { Err(self.problems) }
    }

    fn problem(&mut self, code: &str, message: String, span: Option<Span>, help: Option<String>) {
        self.problems.push(Diagnostic { code: code.to_owned(), message, file: self.file.clone(), span, help });
    }
}

/// A table of the file. Dropping it reports the keys that were not read as unknown.
pub(super) struct Section<'r, 't> {
    reader: &'r mut Reader<'t>,
    name: String,
    span: Option<Span>,
    env: bool,
    table: DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'t> Section<'_, 't> {
    /// The value of a key, or `default` if it is not set.
    pub(super) fn value<V: Value>(&mut self, key: &'static str, default: V) -> V {
        if let Some((value, origin)) = self.find::<V>(key) {
            self.record(key, value.show(), origin);
            return value;
        }
        self.record(key, default.show(), Origin::Default);
        default
    }

    /// The value of an optional key.
    pub(super) fn optional<V: Value>(&mut self, key: &'static str) -> Option<V> {
        let found = self.find::<V>(key);
        match &found {
            Some((value, origin)) => self.record(key, value.show(), origin.clone()),
            None => self.push_entry(key, None, Origin::Default),
        }
        found.map(|(value, _)| value)
    }

    /// The value of a required key.
    pub(super) fn required<V: Value>(&mut self, key: &'static str, example: &str) -> Option<V> {
        let written = self.is_set(key);
        let value = self.optional(key);
        if value.is_none() && !written {
            self.missing(key, &format!("for example: {key} = {example:?}"));
        }
        value
    }

    /// Whether the file or the environment sets a key, even to an invalid value.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.table.contains_key(key) || (self.env && self.reader.env.contains_key(&self.env_name(key)))
    }

    /// Reports a missing key.
    pub(super) fn missing(&mut self, key: &str, help: &str) {
        let message = format!("`{}.{key}` is missing", self.name);
        let help = if self.env { format!("{help}, or set {}", self.env_name(key)) } else { help.to_owned() };
        self.reader.problem("missing-key", message, self.span, Some(help));
    }

    /// Removes and returns a key that is not a scalar. The caller reads it and reports its errors.
    pub(super) fn take_node(&mut self, key: &'static str) -> Option<Node<'t>> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Reports an invalid value of a key.
    pub(super) fn wrong_value(&mut self, key: &str, range: &Range<usize>, message: &str) {
        let span = span_of(self.reader.text, range);
        self.reader.problem("wrong-value", format!("`{}.{key}`: {message}", self.name), Some(span), None);
    }

    /// Reports a value that contradicts the value of another key, or the machine's file system.
    pub(super) fn conflict(&mut self, key: &str, message: &str) {
        let name = format!("{}.{key}", self.name);
        let origin = self.reader.entries.iter().find(|entry| entry.key == name).map(|entry| entry.origin.clone());
        self.problem_at(origin.as_ref(), "wrong-value", format!("`{name}` {message}"), None);
    }

    /// Reports a problem at the place where a value was set; without one at the table.
    fn problem_at(&mut self, origin: Option<&Origin>, code: &str, message: String, help: Option<String>) {
        let span = match origin {
            Some(Origin::Env(name)) => return self.reader.problems.push(env_problem(name, code, message, help)),
            Some(Origin::File { line }) => Some(Span { line: *line, column: 1, end_line: *line, end_column: 1 }),
            Some(Origin::Default) | None => self.span,
        };
        self.reader.problem(code, message, span, help);
    }

    /// Records the effective value of a key for `config show`.
    pub(super) fn record(&mut self, key: &str, value: String, origin: Origin) {
        self.push_entry(key, Some(value), origin);
    }

    fn push_entry(&mut self, key: &str, value: Option<String>, origin: Origin) {
        self.reader.entries.push(ConfigEntry { key: format!("{}.{key}", self.name), value, origin });
    }

    /// The origin of a value at this range of the file.
    pub(super) fn origin(&self, range: &Range<usize>) -> Origin {
        Origin::File { line: self.line_of(range) }
    }

    /// The line at which this range of the file begins.
    pub(super) fn line_of(&self, range: &Range<usize>) -> u32 {
        span_of(self.reader.text, range).line
    }

    /// The line of the table; none for a `[section]`.
    pub(super) fn line(&self) -> Option<u32> {
        self.span.map(|span| span.line)
    }

    /// The name of the file, for messages.
    pub(super) fn file(&self) -> String {
        self.reader.file.clone()
    }

    /// The base directory of relative paths in the file.
    pub(super) fn base(&self) -> PathBuf {
        self.reader.base.clone()
    }

    fn env_name(&self, key: &str) -> String {
        format!("{PREFIX}{}__{}", self.name, key).to_uppercase()
    }

    fn find<V: Value>(&mut self, key: &'static str) -> Option<(V, Origin)> {
        let from_file = self.take_node(key);
        if self.env {
            let name = self.env_name(key);
            self.reader.known_env.insert(name.clone());
            if let Some(text) = self.reader.env.get(&name) {
                if let Some(value) = V::parse(text) {
                    return Some((value, Origin::Env(name)));
                }
                let problem = env_problem(&name, "wrong-value", format!("expected {}", V::EXPECTED), None);
                self.reader.problems.push(problem);
                return None;
            }
        }
        let node = from_file?;
        let range = node.span();
        let (kind, text) = scalar(node.get_ref());
        if kind != Some(V::KIND) {
            let quotes = if V::KIND == Kind::Text { ", in quotes" } else { "" };
            self.wrong_value(key, &range, &format!("expected {}{quotes}", V::EXPECTED));
            return None;
        }
        let Some(value) = V::parse(&text) else {
            self.wrong_value(key, &range, &format!("expected {}", V::EXPECTED));
            return None;
        };
        Some((value, self.origin(&range)))
    }
}

impl Drop for Section<'_, '_> {
    fn drop(&mut self) {
        let rest: Vec<_> = self.table.keys().map(|key| (key.get_ref().to_string(), key.span())).collect();
        for (key, range) in rest {
            let help = did_you_mean(&key, self.known.iter().copied());
            let span = Some(span_of(self.reader.text, &range));
            self.reader.problem("unknown-key", format!("unknown key `{key}` in `{}`", self.name), span, Some(help));
        }
    }
}

fn env_problem(name: &str, code: &str, message: String, help: Option<String>) -> Diagnostic {
    Diagnostic { code: code.to_owned(), message, file: format!("env {name}"), span: None, help }
}

fn scalar(value: &DeValue<'_>) -> (Option<Kind>, String) {
    match value {
        DeValue::String(text) => (Some(Kind::Text), text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => (Some(Kind::Integer), number.as_str().to_owned()),
        DeValue::Boolean(flag) => (Some(Kind::Boolean), flag.to_string()),
        _ => (None, String::new()),
    }
}

/// Converts a range of bytes to lines and columns, counted in characters from 1.
pub(super) fn span_of(text: &str, range: &Range<usize>) -> Span {
    let place = |offset: usize| {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count());
        (u32::try_from(line).unwrap_or(u32::MAX).saturating_add(1), u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1))
    };
    let ((line, column), (end_line, end_column)) = (place(range.start), place(range.end));
    Span { line, column, end_line, end_column }
}

pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known.iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate)).min();
    match near {
        Some((distance, candidate)) if distance <= 1 + word.chars().count() / 4 => format!("did you mean `{candidate}`?"),
        _ => format!("known: {}", known.join(", ")),
    }
}
