//! The part of a log that its page shows: a window of lines, and where it begins.

use beespace_core::ids::StepId;
use beespace_core::status::Status;
use serde::Deserialize;

use super::log_window::{HtmlLine, log_window};
use crate::app::App;
use crate::http_problem::Problem;
use crate::log::LogError;
use crate::urls;
use crate::view::error_line::failure_line;
use crate::view::log_html::{MAX_ROWS, window_start};
use crate::view::log_search::{LogMatches, find_text};

/// The most bytes of a text to search for.
const MAX_SEARCH_BYTES: usize = 200;

/// The part of a log that is asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct LogQuery {
    /// First line of the window.
    from: Option<u64>,
    /// A text to search for.
    search: Option<String>,
    /// The line from which to search.
    since: Option<u64>,
}

impl LogQuery {
    fn text(&self) -> Option<&str> {
        self.search.as_deref().filter(|text| !text.is_empty() && text.len() <= MAX_SEARCH_BYTES)
    }
}

/// The window of a log on the page.
pub(super) struct LogView {
    /// Lines in the whole log.
    pub(super) count: u64,
    from: u64,
    pub(super) lines: Vec<HtmlLine>,
    /// Position in the log from which the page follows it.
    pub(super) position: u64,
    /// Whether new lines are appended to the page.
    pub(super) is_live: bool,
    pub(super) waits_for_disk: bool,
    /// The line that the failure is best read from.
    pub(super) failure: Option<u64>,
    /// Whether the page opens at its end: a step failed, and no better place is known.
    pub(super) opens_at_end: bool,
    pub(super) search: Option<SearchView>,
}

/// The result of a search.
pub(super) struct SearchView {
    pub(super) text: String,
    /// `12 lines contain it`.
    pub(super) summary: String,
    /// Path of the window with the nearest match before this one, and with that after it.
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
    /// Path of a search in the rest of a long log.
    pub(super) rest: Option<String>,
}

impl LogView {
    /// Starts at the asked line if the log has it, or at the first match. Otherwise shows the end of the log, or the context of
    /// its failure if that is earlier.
    pub(super) async fn new(app: &App, id: StepId, status: Status, query: &LogQuery) -> Result<Self, Problem> {
        let reader = app.logs.reader(id);
        let count = reader.line_count().await?;
        let has_failed = matches!(status, Status::Failure | Status::Error | Status::Killed);
        // A damaged log must not break the page: it only loses its marks.
        let failure = if has_failed { failure_line(&reader).await.unwrap_or_default() } else { None };
        let found = match query.text() {
            Some(text) => match find_text(&reader, text, query.since.unwrap_or(1)).await {
                // A page without matches would say that there are none.
                Err(busy @ LogError::TooManyScans) => return Err(busy.into()),
                found => found.unwrap_or_default(),
            },
            None => LogMatches::default(),
        };
        let end = count.saturating_sub(MAX_ROWS - 1).max(1);
        let asked = query.from.filter(|line| *line <= count);
        let place = found.lines.first().copied().or(failure);
        let from = asked.unwrap_or_else(|| place.map_or(end, |line| end.min(window_start(line)))).max(1);
        let (lines, position) = log_window(&reader, from, MAX_ROWS, "", &found.lines).await?;
        let last = lines.last().map_or(count, |line| line.number);
        Ok(Self {
            count,
            from,
            position,
            // An earlier part of a growing log is not updated: the end may be a million lines away.
            is_live: !status.is_over() && last >= count && query.text().is_none(),
            waits_for_disk: reader.is_disk_full(),
            failure,
            opens_at_end: has_failed && place.is_none() && asked.is_none(),
            search: query.text().map(|text| SearchView::new(text, &found, from, last)),
            lines,
        })
    }

    /// Path of the lines before the window.
    pub(super) fn earlier(&self) -> Option<String> {
        (self.from > 1).then(|| self.link(self.from.saturating_sub(MAX_ROWS).max(1)))
    }

    /// Path of the lines after the window.
    pub(super) fn later(&self) -> Option<String> {
        let last = self.lines.last().map(|line| line.number).filter(|last| *last < self.count && !self.is_live)?;
        Some(self.link(last + 1))
    }

    fn link(&self, from: u64) -> String {
        match &self.search {
            Some(search) => search_link(&search.text, from),
            None => format!("?from={from}"),
        }
    }
}

impl SearchView {
    /// The matches around a window from line `first` to line `last`.
    fn new(text: &str, found: &LogMatches, first: u64, last: u64) -> Self {
        let link = |line: u64| format!("{}#L{line}", search_link(text, window_start(line)));
        let (count, up_to) = (found.lines.len(), found.next.map_or_else(String::new, |next| format!(" before line {next}")));
        let summary = match count {
            1 => format!("1 line{up_to} contains it"),
            _ => format!("{count} lines{up_to} contain it"),
        };
        Self {
            text: text.to_owned(),
            summary,
            before: found.before(first).map(link),
            after: found.from(last.saturating_add(1)).map(link),
            rest: found.next.map(|next| format!("?search={}&since={next}", urls::encode(text))),
        }
    }
}

fn search_link(text: &str, from: u64) -> String {
    format!("?search={}&from={from}", urls::encode(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_links_to_the_matches_outside_of_the_window() {
        let found = LogMatches { lines: vec![5, 3_000, 9_000], next: None };
        let view = SearchView::new("a b", &found, 2_900, 4_899);
        assert_eq!(view.summary, "3 lines contain it");
        assert_eq!(view.before.as_deref(), Some("?search=a%20b&from=1#L5"));
        assert_eq!(view.after.as_deref(), Some("?search=a%20b&from=8900#L9000"));
        let part = SearchView::new("x", &LogMatches { lines: vec![7], next: Some(50) }, 1, 49);
        assert_eq!(
            (part.summary.as_str(), part.rest.as_deref()),
            ("1 line before line 50 contains it", Some("?search=x&since=50"))
        );
        assert_eq!((part.before, part.after), (None, None));
    }
}
