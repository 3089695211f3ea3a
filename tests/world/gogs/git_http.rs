//! git's smart protocol over HTTP, through git's own CGI program. `Git-Protocol` is ignored, as Gogs does: clients speak version 0.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

use super::state::{Level, Mood, Repo};
use super::{Inner, working_copy};

#[derive(Debug, Default, Deserialize)]
pub(super) struct Service {
    #[serde(default)]
    service: String,
}

struct Request<'a> {
    method: &'a Method,
    path: &'a str,
    service: &'a str,
    headers: &'a HeaderMap,
    body: Bytes,
}

/// `/{owner}/{name}.git/{path}`.
pub(super) async fn serve(
    State(inner): State<Arc<Inner>>,
    Path((owner, name, path)): Path<(String, String, String)>,
    Query(service): Query<Service>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(name) = name.strip_suffix(".git") else { return StatusCode::NOT_FOUND.into_response() };
    let wants_push = path == "git-receive-pack" || service.service == "git-receive-pack";
    let (repo, login) = match authorize(&inner, &headers, &owner, name, wants_push) {
        Ok(found) => found,
        Err(answer) => return *answer,
    };
    let request = Request { method: &method, path: &path, service: &service.service, headers: &headers, body };
    let pushes = method == Method::POST && path == "git-receive-pack";
    let _turn = inner.pushing.lock().await;
    let before = if pushes { inner.refs(repo.id).await } else { Default::default() };
    let answer = run(&inner, &repo, &login, request).await;
    if pushes {
        let after = inner.refs(repo.id).await;
        inner.tell_changes(&repo, &login, &before, &after).await;
    }
    answer.unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response())
}

/// A token as user name, or as password with any user name.
fn authorize(inner: &Inner, headers: &HeaderMap, owner: &str, name: &str, push: bool) -> Result<(Repo, String), Box<Response>> {
    let state = inner.state();
    let challenge = || {
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\".\"")];
        Box::new((StatusCode::UNAUTHORIZED, ask).into_response())
    };
    match state.mood {
        Mood::Away => return Err(Box::new(StatusCode::BAD_GATEWAY.into_response())),
        Mood::TokenDead => return Err(challenge()),
        _ => {}
    }
    let basic =
        headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Basic "));
    let decoded = basic.and_then(|basic| base64::engine::general_purpose::STANDARD.decode(basic).ok()).unwrap_or_default();
    let pair = String::from_utf8_lossy(&decoded).into_owned();
    let (login, password) = pair.split_once(':').unwrap_or_default();
    let user = state.tokens.get(login).or_else(|| state.tokens.get(password)).copied();
    let Some(repo) = state.repository(owner, name) else {
        return Err(if user.is_some() { Box::new(StatusCode::NOT_FOUND.into_response()) } else { challenge() });
    };
    if !push && user.is_none() && basic.is_none() && !repo.is_private {
        return Ok((repo.clone(), String::new()));
    }
    let Some(user) = user else { return Err(challenge()) };
    match state.level(user, repo) {
        None => Err(Box::new(StatusCode::NOT_FOUND.into_response())),
        Some(level) if push && level < Level::Write => Err(Box::new(StatusCode::FORBIDDEN.into_response())),
        Some(_) => Ok((repo.clone(), state.users.get(&user).map_or(String::new(), |user| user.login.clone()))),
    }
}

async fn run(inner: &Inner, repo: &Repo, login: &str, request: Request<'_>) -> Result<Response> {
    let text = |name: header::HeaderName| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut command = working_copy::command(&inner.root, &inner.root.join("home"));
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", inner.root.join("repositories"))
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{}.git/{}", repo.id, request.path))
        .env("REQUEST_METHOD", request.method.as_str())
        .env("QUERY_STRING", if request.service.is_empty() { String::new() } else { format!("service={}", request.service) })
        .env("CONTENT_TYPE", text(header::CONTENT_TYPE))
        .env("HTTP_CONTENT_ENCODING", text(header::CONTENT_ENCODING))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if !login.is_empty() {
        command.env("REMOTE_USER", login);
    }
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let body = request.body.clone();
    let feeding = tokio::spawn(async move {
        let _ = stdin.write_all(&body).await;
    });
    let output = child.wait_with_output().await?;
    let _ = feeding.await;
    response(output.stdout)
}

/// A CGI program's answer: headers, an empty line, the body.
fn response(output: Vec<u8>) -> Result<Response> {
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("git http-backend said nothing")?;
    let head = String::from_utf8_lossy(output.get(..end).unwrap_or_default()).into_owned();
    let mut response = Response::builder();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        if name.eq_ignore_ascii_case("status") {
            response = response.status(value.get(..3).and_then(|code| code.parse::<u16>().ok()).unwrap_or(500));
        } else {
            response = response.header(name, value);
        }
    }
    Ok(response.body(Body::from(output.get(end + 4..).unwrap_or_default().to_vec()))?)
}
