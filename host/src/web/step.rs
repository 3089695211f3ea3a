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
use super::html::{Html, Word};
use super::layout::Layout;
use super::lines::{Rows, is_error};
use super::{build, render, row};
use crate::address::{self, BuildKey};
use crate::api::problem::Problem;
use crate::front::Front;
use crate::log::LogError;
use crate::store::build::Builds as _;

/// Lines on a page. The whole log is one click away, as text.
const WINDOW: u64 = 2_000;
/// Lines before a window that are read for the colours which go on into it.
const LEAD: u64 = 100;

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
    status: Word,
    callouts: Vec<Callout>,
    steps: Vec<OtherStep>,
    image: Option<String>,
    count: String,
    raw_href: String,
    stream_href: String,
    is_live: bool,
    first_error: Option<u64>,
    earlier: Option<String>,
    lines: Vec<Html>,
    end: Option<String>,
}

/// A step beside the log.
struct OtherStep {
    name: String,
    href: String,
    status: Word,
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
    State(front): State<Arc<Front>>,
    Extension(layout): Extension<Layout>,
    Path((owner, name, number, stage, step)): Path<(String, String, String, u16, u16)>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Problem> {
    let read = front.store.read()?;
    let found = build::find(&read, &owner, &name, &number)?;
    let stage_id = StageId { build: found.id, stage: StageNumber(stage) };
    let stage = read.stage(stage_id)?.ok_or_else(|| Problem::not_found("stage"))?;
    drop(read);
    let step = stage.steps.iter().find(|other| other.number == StepNumber(step)).ok_or_else(|| Problem::not_found("step"))?;
    let id = StepId { build: found.id, stage: stage.number, step: step.number, attempt: step.attempt };
    let count = front.logs.reader(id).line_count().await?;
    let from = query.from.unwrap_or_else(|| count.saturating_sub(WINDOW - 1)).max(1);
    let window = window(&front, id, from, WINDOW, "").await?;
    render(&page(layout, &found, &stage, step, &window, (from, count)))
}

fn page(
    layout: Layout,
    build: &Build,
    stage: &Stage,
    step: &Step,
    (lines, position): &(Vec<Line>, u64),
    (from, count): (u64, u64),
) -> StepPage {
    let name = &build.event.repository.name;
    let key = BuildKey::of(build);
    let href = |step: StepNumber| address::step(name, key, stage.number, step);
    let log = address::api_log(name, key, stage.number, step.number);
    let is_live = !step.status.is_over();
    let mut layout = layout.titled(format!("{} · {} · {name} {key}", step.name, step.status)).at("builds");
    layout = layout.showing(step.status).live(format!("/api/v1/events?build={}", build.id));
    if !is_live {
        layout.live = None;
    }
    let has_failed = matches!(step.status, Status::Failure | Status::Error | Status::Killed);
    StepPage {
        layout,
        owner: name.owner().to_owned(),
        owner_href: address::owner(name.owner()),
        repository_href: address::repository(name),
        name: name.name().to_owned(),
        number: row::number(build),
        build_href: address::build(name, key),
        stage: stage.pipeline.name.clone(),
        step: step.name.clone(),
        status: Word(step.status),
        callouts: step.reason.iter().map(|reason| Callout::new("This step", step.status, reason)).collect(),
        steps: stage
            .steps
            .iter()
            .map(|other| OtherStep {
                name: other.name.clone(),
                href: href(other.number),
                status: Word(other.status),
                current: other.number == step.number,
            })
            .collect(),
        image: step.round.as_ref().and_then(|round| round.plan.containers.first()).map(|c: &Container| c.image.clone()),
        count: format!("{count} line{}", if count == 1 { "" } else { "s" }),
        raw_href: log.clone(),
        stream_href: format!("{log}/stream?format=html&after={position}"),
        is_live,
        first_error: has_failed.then(|| lines.iter().find(|line| line.is_bad).map(|line| line.number)).flatten(),
        earlier: (from > 1).then(|| format!("?from={}", from.saturating_sub(WINDOW).max(1))),
        end: end(step, lines.is_empty()),
        lines: lines.iter().map(|line| line.html.clone()).collect(),
    }
}

fn end(step: &Step, is_empty: bool) -> Option<String> {
    if let Some(incomplete) = &step.log_incomplete {
        return Some(format!("The log lacks something: {incomplete}"));
    }
    let code = step.exits.last().and_then(|exit| exit.code);
    match (step.status, code) {
        (Status::Pending | Status::Blocked, _) => Some("Has not begun".to_owned()),
        (Status::Running, _) => is_empty.then(|| "Nothing printed so far".to_owned()),
        (Status::Success, _) => Some(if is_empty { "Printed nothing" } else { "Succeeded" }.to_owned()),
        (_, Some(code)) => Some(format!("Ended with exit code {code}")),
        (_, None) if is_empty => Some("Printed nothing".to_owned()),
        (_, None) => None,
    }
}

/// A row of a log.
struct Line {
    number: u64,
    is_bad: bool,
    html: Html,
}

/// The last lines of a log, for another page: numbers lead to the log's own.
pub(super) async fn last_lines(front: &Front, id: StepId, count: u64, href: &str) -> Result<Vec<Html>, Problem> {
    let all = front.logs.reader(id).line_count().await?;
    let (lines, _) = window(front, id, all.saturating_sub(count - 1).max(1), count, href).await?;
    Ok(lines.into_iter().map(|line| line.html).collect())
}

/// Rows from a line on, with the colours that go on into them, and the position to follow the log from.
async fn window(front: &Front, id: StepId, from: u64, count: u64, href: &str) -> Result<(Vec<Line>, u64), Problem> {
    let reader = front.logs.reader(id);
    let lead = from.saturating_sub(LEAD).max(1);
    let wanted = usize::try_from(count.saturating_add(from - lead)).unwrap_or(usize::MAX);
    let page = reader.lines(lead, wanted).await?;
    let mut rows = Rows::new(href, reader.started_at().await?);
    let lines = page.lines.iter().map(|line| {
        let is_bad = is_error(&String::from_utf8_lossy(&line.text));
        Line { number: line.number, is_bad, html: Html::trusted(rows.line(line).html) }
    });
    Ok((lines.filter(|line| line.number >= from).collect(), page.position))
}
