//! The page of a step and its log. The server renders a window of lines; JavaScript only appends new lines.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use beespace_core::build::{Build, Stage, Step};
use beespace_core::ids::{StageId, StageNumber, StepId, StepNumber};
use beespace_core::status::Status;
use serde::Deserialize;

use super::callout::Callout;
use super::icon::StatusLabel;
use super::layout::Layout;
use super::log_tail::{HtmlLine, log_window};
use super::render_page;
use crate::app::App;
use crate::authorized::Authorized;
use crate::disk;
use crate::html::Html;
use crate::problem::Problem;
use crate::store::build::Builds as _;
use crate::urls::BuildKey;
use crate::view::build_title;
use crate::view::error_line::failure_line;
use crate::view::log_html::window_start;

/// Lines on a page. The Raw button opens the whole log as text.
const WINDOW_LINES: u64 = 2_000;

/// Digits of a digest on the page; its title has all of them.
const SHORT_DIGEST: usize = 12;

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
    images: Vec<ImageLabel>,
    count: String,
    raw_href: String,
    stream_href: String,
    is_live: bool,
    is_over: bool,
    failure: Option<u64>,
    earlier: Option<String>,
    later: Option<String>,
    lines: Vec<Html>,
    /// How the step ended or what it is waiting for, below the log.
    end_note: Option<String>,
}

/// The image of a container.
struct ImageLabel {
    /// The reference, with the first digits of the digest if it is known.
    text: String,
    digest: String,
}

impl ImageLabel {
    fn new((reference, digest): (&str, Option<&str>)) -> Self {
        let digest = digest.unwrap_or_default();
        let short = digest.strip_prefix("sha256:").and_then(|hex| hex.get(..SHORT_DIGEST));
        let short = short.map_or_else(String::new, |hex| format!(" @ {hex}"));
        Self { text: format!("{reference}{short}"), digest: digest.to_owned() }
    }
}

/// A step in the sidebar.
struct StepLink {
    name: String,
    href: String,
    status: StatusLabel,
    current: bool,
}

/// The step that a path names.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct StepPath {
    stage: u16,
    step: u16,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct LogQuery {
    /// First line of the window.
    from: Option<u64>,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(layout): Extension<Layout>,
    build: Authorized<Build>,
    Path(StepPath { stage, step }): Path<StepPath>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Problem> {
    let stage_id = StageId { build: build.id, stage: StageNumber(stage) };
    let stage = app.store.read()?.stage(stage_id)?.ok_or_else(|| Problem::not_found("stage"))?;
    let step = stage.step(StepNumber(step)).ok_or_else(|| Problem::not_found("step"))?;
    let id = StepId { build: build.id, stage: stage.number, step: step.number, attempt: step.attempt };
    let log = LogView::new(&app, id, step.status, query.from).await?;
    render_page(&page(layout, &build, &stage, step, &log))
}

/// The window of a log on the page.
struct LogView {
    /// Lines in the whole log.
    count: u64,
    from: u64,
    lines: Vec<HtmlLine>,
    /// Position in the log from which the page follows it.
    position: u64,
    /// Whether new lines are appended to the page.
    is_live: bool,
    waits_for_disk: bool,
    /// The line that the failure is best read from.
    failure: Option<u64>,
}

impl LogView {
    /// Starts at line `asked` if the log has it. Otherwise shows the end of the log, or the context of its failure if that is
    /// earlier.
    async fn new(app: &App, id: StepId, status: Status, asked: Option<u64>) -> Result<Self, Problem> {
        let reader = app.logs.reader(id);
        let count = reader.line_count().await?;
        let has_failed = matches!(status, Status::Failure | Status::Error | Status::Killed);
        // A damaged log must not break the page: it only loses its error mark.
        let failure = if has_failed { failure_line(&reader).await.unwrap_or_default() } else { None };
        let end = count.saturating_sub(WINDOW_LINES - 1).max(1);
        let asked = asked.filter(|line| *line <= count);
        let from = asked.unwrap_or_else(|| failure.map_or(end, |line| end.min(window_start(line)))).max(1);
        let (lines, position) = log_window(app, id, from, WINDOW_LINES, "").await?;
        let is_end = lines.last().is_none_or(|line| line.number >= count);
        // An earlier part of a growing log is not updated: the end may be a million lines away.
        let is_live = !status.is_over() && (asked.is_none() || is_end);
        Ok(Self { count, from, lines, position, is_live, waits_for_disk: reader.is_disk_full(), failure })
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
    let urls = layout.urls.clone();
    let href = |step: StepNumber| urls.step(name, key, stage.number, step);
    let log = urls.api_log(name, key, stage.number, step.number);
    let mut layout = layout.with_title(format!("{} · {} · {name} {key}", step.name, step.status)).in_section("builds");
    layout = layout.with_status(step.status).with_stream(urls.build_events(build.id));
    if step.status.is_over() {
        layout.live = None;
    }
    let full = view.waits_for_disk.then(|| Callout::new("This step's log", Status::Pending, &disk::log_paused_reason()));
    StepPage {
        layout,
        owner: name.owner().to_owned(),
        owner_href: urls.owner(name.owner()),
        repository_href: urls.repository(name),
        name: name.name().to_owned(),
        number: build_title::number_label(build),
        build_href: urls.build(build),
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
        images: stage.images_of(step).map(ImageLabel::new).collect(),
        count: format!("{} line{}", view.count, if view.count == 1 { "" } else { "s" }),
        raw_href: log.clone(),
        stream_href: format!("{log}/stream?format=html&after={}", view.position),
        is_live: view.is_live,
        is_over: step.status.is_over(),
        failure: view.failure,
        earlier: view.earlier(),
        later: view.later(),
        end_note: end_note(step, view.lines.is_empty()),
        lines: view.lines.iter().map(|line| line.html.clone()).collect(),
    }
}

fn end_note(step: &Step, is_empty: bool) -> Option<String> {
    if let Some(incomplete) = &step.log_incomplete {
        return Some(format!("The log is incomplete: {incomplete}"));
    }
    let code = step.exits.last().and_then(|exit| exit.code);
    match (step.status, code) {
        (Status::Blocked, _) if step.started_at.is_some() => Some("Waiting for approval".to_owned()),
        (Status::Pending | Status::Blocked, _) => Some("Not started".to_owned()),
        (Status::Running, _) => is_empty.then(|| "No output yet".to_owned()),
        (Status::Success, _) => Some(if is_empty { "No output" } else { "Succeeded" }.to_owned()),
        (_, Some(code)) => Some(format!("Exit code {code}")),
        (_, None) if is_empty => Some("No output".to_owned()),
        (_, None) => None,
    }
}
