use serde::Deserialize;

use super::{Repository, User, null_as_default};

/// `issues`: an issue changed. A new branch whose history contains `Fixes #1` sends `closed` and `reopened` again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Issues {
    pub action: IssueAction,
    pub number: u64,
    pub issue: Issue,
    #[serde(default)]
    pub changes: Option<Changes>,
    pub repository: Repository,
    pub sender: User,
}

/// The change of the issue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IssueAction {
    Opened,
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

/// An issue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Issue {
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
    #[serde(default, deserialize_with = "null_as_default")]
    pub created_at: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub updated_at: String,
    /// Present if the issue is a pull request.
    #[serde(default)]
    pub pull_request: Option<IssuePullRequest>,
}

/// State of the pull request that an issue belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IssuePullRequest {
    #[serde(default, deserialize_with = "null_as_default")]
    pub merged: bool,
    #[serde(default)]
    pub merged_at: Option<String>,
}

/// A label of an issue or a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Label {
    pub id: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    /// Six hex digits without `#`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub color: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub url: String,
}

/// A milestone of an issue or a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Milestone {
    pub id: u64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub title: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub description: String,
    /// `open` or `closed`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub state: String,
    #[serde(default, deserialize_with = "null_as_default")]
    pub open_issues: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub closed_issues: i64,
    #[serde(default)]
    pub closed_at: Option<String>,
    #[serde(default)]
    pub due_on: Option<String>,
}

/// The texts that an edit replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Changes {
    #[serde(default)]
    pub title: Option<PreviousText>,
    #[serde(default)]
    pub body: Option<PreviousText>,
}

/// The text before the edit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PreviousText {
    #[serde(default, deserialize_with = "null_as_default")]
    pub from: String,
}
