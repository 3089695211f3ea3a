//! What no Gogs has: the handles for whoever practises, under `/practice/`.

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

/// | address | what |
/// |---|---|
/// | `POST /practice/repos` | `{"name": "app" or "acme/app", "private": false}` makes an empty repository |
/// | `GET /practice/deliveries` | every delivery with what became of it |
/// | `POST /practice/deliveries/{uuid}/redeliver` | Gogs' button of that name |
/// | `POST /practice/hooks/{id}/test` | Gogs' button "Test delivery" |
/// | `GET`, `POST /practice/switches` | [`Faults`] |
/// | `POST`, `GET /practice/inbox/{name}` | takes a notification; lists them |
/// | `POST /practice/inbox/{name}/status` | `{"status": 500}`: what the next ones are answered with |
pub(super) fn routes() -> Router<Arc<Instance>> {
    Router::new()
        .route("/practice/repos", post(create_repository))
        .route("/practice/deliveries", get(list_deliveries))
        .route("/practice/deliveries/{uuid}/redeliver", post(redeliver))
        .route("/practice/hooks/{id}/test", post(test_hook))
        .route("/practice/switches", get(show_faults).post(set_switches))
        .route("/practice/inbox/{name}", get(list_inbox).post(receive))
        .route("/practice/inbox/{name}/status", post(set_inbox_status))
}

/// Lets the switches have their way with everything but the practice Gogs' own doing.
pub(super) async fn inject_faults(State(gogs): Gogs, request: Request, next: Next) -> Response {
    let spared = request.uri().path().starts_with("/practice/") || gogs.is_internal(request.headers());
    let switches = gogs.read(|state| state.faults);
    if !spared {
        if switches.delay_ms > 0 {
            sleep(Duration::from_millis(switches.delay_ms)).await;
        }
        if switches.offline {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
    }
    if request.uri().path().starts_with("/api/") && !spared {
        if switches.login_prohibited {
            return Html("<!DOCTYPE html><title>Prohibit Login - Gogs</title>").into_response();
        }
        if switches.redirects {
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

async fn set_switches(State(gogs): Gogs, Json(switches): Json<Faults>) -> Answer {
    gogs.update(|state| state.faults = switches);
    json(StatusCode::OK, &switches)
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
        return Err(Refusal::Unprocessable(format!("{status} is no HTTP status")));
    }
    gogs.update(|state| state.inboxes.entry(name).or_default().status = status);
    Ok(StatusCode::NO_CONTENT.into_response())
}
