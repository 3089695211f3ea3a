//! Renders diagnostics of pipeline files for a terminal: the line with a marker under the faulty part, as rustc does.

use std::fmt::Write as _;

use beespace_core::diagnostic::{Diagnostic, Span};
use beespace_core::sanitize;

/// The most characters of a line that are shown.
const MAX_WIDTH: usize = 100;

/// All diagnostics with their lines, followed by their count. `files` are the names and contents of the files.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], files: &[(String, Vec<u8>)]) -> String {
    let texts: Vec<_> = files.iter().map(|(name, bytes)| (name, String::from_utf8_lossy(bytes))).collect();
    let mut out = String::new();
    for diagnostic in diagnostics {
        let text = texts.iter().find(|(name, _)| **name == diagnostic.file);
        let lines: Vec<&str> = text.map(|(_, text)| text.lines().collect()).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write_diagnostic(&mut out, diagnostic, &lines);
        out.push('\n');
    }
    let problems = if diagnostics.len() == 1 { "problem" } else { "problems" };
    let _ = writeln!(out, "{} {problems}", diagnostics.len());
    out
}

fn write_diagnostic(out: &mut String, diagnostic: &Diagnostic, lines: &[&str]) -> std::fmt::Result {
    writeln!(out, "error[{}]: {}", diagnostic.code, diagnostic.message)?;
    let Some(span) = diagnostic.span else {
        writeln!(out, "  --> {}", diagnostic.file)?;
        return write_help(out, diagnostic, "");
    };
    writeln!(out, "  --> {}:{}:{}", diagnostic.file, span.line, span.column)?;
    let margin = " ".repeat(span.line.to_string().len());
    if let Some(line) = zero_based(span.line).and_then(|index| lines.get(index)) {
        let excerpt = Excerpt::of(line, span);
        writeln!(out, "{margin} |")?;
        writeln!(out, "{} | {}", span.line, excerpt.shown)?;
        writeln!(out, "{margin} | {}{}", " ".repeat(excerpt.indent), "^".repeat(excerpt.width))?;
    }
    write_help(out, diagnostic, &margin)
}

fn write_help(out: &mut String, diagnostic: &Diagnostic, margin: &str) -> std::fmt::Result {
    match &diagnostic.help {
        Some(help) => writeln!(out, "{margin} = {help}"),
        None => Ok(()),
    }
}

/// The part of a line around a span.
struct Excerpt {
    shown: String,
    /// Number of characters before the marker.
    indent: usize,
    /// Number of marked characters, at least one.
    width: usize,
}

impl Excerpt {
    fn of(line: &str, span: Span) -> Self {
        let characters: Vec<char> = line.chars().map(sanitize::character).collect();
        let start = zero_based(span.column).unwrap_or(0).min(characters.len());
        let end = if span.end_line == span.line { zero_based(span.end_column).unwrap_or(start) } else { characters.len() };
        let from = start.saturating_sub(MAX_WIDTH / 2);
        let from = if characters.len() <= MAX_WIDTH { 0 } else { from };
        let shown: String = characters.iter().skip(from).take(MAX_WIDTH).collect();
        let to = from + shown.chars().count();
        let width = end.min(to).saturating_sub(start).max(1);
        if from == 0 {
            Self { shown, indent: start, width }
        } else {
            Self { shown: format!("…{shown}"), indent: start - from + 1, width }
        }
    }
}

/// Converts a 1-based position to a 0-based index.
fn zero_based(from_one: u32) -> Option<usize> {
    usize::try_from(from_one).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(span: Option<Span>, help: Option<&str>) -> Diagnostic {
        Diagnostic {
            code: "unknown-key".to_owned(),
            message: "unknown key `nmae` in a pipeline".to_owned(),
            file: ".beespace.yml".to_owned(),
            span,
            help: help.map(str::to_owned),
        }
    }

    fn rendered(diagnostics: &[Diagnostic], text: &str) -> String {
        render(diagnostics, &[(".beespace.yml".to_owned(), text.as_bytes().to_vec())])
    }

    const fn at(line: u32, column: u32, end_column: u32) -> Span {
        Span { line, column, end_line: line, end_column }
    }

    #[test]
    fn a_diagnostic_marks_its_span() {
        let text = "steps: []\n  nmae: x\n";
        let shown = rendered(&[diagnostic(Some(at(2, 3, 7)), Some("did you mean `name`?"))], text);
        assert_eq!(
            shown,
            "error[unknown-key]: unknown key `nmae` in a pipeline\n  --> .beespace.yml:2:3\n  |\n2 |   nmae: x\n  |   ^^^^\n  \
             = did you mean `name`?\n\n1 problem\n"
        );
    }

    #[test]
    fn a_diagnostic_without_a_span_shows_the_file_name_only() {
        let shown = rendered(&[diagnostic(None, None), diagnostic(Some(at(9, 1, 1)), None)], "");
        assert!(shown.contains("  --> .beespace.yml\n") && shown.contains("  --> .beespace.yml:9:1\n"));
        assert!(shown.ends_with("2 problems\n"));
    }

    #[test]
    fn control_characters_are_replaced() {
        let shown = rendered(&[diagnostic(Some(at(1, 2, 3)), None)], "\u{1b}[31m\ta\u{202e}b");
        assert!(!shown.contains('\u{1b}') && !shown.contains('\t') && !shown.contains('\u{202e}'));
    }

    #[test]
    fn a_long_line_is_cut_around_its_span() {
        let line = format!("{}bad{}", "x".repeat(500), "y".repeat(500));
        let excerpt = Excerpt::of(&line, at(1, 501, 504));
        let marked: String = excerpt.shown.chars().skip(excerpt.indent).take(excerpt.width).collect();
        assert_eq!((marked.as_str(), excerpt.shown.chars().count()), ("bad", MAX_WIDTH + 1));
    }

    #[test]
    fn a_multi_line_span_is_marked_to_the_end_of_its_first_line() {
        let excerpt = Excerpt::of("a: [b,", Span { line: 1, column: 4, end_line: 3, end_column: 1 });
        assert_eq!((excerpt.indent, excerpt.width), (3, 3));
    }
}
