//! Renders log lines as HTML rows.

use std::fmt::Write as _;

use beespace_core::output::Stream;
use beespace_core::time::Timestamp;

use super::error_line::{is_error_text, is_trace};
use crate::ansi::AnsiRenderer;
use crate::html::escape;
use crate::log::{LogFragment, LogLine};

/// An unfinished line is rendered again each time it grows until it has this width, and after that each time it has grown by an
/// eighth. Otherwise the line of a program that prints single dots would be sent thousands of times.
const ALWAYS_RENDERED_WIDTH: usize = 2_000;

/// The most lines that a page shows at once. Browsers become slow with more.
pub const MAX_ROWS: u64 = 2_000;

/// Lines of context before the line that a link points to.
const CONTEXT_LINES: u64 = 100;

/// Renders lines in order. Each stream keeps its own colours.
#[derive(Debug)]
pub struct LogRows {
    /// Path of the log's page. A line number links to its line there, in a window that contains the line however long the log is.
    href: String,
    started_at: Option<Timestamp>,
    /// Numbers of lines to mark, in order.
    matches: Vec<u64>,
    stdout: AnsiRenderer,
    stderr: AnsiRenderer,
    host: AnsiRenderer,
    partial: Option<PartialLine>,
}

/// A line that is not complete yet.
#[derive(Debug)]
struct PartialLine {
    line: u64,
    stream: Stream,
    at: Timestamp,
    rendered_width: usize,
}

/// A rendered line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// Number of the line, from 1. A later row with the same number replaces this one.
    pub line: u64,
    /// Markup in which the program's output is escaped.
    pub html: String,
}

impl LogRows {
    /// Rows of a log that started at `started_at`, on the page `href`.
    #[must_use]
    pub fn new(href: &str, started_at: Option<Timestamp>) -> Self {
        Self {
            href: escape(href),
            started_at,
            matches: Vec::new(),
            stdout: AnsiRenderer::default(),
            stderr: AnsiRenderer::default(),
            host: AnsiRenderer::default(),
            partial: None,
        }
    }

    /// Marks these lines, which are in order, as matches of a search.
    #[must_use]
    pub fn with_matches(mut self, matches: &[u64]) -> Self {
        matches.clone_into(&mut self.matches);
        self
    }

    /// Renders a complete line.
    #[must_use]
    pub fn render_line(&mut self, line: &LogLine) -> LogRow {
        self.renderer(line.stream).feed(&line.text);
        let row = self.render_row(line.number, line.stream, line.at);
        self.renderer(line.stream).end_line();
        row
    }

    /// Adds a piece of a line, in log order, and renders the line. `None` if the row on the page need not be replaced yet.
    pub fn render_fragment(&mut self, fragment: &LogFragment) -> Option<LogRow> {
        let mut partial = self.begin_fragment(fragment);
        self.renderer(fragment.stream).feed(&fragment.text);
        let width = self.renderer(fragment.stream).width();
        let is_due = width <= ALWAYS_RENDERED_WIDTH || width > partial.rendered_width + partial.rendered_width / 8;
        let row = (fragment.ends || is_due).then(|| self.render_row(partial.line, partial.stream, partial.at));
        if row.is_some() {
            partial.rendered_width = width;
        }
        if fragment.ends {
            self.renderer(fragment.stream).end_line();
        } else {
            self.partial = Some(partial);
        }
        row
    }

    fn begin_fragment(&mut self, fragment: &LogFragment) -> PartialLine {
        match self.partial.take() {
            Some(partial) if partial.line == fragment.line => return partial,
            // Output of another stream ends the unfinished line.
            Some(cut) => self.renderer(cut.stream).end_line(),
            None => {}
        }
        PartialLine { line: fragment.line, stream: fragment.stream, at: fragment.at, rendered_width: 0 }
    }

