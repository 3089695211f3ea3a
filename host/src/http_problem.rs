//! The errors of requests, in the form of RFC 9457. Handlers return a [`Problem`]. The middleware renders it as JSON for programs
//! and as a page for people, so that both get the same text.

use std::fmt;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::forge::{EnableError, ForgeError};
use crate::log::LogError;
use crate::store::StoreError;
use crate::user_action::ActionError;

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request failed, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always `about:blank`; programs distinguish problems by `code`.
    #[serde(rename = "type", default)]
    pub kind: ProblemType,
    /// The name of the status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The fact and its cause. It names its subject, begins in lower case unless with a name, and has no full stop at its end.
    pub detail: String,
    /// A stable code, for programs and for searching.
    #[schema(value_type = String)]
    pub code: Box<str>,
    /// The remedy, in the same form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The id of the request in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub request_id: Option<Box<str>>,
}

/// The `type` of RFC 9457. `about:blank` refers to the title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub enum ProblemType {
    #[default]
    #[serde(rename = "about:blank")]
    AboutBlank,
}

/// The code of requests that fail because the store is unavailable.
pub const STORE_UNAVAILABLE: &str = "store-unavailable";

impl Problem {
    #[must_use]
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: ProblemType::AboutBlank,
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.into(),
            help: None,
            request_id: None,
        }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The requested thing does not exist, or the caller may not know it: `no such build: ada/hive 9`.
    #[must_use]
    pub fn not_found(what: &str, name: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", format!("no such {what}: {name}"))
    }

    /// The problem of an operation on one object, which is named if it does not exist.
    #[must_use]
    pub fn of(error: StoreError, name: impl fmt::Display) -> Self {
        match error {
            StoreError::NotFound(what) => Self::not_found(what, name),
            other => other.into(),
        }
    }

    /// The request itself is invalid.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// The request conflicts with the current state.
    #[must_use]
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// An internal error. Its details are logged under the request's id, and only there.
    #[must_use]
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = format!("{error:#}"), "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server could not complete the request because of an internal error",
        )
        .help("the server's log has the details under this request's id")
    }

    /// The status as a type of HTTP.
    #[must_use]
    pub fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The JSON form.
    #[must_use]
    pub fn json(&self) -> Response {
        let mut response = (self.status_code(), Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        self.help.iter().try_for_each(|help| write!(f, "; {help}"))
    }
}

/// An empty response that carries the problem to the middleware, which renders it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status_code().into_response();
        if self.status_code() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if self.status_code() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "not-found", error.to_string()),
            StoreError::Conflict(detail) => Self::conflict(detail),
            StoreError::Unavailable(detail) => {
                tracing::error!(%detail, "the store is unavailable");
                let text = "the store is unavailable; nothing was changed";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, STORE_UNAVAILABLE, text).help("try again in a few seconds")
            }
            error @ (StoreError::InUse(_) | StoreError::Row { .. } | StoreError::Format(_)) => Self::internal(&error),
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        let public = error.public();
        if let LogError::TooManyScans = error {
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", public).help("try again in a few seconds");
        }
        Self { detail: public.to_owned(), code: "log".into(), ..Self::internal(&error) }
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

impl From<ActionError> for Problem {
    fn from(error: ActionError) -> Self {
        let detail = error.to_string();
        match error {
            ActionError::Store(error) => error.into(),
            ActionError::NoStage { .. } => Self::new(StatusCode::NOT_FOUND, "not-found", detail),
            ActionError::NothingBlocked { .. }
            | ActionError::Over { .. }
            | ActionError::NotSuccessful { .. }
            | ActionError::Untrusted { .. } => Self::conflict(detail),
            ActionError::SeveralBlocked
            | ActionError::InvalidSubject(_)
            | ActionError::LongReason(_)
            | ActionError::SeveralRevisions
            | ActionError::InvalidCommit(_)
            | ActionError::InvalidRef(_)
            | ActionError::InvalidTarget(_)
            | ActionError::InvalidSchedule(_)
            | ActionError::ManyParams(_)
            | ActionError::InvalidParam(_) => Self::bad_request(detail),
            ActionError::NoSubject => Self::bad_request(detail).help("the build lists the digest as `subject` of each approval"),
        }
    }
}

/// A detail or a remedy as a sentence of a page. A first word that is more than letters is a name and keeps its case.
#[must_use]
pub fn sentence(text: &str) -> String {
    let is_word = text.split(' ').next().is_some_and(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '\''));
    let mut chars = text.chars();
    let first =
        chars.next().map_or_else(String::new, |first| if is_word { first.to_uppercase().to_string() } else { first.into() });
    let stop = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{stop}", chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_show_details_as_sentences() {
        for (text, shown) in [
            ("no such page: /a", "No such page: /a."),
            ("ada/hive #7 is already killed", "ada/hive #7 is already killed."),
            ("`after` is not a cursor of this list", "`after` is not a cursor of this list."),
            ("Gogs cannot be reached", "Gogs cannot be reached."),
            ("the server's log has the details", "The server's log has the details."),
        ] {
            assert_eq!(sentence(text), shown);
        }
    }

    #[test]
    fn an_object_that_does_not_exist_is_named() {
        let problem = Problem::of(StoreError::NotFound("build"), "ada/hive 9");
        assert_eq!((problem.status, problem.to_string().as_str()), (404, "no such build: ada/hive 9"));
        assert_eq!(Problem::of(StoreError::Conflict("it is over".to_owned()), "ada/hive 9").status, 409);
    }
}
