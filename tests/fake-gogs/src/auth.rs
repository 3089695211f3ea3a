//! Authentication: the token of the API, and the user name and password of git.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;

use super::state::Instance;
use super::user::User;

/// The header that marks the fake Gogs' own requests.
pub(super) const INTERNAL_HEADER: &str = "x-fake-gogs-internal";

/// The caller of the API; `None` if the token is missing or not accepted.
#[derive(Debug)]
pub(super) struct Caller(pub(super) Option<User>);

/// A caller with a valid token. Others get 401 with an empty body.
#[derive(Debug)]
pub(super) struct AuthenticatedUser(pub(super) User);

impl Instance {
    pub(super) fn is_internal(&self, headers: &HeaderMap) -> bool {
        headers.get(INTERNAL_HEADER).is_some_and(|value| value.as_bytes() == self.internal_key.as_bytes())
    }

    fn user_of_token(&self, token: &str, headers: &HeaderMap) -> Option<User> {
        let dead = self.read(|state| state.faults.token_revoked) && !self.is_internal(headers);
        if dead { None } else { self.user_with_token(token) }
    }

    /// The API takes exactly `Authorization: token TOKEN`, lower-case scheme, nothing else (`internal/context/auth.go`).
    fn api_caller(&self, headers: &HeaderMap) -> Option<User> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let fields: Vec<&str> = value.split_whitespace().collect();
        match fields.as_slice() {
            ["token", token] => self.user_of_token(token, headers),
            _ => None,
        }
    }

    /// git sends a user name and a password. Either may be the token; the other is ignored then.
    pub(super) fn git_caller(&self, headers: &HeaderMap) -> Option<User> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let credentials = base64::engine::general_purpose::STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
        let credentials = String::from_utf8(credentials).ok()?;
        let (name, password) = credentials.split_once(':')?;
        self.user_of_token(name, headers).or_else(|| self.user_of_token(password, headers))
    }
}

impl FromRequestParts<Arc<Instance>> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, instance: &Arc<Instance>) -> Result<Self, Self::Rejection> {
        Ok(Self(instance.api_caller(&parts.headers)))
    }
}

impl FromRequestParts<Arc<Instance>> for AuthenticatedUser {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, instance: &Arc<Instance>) -> Result<Self, Self::Rejection> {
        instance.api_caller(&parts.headers).map(Self).ok_or(StatusCode::UNAUTHORIZED)
    }
}
