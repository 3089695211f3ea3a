//! The details of an event, by kind. Only this file and [`Event`](super::Event)'s methods know the variants; everything else asks
//! those methods.

use serde::{Deserialize, Serialize};

use super::Commit;
use super::pull_request::PullRequest;
use super::started::{Cron, Deployment, Manual};
use crate::git_ref::{BRANCHES, TAGS};
use crate::ids::Sha;

/// The details of an event, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    Push(Push),
    Tag(Tag),
    Release(Release),
    PullRequest(PullRequest),
    Manual(Manual),
    Promote(Deployment),
    Rollback(Deployment),
    Cron(Cron),
}

/// A push to a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Short name, `feature/x`; untrusted text.
    pub branch: String,
    /// The branch's commit before the push; `None` for a new branch. For a merge in the web interface Gogs sends the merge base
    /// instead.
    pub before: Option<Sha>,
    /// The branch's commit after the previous delivery for this branch, if it differs from `before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known_tip: Option<Sha>,
    pub after: Sha,
    /// As delivered. The commit `after` may be missing (a reset to an older commit lists only the removed commits).
    pub commits: Vec<Commit>,
    pub compare_url: Option<String>,
}

impl Push {
    /// Full name of the ref: `refs/heads/feature/x`.
    #[must_use]
    pub fn git_ref(&self) -> String {
        format!("{BRANCHES}{}", self.branch)
    }

    /// The commit that the branch now points to, if Gogs listed it.
    #[must_use]
    pub fn head_commit(&self) -> Option<&Commit> {
        self.commits.iter().find(|commit| commit.sha == self.after)
    }
}

/// A tag that was created or moved. Gogs names the tag and, for an annotated one, the tag object; the commit is known only after
/// the fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Short name, `v1.0` or `release/1.0`; untrusted text.
    pub name: String,
    /// The object that the tag pointed to when Gogs reported it: a commit or, for an annotated tag, the tag object. `None` if the
    /// payload does not state it.
    pub object: Option<Sha>,
}

/// A release that was published on the page of its tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Short name of its tag; untrusted text.
    pub tag: String,
    /// The title of the release, shortened; untrusted text.
    pub title: String,
    /// The text of the release, shortened; untrusted text.
    pub notes: String,
    pub is_prerelease: bool,
}

/// Full name of the ref of a tag.
#[must_use]
pub fn tag_ref(name: &str) -> String {
    format!("{TAGS}{name}")
}
