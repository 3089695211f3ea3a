//! Searches a log for a text.

use std::ops::ControlFlow;

use super::error_line::shown_text;
use crate::log::{LogError, LogReader};

/// The most bytes of a log that one search reads; more would delay the page.
const SEARCH_LIMIT_BYTES: usize = 32 << 20;

/// The most lines that one search finds.
const MAX_MATCHES: usize = 1_000;

/// The result of a search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogMatches {
    /// Numbers of the lines that contain the text, in order.
    pub lines: Vec<u64>,
    /// The first line that was not searched, if the search ended before the log did.
    pub next: Option<u64>,
}

impl LogMatches {
    /// The last match before this line.
    #[must_use]
    pub fn before(&self, line: u64) -> Option<u64> {
        self.lines.iter().rev().find(|found| **found < line).copied()
    }

    /// The first match from this line on.
    #[must_use]
    pub fn from(&self, line: u64) -> Option<u64> {
        self.lines.iter().find(|found| **found >= line).copied()
    }
}

/// Finds the lines from line `from` on that contain `text`, in any case of its ASCII letters.
///
/// # Errors
/// [`LogError`] if the log cannot be read or is damaged.
pub async fn find_text(reader: &LogReader, text: &str, from: u64) -> Result<LogMatches, LogError> {
    let wanted = text.to_ascii_lowercase();
    let scan = reader.scan(from, SEARCH_LIMIT_BYTES, move |lines: &mut Vec<u64>, line| {
        if shown_text(&line.text).to_ascii_lowercase().contains(&wanted) {
            lines.push(line.number);
        }
        if lines.len() < MAX_MATCHES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let scan = scan.await?;
    Ok(LogMatches { lines: scan.found, next: scan.next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_a_window_are_found() {
        let matches = LogMatches { lines: vec![3, 9, 20], next: None };
        assert_eq!([3, 4, 21].map(|line| matches.before(line)), [None, Some(3), Some(20)]);
        assert_eq!([1, 9, 10, 21].map(|line| matches.from(line)), [Some(3), Some(9), Some(20), None]);
    }
}
