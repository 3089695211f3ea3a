//! HTML pages for the links to repositories and commits.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;

use super::answer::Refusal;
use super::git;
use super::state::Instance;

type Gogs = State<Arc<Instance>>;

pub(super) fn routes() -> Router<Arc<Instance>> {
    Router::new()
        .route("/", get(front))
        .route("/{owner}/{name}", get(show_repository))
        .route("/{owner}/{name}/commit/{sha}", get(show_commit))
}

async fn front(State(gogs): Gogs) -> Html<String> {
    let names = gogs
        .read(|state| state.repositories.iter().filter(|it| !it.private).map(|it| escaped(&it.full_name())).collect::<Vec<_>>());
    let items: String = names.iter().map(|name| format!("<li><a href=\"/{name}\">{name}</a>")).collect();
    page("Fake Gogs", &format!("<p>It speaks Gogs’ API, git and webhooks, and forgets everything when it ends.<ul>{items}</ul>"))
}

async fn show_repository(State(gogs): Gogs, Path((owner, name)): Path<(String, String)>) -> Result<Response, Refusal> {
    let Some((repository, _)) = gogs.readable_repository(&owner, &name, None) else { return Ok(not_found()) };
    let object = repository.object(&gogs.base);
    let link = |(name, sha): (&String, &String)| {
        format!("<li>{} <a href=\"{}/commit/{sha}\"><code>{sha}</code></a>", escaped(name), escaped(&object.html_url))
    };
    let refs: String = git::refs(&gogs.home, &repository.path).await?.iter().map(link).collect();
    let body = format!("<p><code>git clone {}</code><ul>{refs}</ul>", escaped(&object.clone_url));
    Ok(page(&escaped(&object.full_name), &body).into_response())
}

async fn show_commit(State(gogs): Gogs, Path((owner, name, sha)): Path<(String, String, String)>) -> Result<Response, Refusal> {
    let Some((repository, _)) = gogs.readable_repository(&owner, &name, None) else { return Ok(not_found()) };
    let mut show = git::command(&gogs.home);
    show.arg("-C").arg(&repository.path).args(["show", "--end-of-options", &format!("{sha}^{{commit}}"), "--"]);
    let Ok(text) = git::output(&mut show).await else { return Ok(not_found()) };
    let text = escaped(&String::from_utf8_lossy(&text));
    let title = format!("{} {}", escaped(&repository.full_name()), escaped(sha.get(..10).unwrap_or(&sha)));
    Ok(page(&title, &format!("<pre>{text}</pre>")).into_response())
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, page("Page not found", "<p>There is no such page here.")).into_response()
}

/// `title` and `body` are HTML.
fn page(title: &str, body: &str) -> Html<String> {
    let style = ":root{color-scheme:light dark}body{font:16px/1.5 system-ui;max-width:60rem;margin:3rem auto;\
                 padding:0 1rem}pre{overflow:auto}";
    Html(format!(
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>{title}</title><style>{style}</style><h1>{title}</h1>{body}"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
