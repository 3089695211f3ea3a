//! A step and its log: a window of lines, rendered here; script adds what comes and nothing else.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use beespace_core::build::{Build, Stage, Step};
use beespace_core::ids::{StageId, StageNumber, StepId, StepNumber};
use beespace_core::plan::Container;
use beespace_core::status::Status;
use serde::Deserialize;

use super::callout::Callout;
use super::html::{Html, StatusLabel};
use super::layout::Layout;
use super::log_html::{first_error_line, window_start};
use super::log_tail::{HtmlLine, log_window};
use super::{build, build_row, render_page};
use crate::api::problem::Problem;
use crate::disk;
use crate::http_state::AppState;
use crate::log::LogError;
use crate::store::build::Builds as _;
use crate::urls::{self, BuildKey};

/// Lines on a page. The whole log is one click away, as text.
const WINDOW_LINES: u64 = 2_000;

#[derive(Template)]
#[template(path = "step.html")]
struct StepPage {
    layout: Layout,
    owner: String,
    owner_href: String,
    repository_href: String,
    name: String,
    number: String,
    build_href: String,
    stage: String,
    step: String,
    status: StatusLabel,
    callouts: Vec<Callout>,
    steps: Vec<StepLink>,
    image: Option<String>,
    count: String,
    raw_href: String,
    stream_href: String,
    is_live: bool,
    is_over: bool,
    first_error: Option<u64>,
    earlier: Option<String>,
    later: Option<String>,
    lines: Vec<Html>,
    end: Option<String>,
}

/// A step beside the log.
struct StepLink {
    name: String,
    href: String,
    status: StatusLabel,
    current: bool,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct LogQuery {
    /// First line of the window.
    from: Option<u64>,
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        let public = error.public();
        Self { detail: public.to_owned(), code: "log".into(), ..Self::internal(&error) }
    }
}

pub(super) async fn show(
    State(front): State<Arc<AppState>>,
    Extension(layout): Extension<Layout>,
    Path((owner, name, number, stage, step)): Path<(String, String, String, u16, u16)>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Problem> {
    let (found, stage) = {
        let read = front.store.read()?;
        let found = build::find(&read, &owner, &name, &number)?;
        let stage_id = StageId { build: found.id, stage: StageNumber(stage) };
        (found, read.stage(stage_id)?.ok_or_else(|| Problem::not_found("stage"))?)
    };
    let step = stage.step(StepNumber(step)).ok_or_else(|| Problem::not_found("step"))?;
    let id = StepId { build: found.id, stage: stage.number, step: step.number, attempt: step.attempt };
    let log = LogView::new(&front, id, step.status, query.from).await?;
    render_page(&page(layout, &found, &stage, step, &log))
}

/// What of a log is on the page.
struct LogView {
    /// Lines there are, in all.
    count: u64,
    from: u64,
    lines: Vec<HtmlLine>,
    /// Where to follow it from.
    position: u64,
    /// What comes is added.
    is_live: bool,
    waits_for_disk: bool,
    first_error: Option<u64>,
}

impl LogView {
    /// From the line that is asked for; else the end, or what led to the first failure where that is before.
    async fn new(front: &AppState, id: StepId, status: Status, asked: Option<u64>) -> Result<Self, Problem> {
        let reader = front.logs.reader(id);
        let count = reader.line_count().await?;
        let has_failed = matches!(status, Status::Failure | Status::Error | Status::Killed);
        // Damage somewhere in a log takes away a mark, not the page.
        let first_error = if has_failed { first_error_line(&reader).await.unwrap_or_default() } else { None };
        let end = count.saturating_sub(WINDOW_LINES - 1).max(1);
        let from = asked.unwrap_or_else(|| first_error.map_or(end, |line| end.min(window_start(line)))).max(1);
        let (lines, position) = log_window(front, id, from, WINDOW_LINES, "").await?;
        let is_end = lines.last().is_none_or(|line| line.number >= count);
        // An old part of a log that grows stays as it is: the end may be a million lines away.
        let is_live = !status.is_over() && (asked.is_none() || is_end);
        Ok(Self { count, from, lines, position, is_live, waits_for_disk: reader.is_disk_full(), first_error })
    }

    fn earlier(&self) -> Option<String> {
        (self.from > 1).then(|| format!("?from={}", self.from.saturating_sub(WINDOW_LINES).max(1)))
    }

    fn later(&self) -> Option<String> {
        let last = self.lines.last().map(|line| line.number).filter(|last| *last < self.count && !self.is_live)?;
        Some(format!("?from={}", last + 1))
    }
}

fn page(layout: Layout, build: &Build, stage: &Stage, step: &Step, view: &LogView) -> StepPage {
    let name = &build.event.repository.name;
    let key = BuildKey::of(build);
    let href = |step: StepNumber| urls::step(name, key, stage.number, step);
    let log = urls::api_log(name, key, stage.number, step.number);
    let mut layout = layout.with_title(format!("{} · {} · {name} {key}", step.name, step.status)).at("builds");
    layout = layout.with_status(step.status).with_stream(format!("/api/v1/events?build={}", build.id));
    if step.status.is_over() {
        layout.live = None;
    }
    let full = view.waits_for_disk.then(|| Callout::new("This step's log", Status::Pending, &disk::log_paused_reason()));
    StepPage {
        layout,
        owner: name.owner().to_owned(),
        owner_href: urls::owner(name.owner()),
        repository_href: urls::repository(name),
        name: name.name().to_owned(),
        number: build_row::number_label(build),
        build_href: urls::build(name, key),
        stage: stage.pipeline.name.clone(),
        step: step.name.clone(),
        status: StatusLabel(step.status),
        callouts: step.reason.iter().map(|reason| Callout::new("This step", step.status, reason)).chain(full).collect(),
        steps: stage
            .steps
            .iter()
            .map(|other| StepLink {
                name: other.name.clone(),
                href: href(other.number),
                status: StatusLabel(other.status),
                current: other.number == step.number,
            })
            .collect(),
        image: step.round.as_ref().and_then(|round| round.plan.containers.first()).map(|c: &Container| c.image.clone()),
        count: format!("{} line{}", view.count, if view.count == 1 { "" } else { "s" }),
        raw_href: log.clone(),
        stream_href: format!("{log}/stream?format=html&after={}", view.position),
        is_live: view.is_live,
        is_over: step.status.is_over(),
        first_error: view.first_error,
        earlier: view.earlier(),
        later: view.later(),
        end: end_note(step, view.lines.is_empty()),
        lines: view.lines.iter().map(|line| line.html.clone()).collect(),
    }
}

fn end_note(step: &Step, is_empty: bool) -> Option<String> {
    if let Some(incomplete) = &step.log_incomplete {
        return Some(format!("The log lacks something: {incomplete}"));
    }
    let code = step.exits.last().and_then(|exit| exit.code);
    match (step.status, code) {
        (Status::Blocked, _) if step.started_at.is_some() => Some("Waits for a person".to_owned()),
        (Status::Pending | Status::Blocked, _) => Some("Has not begun".to_owned()),
        (Status::Running, _) => is_empty.then(|| "Nothing printed so far".to_owned()),
        (Status::Success, _) => Some(if is_empty { "Printed nothing" } else { "Succeeded" }.to_owned()),
        (_, Some(code)) => Some(format!("Ended with exit code {code}")),
        (_, None) if is_empty => Some("Printed nothing".to_owned()),
        (_, None) => None,
    }
}
