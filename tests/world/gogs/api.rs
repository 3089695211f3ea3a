//! `/api/v1/…`: the routes that Beespace uses, and a few for people with curl.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::state::{Hook, Level, Mood, Repo};
use super::{Inner, payload};

type Shared = State<Arc<Inner>>;
type Answer = Result<Response, StatusCode>;

/// What `events` may hold; other words are dropped without a word.
const EVENTS: [&str; 8] = ["create", "delete", "fork", "push", "issues", "issue_comment", "pull_request", "release"];

pub(super) fn router(inner: Arc<Inner>) -> Router {
    Router::new()
        .route("/user", get(user))
        .route("/user/repos", get(repositories).post(create_repository))
        .route("/repos/{owner}/{name}", get(repository))
        .route("/repos/{owner}/{name}/hooks", get(hooks).post(create_hook))
        // There is no GET of one hook: Gogs answers with its page for 404.
        .route("/repos/{owner}/{name}/hooks/{id}", delete(delete_hook).patch(edit_hook))
        .route("/repos/{owner}/{name}/branches", get(branches))
        .route("/admin/users", post(create_user))
        .fallback(|| async { (StatusCode::NOT_FOUND, Html("<!DOCTYPE html><title>Page Not Found - Gogs</title>")) })
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&inner), behave))
        .with_state(inner)
}

async fn behave(State(inner): Shared, request: Request, next: Next) -> Response {
    let mood = inner.state().mood;
    match mood {
        Mood::Well | Mood::HooksStalled => next.run(request).await,
        Mood::Away => StatusCode::BAD_GATEWAY.into_response(),
        Mood::TokenDead => StatusCode::UNAUTHORIZED.into_response(),
        Mood::LoginProhibited => Html("<!DOCTYPE html><title>Prohibit Login - Gogs</title>").into_response(),
        Mood::Redirecting => (StatusCode::FOUND, [(header::LOCATION, "http://127.0.0.1:9/elsewhere")]).into_response(),
    }
}

/// Exactly `token` and 40 digits: `Token`, `Bearer` and Basic are 401.
fn who(inner: &Inner, headers: &HeaderMap) -> Result<u64, StatusCode> {
    let told = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = told.and_then(|told| told.strip_prefix("token ")).ok_or(StatusCode::UNAUTHORIZED)?;
    inner.state().tokens.get(token).copied().ok_or(StatusCode::UNAUTHORIZED)
}

/// 404 for those who may not know, 403 for those who may not do; both without a body.
fn allowed(inner: &Inner, headers: &HeaderMap, owner: &str, name: &str, needs: Level) -> Result<(Repo, Level), StatusCode> {
    let user = who(inner, headers)?;
    let state = inner.state();
    let repo = state.repository(owner, name).ok_or(StatusCode::NOT_FOUND)?;
    let level = state.level(user, repo).ok_or(StatusCode::NOT_FOUND)?;
    if level < needs { Err(StatusCode::FORBIDDEN) } else { Ok((repo.clone(), level)) }
}

async fn user(State(inner): Shared, headers: HeaderMap) -> Answer {
    let id = who(&inner, &headers)?;
    let state = inner.state();
    let user = state.users.get(&id).ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(Json(payload::user(&state, user)).into_response())
}

async fn repositories(State(inner): Shared, headers: HeaderMap) -> Answer {
    let id = who(&inner, &headers)?;
    let state = inner.state();
    let all = state.repositories.values().filter_map(|repo| {
        let level = state.level(id, repo).filter(|level| *level > Level::Read)?;
        Some(payload::repository(&state, repo, Some(level)))
    });
    Ok(Json(Value::Array(all.collect())).into_response())
}

async fn create_repository(State(inner): Shared, headers: HeaderMap, Json(told): Json<Value>) -> Answer {
    let id = who(&inner, &headers)?;
    let owner = inner.state().users.get(&id).map(|user| user.login.clone()).ok_or(StatusCode::UNAUTHORIZED)?;
    let name = told["name"].as_str().unwrap_or_default();
    if name.is_empty() || inner.state().repository(&owner, name).is_some() {
        return Ok(refused("repository already exists or has no name"));
    }
    let repo = inner.state().add_repository(&owner, name);
    inner.make_bare(&repo).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let state = inner.state();
    Ok((StatusCode::CREATED, Json(payload::repository(&state, &repo, Some(Level::Admin)))).into_response())
}

