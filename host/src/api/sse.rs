//! Event streams: responses of type `text/event-stream` that stay open.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::RepositoryId;
use futures::stream::{Stream, StreamExt as _};
use serde::Serialize;

/// The interval of keep-alive comments on an idle stream, shorter than the idle timeout of proxies.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The response that sends these events as they occur.
pub(super) fn event_stream(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(keep_alive).into_response();
    // A proxy that buffers responses would deliver the events only when the stream ends.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// An event with a JSON value.
pub(super) fn json_event(name: &str, value: &impl Serialize) -> Event {
    // These values always serialise. If one did not, an event without data would be harmless.
    Event::default().event(name).json_data(value).unwrap_or_else(|_| Event::default().event(name))
}

/// `change`: the ids and the new status of what has changed.
pub(super) fn change_event(change: ChangeEvent) -> Event {
    json_event("change", &change)
}

/// `resync`: the client has missed changes and reloads what it shows, of this repository or of all.
pub(super) fn resync_event(repository: Option<RepositoryId>) -> Event {
    let scope = repository.map_or_else(|| serde_json::json!({}), |id| serde_json::json!({ "repository": id }));
    json_event("resync", &scope)
}
