//! Parses YAML into a tree in which every node has its location. The tree is built from the parser's events within a budget; the
//! meaning of the keys is checked later.
//!
//! Scalars keep the spelling of the file (`1.10` stays `1.10`, `no` stays `no`). This module expands aliases, merges merge keys
//! (`<<`) and reports duplicate keys.

use std::collections::{HashMap, HashSet};

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::diagnostics::{Diagnostics, quote};
use super::yaml_error;
use crate::diagnostic::Span;

/// Most bytes of a file.
pub const MAX_BYTES: usize = 256 * 1024;
/// Deepest nesting of lists and maps, after aliases are expanded.
pub const MAX_DEPTH: usize = 32;
/// Most scalars, lists and maps, after aliases are expanded; keys count too.
pub const MAX_NODES: usize = 10_000;
/// Most bytes of all scalars of all files of a build, after aliases are expanded.
pub const MAX_TEXT: usize = 1024 * 1024;
/// Most scalars, lists and maps of all files of a build. Every build keeps the location of each.
pub(super) const MAX_ALL_NODES: usize = 50_000;
/// Most bytes of one key.
const MAX_KEY: usize = 256;

/// The remaining budget of a build's files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) text: usize,
    pub(super) nodes: usize,
}

impl Budget {
    pub(super) const OF_BUILD: Self = Self { text: MAX_TEXT, nodes: MAX_ALL_NODES };
}

/// A scalar, list or map with its location. The root of an expanded alias is located at the alias, its parts at the anchor.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// No value: an empty value, `~` or `null`, unquoted.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    /// Entries in the order of the file, with unique keys.
    Map(Vec<MapEntry>),
}

#[derive(Debug, Clone)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Unquoted, so that `true` and `3` may be more than text.
    pub(super) is_plain: bool,
}

#[derive(Debug, Clone)]
pub(super) struct MapEntry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: Node,
}

impl Node {
    /// The kind of this node, for messages: `a list`.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Parses the documents of `text`. `None` if an error stopped the parser. Errors that do not stop the parser are recorded beside
/// the trees. What the file contains is taken from `left`.
pub(super) fn parse(text: &str, problems: &mut Diagnostics, left: &mut Budget) -> Option<Vec<Node>> {
    let options = granit_parser::options! { emit_comments: false, emit_unresolved_aliases: true };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut tree = TreeBuilder {
        parser,
        diagnostics: problems,
        anchors: HashMap::new(),
        is_incomplete: false,
        nodes: 0,
        bytes: 0,
        most: *left,
    };
    let documents = tree.documents();
    *left = Budget { text: left.text.saturating_sub(tree.bytes), nodes: left.nodes.saturating_sub(tree.nodes) };
    match documents {
        Ok(_) if tree.is_incomplete => None,
        Ok(roots) => Some(roots),
        Err(Stop::Reported) => None,
        Err(Stop::Syntax(error)) => {
            let (message, help) = yaml_error::explain(&error, MAX_DEPTH);
            let span = point(*error.marker());
            let code = if *error.kind() == ErrorKind::RecursionLimitExceeded { "too-large" } else { "yaml" };
            match help {
                Some(help) => problems.add_with_help(code, span, message, help),
                None => problems.add(code, span, message),
            }
            None
        }
    }
}

/// Why parsing stopped early.
enum Stop {
    /// The parser found a syntax error.
    Syntax(ScanError),
    /// The problem is already recorded.
    Reported,
}

/// An anchored node and the cost of a copy of it.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
    height: usize,
}

struct TreeBuilder<'a, 'p> {
    parser: Parser<'a, StrInput<'a>>,
    diagnostics: &'p mut Diagnostics,
    /// Anchors by the parser's id; `None` while an anchor is still being parsed.
    anchors: HashMap<usize, Option<Anchored>>,
    /// Whether a merge failed. The keys that it should have added would be reported as missing.
    is_incomplete: bool,
    nodes: usize,
    bytes: usize,
    most: Budget,
}

type Read<'a> = (Event<'a>, Span);

