//! What a push changed, and the hooks that tell of it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::Inner;
use super::payload::{self, ZERO};
use super::state::Repo;

/// Commits that a payload lists at most (`FEED_MAX_COMMIT_NUM`).
const LISTED: usize = 5;

/// Refs and where they stand: of an annotated tag its own object.
pub(super) type Refs = BTreeMap<String, String>;

struct Change {
    git_ref: String,
    before: String,
    after: String,
}

impl Inner {
    pub(super) async fn refs(&self, repository: u64) -> Refs {
        let told =
            self.git(&self.bare(repository), &["for-each-ref", "--format=%(refname) %(objectname)"]).await.unwrap_or_default();
        let pairs = told.lines().filter_map(|line| line.rsplit_once(' '));
        pairs.map(|(name, object)| (name.to_owned(), object.to_owned())).collect()
    }

    /// Queues the hooks for everything that differs, in the order of the refs' names.
    pub(super) async fn tell_changes(&self, repo: &Repo, sender: &str, before: &Refs, after: &Refs) {
        for change in changes(before, after) {
            if let Err(error) = self.tell_change(repo, sender, &change).await {
                tracing::warn!("no hook for {}: {error:#}", change.git_ref);
            }
        }
    }

    async fn tell_change(&self, repo: &Repo, sender: &str, change: &Change) -> Result<()> {
        let is_new = change.before == ZERO;
        let is_gone = change.after == ZERO;
        if let Some(tag) = change.git_ref.strip_prefix("refs/tags/") {
            let (event, payload) = if is_gone {
                ("delete", self.deleted(repo, sender, tag, "tag"))
            } else {
                ("create", self.created(repo, sender, tag, "tag", &change.after))
            };
            self.tell(repo.id, event, &payload);
            return Ok(());
        }
        let name = change.git_ref.strip_prefix("refs/heads/").unwrap_or(&change.git_ref);
        if is_gone {
            self.tell(repo.id, "delete", &self.deleted(repo, sender, name, "branch"));
            return Ok(());
        }
        if is_new {
            self.tell(repo.id, "create", &self.created(repo, sender, name, "branch", ""));
        }
        let payload = self.pushed(repo, sender, change).await?;
        self.tell(repo.id, "push", &payload);
        Ok(())
    }

    fn created(&self, repo: &Repo, sender: &str, name: &str, kind: &str, sha: &str) -> Value {
        let state = self.state();
        json!({
            "ref": name,
            "ref_type": kind,
            "sha": sha,
            "default_branch": repo.default_branch,
            "repository": payload::repository(&state, repo, None),
            "sender": payload::user_by_login(&state, sender),
        })
    }

    fn deleted(&self, repo: &Repo, sender: &str, name: &str, kind: &str) -> Value {
        let state = self.state();
        json!({
            "ref": name,
            "ref_type": kind,
            "pusher_type": "user",
            "repository": payload::repository(&state, repo, None),
            "sender": payload::user_by_login(&state, sender),
        })
    }

    async fn pushed(&self, repo: &Repo, sender: &str, change: &Change) -> Result<Value> {
        let bare = self.bare(repo.id);
        let is_new = change.before == ZERO;
        // The ancestors of a new branch; otherwise what either side has alone, the removed commits included.
        let range = if is_new { change.after.clone() } else { format!("{}...{}", change.before, change.after) };
        let listed = self.git(&bare, &["rev-list", &format!("--max-count={LISTED}"), &range, "--"]).await?;
        let page = format!("http://{}/{}/{}", self.address, repo.owner, repo.name);
        let mut commits = Vec::new();
        for sha in listed.lines() {
            commits.push(self.commit(&bare, &page, sha).await?);
        }
        let compare = if is_new { String::new() } else { format!("{page}/compare/{}...{}", change.before, change.after) };
        let state = self.state();
        let person = payload::user_by_login(&state, sender);
        Ok(json!({
            "ref": change.git_ref,
            "before": change.before,
            "after": change.after,
            "compare_url": compare,
            "commits": commits,
            "repository": payload::repository(&state, repo, None),
            "pusher": person,
            "sender": person,
        }))
    }

    async fn commit(&self, bare: &Path, page: &str, sha: &str) -> Result<Value> {
        let format = "--format=tformat:%an%x00%ae%x00%cn%x00%ce%x00%cI%x00%B%x00";
        let told = self.git(bare, &["show", "--name-status", format, sha, "--"]).await?;
        let mut parts = told.split('\0');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let (author, author_mail, committer, committer_mail, timestamp) = (part(), part(), part(), part(), part());
        let (message, names) = (part(), part());
        let files = |status: &str| {
            // Gogs splits at every space, so that it cuts names, and knows neither renames nor merges.
            let lines = names.lines().filter_map(|line| line.strip_prefix(status));
            let found: Vec<&str> = lines.filter_map(|rest| rest.split_whitespace().next()).collect();
            if found.is_empty() { Value::Null } else { json!(found) }
        };
        let account = |mail: &str| {
            let login = mail.strip_suffix("@example.com").unwrap_or_default();
            self.state().user(login).map_or(String::new(), |user| user.login.clone())
        };
        Ok(json!({
            "id": sha,
            "message": message,
            "url": format!("{page}/commit/{sha}"),
            "author": { "name": author, "email": author_mail, "username": account(&author_mail) },
            "committer": { "name": committer, "email": committer_mail, "username": account(&committer_mail) },
            "added": files("A"),
            "removed": files("D"),
            "modified": files("M"),
            "timestamp": timestamp,
        }))
    }

    /// The test button: a push of the default branch from where it stands to where it stands.
    pub(super) async fn test_delivery(&self, repository: u64) {
        let Some(repo) = self.state().repositories.get(&repository).cloned() else { return };
        let git_ref = format!("refs/heads/{}", repo.default_branch);
        let head = self.refs(repository).await.get(&git_ref).cloned();
        let page = format!("http://{}/{}/{}", self.address, repo.owner, repo.name);
        let mut commit = match &head {
            Some(sha) => self.commit(&self.bare(repository), &page, sha).await.unwrap_or_else(|_| payload::fake_commit(&page)),
            None => payload::fake_commit(&page),
        };
        commit["timestamp"] = json!("0001-01-01T00:00:00Z");
        let head = head.unwrap_or_else(|| ZERO.to_owned());
        let payload = {
            let state = self.state();
            let person = payload::user_by_login(&state, &repo.owner);
            json!({
                "ref": git_ref,
                "before": head,
                "after": head,
                "compare_url": "",
                "commits": [commit],
                "repository": payload::repository(&state, &repo, None),
                "pusher": person,
                "sender": person,
            })
        };
        self.tell(repository, "push", &payload);
    }
}

fn changes(before: &Refs, after: &Refs) -> Vec<Change> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let at = |refs: &Refs, name: &str| refs.get(name).cloned().unwrap_or_else(|| ZERO.to_owned());
    names
        .into_iter()
        .map(|name| Change { git_ref: name.clone(), before: at(before, name), after: at(after, name) })
        .filter(|change| change.before != change.after)
        .collect()
}
