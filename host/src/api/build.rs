//! Builds: list, show, and the actions of people on them.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::{Extension, Json};
use beespace_core::build::Build;
use beespace_core::ids::BuildId;
use beespace_core::policy::Decision;

use super::decision::DecisionBody;
use super::dto::{ApprovalAnswerBody, BuildBody};
use super::pagination::{ListParams, Page};
use crate::app::App;
use crate::authorization::Authorized;
use crate::clock::now;
use crate::http_problem::Problem;
use crate::principal::Principal;
use crate::store::build::Builds as _;
use crate::store::lookup::Visibility;
use crate::store::repository::Repository;
use crate::urls;
use crate::user_action::{self, BuildAction};
use crate::view::build_title;

/// All builds, newest first
#[utoipa::path(get, path = "/api/v1/builds", tag = "build", params(ListParams), responses((status = OK, body = Vec<BuildBody>)))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    visibility: Visibility,
    Query(params): Query<ListParams>,
) -> Result<Page<BuildBody>, Problem> {
    let builds = app.store.read()?.visible_builds(&visibility, params.builds(None)?, params.limit() + 1)?;
    Ok(Page::from_rows(
        builds,
        &params,
        &app.urls.below_base("/api/v1/builds"),
        |build| build.id.to_string(),
        |build| BuildBody::new(&app.urls, build),
    ))
}

/// The builds of a repository, newest first
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}/builds", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ListParams),
    responses((status = OK, body = Vec<BuildBody>), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn list_of_repository(
    State(app): State<Arc<App>>,
    repository: Authorized<Repository>,
    Query(params): Query<ListParams>,
) -> Result<Page<BuildBody>, Problem> {
    let list = params.builds(Some(repository.id))?;
    let builds = app.store.read()?.visible_builds(&Visibility::All, list, params.limit() + 1)?;
    let path = app.urls.below_base(&format!("{}/builds", urls::api_repository(&repository.name)));
    Ok(Page::from_rows(builds, &params, &path, |build| build.id.to_string(), |build| BuildBody::new(&app.urls, build)))
}

/// One build with its stages and steps
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}/builds/{number}", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)),
    responses((status = OK, body = BuildBody), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn show(State(app): State<Arc<App>>, build: Authorized<Build>) -> Result<Json<BuildBody>, Problem> {
    with_stages(&app, build.id)
}

/// The decisions of policies about a build
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/decisions", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)),
    responses((status = OK, body = Vec<DecisionBody>), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn decisions(State(app): State<Arc<App>>, build: Authorized<Build>) -> Result<Json<Vec<DecisionBody>>, Problem> {
    let decisions: Vec<Decision> = app.store.read()?.decisions(build.id)?;
    Ok(Json(decisions.iter().map(DecisionBody::new).collect()))
}

/// Restart a build: build the same event again, as a new build
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/restart", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)),
    responses((status = OK, body = BuildBody), (status = CONFLICT, body = Problem)))]
pub(super) async fn restart(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    build: Authorized<Build>,
) -> Result<Json<BuildBody>, Problem> {
    act(state, principal, build, BuildAction::Restart).await
}

/// Cancel a build
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/cancel", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)),
    responses((status = OK, body = BuildBody), (status = CONFLICT, body = Problem)))]
pub(super) async fn cancel(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    build: Authorized<Build>,
) -> Result<Json<BuildBody>, Problem> {
    act(state, principal, build, BuildAction::Cancel).await
}

/// Approve a blocked build
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/approve", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)), request_body = ApprovalAnswerBody,
    responses((status = OK, body = BuildBody), (status = CONFLICT, body = Problem)))]
pub(super) async fn approve(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    build: Authorized<Build>,
    Json(answer): Json<ApprovalAnswerBody>,
) -> Result<Json<BuildBody>, Problem> {
    act(state, principal, build, BuildAction::Approve(answer.try_into()?)).await
}

/// Decline a blocked build
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/decline", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)), request_body = ApprovalAnswerBody,
    responses((status = OK, body = BuildBody), (status = CONFLICT, body = Problem)))]
pub(super) async fn decline(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    build: Authorized<Build>,
    Json(answer): Json<ApprovalAnswerBody>,
) -> Result<Json<BuildBody>, Problem> {
    act(state, principal, build, BuildAction::Decline(answer.try_into()?)).await
}

async fn act(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    build: Authorized<Build>,
    action: BuildAction,
) -> Result<Json<BuildBody>, Problem> {
    let id = user_action::apply(&app, &build, action, &principal).await?;
    with_stages(&app, id)
}

pub(super) fn with_stages(app: &App, id: BuildId) -> Result<Json<BuildBody>, Problem> {
    let read = app.store.read()?;
    let build = read.build(id)?.ok_or_else(|| Problem::not_found("build", id))?;
    let restarted = build.restart_of.map_or(Ok(None), |id| read.build(id))?;
    let body = BuildBody::with_stages(&app.urls, &build, &read.stages(id)?, &read.decisions(id)?, now());
    Ok(Json(BuildBody { restarts_label: restarted.as_ref().map(build_title::build_name), ..body }))
}
