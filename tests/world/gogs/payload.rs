//! The JSON of hooks and of the API, in the order of keys that Gogs 0.14.3 writes.

use serde_json::{Value, json};

use super::state::{Hook, Level, Repo, State, User};

/// No commit.
pub(super) const ZERO: &str = "0000000000000000000000000000000000000000";

pub(super) fn user(state: &State, user: &User) -> Value {
    json!({
        "id": user.id,
        "username": user.login,
        "login": user.login,
        "full_name": "",
        "email": format!("{}@example.com", user.login),
        "avatar_url": format!("{}/avatars/{}", state.url, user.id),
    })
}

pub(super) fn user_by_login(state: &State, login: &str) -> Value {
    state.user(login).map_or(Value::Null, |found| user(state, found))
}

/// A repository; with what somebody may do in it in answers of the API alone.
pub(super) fn repository(state: &State, repo: &Repo, level: Option<Level>) -> Value {
    let page = format!("{}/{}/{}", state.url, repo.owner, repo.name);
    let now = now();
    let mut value = json!({
        "id": repo.id,
        "owner": user_by_login(state, &repo.owner),
        "name": repo.name,
        "full_name": format!("{}/{}", repo.owner, repo.name),
        "description": "",
        "private": repo.is_private,
        "fork": false,
        "parent": null,
        "empty": false,
        "mirror": false,
        "size": 24576,
        "html_url": page,
        "ssh_url": format!("git@127.0.0.1:{}/{}.git", repo.owner, repo.name),
        "clone_url": format!("{page}.git"),
        "website": "",
        "stars_count": 0,
        "forks_count": 0,
        "watchers_count": 1,
        "open_issues_count": 0,
        "default_branch": repo.default_branch,
        "created_at": now,
        "updated_at": now,
    });
    if let Some(level) = level {
        value["permissions"] = json!({ "admin": level >= Level::Admin, "push": level >= Level::Write, "pull": true });
    }
    value
}

/// A hook as the API tells of it: without its secret.
pub(super) fn hook(hook: &Hook) -> Value {
    json!({
        "id": hook.id,
        "type": hook.kind,
        "config": { "url": hook.url, "content_type": hook.content_type },
        "events": hook.events,
        "active": hook.active,
        "updated_at": "0001-01-01T00:00:00Z",
        "created_at": "0001-01-01T00:00:00Z",
    })
}

/// As Go's `json.MarshalIndent` with two spaces writes it: `<`, `>` and `&` escaped.
pub(super) fn text(payload: &Value) -> String {
    let text = serde_json::to_string_pretty(payload).unwrap_or_default();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// The commit of the test button in an empty repository.
pub(super) fn fake_commit(page: &str) -> Value {
    let ghost = json!({ "name": "Ghost", "email": "", "username": "Ghost" });
    json!({
        "id": ZERO,
        "message": "This is a fake commit",
        "url": format!("{page}/commit/{ZERO}"),
        "author": ghost,
        "committer": ghost,
        "added": null,
        "removed": null,
        "modified": null,
        "timestamp": "0001-01-01T00:00:00Z",
    })
}

fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
