//! Repositories: which ones build here, and their hooks in Gogs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use beespace_core::ids::RepositoryName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::forge::{EnableError, ForgeError};
use crate::http_state::AppState;
use crate::store::repository::{Repositories as _, Repository};
use crate::urls;
use crate::view::time::rfc3339;

/// A repository that builds here, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepositoryBody {
    /// Gogs' id: stays when the name changes.
    pub id: u64,
    /// `owner/name`.
    pub name: String,
    /// Whether its pushes build.
    pub is_enabled: bool,
    /// Whether Gogs shows it to its members alone.
    pub is_private: bool,
    /// Without `refs/heads/`.
    pub default_branch: String,
    /// When it was enabled first. RFC 3339, in UTC.
    pub enabled_at: String,
    /// The page, as a path on this server.
    pub href: String,
}

/// Which repository shall build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnableBody {
    /// `owner/name`.
    pub name: String,
}

impl RepositoryBody {
    fn new(repository: &Repository) -> Self {
        Self {
            id: repository.id.0,
            name: repository.name.to_string(),
            is_enabled: repository.hook.is_some(),
            is_private: repository.is_private,
            default_branch: repository.default_branch.clone(),
            enabled_at: rfc3339(repository.enabled_at),
            href: urls::repository(&repository.name),
        }
    }
}

impl From<EnableError> for Problem {
    fn from(error: EnableError) -> Self {
        let reason = error.reason();
        let status = match error {
            EnableError::Store(error) => return error.into(),
            EnableError::Seal(error) => return Self::internal(&error),
            EnableError::NotEnabled(_) => StatusCode::NOT_FOUND,
            EnableError::NotAdmin(_) | EnableError::Name(_) => StatusCode::UNPROCESSABLE_ENTITY,
            EnableError::Forge(ForgeError::NotFound(_)) => StatusCode::NOT_FOUND,
            EnableError::Forge(_) | EnableError::HookNotRemoved { .. } => StatusCode::BAD_GATEWAY,
        };
        let problem = Self::new(status, &reason.code, reason.message);
        Self { help: reason.help, ..problem }
    }
}

fn parse(owner: &str, name: &str) -> Result<RepositoryName, Problem> {
    RepositoryName::new(owner, name).map_err(|_| Problem::not_found("repository"))
}

/// All repositories that build here, or did
#[utoipa::path(get, path = "/api/v1/repositories", tag = "repository", responses((status = OK, body = Vec<RepositoryBody>)))]
pub(super) async fn list(State(front): State<Arc<AppState>>) -> Result<Json<Vec<RepositoryBody>>, Problem> {
    Ok(Json(front.store.read()?.repositories()?.iter().map(RepositoryBody::new).collect()))
}

/// Make a repository build here: its hook in Gogs is made
#[utoipa::path(post, path = "/api/v1/repositories", tag = "repository", request_body = EnableBody,
    responses((status = OK, body = RepositoryBody), (status = UNPROCESSABLE_ENTITY, body = Problem), (status = BAD_GATEWAY, body = Problem)))]
pub(super) async fn enable(
    State(front): State<Arc<AppState>>,
    Json(body): Json<EnableBody>,
) -> Result<Json<RepositoryBody>, Problem> {
    let name: RepositoryName = body.name.parse().map_err(|error| Problem::bad_request(format!("{error}.")))?;
    let repository = front.enabler.enable(&name, front.now()).await?;
    Ok(Json(RepositoryBody::new(&repository)))
}

/// One repository
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}", tag = "repository",
    params(("owner" = String, Path), ("name" = String, Path)),
    responses((status = OK, body = RepositoryBody), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn show(
    State(front): State<Arc<AppState>>,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<RepositoryBody>, Problem> {
    let found = front.store.read()?.repository_by_name(&parse(&owner, &name)?)?;
    found.map(|repository| Json(RepositoryBody::new(&repository))).ok_or_else(|| Problem::not_found("repository"))
}

/// Build a repository no more: its hooks are removed, its builds stay
#[utoipa::path(delete, path = "/api/v1/repositories/{owner}/{name}", tag = "repository",
    params(("owner" = String, Path), ("name" = String, Path)),
    responses((status = OK, body = RepositoryBody), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn disable(
    State(front): State<Arc<AppState>>,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<RepositoryBody>, Problem> {
    Ok(Json(RepositoryBody::new(&front.enabler.disable(&parse(&owner, &name)?).await?)))
}

/// Make a repository's hook anew, with a new secret
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/repair", tag = "repository",
    params(("owner" = String, Path), ("name" = String, Path)),
    responses((status = OK, body = RepositoryBody), (status = NOT_FOUND, body = Problem), (status = BAD_GATEWAY, body = Problem)))]
pub(super) async fn repair(
    State(front): State<Arc<AppState>>,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<RepositoryBody>, Problem> {
    Ok(Json(RepositoryBody::new(&front.enabler.repair(&parse(&owner, &name)?, front.now()).await?)))
}
