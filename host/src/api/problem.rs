//! Why a request was not done, RFC 9457. Handlers return it; the last layer renders it, as JSON for programs and as a page for
//! people, so that both always say the same.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What is told about a request that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// `code` is what programs go by.
    #[serde(rename = "type", default)]
    pub kind: ProblemType,
    /// The status in words.
    pub title: String,
    /// The status in figures.
    pub status: u16,
    /// What happened and why, one or two sentences.
    pub detail: String,
    /// Stable, for searching.
    #[schema(value_type = String)]
    pub code: Box<str>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Names the request in the server's own log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub request_id: Option<Box<str>>,
}

/// RFC 9457's `type`: always the one that says "see the title".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub enum ProblemType {
    #[default]
    #[serde(rename = "about:blank")]
    AboutBlank,
}

/// The code of what needs the store while that cannot be used.
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

    /// The thing that was asked for is not there; `description` names it.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", format!("There is no such {what} here."))
    }

    /// The request itself is wrong.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// It does not fit what stands there now.
    #[must_use]
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// Our own trouble. The details go to the log, under the request's id.
    #[must_use]
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = format!("{error:#}"), "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong on our side; the server's log says what.")
    }

    /// The status as a number that HTTP knows.
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

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)?;
        self.help.iter().try_for_each(|help| write!(f, " {help}"))
    }
}

/// A response without a body that carries the problem to the layer which renders it.
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
            StoreError::NotFound(what) => Self::not_found(what),
            StoreError::Conflict(detail) => Self::conflict(detail),
            StoreError::Unavailable(detail) => {
                tracing::error!(%detail, "the store is not available");
                let text = "The store cannot be used at the moment; nothing was changed.";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, STORE_UNAVAILABLE, text).help("Try again in a few seconds.")
            }
            error @ (StoreError::InUse(_) | StoreError::Row { .. } | StoreError::Format(_)) => Self::internal(&error),
        }
    }
}
