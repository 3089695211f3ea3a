//! A window of log lines, for the pages of a step and of a build.

use beespace_core::ids::StepId;

use crate::app::App;
use crate::html::Html;
use crate::log::{LogError, LogReader};
use crate::view::error_line::failure_line;
use crate::view::log_html::LogRows;

/// Lines before a window that are parsed for colours that continue into it.
const COLOUR_LEAD_LINES: u64 = 100;

/// A rendered line of a log.
pub(super) struct HtmlLine {
    pub(super) number: u64,
    pub(super) html: Html,
}

/// Some lines of a log on another page.
#[derive(Debug, Clone)]
pub struct LogExcerpt {
    /// The line numbers link to the log's page.
    pub lines: Vec<Html>,
    /// `lines 81 to 110 of 240`, or `all 12 lines`.
    pub extent: String,
    /// Digits of the largest line number.
    pub digits: usize,
}

/// `count` lines of a failed step's log for another page: the lines around its failure, or its last lines.
pub(super) async fn failure_excerpt(app: &App, id: StepId, count: u64, href: &str) -> Result<LogExcerpt, LogError> {
    let reader = app.logs.reader(id);
    let all = reader.line_count().await?;
    let end = all.saturating_sub(count - 1).max(1);
    let failure = failure_line(&reader).await?.map(|line| line.saturating_sub(count / 4).max(1));
    let (lines, _) = log_window(&reader, failure.map_or(end, |start| start.min(end)), count, href, &[]).await?;
    let (first, last) = (lines.first().map_or(0, |line| line.number), lines.last().map_or(0, |line| line.number));
    let extent = if last - first + 1 < all { format!("lines {first} to {last} of {all}") } else { format!("all {all} lines") };
    Ok(LogExcerpt { lines: lines.into_iter().map(|line| line.html).collect(), extent, digits: last.to_string().len() })
}

/// Renders `count` lines from line `from` on, with the colours that continue into them, and marks those in `matches`. Also
/// returns the position from which to follow the log.
pub(super) async fn log_window(
    reader: &LogReader,
    from: u64,
    count: u64,
    href: &str,
    matches: &[u64],
) -> Result<(Vec<HtmlLine>, u64), LogError> {
    let lead = from.saturating_sub(COLOUR_LEAD_LINES).max(1);
    let before = reader.lines(lead, usize::try_from(from - lead).unwrap_or(usize::MAX)).await?;
    let page = reader.lines(from, usize::try_from(count).unwrap_or(usize::MAX)).await?;
    let mut rows = LogRows::new(href, reader.started_at().await?).with_matches(matches);
    // Very long lines can fill a page before the window begins. Then the colours of these lines do not reach the window.
    let leads_here = before.lines.last().is_some_and(|line| line.number + 1 == from);
    before.lines.iter().filter(|_| leads_here).for_each(|line| drop(rows.render_line(line)));
    let lines = page.lines.iter().map(|line| HtmlLine { number: line.number, html: Html::trusted(rows.render_line(line).html) });
    Ok((lines.collect(), page.position))
}
