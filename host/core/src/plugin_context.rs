//! The context of a plugin call: a small, stable envelope that describes the build, and the document of its event.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::build::Build;
use crate::digest::Document;
use crate::event::{Actor, Claim, Commit, EventKind, PullRequest};
use crate::ids::{RepositoryName, Sha};
use crate::pipeline::eval_when::ChangedPaths;
use crate::time::Timestamp;
use crate::trust::Trust;

/// Name of the schema of the event document.
pub const EVENT_SCHEMA: &str = "beespace.event/v1";

/// Most commits that the event document lists.
pub const MAX_COMMITS: usize = 50;

/// Most changed paths that the event document lists.
const MAX_PATHS: usize = 1_000;

/// Most bytes of all changed paths together. A path may have 64 KiB.
const MAX_PATHS_BYTES: usize = 262_144;

/// Most characters of a commit message in the event document.
const MAX_MESSAGE_CHARS: usize = 65_536;

/// Most characters of all commit messages together, so that the document stays small enough for a plugin.
const MAX_MESSAGES_CHARS: usize = 262_144;

/// The envelope of a plugin call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginContext {
    /// Correlates the call's log lines, its evaluation in a decision and its placeholders for secrets.
    pub invocation_id: String,
    pub event: EventKind,
    pub repository: RepositoryName,
    /// Full name of the ref.
    pub git_ref: String,
    /// The commit that is built, as resolved in the mirror; `None` before it is fetched.
    pub sha: Option<Sha>,
    /// Number of the pull request and the full name of its target branch.
    pub pull_request: Option<(u64, String)>,
    pub build_number: Option<u64>,
    /// The person who caused the event, authenticated by the forge: the only identity to decide on.
    pub actor: Actor,
    /// The author named in the commit: a claim, not an identity.
    pub author: Option<Claim>,
    pub trust: Trust,
    /// The only clock that a plugin has; identical when a decision is replayed.
    pub now: Timestamp,
    pub labels: Vec<(String, String)>,
}

impl PluginContext {
    /// The envelope for a call about `build`.
    #[must_use]
    pub fn for_build(build: &Build, invocation_id: String, now: Timestamp) -> Self {
        let head = build.head.as_ref();
        Self {
            invocation_id,
            event: build.event.kind(),
            repository: build.event.repository.name.clone(),
            git_ref: build.event.git_ref(),
            sha: build.sha().cloned(),
            pull_request: build.event.pull_request().map(|pull| (pull.number, pull.target_ref())),
            build_number: build.number,
            actor: build.event.sender.clone(),
            author: head.map(|head| head.author.clone()),
            trust: build.trust(),
            now,
            labels: Vec::new(),
        }
    }
}

/// The event as policies and step types see it, identical at every point. Commits and paths come from git, newest first; they are
/// `null` if git cannot determine them. Lists are truncated; the true counts and `truncated` stand beside them. A message that is
/// truncated is marked with `message_truncated`.
#[must_use]
pub fn event_document(build: &Build, changed: &ChangedPaths, commits: &[Commit], commit_count: Option<u64>) -> Document {
    let event = &build.event;
    let paths = match changed {
        ChangedPaths::Known(paths) => Some(paths),
        ChangedPaths::Unknown(_) => None,
    };
    let listed_paths = paths.map(|paths| first_paths(paths));
    let mut left = MAX_MESSAGES_CHARS;
    let listed: Vec<_> = commits.iter().take(MAX_COMMITS).map(|commit| commit_json(commit, &mut left)).collect();
    let all_listed = commit_count == u64::try_from(listed.len()).ok();
    let message = build.head.as_ref().map_or("", |head| &head.message);
    let value = json!({
        "event": event.kind(),
        "git_ref": event.git_ref(),
        "branch": event.branch(),
        "default_branch": event.repository.default_branch,
        "before": build.before(),
        "tag": event.tag(),
        "target": event.target(),
        "schedule": event.schedule(),
        "promoted_build": event.deployment().map(|deployment| deployment.of),
        "params": event.params(),
        "commit": build.sha(),
        "base": build.base(),
        "pull_request": event.pull_request().map(|pull| pull_request_json(build, pull)),
        "trust": build.trust(),
        "title": truncate(message.lines().next().unwrap_or(""), MAX_MESSAGE_CHARS),
        "message": truncate(message, MAX_MESSAGE_CHARS),
        "commits": listed,
        "commit_count": commit_count,
        "paths": listed_paths,
        "path_count": paths.map(Vec::len),
        "truncated": !all_listed || listed_paths.map(<[_]>::len) < paths.map(Vec::len),
    });
    Document::new(EVENT_SCHEMA, &value)
}

/// A pull request, with `labels` as the event reported them: [`with_labels`] sets the present ones.
fn pull_request_json(build: &Build, pull: &PullRequest) -> serde_json::Value {
    json!({
        "number": pull.number,
        "change": pull.change,
        "title": pull.title,
        "target_branch": pull.target_branch,
        "source_branch": pull.source_branch,
        "source_repository": pull.source.as_ref().map(|source| source.name.to_string()),
        "is_from_fork": pull.is_from_fork(build.event.repository.id),
        "is_merged": pull.is_merged,
        "is_head_confirmed": !build.head_unconfirmed,
        "labels": pull.labels,
    })
}

/// The event document with the labels that the pull request has now; `null` if Gogs does not tell them. The document of another
/// event is unchanged.
#[must_use]
pub fn with_labels(event: &Document, labels: Option<&[String]>) -> Document {
    let Ok(mut value) = serde_json::from_str::<serde_json::Value>(&event.json) else { return event.clone() };
    match value.pointer_mut("/pull_request/labels") {
        Some(place) => *place = json!(labels),
        None => return event.clone(),
    }
    Document::new(EVENT_SCHEMA, &value)
}