impl<'a> TreeBuilder<'a, '_> {
    /// The roots of all documents. The limits hold for the whole file.
    fn documents(&mut self) -> Result<Vec<Node>, Stop> {
        let mut roots = Vec::new();
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(roots),
                event if event.is_node() => roots.push(self.node((event, span), 1)?.0),
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<Read<'a>, Stop> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, to_span(&span))),
            Some(Err(error)) => Err(Stop::Syntax(error)),
            None => Ok((Event::StreamEnd, Span { line: 1, column: 1, end_line: 1, end_column: 1 })),
        }
    }

    /// The node that begins with this event, and its height in the tree.
    fn node(&mut self, (event, span): Read<'a>, depth: usize) -> Result<(Node, usize), Stop> {
        if depth > MAX_DEPTH {
            return Err(self.too_deep(span));
        }
        self.charge_budget(span, 1, 0)?;
        self.check_tag(event.tag(), span);
        let before = (self.nodes, self.bytes);
        let anchor = event.anchor_id().filter(|id| *id != 0);
        if let Some(id) = anchor {
            self.anchors.insert(id, None);
        }
        let (node, height) = match event {
            Event::Alias(id) => return self.alias(id, span, depth),
            Event::UnresolvedAlias(name) => {
                self.diagnostics.add(
                    "yaml",
                    span,
                    format!("{} refers to an unknown anchor; define the anchor above", quote(&format!("*{name}"))),
                );
                (Node { span, value: Value::Null }, 1)
            }
            Event::Scalar(text, style, _, tag) => {
                self.charge_budget(span, 0, text.len())?;
                (Node { span, value: scalar(text.into_owned(), style, tag.is_some()) }, 1)
            }
            Event::SequenceStart(..) => self.list(span, depth)?,
            Event::MappingStart(..) => self.map(span, depth)?,
            _ => (Node { span, value: Value::Null }, 1),
        };
        if let Some(id) = anchor {
            let (nodes, bytes) = (self.nodes - before.0 + 1, self.bytes - before.1);
            self.anchors.insert(id, Some(Anchored { node: node.clone(), nodes, bytes, height }));
        }
        Ok((node, height))
    }

    fn list(&mut self, start: Span, depth: usize) -> Result<(Node, usize), Stop> {
        let (mut items, mut height, mut span) = (Vec::new(), 0, start);
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                let span = extend_to_bracket(span, at);
                return Ok((Node { span, value: Value::List(items) }, height + 1));
            }
            let (item, item_height) = self.node((event, at), depth + 1)?;
            height = height.max(item_height);
            span = extend_to(span, item.span);
            items.push(item);
        }
    }

    fn map(&mut self, start: Span, depth: usize) -> Result<(Node, usize), Stop> {
        let mut entries: Vec<MapEntry> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        let mut merges = Vec::new();
        let (mut height, mut span) = (0, start);
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                span = extend_to_bracket(span, at);
                break;
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let (key, _) = self.node((event, at), depth + 1)?;
            let following = self.next()?;
            let (value, value_height) = self.node(following, depth + 1)?;
            height = height.max(value_height);
            span = extend_to(span, value.span);
            if is_merge {
                merges.push(value);
            } else if let Some(key_text) = self.key(&key) {
                if let Some(first) = seen.get(&key_text) {
                    let message = format!("duplicate key {}; first used in line {}", quote(&key_text), first.line);
                    self.diagnostics.add_with_help("duplicate-key", key.span, message, "remove one of them");
                } else {
                    seen.insert(key_text.clone(), key.span);
                    entries.push(MapEntry { key: key_text, key_span: key.span, value });
                }
            }
        }
        self.merge(&mut entries, merges);
        Ok((Node { span, value: Value::Map(entries) }, height + 1))
    }

    /// A key must be a short text.
    fn key(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Scalar(scalar) if scalar.text.len() <= MAX_KEY => return Some(scalar.text.clone()),
            Value::Scalar(_) => {
                self.diagnostics.add("too-large", node.span, format!("the key is longer than {MAX_KEY} bytes"));
            }
            _ => self.diagnostics.add("wrong-type", node.span, format!("expected a key, found {}", node.kind())),
        }
        None
    }

    /// `<<`: a map, or a list of maps, whose entries are added if their keys are missing; an earlier map takes precedence.
    fn merge(&mut self, entries: &mut Vec<MapEntry>, merges: Vec<Node>) {
        let mut present: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        let maps = merges.into_iter().flat_map(|node| match node.value {
            Value::List(items) => items,
            _ => vec![node],
        });
        for node in maps {
            match node.value {
                Value::Map(merged) => entries.extend(merged.into_iter().filter(|entry| present.insert(entry.key.clone()))),
                _ => {
                    self.is_incomplete = true;
                    if !self.diagnostics.has_diagnostic_at(node.span) {
                        let message = format!("`<<` can merge only maps, found {}", node.kind());
                        self.diagnostics.add_with_help("wrong-type", node.span, message, "name the anchor of a map: `<<: *NAME`");
                    }
                }
            }
        }
    }

    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Result<(Node, usize), Stop> {
        let Some(Some(anchored)) = self.anchors.get(&id) else {
            self.diagnostics.add("yaml", span, "an anchor contains an alias to itself");
            return Err(Stop::Reported);
        };
        let (nodes, bytes, height) = (anchored.nodes, anchored.bytes, anchored.height);
        if depth + height - 1 > MAX_DEPTH {
            return Err(self.too_deep(span));
        }
        // The cost is charged before the copy, which stops "billion laughs" attacks.
        self.charge_budget(span, nodes - 1, bytes)?;
        match self.anchors.get(&id) {
            Some(Some(anchored)) => Ok((Node { span, value: anchored.node.value.clone() }, height)),
            _ => Err(Stop::Reported),
        }
    }

    /// Charges nodes and bytes to the budget.
    fn charge_budget(&mut self, span: Span, nodes: usize, bytes: usize) -> Result<(), Stop> {
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes > MAX_NODES {
            let message = format!("the file contains more than {MAX_NODES} values (every use of an alias counts)");
            self.diagnostics.add("too-large", span, message);
            return Err(Stop::Reported);
        }
        if self.nodes > self.most.nodes {
            let message = format!("the files contain more than {MAX_ALL_NODES} values (every use of an alias counts)");
            self.diagnostics.add("too-large", span, message);
            return Err(Stop::Reported);
        }
        if self.bytes > self.most.text {
            let files = if self.most.text < MAX_TEXT { "files contain" } else { "file contains" };
            let message = format!("the {files} more than 1 MiB of text after aliases are expanded");
            self.diagnostics.add("too-large", span, message);
            return Err(Stop::Reported);
        }
        Ok(())
    }

    fn too_deep(&mut self, span: Span) -> Stop {
        self.diagnostics.add("too-large", span, format!("lists and maps are nested deeper than {MAX_DEPTH}"));
        Stop::Reported
    }

    /// Refuses tags. They have no meaning here, and most are an unquoted `!`.
    fn check_tag(&mut self, tag: Option<&Tag>, span: Span) {
        const CORE: [&str; 7] = ["str", "int", "float", "bool", "null", "seq", "map"];
        let Some(tag) = tag else { return };
        if !CORE.iter().any(|core| tag.is_yaml_core_schema_tag(core)) {
            let written = quote(&tag.original());
            let message = format!("{written} is a YAML tag; tags are not supported");
            self.diagnostics.add_with_help("yaml", span, message, "quote the value if it is text");
        }
    }
}

