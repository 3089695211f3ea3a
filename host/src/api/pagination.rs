//! Pagination of lists: a `Link` header (RFC 8288) has the URL of the next page; the cursor in it is opaque.

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use beespace_core::ids::{BuildId, RepositoryId};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::http_problem::Problem;
use crate::store::lookup::BuildList;
use crate::store::status_filter::InvalidStatusFilter;
use crate::urls;

/// The maximum number of items of one page.
pub const MAX_LIMIT: usize = 100;

/// The requested part of a list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// The maximum number of items, 1 to 100; 50 by default.
    pub limit: Option<usize>,
    /// The cursor from a `Link` header.
    pub after: Option<String>,
    /// Only items with this status. Lists of builds, notices and deliveries (by outcome) support it; `failed` stands for the
    /// builds with `failure`, `error` or `killed`.
    pub status: Option<String>,
}

impl ListParams {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(50).clamp(1, MAX_LIMIT)
    }

    pub(super) fn after(&self) -> Result<Option<uuid::Uuid>, Problem> {
        let parse = |text: &str| text.parse().map_err(|_| Problem::bad_request("`after` is not a cursor of this list"));
        self.after.as_deref().map(parse).transpose()
    }

    /// The list of builds that is requested, of one repository or of all.
    pub(super) fn builds(&self, repository: Option<RepositoryId>) -> Result<BuildList, Problem> {
        let parse = |text: &str| text.parse().map_err(|error: InvalidStatusFilter| Problem::bad_request(error.to_string()));
        let statuses = self.status.as_deref().map(parse).transpose()?.unwrap_or_default();
        Ok(BuildList { repository, statuses, after: self.after()?.map(BuildId) })
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl<T> Page<T> {
    /// `all` has one item more than the limit if there is a next page; `path` is the path of the list.
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
