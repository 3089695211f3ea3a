//! The addresses of everything, the two buttons beside a hook, and a page about a repository.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{any, get, post};
use serde::Deserialize;

use super::{Inner, api, git_http};

pub(super) fn router(inner: Arc<Inner>) -> Router {
    Router::new()
        .nest_service("/api/v1", api::router(Arc::clone(&inner)))
        .route("/healthcheck", get(|| async { "ok" }))
        .route("/", get(front))
        .route("/{owner}/{name}", get(about))
        .route("/{owner}/{name}/settings/hooks/{id}/redelivery", post(redeliver))
        .route("/{owner}/{name}/settings/hooks/{id}/test", post(test))
        .route("/{owner}/{name}/{*path}", any(git_http::serve))
        .layer(DefaultBodyLimit::max(256 * 1024 * 1024))
        .with_state(inner)
}

#[derive(Debug, Deserialize)]
struct Uuid {
    uuid: String,
}

async fn redeliver(State(inner): State<Arc<Inner>>, Query(Uuid { uuid }): Query<Uuid>) -> StatusCode {
    inner.redeliver(&uuid);
    StatusCode::OK
}

async fn test(State(inner): State<Arc<Inner>>, Path((owner, name, _)): Path<(String, String, u64)>) -> StatusCode {
    let Some(id) = inner.state().repository(&owner, &name).map(|repo| repo.id) else { return StatusCode::NOT_FOUND };
    inner.test_delivery(id).await;
    StatusCode::OK
}

async fn front(State(inner): State<Arc<Inner>>) -> Html<String> {
    let names: Vec<String> = {
        let state = inner.state();
        state.repositories.values().map(|repo| escape(&format!("{}/{}", repo.owner, repo.name))).collect()
    };
    let items: String = names.iter().map(|name| format!("<li><a href=\"/{name}\">{name}</a>")).collect();
    page("Practice Gogs", &format!("<p>It speaks Gogs’ API, git and hooks, and keeps nothing.<ul>{items}</ul>"))
}

async fn about(State(inner): State<Arc<Inner>>, Path((owner, name)): Path<(String, String)>) -> Response {
    let Some(repo) = inner.state().repository(&owner, &name).cloned() else {
        return (StatusCode::NOT_FOUND, Html("<!DOCTYPE html><title>Page Not Found - Gogs</title>")).into_response();
    };
    let refs = inner.refs(repo.id).await;
    let refs: String = refs.iter().map(|(name, sha)| format!("<li><code>{}</code> {}", escape(sha), escape(name))).collect();
    let name = escape(&format!("{}/{}", repo.owner, repo.name));
    let clone = format!("<p><code>git clone http://{}/{name}.git</code><ul>{refs}</ul>", inner.address);
    page(&name, &clone).into_response()
}

fn page(title: &str, body: &str) -> Html<String> {
    let style = "body{font:16px/1.5 system-ui;max-width:48rem;margin:3rem auto;padding:0 1rem;color-scheme:light dark}";
    Html(format!("<!DOCTYPE html><meta charset=utf-8><title>{title}</title><style>{style}</style><h1>{title}</h1>{body}"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
