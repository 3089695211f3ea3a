//! Finds the lines of a log that look like error messages, and the place of a failure.

use std::borrow::Cow;
use std::ops::ControlFlow;

use beespace_core::output::Stream;

use crate::ansi::AnsiRenderer;
use crate::log::{LogError, LogReader};

/// Whether a line is a command that the script echoes before it runs it.
pub(super) fn is_trace(stream: Stream, text: &str) -> bool {
    stream != Stream::Host && text.starts_with("+ ")
}

/// The most bytes at the end of a log that are searched for the place of its failure; more would delay the page.
const SEARCH_LIMIT_BYTES: usize = 8 << 20;

/// Where a failed step is best read from: the first line that looks like an error since the script's last command began. `None`
/// if there is none; then the end of the log is the best place.
///
/// # Errors
/// [`LogError`] if the log cannot be read or is damaged.
pub async fn failure_line(reader: &LogReader) -> Result<Option<u64>, LogError> {
    let start = reader.start_of_end(SEARCH_LIMIT_BYTES).await?;
    let scan = reader.scan(start, SEARCH_LIMIT_BYTES, |first: &mut Option<u64>, line| {
        let text = shown_text(&line.text);
        if is_trace(line.stream, &text) {
            *first = None;
        } else if first.is_none() && is_error_text(&text) {
            *first = Some(line.number);
        }
        ControlFlow::Continue(())
    });
    Ok(scan.await?.found)
}

/// The text of a line as the page shows it, without escape sequences.
#[must_use]
pub fn shown_text(bytes: &[u8]) -> Cow<'_, str> {
    // Most lines are plain text, and scanning a line is much cheaper than parsing its escape sequences.
    if bytes.iter().any(|byte| *byte < b' ' && *byte != b'\t') {
        let mut ansi = AnsiRenderer::default();
        ansi.feed(bytes);
        return Cow::Owned(ansi.text());
    }
    String::from_utf8_lossy(bytes)
}

/// Whether a line looks like an error message of a compiler, test runner, shell or language runtime. It is a heuristic: the page
/// scrolls to the first such line.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_lines_are_recognized() {
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