fn scalar(text: String, style: ScalarStyle, is_tagged: bool) -> Value {
    let is_plain = style == ScalarStyle::Plain && !is_tagged;
    if is_plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        Value::Null
    } else {
        Value::Scalar(Scalar { text, is_plain })
    }
}

fn to_span(span: &granit_parser::Span) -> Span {
    let (start, end) = (point(span.start), point(span.end));
    Span { end_line: end.line, end_column: end.column, ..start }
}

fn point(marker: Marker) -> Span {
    let line = u32::try_from(marker.line()).unwrap_or(u32::MAX).max(1);
    let column = u32::try_from(marker.col()).unwrap_or(u32::MAX).saturating_add(1);
    Span { line, column, end_line: line, end_column: column }
}

/// `span`, extended to the end of `part` if that is after the end of `span` (a part of an alias may be located above it).
fn extend_to(span: Span, part: Span) -> Span {
    if (part.end_line, part.end_column) > (span.end_line, span.end_column) {
        Span { end_line: part.end_line, end_column: part.end_column, ..span }
    } else {
        span
    }
}

/// `span`, extended to the closing bracket if there is one: a block ends with an event of zero width.
fn extend_to_bracket(span: Span, end: Span) -> Span {
    if (end.line, end.column) == (end.end_line, end.end_column) { span } else { extend_to(span, end) }
}