    fn renderer(&mut self, stream: Stream) -> &mut AnsiRenderer {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
            Stream::Host => &mut self.host,
        }
    }

    fn render_row(&mut self, line: u64, stream: Stream, at: Timestamp) -> LogRow {
        let started_at = *self.started_at.get_or_insert(at);
        let ansi = self.renderer(stream);
        let text = ansi.text();
        let (html, mut class) = (ansi.html(), String::from("l"));
        class.push_str(match stream {
            Stream::Stdout => "",
            Stream::Stderr => " stderr",
            Stream::Host => " host",
        });
        let mut began = String::new();
        if is_trace(stream, &text) {
            class.push_str(" trace");
            // The script shows how long the command took.
            began = format!(" data-at=\"{}\"", at.since(started_at).as_millis());
        } else if is_error_text(&text) {
            class.push_str(" bad");
        }
        if self.matches.binary_search(&line).is_ok() {
            class.push_str(" match");
        }
        let (href, since, from) = (&self.href, format_offset(started_at, at), window_start(line));
        let mut row = String::with_capacity(html.len() + 128);
        // Thousands of line numbers must not be thousands of stops for the Tab key.
        let _ = write!(
            row,
            "<div class=\"{class}\" id=\"L{line}\"{began}><a href=\"{href}?from={from}#L{line}\" tabindex=\"-1\">{line}</a>\
             <time>{since}</time><span>{html}</span></div>"
        );
        LogRow { line, html: row }
    }
}

/// The first line of the window that shows a line with its context.
#[must_use]
pub fn window_start(line: u64) -> u64 {
    line.saturating_sub(CONTEXT_LINES).max(1)
}

/// `7.3s`, `2m 7.3s`: durations in the format of HTML's `<time>`.
fn format_offset(start: Timestamp, at: Timestamp) -> String {
    let tenths = at.since(start).as_millis() / 100;
    let (minutes, seconds, tenths) = (tenths / 600, tenths / 10 % 60, tenths % 10);
    if minutes == 0 { format!("{seconds}.{tenths}s") } else { format!("{minutes}m {seconds}.{tenths}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn piece(line: u64, begins: bool, ends: bool, stream: Stream, text: &str) -> LogFragment {
        let text = Bytes::copy_from_slice(text.as_bytes());
        LogFragment { position: 1, line, stream, at: Timestamp(61_250), begins, ends, continues: false, text }
    }

    #[test]
    fn a_row_has_number_time_and_text() {
        let mut rows = LogRows::new("/o/r/1/a&b", Some(Timestamp(1_000)));
        let line =
            LogLine { number: 3, stream: Stream::Stderr, at: Timestamp(68_300), continues: false, text: b"error: <no>".to_vec() };
        assert_eq!(
            rows.render_line(&line).html,
            "<div class=\"l stderr bad\" id=\"L3\"><a href=\"/o/r/1/a&amp;b?from=1#L3\" tabindex=\"-1\">3</a>\
             <time>1m 7.3s</time><span>error: &lt;no&gt;</span></div>"
        );
        let command = LogLine { number: 4, text: b"+ make".to_vec(), ..line };
        let row = rows.with_matches(&[4]).render_line(&command).html;
        assert!(row.starts_with("<div class=\"l stderr trace match\" id=\"L4\" data-at=\"67300\"><a "), "{row}");
    }

    #[test]
    fn a_growing_line_is_rendered_again_with_its_colours() {
        let mut rows = LogRows::new("", None);
        let first = rows.render_fragment(&piece(1, true, false, Stream::Stdout, "\x1b[31m10%")).unwrap();
        assert!(first.html.contains("<span class=\"a-f1\">10%</span>"));
        // A piece that ends inside of a sequence, then an interruption.
        let second = rows.render_fragment(&piece(1, false, false, Stream::Stdout, "\r20%\x1b[3")).unwrap();
        assert!(second.line == 1 && second.html.contains("<span class=\"a-f1\">20%</span>"));
        assert!(rows.render_fragment(&piece(2, true, true, Stream::Stderr, "warn")).unwrap().html.contains("<span>warn</span>"));
        let third = rows.render_fragment(&piece(3, true, true, Stream::Stdout, "2mrest")).unwrap();
        assert!(third.html.contains("<span><span class=\"a-f1\">2mrest</span></span>"), "{}", third.html);
    }

    #[test]
    fn a_line_of_dots_is_not_sent_once_per_dot() {
        let mut rows = LogRows::new("", None);
        let sent: usize = (0..20_000)
            .filter_map(|n| rows.render_fragment(&piece(1, n == 0, n == 19_999, Stream::Stdout, ".")))
            .map(|row| row.html.len())
            .sum();
        assert!(sent < 4_000_000, "{sent}");
    }
}
