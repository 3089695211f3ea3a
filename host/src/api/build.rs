//! Builds.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use beespace_core::build::Build;
use beespace_core::ids::{BuildId, RepositoryName};
use beespace_core::policy::Decision;

use super::decision::DecisionBody;
use super::dto::{ApprovalAnswerBody, BuildBody};
use super::pagination::{ListParams, Page};
use super::problem::Problem;
use crate::http_state::AppState;
use crate::session::Principal;
use crate::store::build::{BuildFilter, Builds as _};
use crate::store::repository::Repositories as _;
use crate::urls;
use crate::user_action::{self, ApprovalAnswer};
use crate::web::build::find;

type BuildPath = Path<(String, String, String)>;

/// All builds, newest first
#[utoipa::path(get, path = "/api/v1/builds", tag = "build", params(ListParams), responses((status = OK, body = Vec<BuildBody>)))]
pub(super) async fn list(
    State(front): State<Arc<AppState>>,
    Query(params): Query<ListParams>,
) -> Result<Page<BuildBody>, Problem> {
    let filter = BuildFilter { repository: None, status: params.status()?, after: params.after()?.map(BuildId) };
    let builds = front.store.read()?.builds(filter, params.limit() + 1)?;
    Ok(Page::from_rows(builds, &params, "/api/v1/builds", |build| build.id.to_string(), BuildBody::new))
}

/// A repository's builds, newest first
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}/builds", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ListParams),
    responses((status = OK, body = Vec<BuildBody>), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn list_of_repository(
    State(front): State<Arc<AppState>>,
    Path((owner, name)): Path<(String, String)>,
    Query(params): Query<ListParams>,
) -> Result<Page<BuildBody>, Problem> {
    let name = RepositoryName::new(&owner, &name).map_err(|_| Problem::not_found("repository"))?;
    let read = front.store.read()?;
    let repository = read.repository_by_name(&name)?.ok_or_else(|| Problem::not_found("repository"))?;
    let filter = BuildFilter { repository: Some(repository.id), status: params.status()?, after: params.after()?.map(BuildId) };
    let builds = read.builds(filter, params.limit() + 1)?;
    let path = format!("{}/builds", urls::api_repository(&repository.name));
    Ok(Page::from_rows(builds, &params, &path, |build| build.id.to_string(), BuildBody::new))
}

/// One build with its stages and steps
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}/builds/{number}", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)),
    responses((status = OK, body = BuildBody), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn show(State(front): State<Arc<AppState>>, path: BuildPath) -> Result<Json<BuildBody>, Problem> {
    let build = build_at(&front, &path)?;
    whole(&front, build.id).map(Json)
}

/// What policies decided about a build
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/decisions", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)),
    responses((status = OK, body = Vec<DecisionBody>), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn decisions(State(front): State<Arc<AppState>>, path: BuildPath) -> Result<Json<Vec<DecisionBody>>, Problem> {
    let build = build_at(&front, &path)?;
    let decisions: Vec<Decision> = front.store.read()?.decisions(build.id)?;
    Ok(Json(decisions.iter().map(DecisionBody::new).collect()))
}

/// Build the same event once more
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/restart", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)),
    responses((status = OK, body = BuildBody), (status = CONFLICT, body = Problem)))]
pub(super) async fn restart(State(front): State<Arc<AppState>>, path: BuildPath) -> Result<Json<BuildBody>, Problem> {
    let build = build_at(&front, &path)?;
    let new = user_action::restart(&front, &build).await?;
    Ok(Json(BuildBody::new(&new)))
}

/// Stop a build
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/cancel", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)),
    responses((status = OK, body = BuildBody), (status = CONFLICT, body = Problem)))]
pub(super) async fn cancel(
    State(front): State<Arc<AppState>>,
    Extension(principal): Extension<Principal>,
    path: BuildPath,
) -> Result<Json<BuildBody>, Problem> {
    let build = build_at(&front, &path)?;
    user_action::cancel(&front, &build, principal.id()).await?;
    whole(&front, build.id).map(Json)
}

/// Say yes to what waits for a person's word
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/approve", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)), request_body = ApprovalAnswerBody,
    responses((status = OK, body = BuildBody), (status = CONFLICT, body = Problem)))]
pub(super) async fn approve(
    state: State<Arc<AppState>>,
    principal: Extension<Principal>,
    path: BuildPath,
    body: Json<ApprovalAnswerBody>,
) -> Result<Json<BuildBody>, Problem> {
    answer(state, principal, path, body, ApprovalAnswer::Approve).await
}

/// Say no to what waits for a person's word
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/decline", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)), request_body = ApprovalAnswerBody,
    responses((status = OK, body = BuildBody), (status = CONFLICT, body = Problem)))]
pub(super) async fn decline(
    state: State<Arc<AppState>>,
    principal: Extension<Principal>,
    path: BuildPath,
    body: Json<ApprovalAnswerBody>,
) -> Result<Json<BuildBody>, Problem> {
    answer(state, principal, path, body, ApprovalAnswer::Decline).await
}

async fn answer(
    State(front): State<Arc<AppState>>,
    Extension(principal): Extension<Principal>,
    path: BuildPath,
    Json(word): Json<ApprovalAnswerBody>,
    answer: ApprovalAnswer,
) -> Result<Json<BuildBody>, Problem> {
    let build = build_at(&front, &path)?;
    user_action::answer(&front, &build, answer, word, principal.id()).await?;
    whole(&front, build.id).map(Json)
}

fn build_at(front: &AppState, Path((owner, name, number)): &BuildPath) -> Result<Build, Problem> {
    find(&front.store.read()?, owner, name, number)
}

fn whole(front: &AppState, id: BuildId) -> Result<BuildBody, Problem> {
    let read = front.store.read()?;
    let build = read.build(id)?.ok_or_else(|| Problem::not_found("build"))?;
    Ok(BuildBody::with_stages(&build, &read.stages(id)?, front.now()))
}
