//! The part of the REST API of Gogs that a CI server uses (`internal/route/api/v1/api.go`).

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::{Answer, Refusal, json};
use super::auth::{AuthenticatedUser, Caller};
use super::commit::{CommitObject, Dated, Reader};
use super::git;
use super::hook::{CreateHook, EditHook};
use super::repository::{Access, Repository, RepositoryObject};
use super::state::{Instance, now};
use super::user::User;

type Gogs = State<Arc<Instance>>;
type OwnerName = Path<(String, String)>;

pub(super) fn routes() -> Router<Arc<Instance>> {
    Router::new()
        .route("/healthcheck", get(async || "* Database connection: OK\n"))
        .route("/api/v1/user", get(show_user))
        .route("/api/v1/user/repos", get(list_own_repositories).post(create_repository))
        .route("/api/v1/repos/{owner}/{name}", get(show_repository).delete(delete_repository))
        .route("/api/v1/repos/{owner}/{name}/hooks", get(list_hooks).post(create_hook))
        // No GET of a single webhook: Gogs has no such route and returns 404, not 405.
        .route(
            "/api/v1/repos/{owner}/{name}/hooks/{id}",
            patch(edit_hook).delete(delete_hook).get(async || StatusCode::NOT_FOUND),
        )
        .route("/api/v1/repos/{owner}/{name}/issues/{number}", get(show_issue))
        .route("/api/v1/repos/{owner}/{name}/branches", get(list_branches))
        .route("/api/v1/repos/{owner}/{name}/branches/{*branch}", get(show_branch))
}

async fn show_user(State(gogs): Gogs, AuthenticatedUser(user): AuthenticatedUser) -> Answer {
    json(StatusCode::OK, &user.object(&gogs.base))
}

