//! Starting builds.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use beespace_core::build::Build;
use beespace_core::event::GivenParams;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::build::with_stages;
use super::dto::BuildBody;
use crate::app::App;
use crate::authorization::Authorized;
use crate::http_problem::Problem;
use crate::principal::Principal;
use crate::store::repository::Repository;
use crate::user_action::{self, DeploymentKind, StartRequest};

/// The build to start: of a branch, a tag or a commit. Without any of them the default branch is built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartBody {
    /// The branch, without `refs/heads/`. Its newest commit is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The tag, without `refs/tags/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The commit, 40 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha: Option<String>,
    /// Values for the `params` of the pipeline file: texts, numbers, `true` or `false`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub params: BTreeMap<String, Value>,
}

/// The target of a promotion or a rollback.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployBody {
    /// For example `production`.
    pub target: String,
    /// Values for the `params` of the pipeline file: texts, numbers, `true` or `false`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub params: BTreeMap<String, Value>,
}

/// The values as texts.
///
/// # Errors
/// [`Problem`] if a value is a list, a map or null.
pub(super) fn given_params(params: BTreeMap<String, Value>) -> Result<GivenParams, Problem> {
    let text = |(name, value): (String, Value)| match value {
        Value::String(text) => Ok((name, text)),
        Value::Number(number) => Ok((name, number.to_string())),
        Value::Bool(value) => Ok((name, value.to_string())),
        _ => Err(Problem::bad_request(format!("the value of the param {name:?} must be a text, a number, `true` or `false`"))),
    };
    params.into_iter().map(text).collect()
}

/// Start a build of a branch, a tag or a commit
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/builds", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path)), request_body = StartBody,
    responses((status = OK, body = BuildBody), (status = BAD_REQUEST, body = Problem), (status = CONFLICT, body = Problem)))]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    repository: Authorized<Repository>,
    Json(body): Json<StartBody>,
) -> Result<Json<BuildBody>, Problem> {
    let StartBody { branch, tag, sha, params } = body;
    let request = StartRequest { branch, tag, sha, params: given_params(params)? };
    let id = user_action::start(&app, repository.into_inner(), request, &principal).await?;
    with_stages(&app, id)
}

/// Promote a successful build: build its commit again for a target
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/promote", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)), request_body = DeployBody,
    responses((status = OK, body = BuildBody), (status = BAD_REQUEST, body = Problem), (status = CONFLICT, body = Problem)))]
pub(super) async fn promote(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    build: Authorized<Build>,
    Json(body): Json<DeployBody>,
) -> Result<Json<BuildBody>, Problem> {
    deploy(state, principal, build, DeploymentKind::Promote, body).await
}

/// Roll a target back to a successful build: build its commit again for the target
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/builds/{number}/rollback", tag = "build",
    params(("owner" = String, Path), ("name" = String, Path), ("number" = String, Path)), request_body = DeployBody,
    responses((status = OK, body = BuildBody), (status = BAD_REQUEST, body = Problem), (status = CONFLICT, body = Problem)))]
pub(super) async fn rollback(
    state: State<Arc<App>>,
    principal: Extension<Principal>,
    build: Authorized<Build>,
    Json(body): Json<DeployBody>,
) -> Result<Json<BuildBody>, Problem> {
    deploy(state, principal, build, DeploymentKind::Rollback, body).await
}

async fn deploy(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    build: Authorized<Build>,
    kind: DeploymentKind,
    body: DeployBody,
) -> Result<Json<BuildBody>, Problem> {
    let id = user_action::deploy(&app, &build, kind, body.target, given_params(body.params)?, &principal).await?;
    with_stages(&app, id)
}
