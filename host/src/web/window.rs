//! Some lines of a log in a row, for the page of its step and for that of its build.

use beespace_core::ids::StepId;

use super::html::Html;
use super::lines::Rows;
use crate::api::problem::Problem;
use crate::front::Front;

/// Lines before a window that are read for the colours which go on into it.
const LEAD: u64 = 100;

/// A row of a log.
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) html: Html,
}

/// The last lines of a log, for another page: numbers lead to the log's own.
pub(super) async fn last_lines(front: &Front, id: StepId, count: u64, href: &str) -> Result<Vec<Html>, Problem> {
    let all = front.logs.reader(id).line_count().await?;
    let (lines, _) = window(front, id, all.saturating_sub(count - 1).max(1), count, href).await?;
    Ok(lines.into_iter().map(|line| line.html).collect())
}

/// Rows from a line on, with the colours that go on into them, and the position to follow the log from.
pub(super) async fn window(front: &Front, id: StepId, from: u64, count: u64, href: &str) -> Result<(Vec<Line>, u64), Problem> {
    let reader = front.logs.reader(id);
    let lead = from.saturating_sub(LEAD).max(1);
    let wanted = usize::try_from(count.saturating_add(from - lead)).unwrap_or(usize::MAX);
    let page = reader.lines(lead, wanted).await?;
    let mut rows = Rows::new(href, reader.started_at().await?);
    let lines = page.lines.iter().map(|line| Line { number: line.number, html: Html::trusted(rows.line(line).html) });
    Ok((lines.filter(|line| line.number >= from).collect(), page.position))
}
