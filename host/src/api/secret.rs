//! Secrets: set, listed by name, removed; never shown.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use beespace_core::ids::RepositoryName;
use beespace_core::mask::{Weakness, weakness};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroize as _;

use super::problem::Problem;
use crate::http_state::AppState;
use crate::store::repository::Repositories as _;
use crate::store::secret::{Secret, SecretScope};
use crate::view::time::rfc3339;

/// A secret's name, and when its value was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretBody {
    /// What pipeline files call it.
    pub name: String,
    /// When it was set last. RFC 3339, in UTC.
    pub changed_at: String,
}

/// A secret whose value was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretSetBody {
    /// What a pipeline file names it by.
    pub name: String,
    /// When its value was set.
    pub changed_at: String,
    /// Why its mask in logs protects it badly; none where it does well.
    pub weakness: Option<String>,
}

/// A new value. Its `Debug` does not tell it, and it does not stay in memory.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct SecretValue {
    /// At most 64 KiB.
    pub value: String,
}

impl Drop for SecretValue {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue")
    }
}

/// The longest value.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// What a secret may be called: what a pipeline file can name.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn scope(front: &AppState, owner: &str, name: &str) -> Result<SecretScope, Problem> {
    let name = RepositoryName::new(owner, name).map_err(|_| Problem::not_found("repository"))?;
    let repository = front.store.read()?.repository_by_name(&name)?.ok_or_else(|| Problem::not_found("repository"))?;
    Ok(SecretScope::Repository(repository.id))
}

fn list(front: &AppState, scope: SecretScope) -> Result<Json<Vec<SecretBody>>, Problem> {
    let secrets = front.store.read()?.secrets(scope)?;
    let body = |secret: &Secret| SecretBody { name: secret.name.clone(), changed_at: rfc3339(secret.changed_at) };
    Ok(Json(secrets.iter().map(body).collect()))
}

async fn set(front: &AppState, scope: SecretScope, name: String, value: &str) -> Result<Json<SecretSetBody>, Problem> {
    if !is_secret_name(&name) {
        return Err(Problem::bad_request("A secret's name has 1 to 100 letters, digits, `_`, `-` and `.`."));
    }
    if value.is_empty() || value.len() > MAX_VALUE_BYTES {
        return Err(Problem::bad_request("A secret's value has 1 byte to 64 KiB."));
    }
    if value.contains('\0') {
        let help = "Encode it, as base64 for one, and let the step decode it.";
        return Err(Problem::bad_request("A secret's value holds no NUL byte: no environment can carry one.").help(help));
    }
    let weakness = weakness(value.as_bytes());
    if let Some(unmasked @ Weakness::NotMasked) = weakness {
        let help = "What everybody may read is no secret: write it into `env` as it is.";
        return Err(Problem::bad_request(format!("The value is not kept: {unmasked}.")).help(help));
    }
    let changed_at = front.now();
    let sealed = front.key.seal(&scope.associated_data(&name), value.as_bytes()).map_err(|error| Problem::internal(&error))?;
    front.store.set_secret(Secret { scope, name: name.clone(), value: sealed, changed_at }).await?;
    Ok(Json(SecretSetBody { name, changed_at: rfc3339(changed_at), weakness: weakness.map(|weakness| weakness.to_string()) }))
}

async fn remove(front: &AppState, scope: SecretScope, name: String) -> Result<StatusCode, Problem> {
    if front.store.remove_secret(scope, name).await? { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("secret")) }
}

/// Secrets of the instance
#[utoipa::path(get, path = "/api/v1/secrets", tag = "secret", responses((status = OK, body = Vec<SecretBody>)))]
pub(super) async fn list_of_instance(State(front): State<Arc<AppState>>) -> Result<Json<Vec<SecretBody>>, Problem> {
    list(&front, SecretScope::Instance)
}

/// Set a secret of the instance
#[utoipa::path(put, path = "/api/v1/secrets/{secret}", tag = "secret", params(("secret" = String, Path)),
    request_body = SecretValue, responses((status = OK, body = SecretSetBody), (status = BAD_REQUEST, body = Problem)))]
pub(super) async fn set_of_instance(
    State(front): State<Arc<AppState>>,
    Path(secret): Path<String>,
    Json(body): Json<SecretValue>,
) -> Result<Json<SecretSetBody>, Problem> {
    set(&front, SecretScope::Instance, secret, &body.value).await
}

/// Remove a secret of the instance
#[utoipa::path(delete, path = "/api/v1/secrets/{secret}", tag = "secret", params(("secret" = String, Path)),
    responses((status = NO_CONTENT), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn remove_of_instance(
    State(front): State<Arc<AppState>>,
    Path(secret): Path<String>,
) -> Result<StatusCode, Problem> {
    remove(&front, SecretScope::Instance, secret).await
}

/// Secrets of a repository
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}/secrets", tag = "secret",
    params(("owner" = String, Path), ("name" = String, Path)),
    responses((status = OK, body = Vec<SecretBody>), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn list_of_repository(
    State(front): State<Arc<AppState>>,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<Vec<SecretBody>>, Problem> {
    list(&front, scope(&front, &owner, &name)?)
}

/// Set a secret of a repository
#[utoipa::path(put, path = "/api/v1/repositories/{owner}/{name}/secrets/{secret}", tag = "secret",
    params(("owner" = String, Path), ("name" = String, Path), ("secret" = String, Path)),
    request_body = SecretValue, responses((status = OK, body = SecretSetBody), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn set_of_repository(
    State(front): State<Arc<AppState>>,
    Path((owner, name, secret)): Path<(String, String, String)>,
    Json(body): Json<SecretValue>,
) -> Result<Json<SecretSetBody>, Problem> {
    set(&front, scope(&front, &owner, &name)?, secret, &body.value).await
}

/// Remove a secret of a repository
#[utoipa::path(delete, path = "/api/v1/repositories/{owner}/{name}/secrets/{secret}", tag = "secret",
    params(("owner" = String, Path), ("name" = String, Path), ("secret" = String, Path)),
    responses((status = NO_CONTENT), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn remove_of_repository(
    State(front): State<Arc<AppState>>,
    Path((owner, name, secret)): Path<(String, String, String)>,
) -> Result<StatusCode, Problem> {
    remove(&front, scope(&front, &owner, &name)?, secret).await
}
