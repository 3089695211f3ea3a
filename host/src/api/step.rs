//! A step's log: which one an address means. What it looks like is [`super::log`]'s.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::{StageId, StageNumber, StepId, StepNumber};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::log::{self, LogQuery};
use super::problem::Problem;
use crate::http_state::AppState;
use crate::store::build::Builds as _;
use crate::urls::{self, BuildKey};
use crate::web::build::find;

type StepPath = Path<(String, String, String, u16, u16)>;

struct LocatedStep {
    id: StepId,
    /// The step's page, which numbers of lines link to.
    page: String,
    /// What a saved log is called.
    name: String,
}

fn locate_step(front: &AppState, Path((owner, name, number, stage, step)): &StepPath) -> Result<LocatedStep, Problem> {
    let read = front.store.read()?;
    let build = find(&read, owner, name, number)?;
    let id = StageId { build: build.id, stage: StageNumber(*stage) };
    let stage = read.stage(id)?.ok_or_else(|| Problem::not_found("stage"))?;
    let step = stage.step(StepNumber(*step)).ok_or_else(|| Problem::not_found("step"))?;
    let repository = &build.event.repository.name;
    Ok(LocatedStep {
        id: StepId { build: build.id, stage: stage.number, step: step.number, attempt: step.attempt },
        page: urls::step(repository, BuildKey::of(&build), stage.number, step.number),
        name: format!("{}-{}-{number}-{}", repository.owner(), repository.name(), step.name),
    })
}

/// A step's log: whole, a range of it, or its end
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/stages/{stage}/steps/{step}/log", tag = "log",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path), ("stage" = u16, Path), ("step" = u16, Path),
        LogQuery),
    responses((status = OK, content_type = "text/plain", body = String), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn log(
    State(front): State<Arc<AppState>>,
    path: StepPath,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let found = locate_step(&front, &path)?;
    Ok(log::log_text(&front.logs.reader(found.id), &found.name, &found.page, &query, &headers).await?)
}

/// A step's log as it grows
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/stages/{stage}/steps/{step}/log/stream", tag = "log",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path), ("stage" = u16, Path), ("step" = u16, Path),
        LogQuery),
    responses((status = OK, content_type = "text/event-stream", body = String), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn log_stream(
    State(front): State<Arc<AppState>>,
    path: StepPath,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let found = locate_step(&front, &path)?;
    let over = wait_until_over(Arc::clone(&front), found.id);
    Ok(log::log_stream(front.logs.reader(found.id), &found.page, &query, &headers, over).await?)
}

/// Completes when the step is over by its status.
async fn wait_until_over(front: Arc<AppState>, id: StepId) {
    // Watching begins before the first look, so that no end is missed between the two.
    let mut changes: Receiver<ChangeEvent> = front.store.watch();
    while !is_over(&front, id) {
        loop {
            match changes.recv().await {
                Ok(ChangeEvent::StepChanged { step, .. }) if step == id => break,
                Ok(ChangeEvent::StageChanged { stage, .. }) if stage == id.stage_id() => break,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

fn is_over(front: &AppState, id: StepId) -> bool {
    let stage = front.store.read().and_then(|read| read.stage(id.stage_id()));
    let Ok(Some(stage)) = stage else { return true };
    stage.step(id.step).is_none_or(|step| step.status.is_over())
}
