//! What changes, live: `text/event-stream`.
//!
//! Events carry ids and words, never content; who needs more asks for it. They are not kept: whoever comes back with a
//! `Last-Event-ID`, or was too slow, first gets `resync`, which means "read again what you show".

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::{BuildId, RepositoryId, RepositoryName};
use futures::Stream;
use futures::stream::{self, StreamExt as _};
use serde::Deserialize;
use tokio_stream::wrappers::BroadcastStream;
use utoipa::IntoParams;

use super::problem::Problem;
use crate::http_state::AppState;
use crate::session::Principal;
use crate::store::repository::Repositories as _;

/// Which changes are wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventParams {
    /// Only those of this build (its id).
    build: Option<String>,
    /// Only those of this repository (`owner/name`).
    repository: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct EventFilter {
    /// Deliveries and notices, too: both are for administrators alone.
    all: bool,
    build: Option<BuildId>,
    repository: Option<RepositoryId>,
}

/// Changes from now on
#[utoipa::path(get, path = "/api/v1/events", tag = "event", params(EventParams),
    responses((status = OK, content_type = "text/event-stream", body = String), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn stream(
    State(front): State<Arc<AppState>>,
    Extension(principal): Extension<Principal>,
    Query(params): Query<EventParams>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Problem> {
    let wanted = event_filter(&front, &params, &principal)?;
    let changes = BroadcastStream::new(front.store.watch());
    let missed = headers.contains_key("last-event-id").then(|| Ok(resync()));
    let events = changes.enumerate().filter_map(move |(index, change)| {
        let event = match change {
            Ok(change) if matches_filter(wanted, change) => match emission(wanted, change) {
                Emission::Change => Event::default().event("change").id(index.to_string()).json_data(change).ok(),
                Emission::Resync => Some(resync()),
                Emission::Nothing => None,
            },
            Ok(_) => None,
            Err(_) => Some(resync()),
        };
        std::future::ready(event.map(Ok))
    });
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    Ok(Sse::new(stream::iter(missed).chain(events)).keep_alive(keep_alive))
}

/// What a caller hears of a change.
enum Emission {
    Change,
    Resync,
    Nothing,
}

fn emission(wanted: EventFilter, change: ChangeEvent) -> Emission {
    match change {
        _ if wanted.all => Emission::Change,
        // A build may be gone with it, and the repository's page says why: whoever shows either reads it again.
        ChangeEvent::DeliveryProcessed { .. } => Emission::Resync,
        ChangeEvent::DeliveryStored { .. } | ChangeEvent::NoticeChanged { .. } => Emission::Nothing,
        _ => Emission::Change,
    }
}

fn resync() -> Event {
    Event::default().event("resync").data("{}")
}

fn event_filter(front: &AppState, params: &EventParams, principal: &Principal) -> Result<EventFilter, Problem> {
    let all = principal.is_admin();
    let build = params.build.as_deref().map(str::parse).transpose().map_err(|_| Problem::not_found("build"))?;
    let Some(name) = &params.repository else { return Ok(EventFilter { all, build, repository: None }) };
    let name: RepositoryName = name.parse().map_err(|_| Problem::not_found("repository"))?;
    let repository = front.store.read()?.repository_by_name(&name)?.ok_or_else(|| Problem::not_found("repository"))?;
    Ok(EventFilter { all, build, repository: Some(repository.id) })
}

fn matches_filter(wanted: EventFilter, change: ChangeEvent) -> bool {
    let (build, repository) = match change {
        ChangeEvent::DeliveryStored { repository, .. } | ChangeEvent::DeliveryProcessed { repository, .. } => {
            (None, Some(repository))
        }
        ChangeEvent::BuildChanged { repository, build, .. } | ChangeEvent::BuildFinished { repository, build, .. } => {
            (Some(build), Some(repository))
        }
        ChangeEvent::StageChanged { repository, stage, .. } => (Some(stage.build), Some(repository)),
        ChangeEvent::StepChanged { repository, step, .. } => (Some(step.build), Some(repository)),
        ChangeEvent::NoticeChanged { .. } => (None, None),
    };
    wanted.build.is_none_or(|id| build == Some(id)) && wanted.repository.is_none_or(|id| repository == Some(id))
}