/// The repositories that the caller owns or collaborates on; other public repositories are not listed.
async fn list_own_repositories(State(gogs): Gogs, AuthenticatedUser(user): AuthenticatedUser) -> Answer {
    let concerns = |it: &Repository| it.access(Some(&user)) == Access::Admin || it.granted.contains_key(&user.id);
    let repositories = gogs.read(|state| state.repositories.iter().filter(|it| concerns(it)).cloned().collect::<Vec<_>>());
    let objects: Vec<_> = repositories.iter().map(|it| it.object_for(&gogs.base, it.access(Some(&user)))).collect();
    json(StatusCode::OK, &objects)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CreateRepository {
    name: String,
    description: String,
    private: bool,
}

async fn create_repository(
    State(gogs): Gogs,
    AuthenticatedUser(user): AuthenticatedUser,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let wanted: CreateRepository = read(&headers, &body)?;
    let made = gogs.create_repository(&user.name, &wanted.name, wanted.private, &wanted.description).await;
    made.map_err(|error| Refusal::Unprocessable(error.to_string())).and_then(|made| json(StatusCode::CREATED, &made))
}

/// Public repositories are shown to anyone. This is the only response in which Gogs reports the caller's permissions reliably.
async fn show_repository(State(gogs): Gogs, Caller(caller): Caller, Path((owner, name)): OwnerName) -> Answer {
    let (repository, access) = gogs.readable_repository(&owner, &name, caller.as_ref()).ok_or(Refusal::NotFound)?;
    let parent = gogs.object_with_parent(&repository).parent;
    json(StatusCode::OK, &RepositoryObject { parent, ..repository.object_for(&gogs.base, access) })
}

/// A pull request is an issue, too; there is no route for pull requests.
async fn show_issue(
    State(gogs): Gogs,
    AuthenticatedUser(user): AuthenticatedUser,
    Path((owner, name, number)): Path<(String, String, u64)>,
) -> Answer {
    let (repository, _) = gogs.readable_repository(&owner, &name, Some(&user)).ok_or(Refusal::NotFound)?;
    let is_meant = |pull: &&super::pull_request::PullRequest| pull.base == repository.id && pull.number == number;
    let found = gogs.read(|state| state.pulls.iter().find(is_meant).cloned()).ok_or(Refusal::NotFound)?;
    json(StatusCode::OK, &found.issue(&gogs.base))
}

/// Only the owner may delete a repository.
async fn delete_repository(
    State(gogs): Gogs,
    AuthenticatedUser(user): AuthenticatedUser,
    Path((owner, name)): OwnerName,
) -> Answer {
    let (repository, _) = gogs.readable_repository(&owner, &name, Some(&user)).ok_or(Refusal::NotFound)?;
    if repository.owner.id != user.id {
        return Err(Refusal::Forbidden);
    }
    gogs.update(|state| {
        state.repositories.retain(|other| other.id != repository.id);
        state.hooks.retain(|hook| hook.repository != repository.id);
    });
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Webhooks require admin rights: readers get 403, others 404.
fn administered(gogs: &Instance, owner: &str, name: &str, user: &User) -> Result<Repository, Refusal> {
    match gogs.readable_repository(owner, name, Some(user)) {
        Some((repository, Access::Admin)) => Ok(repository),
        Some(_) => Err(Refusal::Forbidden),
        None => Err(Refusal::NotFound),
    }
}

async fn list_hooks(State(gogs): Gogs, AuthenticatedUser(user): AuthenticatedUser, Path((owner, name)): OwnerName) -> Answer {
    let repository = administered(&gogs, &owner, &name, &user)?;
    let hooks =
        gogs.read(|state| state.hooks.iter().filter(|hook| hook.repository == repository.id).cloned().collect::<Vec<_>>());
    json(StatusCode::OK, &hooks.iter().map(super::hook::Hook::object).collect::<Vec<_>>())
}

async fn create_hook(
    State(gogs): Gogs,
    AuthenticatedUser(user): AuthenticatedUser,
    Path((owner, name)): OwnerName,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let repository = administered(&gogs, &owner, &name, &user)?;
    let wanted: CreateHook = read(&headers, &body)?;
    let hook = gogs.update(|state| {
        let hook = wanted.accept(state.next_id(), repository.id, now()).map_err(Refusal::Unprocessable)?;
        state.hooks.push(hook.clone());
        Ok::<_, Refusal>(hook)
    })?;
    json(StatusCode::CREATED, &hook.created_object())
}

async fn edit_hook(
    State(gogs): Gogs,
    AuthenticatedUser(user): AuthenticatedUser,
    Path((owner, name, id)): Path<(String, String, u64)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let repository = administered(&gogs, &owner, &name, &user)?;
    let wanted: EditHook = read(&headers, &body)?;
    let object = gogs.update(|state| {
        let hook =
            state.hooks.iter_mut().find(|hook| hook.id == id && hook.repository == repository.id).ok_or(Refusal::NotFound)?;
        wanted.apply(hook, now()).map_err(Refusal::Unprocessable)?;
        Ok::<_, Refusal>(hook.object())
    })?;
    json(StatusCode::OK, &object)
}

/// Returns 204 whether or not the webhook existed.
async fn delete_hook(
    State(gogs): Gogs,
    AuthenticatedUser(user): AuthenticatedUser,
    Path((owner, name, id)): Path<(String, String, u64)>,
) -> Answer {
    let repository = administered(&gogs, &owner, &name, &user)?;
    gogs.update(|state| state.hooks.retain(|hook| hook.id != id || hook.repository != repository.id));
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A body is read only with the right content type; otherwise every field counts as missing.
fn read<T: DeserializeOwned + Default>(headers: &HeaderMap, body: &[u8]) -> Result<T, Refusal> {
    let is_json = headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if !is_json {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| Refusal::Unprocessable(error.to_string()))
}

#[derive(Debug, serde::Serialize)]
struct BranchObject {
    name: String,
    commit: CommitObject,
}

async fn list_branches(State(gogs): Gogs, AuthenticatedUser(user): AuthenticatedUser, Path((owner, name)): OwnerName) -> Answer {
    let (repository, _) = gogs.readable_repository(&owner, &name, Some(&user)).ok_or(Refusal::NotFound)?;
    let mut branches = Vec::new();
    for name in git::refs(&gogs.home, &repository.path).await?.into_keys() {
        if let Some(branch) = name.strip_prefix("refs/heads/") {
            branches.push(branch_object(&gogs, &repository, branch).await?);
        }
    }
    json(StatusCode::OK, &branches)
}

async fn show_branch(
    State(gogs): Gogs,
    AuthenticatedUser(user): AuthenticatedUser,
    Path((owner, name, branch)): Path<(String, String, String)>,
) -> Result<Response, Refusal> {
    let (repository, _) = gogs.readable_repository(&owner, &name, Some(&user)).ok_or(Refusal::NotFound)?;
    let refs = git::refs(&gogs.home, &repository.path).await?;
    if !refs.contains_key(&format!("refs/heads/{branch}")) {
        return Err(Refusal::NotFound);
    }
    json(StatusCode::OK, &branch_object(&gogs, &repository, &branch).await?)
}

/// The commit of a branch has no URL and no files, and its time is the author's, not the committer's.
async fn branch_object(gogs: &Instance, repository: &Repository, branch: &str) -> anyhow::Result<BranchObject> {
    let users = gogs.read(|state| state.users.clone());
    let reader = Reader { home: &gogs.home, repository: &repository.path, html_url: "", users: &users };
    let head = reader.log(&format!("refs/heads/{branch}"), 1).await?.pop();
    let Dated { commit, authored } = head.ok_or_else(|| anyhow::anyhow!("{branch} holds no commit"))?;
    let commit = CommitObject { url: "Not implemented".to_owned(), timestamp: authored, ..commit };
    Ok(BranchObject { name: branch.to_owned(), commit })
}
