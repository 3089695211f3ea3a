//! The log of one step: find the step that a path names. [`super::log`] writes the log.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use axum::response::sse::Event;
use beespace_core::build::Build;
use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::{BuildId, StageId, StageNumber, StepId, StepNumber};
use futures::stream::{Stream, StreamExt as _};
use serde::Deserialize;
use tokio_stream::wrappers::BroadcastStream;

use super::log::{self, LogQuery};
use super::log_stream;
use super::sse::{change_event, resync_event};
use crate::app::App;
use crate::authorization::Authorized;
use crate::http_problem::Problem;
use crate::store::build::Builds as _;
use crate::urls::BuildKey;

#[derive(Deserialize)]
struct StepPath {
    stage: u16,
    step: u16,
}

#[derive(Deserialize)]
struct AttemptQuery {
    attempt: Option<u16>,
}

/// A step in the store. As an argument of a handler it is the step that the path names.
#[derive(Debug)]
pub(super) struct LocatedStep {
    id: StepId,
    /// The step's page, to which line numbers link.
    page: String,
    /// The name of a downloaded log.
    name: String,
}

impl FromRequestParts<Arc<App>> for LocatedStep {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let build = Authorized::<Build>::from_request_parts(parts, app).await?;
        let path = Path::<StepPath>::from_request_parts(parts, app).await;
        let Path(path) = path.map_err(|_| Problem::not_found("step", parts.uri.path()))?;
        let id = StageId { build: build.id, stage: StageNumber(path.stage) };
        let stage = app.store.read()?.stage(id)?.ok_or_else(|| Problem::not_found("stage", path.stage))?;
        let step = stage.step(StepNumber(path.step)).ok_or_else(|| Problem::not_found("step", path.step))?;
        let (repository, key) = (&build.event.repository.name, BuildKey::of(&build));
        let attempt = asked_attempt(parts)?.unwrap_or(step.attempt);
        if !(1..=step.attempt).contains(&attempt) {
            return Err(Problem::not_found("attempt", attempt));
        }
        Ok(Self {
            id: StepId { build: build.id, stage: stage.number, step: step.number, attempt },
            page: app.urls.step(repository, key, stage.number, step.number),
            name: format!("{}-{}-{key}-{}", repository.owner(), repository.name(), step.name),
        })
    }
}

/// The attempt that the query names. The handler reports a query that is wrong in other ways.
fn asked_attempt(parts: &Parts) -> Result<Option<u16>, Problem> {
    let query = Query::<AttemptQuery>::try_from_uri(&parts.uri);
    query.map(|Query(query)| query.attempt).map_err(|_| Problem::not_found("attempt", parts.uri.query().unwrap_or_default()))
}

/// A step's log: all of it, a range, or its end
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/stages/{stage}/steps/{step}/log", tag = "log",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path), ("stage" = u16, Path),
        ("step" = u16, Path),
        LogQuery),
    responses((status = OK, content_type = "text/plain", body = String), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn log(
    State(app): State<Arc<App>>,
    step: LocatedStep,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Ok(log::log_text(&app.logs.reader(step.id), &step.name, &step.page, &query, &headers).await?)
}

/// A step's log as it grows
#[utoipa::path(get, tag = "log",
    path = "/api/v1/repositories/{owner}/{name}/builds/{number}/stages/{stage}/steps/{step}/log/stream",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path), ("stage" = u16, Path),
        ("step" = u16, Path),
        LogQuery),
    responses((status = OK, content_type = "text/event-stream", body = String), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn log_stream(
    State(app): State<Arc<App>>,
    step: LocatedStep,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (changes, over) = (changes_of_build(&app, step.id.build), wait_until_over(Arc::clone(&app), step.id));
    Ok(log_stream::log_stream(app.logs.reader(step.id), &step.page, &query, &headers, changes, over).await?)
}

fn changes_of_build(app: &App, id: BuildId) -> impl Stream<Item = Event> + Send + use<> {
    BroadcastStream::new(app.store.watch()).filter_map(move |change| {
        std::future::ready(match change {
            Ok(change) => (change.build() == Some(id)).then(|| change_event(change)),
            Err(_) => Some(resync_event(None)),
        })
    })
}

/// Completes when the step's status is final.
async fn wait_until_over(app: Arc<App>, id: StepId) {
    // Subscribe before the row is read for the first time, so that no change is missed.
    let mut changes = app.store.watch_changes();
    while !is_over(&app, id) {
        let concerns_step = |event: &ChangeEvent| match event {
            ChangeEvent::StepChanged { step, .. } => *step == id,
            ChangeEvent::StageChanged { stage, .. } => *stage == id.stage_id(),
            _ => false,
        };
        changes.next_matching(concerns_step).await;
    }
}

fn is_over(app: &App, id: StepId) -> bool {
    let stage = app.store.read().and_then(|read| read.stage(id.stage_id()));
    let Ok(Some(stage)) = stage else { return true };
    stage.step(id.step).is_none_or(|step| step.status.is_over())
}
