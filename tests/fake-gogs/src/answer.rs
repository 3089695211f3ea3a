//! Responses of the API, errors included.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::go_json;

/// Why a request is refused. 401, 403 and 404 have empty bodies in Gogs.
#[derive(Debug)]
pub(super) enum Refusal {
    Forbidden,
    NotFound,
    /// 422 with the message of Gogs.
    Unprocessable(String),
    /// 500. Gogs hides the cause; the fake Gogs reports it.
    Failed(anyhow::Error),
}

pub(super) type Answer = Result<Response, Refusal>;

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Forbidden => StatusCode::FORBIDDEN.into_response(),
            Self::NotFound => StatusCode::NOT_FOUND.into_response(),
            Self::Unprocessable(message) => message_response(StatusCode::UNPROCESSABLE_ENTITY, message),
            Self::Failed(error) => message_response(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
        }
    }
}

fn message_response(status: StatusCode, message: String) -> Response {
    let body = serde_json::json!({ "message": message, "url": "https://github.com/gogs/docs-api" });
    json(status, &body).unwrap_or_else(|_| status.into_response())
}

/// A JSON response, written as Go writes it.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = go_json::compact(value).map_err(|error| Refusal::Failed(error.into()))?;
    Ok((status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response())
}