/// The paths that the document has room for.
fn first_paths(paths: &[String]) -> &[String] {
    let mut left = MAX_PATHS_BYTES;
    let has_room = |path: &&String| {
        let rest = left.checked_sub(path.len());
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    let count = paths.iter().take(MAX_PATHS).take_while(has_room).count();
    paths.get(..count).unwrap_or_default()
}

/// One commit. `left` is the number of characters that messages may still have.
fn commit_json(commit: &Commit, left: &mut usize) -> serde_json::Value {
    let message = truncate(&commit.message, MAX_MESSAGE_CHARS.min(*left));
    *left = left.saturating_sub(message.chars().count());
    json!({
        "sha": commit.sha,
        "message_truncated": message.len() < commit.message.len(),
        "message": message,
        "author": commit.author,
        "parent_count": commit.parents,
    })
}

fn truncate(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{Base, Head, Phase};
    use crate::event::{Cause, Event, Push, Repository};
    use crate::ids::{BuildId, RepositoryId};
    use crate::status::Status;

    fn sha(digit: &str) -> Sha {
        Sha::new(&digit.repeat(40)).unwrap()
    }

    fn claim() -> Claim {
        Claim { name: "Ann".to_owned(), email: "ann@example.org".to_owned() }
    }

    fn build() -> Build {
        let push = Push {
            branch: "main".to_owned(),
            before: None,
            last_known_tip: None,
            after: sha("a"),
            commits: Vec::new(),
            compare_url: None,
        };
        let name = RepositoryName::new("acme", "app").unwrap();
        let default_branch = "main".to_owned();
        let repository = Repository { id: RepositoryId(1), name, default_branch, is_private: false, html_url: String::new() };
        let sender = Actor::user(7, "ann");
        Build {
            id: BuildId(uuid::Uuid::nil()),
            number: Some(1),
            event: Event { repository, sender, cause: Cause::Push(push) },
            delivery: None,
            restart_of: None,
            commit: None,
            pipeline_from: None,
            merge: None,
            head_unconfirmed: false,
            trust: Some(Trust::Trusted),
            status: Status::Running,
            reason: None,
            head: Some(Head {
                sha: sha("a"),
                message: "fix: it\n\nmore".to_owned(),
                author: claim(),
                base: Base::Commit(sha("c")),
            }),
            files: Vec::new(),
            phase: Phase::Prepare,
            created_at: Timestamp(0),
            started_at: None,
            finished_at: None,
        }
    }

    fn commits(count: usize) -> Vec<Commit> {
        vec![Commit { sha: sha("b"), message: "older".to_owned(), author: claim(), parents: Some(1) }; count]
    }

    fn listed(document: &Document) -> serde_json::Value {
        serde_json::from_str(&document.json).unwrap()
    }

    #[test]
    fn plugins_see_the_data_from_git() {
        let changed = ChangedPaths::Known(vec!["src/a.rs".to_owned()]);
        let value = listed(&event_document(&build(), &changed, &commits(2), Some(2)));
        assert_eq!((&value["title"], &value["commit"]), (&json!("fix: it"), &json!("a".repeat(40))));
        assert_eq!(value["commits"][1]["sha"], "b".repeat(40));
        assert_eq!((&value["branch"], &value["default_branch"]), (&json!("main"), &json!("main")));
        assert_eq!((&value["commit_count"], &value["path_count"], &value["truncated"]), (&json!(2), &json!(1), &json!(false)));
    }

    #[test]
    fn a_merge_and_a_truncated_message_are_marked() {
        let mut commits = commits(6);
        commits[1].parents = Some(2);
        for commit in commits.iter_mut().skip(1) {
            commit.message = "é".repeat(MAX_MESSAGE_CHARS);
        }
        commits[2].message += "e";
        let value = listed(&event_document(&build(), &ChangedPaths::Known(Vec::new()), &commits, Some(6)));
        let of = |key: &str| value["commits"].as_array().unwrap().iter().map(|commit| commit[key].clone()).collect::<Vec<_>>();
        assert_eq!(of("parent_count"), [1, 2, 1, 1, 1, 1].map(|count| json!(count)));
        let marks = [false, false, true, false, true, true].map(|mark| json!(mark));
        assert_eq!(of("message_truncated"), marks, "all messages together are bounded as well");
        assert_eq!(value["truncated"], false, "no commit is missing");
    }

    #[test]
    fn long_lists_are_truncated_and_marked() {
        let paths = ChangedPaths::Known(vec!["a".to_owned(); 1_001]);
        let value = listed(&event_document(&build(), &paths, &commits(1), Some(1)));
        assert_eq!((&value["path_count"], &value["truncated"]), (&json!(1_001), &json!(true)));
        let long = ChangedPaths::Known(vec!["a".repeat(60_000); 1_000]);
        let document = event_document(&build(), &long, &commits(1), Some(1));
        let value = listed(&document);
        assert_eq!((&value["path_count"], &value["truncated"]), (&json!(1_000), &json!(true)));
        assert_eq!(value["paths"].as_array().map(Vec::len), Some(MAX_PATHS_BYTES / 60_000), "whole paths only");
        let unknown = ChangedPaths::Unknown("the branch is new".to_owned());
        let value = listed(&event_document(&build(), &unknown, &commits(50), Some(201)));
        assert_eq!(value["commits"].as_array().map(Vec::len), Some(50));
        assert_eq!((&value["commit_count"], &value["paths"], &value["truncated"]), (&json!(201), &json!(null), &json!(true)));
    }
}
