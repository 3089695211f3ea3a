//! Secrets: set, list by name, remove. The API never returns a value.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use beespace_core::mask::{Weakness, weakness};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroize as _;

use crate::app::App;
use crate::authorization::Authorized;
use crate::clock::now;
use crate::http_problem::Problem;
use crate::store::repository::Repository;
use crate::store::secret::{Secret, SecretScope};
use crate::view::time::rfc3339;

/// The name of a secret, and when its value was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretBody {
    /// The name that pipeline files use.
    pub name: String,
    /// When its value was last set. RFC 3339, in UTC.
    pub changed_at: String,
}

/// The response to a new value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretSetBody {
    /// The name that pipeline files use.
    pub name: String,
    /// When its value was set. RFC 3339, in UTC.
    pub changed_at: String,
    /// The weakness of the value, if masking in logs protects it poorly.
    pub weakness: Option<String>,
}

/// A new value. `Debug` hides it, and it is erased from memory when dropped.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct SecretValue {
    /// At most 64 KiB.
    pub value: String,
}

/// The secret that a path names.
#[derive(Debug, Deserialize)]
pub(super) struct SecretPath {
    secret: String,
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

/// The longest value, in bytes.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// Whether a pipeline file can use this name.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn list(app: &App, scope: SecretScope) -> Result<Json<Vec<SecretBody>>, Problem> {
    let secrets = app.store.read()?.secrets(scope)?;
    let body = |secret: &Secret| SecretBody { name: secret.name.clone(), changed_at: rfc3339(secret.changed_at) };
    Ok(Json(secrets.iter().map(body).collect()))
}

async fn set(app: &App, scope: SecretScope, name: String, value: &str) -> Result<Json<SecretSetBody>, Problem> {
    if !is_secret_name(&name) {
        return Err(Problem::bad_request(format!(
            "{name:?} is not the name of a secret: it must have 1 to 100 letters, digits, `_`, `-` or `.`"
        )));
    }
    if value.is_empty() {
        return Err(Problem::bad_request(format!("the value of secret {name} is empty")));
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(Problem::bad_request(format!("the value of secret {name} is longer than 64 KiB")));
    }
    if value.contains('\0') {
        let help = "encode it, for example as base64, and decode it in the step";
        let detail = format!("the value of secret {name} contains a NUL byte, which environment variables cannot");
        return Err(Problem::bad_request(detail).help(help));
    }
    let weakness = weakness(value.as_bytes());
    if let Some(unmasked @ Weakness::NotMasked) = weakness {
        return Err(Problem::bad_request(format!("secret {name} was not stored: {unmasked}")).help(remedy_for_short(scope)));
    }
    let changed_at = now();
    let sealed = app.key.seal(&scope.associated_data(&name), value.as_bytes()).map_err(|error| Problem::internal(&error))?;
    app.store.set_secret(Secret { scope, name: name.clone(), value: sealed, changed_at, moved_at: None }).await?;
    Ok(Json(SecretSetBody { name, changed_at: rfc3339(changed_at), weakness: weakness.map(|weakness| weakness.to_string()) }))
}

fn remedy_for_short(scope: SecretScope) -> &'static str {
    match scope {
        SecretScope::Plugins => "use a longer value",
        SecretScope::Instance | SecretScope::Repository(_) => {
            "use a longer value, or, if it is not confidential, write it to `env` in the pipeline file"
        }
    }
}

async fn remove(app: &App, scope: SecretScope, name: String) -> Result<StatusCode, Problem> {
    if app.store.remove_secret(scope, name.clone(), now()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("secret", name))
    }
}

/// The secrets of the instance
#[utoipa::path(get, path = "/api/v1/secrets", tag = "secret", responses((status = OK, body = Vec<SecretBody>)))]
pub(super) async fn list_of_instance(State(app): State<Arc<App>>) -> Result<Json<Vec<SecretBody>>, Problem> {
    list(&app, SecretScope::Instance)
}

