//! Finds the lines of a log that look like error messages.

use beespace_core::output::Stream;

use crate::ansi::AnsiRenderer;
use crate::log::{LogError, LogLine, LogReader};

/// Whether a line is a command that the script echoes before it runs it.
pub(super) fn is_trace(stream: Stream, text: &str) -> bool {
    stream != Stream::Host && text.starts_with("+ ")
}

fn is_failure_text(stream: Stream, text: &str) -> bool {
    !is_trace(stream, text) && is_error_text(text)
}

/// The most bytes of a log that are searched for its first error; more would delay the page.
const SEARCH_LIMIT_BYTES: usize = 32 << 20;

/// Number of the first line that looks like an error.
///
/// # Errors
/// [`LogError`] if the log cannot be read or is damaged.
pub async fn first_error_line(reader: &LogReader) -> Result<Option<u64>, LogError> {
    reader.first_line(SEARCH_LIMIT_BYTES, is_failure_line).await
}

fn is_failure_line(line: &LogLine) -> bool {
    // Most lines are plain text, and scanning a line is much cheaper than parsing its escape sequences.
    if line.text.iter().any(|byte| *byte < b' ' && *byte != b'\t') {
        let mut ansi = AnsiRenderer::default();
        ansi.feed(&line.text);
        return is_failure_text(line.stream, &ansi.text());
    }
    is_failure_text(line.stream, &String::from_utf8_lossy(&line.text))
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
