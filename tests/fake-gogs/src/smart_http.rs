//! git over HTTP, served by git's own CGI program. Protocol v0: Gogs drops the `Git-Protocol` header, so a commit that no ref
//! points to cannot be fetched.

use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::io::AsyncWriteExt as _;

use super::answer::{Answer, Refusal};
use super::git;
use super::push_events;
use super::repository::{Access, Repository};
use super::state::Instance;
use super::user::User;

pub(super) fn routes() -> Router<Arc<Instance>> {
    Router::new()
        .route("/{owner}/{name}/info/refs", get(serve))
        .route("/{owner}/{name}/git-upload-pack", post(serve))
        .route("/{owner}/{name}/git-receive-pack", post(serve))
        .layer(DefaultBodyLimit::disable())
}

/// A request for git's CGI program.
#[derive(Debug)]
struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Request {
    fn service_path(&self) -> &'static str {
        let path = self.uri.path();
        ["/git-upload-pack", "/git-receive-pack"].into_iter().find(|service| path.ends_with(service)).unwrap_or("/info/refs")
    }

    fn is_push(&self) -> bool {
        self.service_path() == "/git-receive-pack"
            || self.uri.query().is_some_and(|query| query.contains("service=git-receive-pack"))
    }
}

async fn serve(
    State(gogs): State<Arc<Instance>>,
    Path((owner, name)): Path<(String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let request = Request { method, uri, headers, body };
    if gogs.read(|state| state.faults.http_git_disabled) && !gogs.is_internal(&request.headers) {
        return Ok((StatusCode::FORBIDDEN, "Interacting with repositories by HTTP protocol is disabled\n").into_response());
    }
    let user = gogs.git_caller(&request.headers);
    let Some(repository) = gogs.repository(&owner, name.strip_suffix(".git").unwrap_or(&name)) else {
        return Err(Refusal::NotFound);
    };
    let needed = if request.is_push() { Access::Write } else { Access::Read };
    match user {
        Some(user) if repository.access(Some(&user)) < needed => {
            Ok((StatusCode::FORBIDDEN, "User permission denied\n").into_response())
        }
        Some(user) if request.service_path() == "/git-receive-pack" => receive(&gogs, repository, &user, &request).await,
        None if repository.access(None) < needed => Ok(unauthorized()),
        user => Ok(run_cgi(&gogs, &repository, user.as_ref(), &request).await?),
    }
}

fn unauthorized() -> Response {
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\".\"")]).into_response()
}

/// The events are queued before git's response is returned: with a real Gogs the delivery arrives about 8 ms before `git push`
/// returns.
async fn receive(gogs: &Arc<Instance>, repository: Repository, user: &User, request: &Request) -> Answer {
    let guard = Arc::clone(&repository.receiving).lock_owned().await;
    // Looked up again, because an earlier push may have been the first one.
    let repository = gogs.repository(&repository.owner.name, &repository.name).ok_or(Refusal::NotFound)?;
    let before = git::refs(&gogs.home, &repository.path).await?;
    let response = run_cgi(gogs, &repository, Some(user), request).await?;
    let after = git::refs(&gogs.home, &repository.path).await?;
    push_events::queue_push_events(gogs, &repository, user, &before, &after).await?;
    drop(guard);
    Ok(response)
}

async fn run_cgi(gogs: &Instance, repository: &Repository, user: Option<&User>, request: &Request) -> anyhow::Result<Response> {
    let mut command = git::command(&gogs.home);
    let in_root = repository.path.strip_prefix(&gogs.root).context("the repository is outside the root")?;
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &gogs.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", request.method.as_str())
        .env("PATH_INFO", format!("/{}{}", in_root.display(), request.service_path()))
        .env("QUERY_STRING", request.uri.query().unwrap_or_default())
        .env("CONTENT_LENGTH", request.body.len().to_string());
    for (variable, name) in [("CONTENT_TYPE", header::CONTENT_TYPE), ("HTTP_CONTENT_ENCODING", header::CONTENT_ENCODING)] {
        if let Some(value) = request.headers.get(name).and_then(|value| value.to_str().ok()) {
            command.env(variable, value);
        }
    }
    if let Some(user) = user {
        command.env("REMOTE_USER", &user.name);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting git http-backend")?;
    let mut stdin = child.stdin.take().context("git http-backend has no input")?;
    // If git stops reading early, its response contains the reason, so a broken pipe is ignored.
    let feed = async move { drop(stdin.write_all(&request.body).await) };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    cgi_response(&output?.stdout)
}

/// Converts a CGI response. The status is a header; if it is missing, it is 200.
fn cgi_response(output: &[u8]) -> anyhow::Result<Response> {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").context("git http-backend returned no response")?;
    let (head, body) = output.split_at(end);
    let mut response = Response::builder();
    for line in str::from_utf8(head)?.split("\r\n") {
        let (name, value) = line.split_once(": ").with_context(|| format!("not a header: {line}"))?;
        response = match name {
            "Status" => response.status(value.get(..3).unwrap_or(value)),
            name => response.header(name, value),
        };
    }
    Ok(response.body(Body::from(body.get(4..).unwrap_or_default().to_vec()))?)
}
