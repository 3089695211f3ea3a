//! Collects the diagnostics of one file.

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, Span};
use crate::sanitize;

/// Most diagnostics that are reported. A build's row has to hold them.
const MAX_DIAGNOSTICS: usize = 100;

/// Collects diagnostics about one file.
#[derive(Debug)]
pub(super) struct Diagnostics {
    file: String,
    found: BTreeSet<Found>,
}

/// One problem. Problems are sorted by location, and the same problem at the same location (an anchor used twice) counts once.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    span: Option<Span>,
    message: String,
    code: &'static str,
    help: Option<String>,
}

impl Diagnostics {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), found: BTreeSet::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether a problem is already recorded at exactly `span`, so that a second one would be redundant.
    pub(super) fn has_diagnostic_at(&self, span: Span) -> bool {
        let first = Found { span: Some(span), message: String::new(), code: "", help: None };
        self.found.range(first..).next().is_some_and(|found| found.span == Some(span))
    }

    /// Records a problem; `span` is `None` if it concerns the whole file.
    pub(super) fn add(&mut self, code: &'static str, span: impl Into<Option<Span>>, message: impl Into<String>) {
        self.insert(code, span.into(), message.into(), None);
    }

    /// Records a problem and its remedy.
    pub(super) fn add_with_help(
        &mut self,
        code: &'static str,
        span: impl Into<Option<Span>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.insert(code, span.into(), message.into(), Some(help.into()));
    }

    fn insert(&mut self, code: &'static str, span: Option<Span>, message: String, help: Option<String>) {
        self.found.insert(Found { span, message, code, help });
    }

    /// All diagnostics by location. After the first [`MAX_DIAGNOSTICS`], one more states the number of the others.
    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let more = self.found.len().saturating_sub(MAX_DIAGNOSTICS);
        let file = self.file;
        let diagnostic = |found: Found| Diagnostic {
            code: found.code.to_owned(),
            message: found.message,
            file: file.clone(),
            span: found.span,
            help: found.help,
        };
        let mut diagnostics: Vec<Diagnostic> = self.found.into_iter().take(MAX_DIAGNOSTICS).map(diagnostic).collect();
        if more > 0 {
            let message = format!("and {more} more problems");
            diagnostics.push(Diagnostic { code: "more".to_owned(), message, file, span: None, help: None });
        }
        diagnostics
    }
}

/// Text of the file for use in a message: in backticks, with control characters escaped, truncated to one line.
pub(super) fn quote(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut quoted = String::from("`");
    for (index, character) in text.chars().enumerate() {
        if index == SHOWN {
            quoted.push('…');
            break;
        }
        match character {
            character if sanitize::is_unsafe(character) => quoted.extend(character.escape_unicode()),
            character => quoted.push(character),
        }
    }
    quoted.push('`');
    quoted
}

/// A list of words in a sentence: `a, b or c`.
pub(super) fn join_words<T: std::fmt::Display>(words: &[T], last: &str) -> String {
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        match index {
            0 => {}
            index if index + 1 == words.len() => text.push_str(&format!(" {last} ")),
            _ => text.push_str(", "),
        }
        text.push_str(&word.to_string());
    }
    text
}

/// The known word that `word` is probably a typo of: at most one edit per three characters.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const SHORTEST: usize = 3;
    let word = word.to_lowercase();
    let slips = (word.chars().count() / SHORTEST).min(3);
    let rated = known.into_iter().map(|known| (strsim::damerau_levenshtein(&word, &known.to_lowercase()), known));
    rated.filter(|(distance, _)| *distance <= slips).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_is_one_short_line_without_control_characters() {
        assert_eq!(quote("a\u{1b}[31m\nb\u{202e}"), "`a\\u{1b}[31m\\u{a}b\\u{202e}`");
        assert_eq!(quote(&"x".repeat(100)).chars().count(), 63);
    }

    #[test]
    fn words_make_a_sentence() {
        assert_eq!(join_words::<&str>(&[], "or"), "");
        assert_eq!(join_words(&["a"], "or"), "a");
        assert_eq!(join_words(&["a", "b", "c"], "or"), "a, b or c");
    }

    #[test]
    fn only_close_words_are_suggested() {
        assert_eq!(did_you_mean("stpes", ["name", "steps"]), Some("steps"));
        assert_eq!(did_you_mean("Steps", ["name", "steps"]), Some("steps"));
        assert_eq!(did_you_mean("tga", ["tag", "push"]), Some("tag"));
        assert_eq!(did_you_mean("banana", ["name", "steps"]), None);
        assert_eq!(did_you_mean("as", ["args"]), None);
    }

    #[test]
    fn many_problems_are_truncated_with_their_number() {
        let mut problems = Diagnostics::new("f");
        for line in 1..=150 {
            problems.add("x", Span { line, column: 1, end_line: line, end_column: 2 }, "m");
        }
        let diagnostics = problems.into_diagnostics();
        assert_eq!(diagnostics.len(), 101);
        assert_eq!(diagnostics.last().map(|last| last.message.as_str()), Some("and 50 more problems"));
    }
}