/// Set a secret of the instance
#[utoipa::path(put, path = "/api/v1/secrets/{secret}", tag = "secret", params(("secret" = String, Path)),
    request_body = SecretValue, responses((status = OK, body = SecretSetBody), (status = BAD_REQUEST, body = Problem)))]
pub(super) async fn set_of_instance(
    State(app): State<Arc<App>>,
    Path(secret): Path<String>,
    Json(body): Json<SecretValue>,
) -> Result<Json<SecretSetBody>, Problem> {
    set(&app, SecretScope::Instance, secret, &body.value).await
}

/// Remove a secret of the instance
#[utoipa::path(delete, path = "/api/v1/secrets/{secret}", tag = "secret", params(("secret" = String, Path)),
    responses((status = NO_CONTENT), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn remove_of_instance(State(app): State<Arc<App>>, Path(secret): Path<String>) -> Result<StatusCode, Problem> {
    remove(&app, SecretScope::Instance, secret).await
}

/// The secrets of plugins
///
/// No pipeline can read them. A notifier can use those that the grants of its binding name.
#[utoipa::path(get, path = "/api/v1/plugin-secrets", tag = "secret", responses((status = OK, body = Vec<SecretBody>)))]
pub(super) async fn list_of_plugins(State(app): State<Arc<App>>) -> Result<Json<Vec<SecretBody>>, Problem> {
    list(&app, SecretScope::Plugins)
}

/// Set a secret of plugins
#[utoipa::path(put, path = "/api/v1/plugin-secrets/{secret}", tag = "secret", params(("secret" = String, Path)),
    request_body = SecretValue, responses((status = OK, body = SecretSetBody), (status = BAD_REQUEST, body = Problem)))]
pub(super) async fn set_of_plugins(
    State(app): State<Arc<App>>,
    Path(secret): Path<String>,
    Json(body): Json<SecretValue>,
) -> Result<Json<SecretSetBody>, Problem> {
    set(&app, SecretScope::Plugins, secret, &body.value).await
}

/// Remove a secret of plugins
#[utoipa::path(delete, path = "/api/v1/plugin-secrets/{secret}", tag = "secret", params(("secret" = String, Path)),
    responses((status = NO_CONTENT), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn remove_of_plugins(State(app): State<Arc<App>>, Path(secret): Path<String>) -> Result<StatusCode, Problem> {
    remove(&app, SecretScope::Plugins, secret).await
}

/// The secrets of a repository
#[utoipa::path(get, path = "/api/v1/repositories/{owner}/{name}/secrets", tag = "secret",
    params(("owner" = String, Path), ("name" = String, Path)),
    responses((status = OK, body = Vec<SecretBody>), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn list_of_repository(
    State(app): State<Arc<App>>,
    repository: Authorized<Repository>,
) -> Result<Json<Vec<SecretBody>>, Problem> {
    list(&app, SecretScope::Repository(repository.id))
}

/// Set a secret of a repository
#[utoipa::path(put, path = "/api/v1/repositories/{owner}/{name}/secrets/{secret}", tag = "secret",
    params(("owner" = String, Path), ("name" = String, Path), ("secret" = String, Path)),
    request_body = SecretValue, responses((status = OK, body = SecretSetBody), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn set_of_repository(
    State(app): State<Arc<App>>,
    repository: Authorized<Repository>,
    Path(SecretPath { secret }): Path<SecretPath>,
    Json(body): Json<SecretValue>,
) -> Result<Json<SecretSetBody>, Problem> {
    set(&app, SecretScope::Repository(repository.id), secret, &body.value).await
}

/// Remove a secret of a repository
#[utoipa::path(delete, path = "/api/v1/repositories/{owner}/{name}/secrets/{secret}", tag = "secret",
    params(("owner" = String, Path), ("name" = String, Path), ("secret" = String, Path)),
    responses((status = NO_CONTENT), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn remove_of_repository(
    State(app): State<Arc<App>>,
    repository: Authorized<Repository>,
    Path(SecretPath { secret }): Path<SecretPath>,
) -> Result<StatusCode, Problem> {
    remove(&app, SecretScope::Repository(repository.id), secret).await
}
