//! A pull request, as its webhook reports it. The payload names branches, but no commit.

use serde::{Deserialize, Serialize};

use super::{MAX_CLAIM_CHARS, Repository, shorten};
use crate::git_ref::{BRANCHES, is_well_formed};
use crate::ids::{RepositoryId, RepositoryName};

/// The most labels that are kept.
const MAX_LABELS: usize = 100;

/// A pull request and its change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    pub number: u64,
    pub change: PullRequestChange,
    /// Shortened; untrusted text.
    pub title: String,
    /// Short name of the branch that it is to be merged into. Gogs cannot change it later.
    pub target_branch: String,
    /// Short name of the branch, or of the tag, that it proposes; untrusted text.
    pub source_branch: String,
    /// The repository of the source branch: the target's own, or a fork. `None` if it was deleted.
    pub source: Option<SourceRepository>,
    /// Names, shortened; untrusted text.
    #[serde(default)]
    pub labels: Vec<String>,
    #[serde(default)]
    pub is_merged: bool,
}

/// The repository that a pull request comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRepository {
    pub id: RepositoryId,
    pub name: RepositoryName,
}

/// The change of a pull request that Gogs reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestChange {
    Opened,
    /// Its branch was pushed.
    Synchronized,
    Reopened,
    /// Closed, with or without a merge.
    Closed,
    /// Title, text, labels, people or milestone: nothing that is built.
    Edited,
}

impl PullRequest {
    /// Full name of the ref that Gogs keeps for its head in the target repository.
    #[must_use]
    pub fn git_ref(&self) -> String {
        format!("refs/pull/{}/head", self.number)
    }

    /// Address of its page in Gogs; empty if that of the repository is unknown.
    #[must_use]
    pub fn page(&self, repository: &Repository) -> String {
        match repository.html_url.as_str() {
            "" => String::new(),
            url => format!("{url}/pulls/{}", self.number),
        }
    }

    /// Full name of the ref of the target branch.
    #[must_use]
    pub fn target_ref(&self) -> String {
        format!("{BRANCHES}{}", self.target_branch)
    }

    /// Whether the source branch is in another repository than `repository`.
    #[must_use]
    pub fn is_from_fork(&self, repository: RepositoryId) -> bool {
        self.source.as_ref().is_none_or(|source| source.id != repository)
    }

    /// The source branch as people write it: `topic`, and `eve:topic` for a fork of eve.
    #[must_use]
    pub fn source_label(&self, repository: RepositoryId) -> String {
        match &self.source {
            Some(source) if source.id == repository => self.source_branch.clone(),
            Some(source) => format!("{}:{}", source.name.owner(), self.source_branch),
            None => format!("deleted:{}", self.source_branch),
        }
    }

    /// Whether git allows the names of both branches.
    #[must_use]
    pub fn has_well_formed_branches(&self) -> bool {
        [&self.target_branch, &self.source_branch].iter().all(|name| is_well_formed(&format!("{BRANCHES}{name}")))
    }
}

/// The labels of a pull request as they are kept: bounded in number and length.
pub fn bounded_labels<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().take(MAX_LABELS).map(|name| shorten(name, MAX_CLAIM_CHARS)).collect()
}
