//! From the refs before and after a push to the events that Gogs sends for it.

use std::sync::Arc;

use super::commit::{CommitObject, Reader, ZERO};
use super::git::{self, Refs};
use super::payload::{Create, Delete, Push};
use super::repository::{Repository, RepositoryObject};
use super::state::{Instance, now};
use super::user::{User, UserObject};

/// `[ui] FEED_MAX_COMMIT_NUM`: at most this many commits are listed, and the total is not sent.
const MAX_COMMITS: usize = 5;

/// A ref that a push moved.
#[derive(Debug)]
struct RefChange {
    name: String,
    before: Option<String>,
    after: Option<String>,
}

/// The common parts of all events of one push.
#[derive(Debug)]
struct EventBuilder<'a> {
    instance: &'a Instance,
    repository: &'a Repository,
    object: RepositoryObject,
    sender: UserObject,
    reader: Reader<'a>,
}

/// Builds and queues the events of a push, ref by ref.
///
/// # Errors
/// git cannot read the commits.
pub(super) async fn queue_push_events(
    instance: &Arc<Instance>,
    repository: &Repository,
    pusher: &User,
    before: &Refs,
    after: &Refs,
) -> anyhow::Result<()> {
    let moved = ref_changes(before, after);
    if moved.is_empty() {
        return Ok(());
    }
    let repository = Repository { default_branch: default_branch(repository, &moved), ..repository.clone() };
    // As it was before the push: Gogs 0.13 and newer send `"empty": true` in the events of the first push.
    let object = repository.object(&instance.base);
    record_push(instance, &repository, &moved).await?;
    let users = instance.read(|state| state.users.clone());
    let html_url = object.html_url.clone();
    let reader = Reader { home: &instance.home, repository: &repository.path, html_url: &html_url, users: &users };
    let sender = pusher.object(&instance.base);
    let teller = EventBuilder { instance, repository: &repository, object, sender, reader };
    for moved in &moved {
        teller.tell(moved).await?;
    }
    let branches: Vec<&str> = moved.iter().filter_map(|moved| moved.name.strip_prefix("refs/heads/")).collect();
    instance.synchronize_pull_requests(&repository, pusher, &branches)
}

fn ref_changes(before: &Refs, after: &Refs) -> Vec<RefChange> {
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let moves = names.into_iter().map(|name| RefChange {
        name: name.clone(),
        before: before.get(name).cloned(),
        after: after.get(name).cloned(),
    });
    moves.filter(|moved| moved.before != moved.after).collect()
}

/// The first branch that is pushed becomes the default branch.
fn default_branch(repository: &Repository, moved: &[RefChange]) -> String {
    let branches: Vec<&str> = moved.iter().filter_map(|moved| moved.name.strip_prefix("refs/heads/")).collect();
    match branches.first() {
        Some(first) if repository.empty && !branches.contains(&repository.default_branch.as_str()) => (*first).to_owned(),
        _ => repository.default_branch.clone(),
    }
}

async fn record_push(instance: &Instance, repository: &Repository, moved: &[RefChange]) -> anyhow::Result<()> {
    if repository.empty {
        let mut head = git::command(&instance.home);
        head.arg("-C").arg(&repository.path).args(["symbolic-ref", "HEAD"]);
        git::output(head.arg(format!("refs/heads/{}", repository.default_branch))).await?;
    }
    let has_branch = moved.iter().any(|moved| moved.name.starts_with("refs/heads/"));
    instance.update(|state| {
        if let Some(stored) = state.repositories.iter_mut().find(|it| it.id == repository.id) {
            stored.empty &= !has_branch;
            stored.default_branch.clone_from(&repository.default_branch);
            stored.updated_at = now();
        }
    });
    Ok(())
}

impl EventBuilder<'_> {
    async fn tell(&self, moved: &RefChange) -> anyhow::Result<()> {
        let (short, ref_type) = short_name(&moved.name);
        let Some(after) = &moved.after else {
            return self.instance.queue_event(self.repository, "delete", &self.delete(short, ref_type));
        };
        if ref_type == "tag" {
            // A moved tag looks like a new one, and neither causes a push event.
            return self.instance.queue_event(self.repository, "create", &self.create(short, ref_type, after));
        }
        if moved.before.is_none() {
            self.instance.queue_event(self.repository, "create", &self.create(short, ref_type, ""))?;
        }
        self.instance.queue_event(self.repository, "push", &self.push(moved, after).await?)
    }

    fn create(&self, name: &str, ref_type: &'static str, sha: &str) -> Create {
        Create {
            name: name.to_owned(),
            ref_type,
            sha: sha.to_owned(),
            default_branch: self.repository.default_branch.clone(),
            repository: self.object.clone(),
            sender: self.sender.clone(),
        }
    }

    fn delete(&self, name: &str, ref_type: &'static str) -> Delete {
        let (repository, sender) = (self.object.clone(), self.sender.clone());
        Delete { name: name.to_owned(), ref_type, pusher_type: "user", repository, sender }
    }

    async fn push(&self, moved: &RefChange, after: &str) -> anyhow::Result<Push> {
        let (before, compare_url, range) = match &moved.before {
            Some(before) => {
                (before.as_str(), format!("{}/compare/{before}...{after}", self.object.html_url), format!("{before}...{after}"))
            }
            None => (ZERO, String::new(), after.to_owned()),
        };
        // Three dots: after a force push the list also contains commits that are no longer on the branch.
        let commits: Vec<CommitObject> = self.reader.log_with_files(&range, MAX_COMMITS).await?;
        Ok(Push {
            name: moved.name.clone(),
            before: before.to_owned(),
            after: after.to_owned(),
            compare_url,
            commits,
            repository: self.object.clone(),
            pusher: self.sender.clone(),
            sender: self.sender.clone(),
        })
    }
}

/// A ref outside `refs/heads/` and `refs/tags/` keeps its full name and counts as a branch.
fn short_name(name: &str) -> (&str, &'static str) {
    match (name.strip_prefix("refs/heads/"), name.strip_prefix("refs/tags/")) {
        (Some(branch), _) => (branch, "branch"),
        (None, Some(tag)) => (tag, "tag"),
        (None, None) => (name, "branch"),
    }
}
