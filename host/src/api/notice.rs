//! Notices: what people were told, through whom, and whether it arrived.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use beespace_core::ids::NoticeId;
use beespace_core::notice::{Notice, NoticeState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::dto::when;
use super::pagination::{ListParams, Page};
use super::problem::Problem;
use crate::http_state::AppState;
use crate::store::outbox::Notices as _;
use crate::user_action;
use crate::web::html::rfc3339;

/// One notice for one notifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NoticeBody {
    /// Sorts by time: an UUID of version 7.
    pub id: String,
    /// `build.finished`, `approval.requested`.
    pub kind: String,
    /// The build it tells of.
    pub build: String,
    /// The binding that sends it.
    pub notifier: String,
    /// `pending`, `sent`, `dead`, `suspended`.
    pub state: String,
    /// How often it was tried.
    pub attempts: u32,
    /// What went wrong at the last attempt.
    pub last_error: Option<String>,
    /// The same at every attempt, so that a receiver knows it again.
    pub idempotency_key: String,
    /// RFC 3339, in UTC.
    pub created_at: String,
    /// When it is tried next; none where it is not. RFC 3339, in UTC.
    pub next_attempt_at: Option<String>,
    /// When it was sent or given up. RFC 3339, in UTC.
    pub finished_at: Option<String>,
    /// What is told; only where one notice is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<serde_json::Value>,
}

const STATES: [(&str, NoticeState); 4] = [
    ("pending", NoticeState::Pending),
    ("sent", NoticeState::Sent),
    ("dead_letter", NoticeState::DeadLetter),
    ("suspended", NoticeState::Suspended),
];

impl NoticeBody {
    fn new(notice: &Notice) -> Self {
        let state = STATES.iter().find(|(_, state)| *state == notice.state).map_or("", |(word, _)| word);
        Self {
            id: notice.id.to_string(),
            kind: notice.kind.as_str().to_owned(),
            build: notice.build.to_string(),
            notifier: notice.binding.clone(),
            state: state.to_owned(),
            attempts: notice.attempts,
            last_error: notice.last_error.clone(),
            idempotency_key: notice.idempotency_key.clone(),
            created_at: rfc3339(notice.created_at),
            next_attempt_at: (notice.state == NoticeState::Pending).then(|| rfc3339(notice.next_attempt_at)),
            finished_at: when(notice.finished_at),
            subject: None,
        }
    }
}

fn parse_id(text: &str) -> Result<NoticeId, Problem> {
    text.parse().map_err(|_| Problem::not_found("notice"))
}

fn parse_state(params: &ListParams) -> Result<Option<NoticeState>, Problem> {
    let find = |text: &str| STATES.iter().find(|(word, _)| *word == text).map(|(_, state)| *state);
    let parse = |text: &str| find(text).ok_or_else(|| Problem::bad_request(format!("{text:?} is no state of a notice.")));
    params.status.as_deref().map(parse).transpose()
}

/// All notices, newest first
#[utoipa::path(get, path = "/api/v1/notices", tag = "notice", params(ListParams),
    responses((status = OK, body = Vec<NoticeBody>)))]
pub(super) async fn list(
    State(front): State<Arc<AppState>>,
    Query(params): Query<ListParams>,
) -> Result<Page<NoticeBody>, Problem> {
    let all = front.store.read()?.notices(parse_state(&params)?, params.after()?.map(NoticeId), params.limit() + 1)?;
    Ok(Page::from_rows(all, &params, "/api/v1/notices", |notice| notice.id.to_string(), NoticeBody::new))
}

/// One notice with what it tells
#[utoipa::path(get, path = "/api/v1/notices/{id}", tag = "notice", params(("id" = String, Path)),
    responses((status = OK, body = NoticeBody), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn show(State(front): State<Arc<AppState>>, Path(id): Path<String>) -> Result<Json<NoticeBody>, Problem> {
    let notice = front.store.read()?.notice(parse_id(&id)?)?.ok_or_else(|| Problem::not_found("notice"))?;
    let subject = serde_json::from_str(&notice.subject.json).ok();
    Ok(Json(NoticeBody { subject, ..NoticeBody::new(&notice) }))
}

/// Send a notice that was given up once more
#[utoipa::path(post, path = "/api/v1/notices/{id}/replay", tag = "notice", params(("id" = String, Path)),
    responses((status = OK, body = NoticeBody), (status = CONFLICT, body = Problem)))]
pub(super) async fn replay(State(front): State<Arc<AppState>>, Path(id): Path<String>) -> Result<Json<NoticeBody>, Problem> {
    Ok(Json(NoticeBody::new(&user_action::replay_notice(&front, parse_id(&id)?).await?)))
}
