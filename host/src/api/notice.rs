//! Notices: messages to people, the notifier that sends them, and the state of each.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use beespace_core::ids::NoticeId;
use beespace_core::notice::{Notice, NoticeState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::dto::optional_rfc3339;
use super::pagination::{ListParams, Page};
use crate::app::App;
use crate::http_problem::Problem;
use crate::store::Read;
use crate::store::build::Builds as _;
use crate::store::notice::Notices as _;
use crate::user_action;
use crate::view::build_title;
use crate::view::time::rfc3339;

/// One notice of one notifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NoticeBody {
    /// A UUID of version 7, so ids sort by time.
    pub id: String,
    /// The kind: `build.finished` or `approval.requested`.
    pub kind: String,
    /// The id of its build.
    pub build: String,
    /// Repository and number of the build, `acme/app #7`; absent if the build was removed.
    pub build_label: Option<String>,
    /// The binding that sends it.
    pub notifier: String,
    /// `pending`, `sent`, `dead_letter`, `suspended`.
    pub state: String,
    /// The number of attempts, however often the notice was queued again.
    pub attempts: u32,
    /// The error of the last attempt.
    pub last_error: Option<String>,
    /// The same at every attempt, so that the receiver can recognise a repetition.
    pub idempotency_key: String,
    /// When it was created. RFC 3339, in UTC.
    pub created_at: String,
    /// The time of the next attempt, if there is one. RFC 3339, in UTC.
    pub next_attempt_at: Option<String>,
    /// When it was sent or became a dead letter. RFC 3339, in UTC.
    pub finished_at: Option<String>,
    /// The content; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<serde_json::Value>,
}

impl NoticeBody {
    fn new(read: &Read, notice: &Notice) -> Self {
        Self {
            id: notice.id.to_string(),
            kind: notice.kind.as_str().to_owned(),
            build: notice.build.to_string(),
            build_label: read.build(notice.build).ok().flatten().map(|build| build_title::build_name(&build)),
            notifier: notice.binding.clone(),
            state: notice.state.as_str().to_owned(),
            attempts: notice.total_attempts(),
            last_error: notice.last_error.clone(),
            idempotency_key: notice.idempotency_key.clone(),
            created_at: rfc3339(notice.created_at),
            next_attempt_at: (notice.state == NoticeState::Pending).then(|| rfc3339(notice.next_attempt_at)),
            finished_at: optional_rfc3339(notice.finished_at),
            subject: None,
        }
    }
}

fn parse_id(text: &str) -> Result<NoticeId, Problem> {
    text.parse().map_err(|_| Problem::not_found("notice", text))
}

fn parse_state(params: &ListParams) -> Result<Option<NoticeState>, Problem> {
    let parse = |text: &str| {
        NoticeState::parse(text).ok_or_else(|| {
            Problem::bad_request(format!(
                "{text:?} is not a state of a notice: use `pending`, `sent`, `dead_letter` or `suspended`"
            ))
        })
    };
    params.status.as_deref().map(parse).transpose()
}

/// All notices, newest first
#[utoipa::path(get, path = "/api/v1/notices", tag = "notice", params(ListParams),
    responses((status = OK, body = Vec<NoticeBody>)))]
pub(super) async fn list(State(app): State<Arc<App>>, Query(params): Query<ListParams>) -> Result<Page<NoticeBody>, Problem> {
    let read = app.store.read()?;
    let all = read.notices(parse_state(&params)?, params.after()?.map(NoticeId), params.limit() + 1)?;
    let path = app.urls.below_base("/api/v1/notices");
    Ok(Page::from_rows(all, &params, &path, |notice| notice.id.to_string(), |notice| NoticeBody::new(&read, notice)))
}

/// One notice with its content
#[utoipa::path(get, path = "/api/v1/notices/{id}", tag = "notice", params(("id" = String, Path)),
    responses((status = OK, body = NoticeBody), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<NoticeBody>, Problem> {
    let read = app.store.read()?;
    let notice = read.notice(parse_id(&id)?)?.ok_or_else(|| Problem::not_found("notice", &id))?;
    let subject = serde_json::from_str(&notice.subject.json).ok();
    Ok(Json(NoticeBody { subject, ..NoticeBody::new(&read, &notice) }))
}

/// Send a notice again, or at once if it is waiting for its next attempt
#[utoipa::path(post, path = "/api/v1/notices/{id}/retry", tag = "notice", params(("id" = String, Path)),
    responses((status = OK, body = NoticeBody), (status = CONFLICT, body = Problem)))]
pub(super) async fn retry(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<NoticeBody>, Problem> {
    let notice = user_action::retry_notice(&app, parse_id(&id)?).await.map_err(|error| Problem::of(error, id))?;
    Ok(Json(NoticeBody::new(&app.store.read()?, &notice)))
}

/// Send all unfinished notices of a notifier at once
///
/// They are the suspended notices and those that wait for their next attempt. They are sent in order.
#[utoipa::path(post, path = "/api/v1/notifiers/{notifier}/retry", tag = "notice", params(("notifier" = String, Path)),
    responses((status = NO_CONTENT), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn retry_all(State(app): State<Arc<App>>, Path(notifier): Path<String>) -> Result<StatusCode, Problem> {
    if user_action::retry_notifier(&app, &notifier).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::not_found("notifier", notifier).help("`[[notifier]]` in beespace.toml defines the notifiers"))
}
