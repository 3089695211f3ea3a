//! Health, version and metrics of the server, and the identity of the caller.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use beespace_wasm::Kind;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::clock::now;
use crate::disk;
use crate::principal::Principal;
use crate::store::Health;
use crate::store::Queue;

/// The identity of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserBody {
    /// `admin`, or `anonymous` without valid credentials.
    pub id: String,
    /// Whether the caller may change everything.
    pub is_admin: bool,
}

/// The identity of the caller
#[utoipa::path(get, path = "/api/v1/user", tag = "user", responses((status = OK, body = UserBody)))]
pub(super) async fn user(Extension(principal): Extension<Principal>) -> Json<UserBody> {
    Json(UserBody { id: principal.id().to_owned(), is_admin: principal.is_admin() })
}

/// The process is alive.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

#[derive(Debug, Deserialize)]
pub(super) struct ReadyQuery {
    verbose: Option<String>,
}

/// Whether the server can do its work. `?verbose` lists each component; only an administrator sees the details.
///
/// The server accepts deliveries as long as the store is open, even if it is not ready. A load balancer must therefore probe
/// `/healthz`: Gogs sends a delivery only once, and it would be lost.
pub(super) async fn readyz(
    State(app): State<Arc<App>>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<ReadyQuery>,
) -> Response {
    let parts = components(&app).await;
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

/// The components that the server needs, each with its state.
async fn components(app: &App) -> [(&'static str, Result<String, String>); 5] {
    let store = match app.store.health() {
        Health::Open => Ok("open".to_owned()),
        Health::Failing { reason, attempts } => Err(format!("{reason}; {attempts} attempts to reopen it so far")),
    };
    let stuck: Vec<&str> = app.heartbeats.stuck(now()).into_iter().map(Queue::as_str).collect();
    let workers = if stuck.is_empty() {
        Ok("all are running".to_owned())
    } else {
        Err(format!("{}: no heartbeat for a minute; restart the server, which resumes the work in progress", stuck.join(", ")))
    };
    let engine = app.engine_health.get(app.engine.check()).await;
    let plugins = Ok(format!("{} loaded", app.plugins.all().count()));
    let room =
        disk::check_free_space(&app.config).map(|free| format!("{} MiB free", free >> 20)).map_err(|reason| reason.to_string());
    [("store", store), ("workers", workers), ("engine", engine), ("plugins", plugins), ("disk", room)]
}

/// The version of the server.
pub(super) async fn version() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "name": "beespace", "version": env!("CARGO_PKG_VERSION") }))
}

/// The metrics, for Prometheus.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    // The queue lengths are counted per request. A counter beside the rows could differ from them.
    if let Ok(read) = app.store.read() {
        for queue in Queue::ALL {
            app.metrics.set_queue_length(queue.as_str(), read.queue_length(queue).unwrap_or_default());
        }
    }
    app.metrics.set_rows_read(app.store.rows_read());
    for queue in Queue::ALL {
        app.metrics.set_in_progress(queue.as_str(), app.heartbeats.of(queue).in_progress());
    }
    for kind in [Kind::Policy, Kind::Step, Kind::Notifier] {
        app.metrics.set_plugin_slots(kind.as_str(), app.host.call_slots(kind));
    }
    let content_type = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (content_type, app.metrics.text()).into_response()
}