async fn create_user(State(inner): Shared, headers: HeaderMap, Json(told): Json<Value>) -> Answer {
    let id = who(&inner, &headers)?;
    let mut state = inner.state();
    if !state.users.get(&id).is_some_and(|user| user.is_admin) {
        return Err(StatusCode::FORBIDDEN);
    }
    let login = told["username"].as_str().filter(|login| !login.is_empty()).ok_or(StatusCode::UNPROCESSABLE_ENTITY)?;
    let made = state.add_user(login, false);
    let user = state.users.get(&made).ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok((StatusCode::CREATED, Json(payload::user(&state, user))).into_response())
}

async fn repository(State(inner): Shared, headers: HeaderMap, Path((owner, name)): Path<(String, String)>) -> Answer {
    let (repo, level) = allowed(&inner, &headers, &owner, &name, Level::Read)?;
    let state = inner.state();
    Ok(Json(payload::repository(&state, &repo, Some(level))).into_response())
}

async fn branches(State(inner): Shared, headers: HeaderMap, Path((owner, name)): Path<(String, String)>) -> Answer {
    let (repo, _) = allowed(&inner, &headers, &owner, &name, Level::Read)?;
    let refs = inner.refs(repo.id).await;
    let branches = refs.iter().filter_map(|(name, sha)| {
        let name = name.strip_prefix("refs/heads/")?;
        Some(json!({ "name": name, "commit": { "id": sha } }))
    });
    Ok(Json(Value::Array(branches.collect())).into_response())
}

async fn hooks(State(inner): Shared, headers: HeaderMap, Path((owner, name)): Path<(String, String)>) -> Answer {
    let (repo, _) = allowed(&inner, &headers, &owner, &name, Level::Admin)?;
    let state = inner.state();
    let hooks = state.hooks.values().filter(|hook| hook.repository == repo.id).map(payload::hook);
    Ok(Json(Value::Array(hooks.collect())).into_response())
}

async fn create_hook(
    State(inner): Shared,
    headers: HeaderMap,
    Path((owner, name)): Path<(String, String)>,
    Json(told): Json<Value>,
) -> Answer {
    let (repo, _) = allowed(&inner, &headers, &owner, &name, Level::Admin)?;
    let config = |key: &str| told["config"][key].as_str().unwrap_or_default().to_owned();
    if told["type"] != "gogs" {
        return Ok(refused("Invalid hook type"));
    }
    if config("url").is_empty() || config("content_type").is_empty() {
        return Ok(refused("Missing config option"));
    }
    if !matches!(config("content_type").as_str(), "json" | "form") {
        return Ok(refused("Invalid content type"));
    }
    let mut state = inner.state();
    let hook = Hook {
        id: state.id(),
        repository: repo.id,
        kind: "gogs".to_owned(),
        url: config("url"),
        content_type: config("content_type"),
        secret: config("secret"),
        events: events(&told["events"]),
        active: told["active"].as_bool().unwrap_or(false),
    };
    let answer = payload::hook(&hook);
    state.hooks.insert(hook.id, hook);
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn edit_hook(
    State(inner): Shared,
    headers: HeaderMap,
    Path((owner, name, id)): Path<(String, String, u64)>,
    Json(told): Json<Value>,
) -> Answer {
    let (repo, _) = allowed(&inner, &headers, &owner, &name, Level::Admin)?;
    let mut state = inner.state();
    let hook = state.hooks.get_mut(&id).filter(|hook| hook.repository == repo.id).ok_or(StatusCode::NOT_FOUND)?;
    // The secret is ignored, in every version of Gogs.
    if let Some(url) = told["config"]["url"].as_str() {
        url.clone_into(&mut hook.url);
    }
    hook.events = events(&told["events"]);
    hook.active = told["active"].as_bool().unwrap_or(hook.active);
    Ok(Json(payload::hook(hook)).into_response())
}

/// 204 also for an id that nobody has.
async fn delete_hook(State(inner): Shared, headers: HeaderMap, Path((owner, name, id)): Path<(String, String, u64)>) -> Answer {
    let (repo, _) = allowed(&inner, &headers, &owner, &name, Level::Admin)?;
    let mut state = inner.state();
    if state.hooks.get(&id).is_some_and(|hook| hook.repository == repo.id) {
        state.hooks.remove(&id);
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn events(told: &Value) -> Vec<String> {
    match told.as_array() {
        None => vec!["push".to_owned()],
        Some(told) => told.iter().filter_map(Value::as_str).filter(|event| EVENTS.contains(event)).map(str::to_owned).collect(),
    }
}

fn refused(message: &str) -> Response {
    let body = json!({ "message": message, "url": "https://github.com/gogs/docs-api" });
    (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
}
