//! Live changes: `text/event-stream`.
//!
//! Events carry ids and statuses, never content; a client fetches what it needs. Events are not stored: a client that reconnects
//! with a `Last-Event-ID`, or that was too slow, first gets `resync`, which means "reload what you show"; with a `repository`,
//! what you show of it.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::{BuildId, RepositoryId, RepositoryName};
use futures::stream::{self, StreamExt as _};
use serde::Deserialize;
use tokio_stream::wrappers::BroadcastStream;
use utoipa::IntoParams;

use super::sse::{change_event, event_stream, resync_event};
use crate::app::App;
use crate::http_problem::Problem;
use crate::principal::Principal;
use crate::store::Store;
use crate::store::lookup::Visibility;
use crate::store::repository::Repositories as _;

/// A filter for changes.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventParams {
    /// Only changes of this build (its id).
    build: Option<String>,
    /// Only changes of this repository (`owner/name`).
    repository: Option<String>,
}

#[derive(Debug, Clone)]
struct EventFilter {
    /// Whether deliveries and notices are included: only administrators see them.
    is_admin: bool,
    visibility: Visibility,
    build: Option<BuildId>,
    repository: Option<RepositoryId>,
}

/// Live changes from now on
#[utoipa::path(get, path = "/api/v1/events", tag = "event", params(EventParams),
    responses((status = OK, content_type = "text/event-stream", body = String), (status = NOT_FOUND, body = Problem)))]
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    visibility: Visibility,
    Query(params): Query<EventParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = event_filter(&app, &params, principal.is_admin(), visibility)?;
    let store = app.store.clone();
    let changes = BroadcastStream::new(app.store.watch());
    let missed = headers.contains_key("last-event-id").then(|| resync_event(None));
    let events = changes.enumerate().filter_map(move |(index, change)| {
        let event = match change {
            Ok(change) => match emission(&filter, &store, change) {
                Emission::Change => Some(change_event(change).id(index.to_string())),
                Emission::Resync(repository) => Some(resync_event(Some(repository))),
                Emission::Nothing => None,
            },
            // The client was too slow and has missed changes.
            Err(_) => Some(resync_event(None)),
        };
        std::future::ready(event)
    });
    Ok(event_stream(stream::iter(missed).chain(events)))
}

/// The message that a client receives for a change.
enum Emission {
    Change,
    Resync(RepositoryId),
    Nothing,
}

fn emission(filter: &EventFilter, store: &Store, change: ChangeEvent) -> Emission {
    match change {
        _ if !filter.matches(store, change) => Emission::Nothing,
        _ if filter.is_admin => Emission::Change,
        // The delivery may have removed its build, and the repository's page shows why: clients that show either must reload.
        ChangeEvent::DeliveryProcessed { repository, .. } => Emission::Resync(repository),
        ChangeEvent::DeliveryStored { .. } | ChangeEvent::NoticeChanged { .. } => Emission::Nothing,
        _ => Emission::Change,
    }
}

fn event_filter(app: &App, params: &EventParams, is_admin: bool, visibility: Visibility) -> Result<EventFilter, Problem> {
    let parse = |text: &str| text.parse().map_err(|_| Problem::not_found("build", text));
    let build = params.build.as_deref().map(parse).transpose()?;
    let repository = match &params.repository {
        Some(name) => {
            let parsed: RepositoryName = name.parse().map_err(|_| Problem::not_found("repository", name))?;
            let found = app.store.read()?.visible_repository(&visibility, &parsed);
            Some(found.map_err(|error| Problem::of(error, name))?.id)
        }
        None => None,
    };
    Ok(EventFilter { is_admin, visibility, build, repository })
}

impl EventFilter {
    fn matches(&self, store: &Store, change: ChangeEvent) -> bool {
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
        self.build.is_none_or(|id| build == Some(id))
            && self.repository.is_none_or(|id| repository == Some(id))
            && repository.is_none_or(|id| self.shows(store, id))
    }

    /// Reads the repository at each change: it may have become private since the stream began.
    fn shows(&self, store: &Store, repository: RepositoryId) -> bool {
        if self.visibility == Visibility::All {
            return true;
        }
        let repository = store.read().and_then(|read| read.repository(repository)).ok().flatten();
        repository.is_some_and(|repository| self.visibility.includes(&repository))
    }
}
