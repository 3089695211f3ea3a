use serde::Deserialize;

use super::sha::optional_sha;
use super::{Changes, Label, Milestone, Repository, User, null_as_default};
use crate::ids::Sha;

/// `pull_request`, delivered to the webhooks of the target repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PullRequestEvent {
    pub action: PullRequestAction,
    pub number: u64,
    pub pull_request: PullRequest,
    /// Only for `edited`.
    #[serde(default)]
    pub changes: Option<Changes>,
    pub repository: Repository,
    pub sender: User,
}

/// The change of the pull request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestAction {
    Opened,
    /// The head branch was updated or deleted, or a tag with its name was pushed. Sent before `refs/pull/N/head` is updated.
    Synchronized,
    /// Closed with or without a merge: see [`PullRequest::merged`].
    Closed,
    Reopened,
    Edited,
    Assigned,
    Unassigned,
    LabelUpdated,
    LabelCleared,
    Milestoned,
    Demilestoned,
    /// An action that only newer versions of Gogs have.
    #[serde(untagged)]
    Other(String),
}

/// A pull request. The payload contains no commit id, neither of the head nor of the base.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PullRequest {
    /// Database id; people use [`PullRequest::number`].
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
    /// Has the id 0 and no owner if the repository was deleted.
    #[serde(default)]
    pub head_repo: Option<Repository>,
    pub base_branch: String,
    #[serde(default)]
    pub base_repo: Option<Repository>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub html_url: String,
    /// `None` while Gogs is still checking; `synchronized` carries the old value.
    #[serde(default)]
    pub mergeable: Option<bool>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub merged: bool,
    #[serde(default)]
    pub merged_at: Option<String>,
    /// Despite its name this is the head of the pull request, not the merge commit.
    #[serde(default, deserialize_with = "optional_sha")]
    pub merge_commit_sha: Option<Sha>,
    #[serde(default)]
    pub merged_by: Option<User>,
}
