//! A window of log lines, for the pages of a step and of a build.

use beespace_core::ids::StepId;

use crate::app::App;
use crate::html::Html;
use crate::problem::Problem;
use crate::view::log_html::LogRows;

/// Lines before a window that are parsed for colours that continue into it.
const COLOUR_LEAD_LINES: u64 = 100;

/// A rendered line of a log.
pub(super) struct HtmlLine {
    pub(super) number: u64,
    pub(super) html: Html,
}

/// The last lines of a log, for another page: the line numbers link to the log's page.
pub(super) async fn last_lines(app: &App, id: StepId, count: u64, href: &str) -> Result<Vec<Html>, Problem> {
    let all = app.logs.reader(id).line_count().await?;
    let (lines, _) = log_window(app, id, all.saturating_sub(count - 1).max(1), count, href).await?;
    Ok(lines.into_iter().map(|line| line.html).collect())
}

/// Renders `count` lines from line `from` on, with the colours that continue into them. Also returns the position from which to
/// follow the log.
pub(super) async fn log_window(
    app: &App,
    id: StepId,
    from: u64,
    count: u64,
    href: &str,
) -> Result<(Vec<HtmlLine>, u64), Problem> {
    let reader = app.logs.reader(id);
    let lead = from.saturating_sub(COLOUR_LEAD_LINES).max(1);
    let wanted = usize::try_from(count.saturating_add(from - lead)).unwrap_or(usize::MAX);
    let page = reader.lines(lead, wanted).await?;
    let mut rows = LogRows::new(href, reader.started_at().await?);
    let lines = page.lines.iter().map(|line| HtmlLine { number: line.number, html: Html::trusted(rows.render_line(line).html) });
    Ok((lines.filter(|line| line.number >= from).collect(), page.position))
}
