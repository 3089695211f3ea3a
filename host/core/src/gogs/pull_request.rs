use serde::Deserialize;

use super::sha::optional_sha;
use super::{Changes, Label, Milestone, Repository, User, null_as_default};
use crate::ids::Sha;

/// `pull_request`, delivered to the hooks of the repository that is to take it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PullRequestEvent {
    pub action: PullRequestAction,
    pub number: u64,
    pub pull_request: PullRequest,
    /// Of `edited` alone.
    #[serde(default)]
    pub changes: Option<Changes>,
    pub repository: Repository,
    pub sender: User,
}

/// What happened to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestAction {
    Opened,
    /// The head branch moved, or is gone, or a tag of its name was pushed. Sent before `refs/pull/N/head` moves.
    Synchronized,
    /// Merged or not: see [`PullRequest::merged`].
    Closed,
    Reopened,
    Edited,
    Assigned,
    Unassigned,
    LabelUpdated,
    LabelCleared,
    Milestoned,
    Demilestoned,
    /// One that a newer Gogs has.
    #[serde(untagged)]
    Other(String),
}

/// A pull request. Gogs tells no commit of it: neither head nor base.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PullRequest {
    /// Not the number that people say.
    pub id: u64,
    pub number: u64,
    #[serde(default)]
    pub user: Option<User>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub title: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub body: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: Vec<Label>,
    #[serde(default)]
    pub milestone: Option<Milestone>,
    #[serde(default)]
    pub assignee: Option<User>,
    /// `open` or `closed`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub state: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub comments: u64,
    pub head_branch: String,
    /// With id 0 and no owner where it is gone.
    #[serde(default)]
    pub head_repo: Option<Repository>,
    pub base_branch: String,
    #[serde(default)]
    pub base_repo: Option<Repository>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub html_url: String,
    /// None while Gogs still checks; the old value in `synchronized`.
    #[serde(default)]
    pub mergeable: Option<bool>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub merged: bool,
    #[serde(default)]
    pub merged_at: Option<String>,
    /// In spite of its name the head of the pull request, not the merge commit.
    #[serde(default, deserialize_with = "optional_sha")]
    pub merge_commit_sha: Option<Sha>,
    #[serde(default)]
    pub merged_by: Option<User>,
}
