//! Repositories: list, enable, repair, disable.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use beespace_core::ids::RepositoryName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::authorization::Authorized;
use crate::clock::now;
use crate::http_problem::Problem;
use crate::store::lookup::Visibility;
use crate::store::repository::Repository;
use crate::urls::Urls;
use crate::view::time::rfc3339;

/// A repository that is or was enabled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepositoryBody {
    /// The id in Gogs, which survives a change of the name.
    pub id: u64,
    /// `owner/name`.
    pub name: String,
    /// Whether its pushes are built.
    pub is_enabled: bool,
    /// Whether it is private in Gogs.
    pub is_private: bool,
    /// The default branch, without `refs/heads/`.
    pub default_branch: String,
    /// When it was first enabled. RFC 3339, in UTC.
    pub enabled_at: String,
    /// The path of its page on this server.
    pub href: String,
}

/// The repository to enable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnableBody {
    /// `owner/name`.
    pub name: String,
}

impl RepositoryBody {
    fn new(urls: &Urls, repository: &Repository) -> Self {
        Self {
            id: repository.id.0,
            name: repository.name.to_string(),
            is_enabled: repository.hook.is_some(),
            is_private: repository.is_private,
            default_branch: repository.default_branch.clone(),
            enabled_at: rfc3339(repository.enabled_at),
            href: urls.repository(&repository.name),
        }
    }
}

/// All repositories that are or were enabled
#[utoipa::path(get, path = "/api/v1/repositories", tag = "repository", responses((status = OK, body = Vec<RepositoryBody>)))]
pub(super) async fn list(State(app): State<Arc<App>>, visibility: Visibility) -> Result<Json<Vec<RepositoryBody>>, Problem> {
    let repositories = app.store.read()?.visible_repositories(&visibility)?;
    Ok(Json(repositories.iter().map(|repository| RepositoryBody::new(&app.urls, repository)).collect()))
}

/// Enable a repository: create its webhook in Gogs
#[utoipa::path(post, path = "/api/v1/repositories", tag = "repository", request_body = EnableBody,
    responses((status = OK, body = RepositoryBody), (status = UNPROCESSABLE_ENTITY, body = Problem),
        (status = BAD_GATEWAY, body = Problem)))]
pub(super) async fn enable(State(app): State<Arc<App>>, Json(body): Json<EnableBody>) -> Result<Json<RepositoryBody>, Problem> {
    let name = body.name.parse::<RepositoryName>().map_err(|error| Problem::bad_request(error.to_string()))?;
    let repository = app.enabler.enable(&name, now()).await?;
    Ok(Json(RepositoryBody::new(&app.urls, &repository)))
}

/// One repository
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}", tag = "repository",
    params(("owner" = String, Path), ("name" = String, Path)),
    responses((status = OK, body = RepositoryBody), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn show(State(app): State<Arc<App>>, repository: Authorized<Repository>) -> Json<RepositoryBody> {
    Json(RepositoryBody::new(&app.urls, &repository))
}

/// Disable a repository: delete its webhooks in Gogs; its builds stay
#[utoipa::path(delete, path = "/api/v1/repositories/{owner}/{name}", tag = "repository",
    params(("owner" = String, Path), ("name" = String, Path)),
    responses((status = OK, body = RepositoryBody), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn disable(
    State(app): State<Arc<App>>,
    name: Authorized<RepositoryName>,
) -> Result<Json<RepositoryBody>, Problem> {
    Ok(Json(RepositoryBody::new(&app.urls, &app.enabler.disable(&name).await?)))
}

/// Repair a repository: recreate its webhook with a new secret
#[utoipa::path(post, path = "/api/v1/repositories/{owner}/{name}/repair", tag = "repository",
    params(("owner" = String, Path), ("name" = String, Path)),
    responses((status = OK, body = RepositoryBody), (status = NOT_FOUND, body = Problem),
        (status = BAD_GATEWAY, body = Problem)))]
pub(super) async fn repair(
    State(app): State<Arc<App>>,
    name: Authorized<RepositoryName>,
) -> Result<Json<RepositoryBody>, Problem> {
    Ok(Json(RepositoryBody::new(&app.urls, &app.enabler.repair(&name, now()).await?)))
}
