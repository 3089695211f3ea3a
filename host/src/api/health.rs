//! How the server does: for whoever starts it, watches it or signs in.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::disk;
use crate::http_state::AppState;
use crate::session::Principal;
use crate::store::Health;
use crate::store::Queue;

/// Who a token or a session belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserBody {
    /// `admin`, or `anonymous` where the request proves nothing.
    pub id: String,
    /// Whether everything may be changed.
    pub is_admin: bool,
}

/// Who I am to this server
#[utoipa::path(get, path = "/api/v1/user", tag = "user", responses((status = OK, body = UserBody)))]
pub(super) async fn user(Extension(principal): Extension<Principal>) -> Json<UserBody> {
    Json(UserBody { id: principal.id().to_owned(), is_admin: principal.is_admin() })
}

/// The process lives.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

#[derive(Debug, Deserialize)]
pub(super) struct ReadyQuery {
    verbose: Option<String>,
}

/// Whether it can do its work; `?verbose` tells an administrator each part.
///
/// Deliveries are taken while the store is open, whatever else is amiss: what is ready decides who is called, and Gogs calls only
/// once. Whoever routes requests by a probe asks `/healthz`.
pub(super) async fn readyz(
    State(front): State<Arc<AppState>>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<ReadyQuery>,
) -> Response {
    let parts = components(&front).await;
    let is_ready = parts.iter().all(|(_, state)| state.is_ok());
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = if is_ready { "ready\n".to_owned() } else { "not ready\n".to_owned() };
    for (part, state) in &parts {
        match state {
            Ok(detail) if query.verbose.is_some() && principal.is_admin() => text.push_str(&format!("[+] {part}: {detail}\n")),
            Err(detail) if principal.is_admin() => text.push_str(&format!("[-] {part}: {detail}\n")),
            Ok(_) if query.verbose.is_some() => text.push_str(&format!("[+] {part}\n")),
            Err(_) => text.push_str(&format!("[-] {part}\n")),
            Ok(_) => {}
        }
    }
    (status, text).into_response()
}

/// What it needs for its work, each with how it does.
async fn components(front: &AppState) -> [(&'static str, Result<String, String>); 5] {
    let store = match front.store.health() {
        Health::Open => Ok("open".to_owned()),
        Health::Failing { reason, attempts } => Err(format!("{reason}; reopened {attempts} times so far")),
    };
    let stuck: Vec<&str> = front.heartbeats.stuck(front.now()).into_iter().map(Queue::as_str).collect();
    let workers = if stuck.is_empty() {
        Ok("all look at their queues".to_owned())
    } else {
        Err(format!("{}: not looked at for a minute; a restart takes up what is in hand", stuck.join(", ")))
    };
    let engine = front.engine_health.get(front.engine.check()).await;
    let plugins = Ok(format!("{} loaded", front.plugins.len()));
    let room =
        disk::check_free_space(&front.config).map(|free| format!("{} MiB free", free >> 20)).map_err(|reason| reason.to_string());
    [("store", store), ("workers", workers), ("engine", engine), ("plugins", plugins), ("disk", room)]
}

/// Which version runs.
pub(super) async fn version() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "name": "beespace", "version": env!("CARGO_PKG_VERSION") }))
}

/// Prometheus' figures.
pub(super) async fn metrics(State(front): State<Arc<AppState>>) -> Response {
    // Counted when somebody asks: the rows are the truth, a counter beside them could only differ.
    if let Ok(read) = front.store.read() {
        for queue in Queue::ALL {
            front.metrics.set_queue_length(queue.as_str(), read.queue_length(queue).unwrap_or_default());
        }
    }
    front.metrics.set_rows_read(front.store.rows_read());
    for queue in Queue::ALL {
        front.metrics.set_in_progress(queue.as_str(), front.heartbeats.of(queue).in_progress());
    }
    front.metrics.set_plugin_slots(front.host.call_slots());
    let content_type = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (content_type, front.metrics.text()).into_response()
}
