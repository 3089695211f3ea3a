//! Lists, page by page: the next one is named by a `Link` header (RFC 8288), the cursor in it is nobody's business.

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use beespace_core::status::Status;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::problem::Problem;
use crate::urls;

const MAX_LIMIT: usize = 100;

/// What part of a list is wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// At most this many, 1 to 100; 50 where none is given.
    pub limit: Option<usize>,
    /// The cursor of a `Link`.
    pub after: Option<String>,
    /// Only those with this status; lists of builds and notices know it.
    pub status: Option<String>,
}

impl ListParams {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(50).clamp(1, MAX_LIMIT)
    }

    pub(super) fn after(&self) -> Result<Option<uuid::Uuid>, Problem> {
        let parse = |text: &str| text.parse().map_err(|_| Problem::bad_request("`after` is no cursor of ours."));
        self.after.as_deref().map(parse).transpose()
    }

    pub(super) fn status(&self) -> Result<Option<Status>, Problem> {
        let parse = |text: &str| {
            let known = Status::ALL.into_iter().find(|status| status.as_str() == text);
            let words = || Status::ALL.map(Status::as_str).join(", ");
            known.ok_or_else(|| Problem::bad_request(format!("{text:?} is no status; known are {}.", words())))
        };
        self.status.as_deref().map(parse).transpose()
    }
}

/// A part of a list.
#[derive(Debug)]
pub struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl<T> Page<T> {
    /// `all` holds one more than `limit` where there are more; `path` is the list's own address.
    pub(super) fn from_rows<U>(
        mut all: Vec<U>,
        params: &ListParams,
        path: &str,
        id: impl Fn(&U) -> String,
        body: impl Fn(&U) -> T,
    ) -> Self {
        let limit = params.limit();
        let has_more = all.len() > limit;
        all.truncate(limit);
        let status = params.status.as_ref().map_or_else(String::new, |status| format!("&status={}", urls::encode(status)));
        let next = all.last().filter(|_| has_more).map(|last| format!("{path}?limit={limit}&after={}{status}", id(last)));
        Self { items: all.iter().map(body).collect(), next }
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.items).into_response();
        let link = self.next.and_then(|next| HeaderValue::from_str(&format!("<{next}>; rel=\"next\"")).ok());
        if let Some(link) = link {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }
}
