//! The page of a step and its log. The server renders a window of lines; scripts append new lines and add tools for reading.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use beespace_core::build::{Build, Stage, Step};
use beespace_core::graph;
use beespace_core::ids::{StageId, StageNumber, StepId, StepNumber};
use beespace_core::status::Status;
use serde::Deserialize;

use super::callout::Callout;
use super::icon::StatusLabel;
use super::layout::{Layout, LiveScope};
use super::log_view::{LogQuery, LogView, SearchView};
use super::render_page;
use super::repository::commit_url;
use crate::app::App;
use crate::authorization::Authorized;
use crate::clock::now;
use crate::disk;
use crate::html::Html;
use crate::http_problem::Problem;
use crate::store::build::Builds as _;
use crate::urls::BuildKey;
use crate::view::log_html::MAX_ROWS;
use crate::view::{build_title, time};

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
    failure_ignored: bool,
    took: String,
    /// The title of the build.
    title: String,
    sha: String,
    commit_url: Option<String>,
    branch: String,
    actor: String,
    callouts: Vec<Callout>,
    steps: Vec<StepLink>,
    images: Vec<ImageLabel>,
    count: u64,
    most_rows: u64,
    /// When the step ended, in milliseconds since its first line.
    end_ms: Option<u128>,
    raw_href: String,
    stream_href: String,
    is_live: bool,
    is_over: bool,
    failure: Option<u64>,
    opens_at_end: bool,
    search: Option<SearchView>,
    /// The logs of earlier attempts.
    attempts: Vec<AttemptLink>,
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
    /// The reference with the whole digest.
    full: String,
}

impl ImageLabel {
    fn new((reference, digest): (&str, Option<&str>)) -> Self {
        let short = digest.and_then(|digest| digest.strip_prefix("sha256:")?.get(..SHORT_DIGEST));
        let shown =
            |digest: Option<&str>| digest.map_or_else(|| reference.to_owned(), |digest| format!("{reference} @ {digest}"));
        Self { text: shown(short), full: shown(digest) }
    }
}

/// The log of an earlier attempt at the step, as text.
struct AttemptLink {
    number: u16,
    href: String,
}

/// A step in the sidebar.
struct StepLink {
    name: String,
    href: String,
    status: StatusLabel,
    took: String,
    current: bool,
}

/// The step that a path names.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct StepPath {
    stage: u16,
    step: u16,
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Extension(layout): Extension<Layout>,
    build: Authorized<Build>,
    Path(StepPath { stage, step }): Path<StepPath>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Problem> {
    let stage_id = StageId { build: build.id, stage: StageNumber(stage) };
    let stage = app.store.read()?.stage(stage_id)?.ok_or_else(|| Problem::not_found("stage", stage))?;
    let step = stage.step(StepNumber(step)).ok_or_else(|| Problem::not_found("step", step))?;
    let id = StepId { build: build.id, stage: stage.number, step: step.number, attempt: step.attempt };
    let log = LogView::new(&app, id, step.status, &query).await?;
    let began = app.logs.reader(id).started_at().await?;
    let mut page = page(layout, &build, &stage, step, log);
    page.end_ms = step.finished_at.zip(began).map(|(end, began)| end.since(began).as_millis());
    render_page(&page)
}

fn page(layout: Layout, build: &Build, stage: &Stage, step: &Step, view: LogView) -> StepPage {
    let name = &build.event.repository.name;
    let key = BuildKey::of(build);
    let urls = layout.urls.clone();
    let href = |step: StepNumber| urls.step(name, key, stage.number, step);
    let log = urls.api_log(name, key, stage.number, step.number);
    let mut layout = layout.with_title(format!("{} · {} · {name} {key}", step.name, step.status)).in_section("builds");
    layout = layout.with_status(step.status).with_changes(LiveScope::Build(build.id));
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
        failure_ignored: graph::is_failure_ignored(stage, step),
        took: took(step),
        title: build_title::build_title(build),
        sha: build.short_sha().to_owned(),
        commit_url: commit_url(build),
        branch: build_title::branch_or_tag(build),
        actor: build.event.sender.login.clone(),
        callouts: step.reason.iter().map(|reason| Callout::new("This step", step.status, reason)).chain(full).collect(),
        steps: stage
            .steps
            .iter()
            .map(|other| StepLink {
                name: other.name.clone(),
                href: href(other.number),
                status: StatusLabel(other.status),
                took: took(other),
                current: other.number == step.number,
            })
            .collect(),
        images: stage.images_of(step).map(ImageLabel::new).collect(),
        count: view.count,
        most_rows: MAX_ROWS,
        end_ms: None,
        raw_href: log.clone(),
        stream_href: format!("{log}/stream?format=html&after={}", view.position),
        is_live: view.is_live,
        is_over: step.status.is_over(),
        failure: view.failure,
        opens_at_end: view.opens_at_end,
        attempts: (1..step.attempt).map(|number| AttemptLink { number, href: format!("{log}?attempt={number}") }).collect(),
        earlier: view.earlier(),
        later: view.later(),
        end_note: end_note(step, view.lines.is_empty()),
        lines: view.lines.into_iter().map(|line| line.html).collect(),
        search: view.search,
    }
}

fn took(step: &Step) -> String {
    time::elapsed(step.started_at, step.finished_at, now())
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
