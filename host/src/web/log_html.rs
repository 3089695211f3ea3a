//! Lines of a log as rows of a page.

use std::fmt::Write as _;

use beespace_core::output::Stream;
use beespace_core::time::Timestamp;

use super::ansi::AnsiRenderer;
use super::html::escape;
use crate::log::{LogError, LogFragment, LogLine, LogReader};

/// A line that is not over is painted again each time it grows up to this width, then each time it has grown by an eighth: else a
/// program that prints a dot at a time has its line sent thousands of times.
const ALWAYS_RENDERED_WIDTH: usize = 2_000;

/// Lines before the one that an address means, in the window that the address opens.
const CONTEXT_LINES: u64 = 100;

/// Makes rows of lines in order. Each stream keeps its own colours.
#[derive(Debug)]
pub struct LogRows {
    /// Address of the page with the log; the number of a line links to itself there, in a window that holds it however long the log is.
    href: String,
    started_at: Option<Timestamp>,
    stdout: AnsiRenderer,
    stderr: AnsiRenderer,
    host: AnsiRenderer,
    partial: Option<PartialLine>,
}

/// The line whose pieces are coming.
#[derive(Debug)]
struct PartialLine {
    line: u64,
    stream: Stream,
    at: Timestamp,
    rendered_width: usize,
}

/// A row of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// The line it shows, from 1. A later row of the same line takes its place.
    pub line: u64,
    /// Markup, everything from outside escaped.
    pub html: String,
}

impl LogRows {
    /// Rows of a log that began at `started_at`, on the page `build_href`.
    #[must_use]
    pub fn new(href: &str, started_at: Option<Timestamp>) -> Self {
        Self {
            href: escape(href),
            started_at,
            stdout: AnsiRenderer::default(),
            stderr: AnsiRenderer::default(),
            host: AnsiRenderer::default(),
            partial: None,
        }
    }

    /// A line that is there as a whole.
    #[must_use]
    pub fn line(&mut self, line: &LogLine) -> LogRow {
        self.renderer(line.stream).feed(&line.text);
        let row = self.render_row(line.number, line.stream, line.at);
        self.renderer(line.stream).end_line();
        row
    }

    /// A piece of a line, in the order in which they come. `None` where the row that is on the page still does.
    pub fn render_piece(&mut self, piece: &LogFragment) -> Option<LogRow> {
        let mut growing = self.begin_piece(piece);
        self.renderer(piece.stream).feed(&piece.text);
        let width = self.renderer(piece.stream).width();
        let is_due = width <= ALWAYS_RENDERED_WIDTH || width > growing.rendered_width + growing.rendered_width / 8;
        let row = (piece.ends || is_due).then(|| self.render_row(growing.line, growing.stream, growing.at));
        if row.is_some() {
            growing.rendered_width = width;
        }
        if piece.ends {
            self.renderer(piece.stream).end_line();
        } else {
            self.partial = Some(growing);
        }
        row
    }

    fn begin_piece(&mut self, piece: &LogFragment) -> PartialLine {
        match self.partial.take() {
            Some(growing) if growing.line == piece.line => return growing,
            // Another stream came in between: that line is over as it is.
            Some(cut) => self.renderer(cut.stream).end_line(),
            None => {}
        }
        PartialLine { line: piece.line, stream: piece.stream, at: piece.at, rendered_width: 0 }
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
        if is_trace(stream, &text) {
            class.push_str(" trace");
        } else if is_error_text(&text) {
            class.push_str(" bad");
        }
        let (href, since, from) = (&self.href, format_offset(started_at, at), window_start(line));
        let mut row = String::with_capacity(html.len() + 96);
        let _ = write!(
            row,
            "<div class=\"{class}\" id=\"L{line}\"><a href=\"{href}?from={from}#L{line}\">{line}</a><time>{since}</time><span>{html}</span></div>"
        );
        LogRow { line, html: row }
    }
}

/// The first line of the window in which a line is shown with what comes before it.
#[must_use]
pub fn window_start(line: u64) -> u64 {
    line.saturating_sub(CONTEXT_LINES).max(1)
}

fn is_trace(stream: Stream, text: &str) -> bool {
    stream != Stream::Host && text.starts_with("+ ")
}

