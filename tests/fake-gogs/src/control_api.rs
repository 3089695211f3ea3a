//! The control API under `/control/`, which a real Gogs does not have.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Json, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::time::{Duration, sleep};

use super::answer::{Answer, Refusal, json};
use super::inbox::Received;
use super::state::{Faults, Instance};

type Gogs = State<Arc<Instance>>;

/// | request | effect |
/// |---|---|
/// | `POST /control/repos` | creates an empty repository: `{"name": "app" or "acme/app", "private": false}` |
/// | `GET /control/deliveries` | lists all deliveries with their attempts |
/// | `POST /control/deliveries/{uuid}/redeliver` | sends a delivery again, like the button in Gogs |
/// | `POST /control/hooks/{id}/test` | sends a test delivery, like the button in Gogs |
/// | `GET`, `POST /control/faults` | shows and sets the injected [`Faults`] |
/// | `POST`, `GET /control/inbox/{name}` | receives a notification; lists all |
/// | `POST /control/inbox/{name}/status` | sets the status of the next responses: `{"status": 500}` |
pub(super) fn routes() -> Router<Arc<Instance>> {
    Router::new()
        .route("/control/repos", post(create_repository))
        .route("/control/deliveries", get(list_deliveries))
        .route("/control/deliveries/{uuid}/redeliver", post(redeliver))
        .route("/control/hooks/{id}/test", post(test_hook))
        .route("/control/faults", get(show_faults).post(set_faults))
        .route("/control/inbox/{name}", get(list_inbox).post(receive))
        .route("/control/inbox/{name}/status", post(set_inbox_status))
}

/// Injects the faults into all requests except the fake Gogs' own.
pub(super) async fn inject_faults(State(gogs): Gogs, request: Request, next: Next) -> Response {
    let spared = request.uri().path().starts_with("/control/") || gogs.is_internal(request.headers());
    let faults = gogs.read(|state| state.faults);
    if !spared {
        if faults.delay_ms > 0 {
            sleep(Duration::from_millis(faults.delay_ms)).await;
        }
        if faults.offline {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    }
    if request.uri().path().starts_with("/api/") && !spared {
        if faults.login_prohibited {
            return Html("<!DOCTYPE html><title>Prohibit Login - Gogs</title>").into_response();
        }
        if faults.redirects {
            return Redirect::to("/user/login").into_response();
        }
    }
    next.run(request).await
}

#[derive(Debug, Deserialize)]
struct CreateRepository {
    name: String,
    #[serde(default)]
    private: bool,
}

async fn create_repository(State(gogs): Gogs, Json(wanted): Json<CreateRepository>) -> Answer {
    let (owner, name) = super::owner_and_name(&wanted.name);
    let made = gogs.create_repository(owner, name, wanted.private, "").await;
    made.map_err(|error| Refusal::Unprocessable(format!("{error:#}"))).and_then(|made| json(StatusCode::CREATED, &made))
}

async fn list_deliveries(State(gogs): Gogs) -> Answer {
    json(StatusCode::OK, &gogs.read(|state| state.deliveries.clone()))
}

async fn redeliver(State(gogs): Gogs, Path(uuid): Path<String>) -> Answer {
    gogs.redeliver(&uuid).map_err(|_| Refusal::NotFound)?;
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn test_hook(State(gogs): Gogs, Path(id): Path<u64>) -> Answer {
    if !gogs.read(|state| state.hooks.iter().any(|hook| hook.id == id)) {
        return Err(Refusal::NotFound);
    }
    let uuid = gogs.test_hook(id).await?;
    json(StatusCode::ACCEPTED, &serde_json::json!({ "uuid": uuid }))
}

async fn show_faults(State(gogs): Gogs) -> Answer {
    json(StatusCode::OK, &gogs.read(|state| state.faults))
}

async fn set_faults(State(gogs): Gogs, Json(faults): Json<Faults>) -> Answer {
    gogs.update(|state| state.faults = faults);
    json(StatusCode::OK, &faults)
}

async fn receive(State(gogs): Gogs, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let header = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let received = Received { headers: headers.iter().map(header).collect(), body: String::from_utf8_lossy(&body).into_owned() };
    let status = gogs.update(|state| {
        let inbox = state.inboxes.entry(name).or_default();
        inbox.received.push(received);
        inbox.status
    });
    StatusCode::from_u16(status).map(axum::response::IntoResponse::into_response).map_err(|error| Refusal::Failed(error.into()))
}

async fn list_inbox(State(gogs): Gogs, Path(name): Path<String>) -> Answer {
    json(StatusCode::OK, &gogs.read(|state| state.inboxes.get(&name).map(|inbox| inbox.received.clone()).unwrap_or_default()))
}

#[derive(Debug, Deserialize)]
struct InboxStatus {
    status: u16,
}

async fn set_inbox_status(
    State(gogs): Gogs,
    Path(name): Path<String>,
    Json(InboxStatus { status }): Json<InboxStatus>,
) -> Answer {
    if StatusCode::from_u16(status).is_err() {
        return Err(Refusal::Unprocessable(format!("{status} is not an HTTP status")));
    }
    gogs.update(|state| state.inboxes.entry(name).or_default().status = status);
    Ok(StatusCode::NO_CONTENT.into_response())
}