fn is_failure_text(stream: Stream, text: &str) -> bool {
    !is_trace(stream, text) && is_error_text(text)
}

/// Text of a log that is looked through for its first failure; more would keep the page waiting.
const SEARCH_LIMIT_BYTES: usize = 32 << 20;

/// The first line that tells of a failure.
///
/// # Errors
/// The disk's, or damage.
pub async fn first_error_line(reader: &LogReader) -> Result<Option<u64>, LogError> {
    reader.first_line(SEARCH_LIMIT_BYTES, is_failure_line).await
}

fn is_failure_line(line: &LogLine) -> bool {
    // Most lines are plain, and taking a line apart takes much longer than looking at it.
    if line.text.iter().any(|byte| *byte < b' ' && *byte != b'\t') {
        let mut ansi = AnsiRenderer::default();
        ansi.feed(&line.text);
        return is_failure_text(line.stream, &ansi.text());
    }
    is_failure_text(line.stream, &String::from_utf8_lossy(&line.text))
}

/// Does this line tell of a failure, in the words of compilers, test runners, shells and languages? A guess for the eye: a page
/// brings the first such line into view.
#[must_use]
pub fn is_error_text(text: &str) -> bool {
    const ANYWHERE: &[&str] =
        &["panicked at", "Traceback (most recent call last)", "npm ERR!", "Exception in thread", "Segmentation fault"];
    const WORDS: &[&str] = &["error", "Error", "ERROR", "fatal", "FATAL"];
    const BEGINNINGS: &[&str] = &["FAIL", "--- FAIL", "not ok ", "E   ", "FAILED"];
    let text = text.trim_start();
    let after = |word: &&str| {
        text.match_indices(*word).any(|(at, _)| text.get(at + word.len()..).is_some_and(|rest| rest.starts_with([':', '['])))
    };
    BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
        || ANYWHERE.iter().any(|part| text.contains(part))
        || WORDS.iter().any(after)
        || text.ends_with("... FAILED")
}

/// `7.3s`, `2m 7.3s`: what HTML takes as a duration.
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
            rows.line(&line).html,
            "<div class=\"l stderr bad\" id=\"L3\"><a href=\"/o/r/1/a&amp;b?from=1#L3\">3</a><time>1m 7.3s</time><span>error: &lt;no&gt;</span></div>"
        );
    }

    #[test]
    fn a_growing_line_is_painted_anew_and_keeps_its_colours() {
        let mut rows = LogRows::new("", None);
        let first = rows.render_piece(&piece(1, true, false, Stream::Stdout, "\x1b[31m10%")).unwrap();
        assert!(first.html.contains("<span class=\"a-f1\">10%</span>"));
        // A piece that ends inside of a sequence, then an interruption.
        let second = rows.render_piece(&piece(1, false, false, Stream::Stdout, "\r20%\x1b[3")).unwrap();
        assert!(second.line == 1 && second.html.contains("<span class=\"a-f1\">20%</span>"));
        assert!(rows.render_piece(&piece(2, true, true, Stream::Stderr, "warn")).unwrap().html.contains("<span>warn</span>"));
        let third = rows.render_piece(&piece(3, true, true, Stream::Stdout, "2mrest")).unwrap();
        assert!(third.html.contains("<span><span class=\"a-f1\">2mrest</span></span>"), "{}", third.html);
    }

    #[test]
    fn a_line_of_dots_is_not_sent_for_each_dot() {
        let mut rows = LogRows::new("", None);
        let sent: usize = (0..20_000)
            .filter_map(|n| rows.render_piece(&piece(1, n == 0, n == 19_999, Stream::Stdout, ".")))
            .map(|row| row.html.len())
            .sum();
        assert!(sent < 4_000_000, "{sent}");
    }

    #[test]
    fn errors_are_seen() {
        for text in [
            "error: no",
            "src/a.c:3: error: no",
            "error[E0308]: mismatched",
            "FAIL: x",
            "test a ... FAILED",
            "TypeError: x",
            "fatal: not a git",
        ] {
            assert!(is_error_text(text), "{text}");
        }
        for text in ["0 errors", "no error", "errors: 0", "terror", "+ run --fail", "ok"] {
            assert!(!is_error_text(text), "{text}");
        }
    }
}
