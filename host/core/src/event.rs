//! What happened, in our own typed form.
//!
//! Two kinds of people occur in it and never mix: an [`Actor`] is vouched for by the forge, a [`Claim`] is what a commit says.

use serde::{Deserialize, Serialize};

use crate::ids::{RepositoryId, RepositoryName, Sha};

/// Who caused it, vouched for by Gogs (`sender`). The only identity to decide on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Gogs' numeric user id.
    pub id: u64,
    /// Login name, for people.
    pub login: String,
}

impl Actor {
    /// The stable id that plugins see: `gogs:42`.
    #[must_use]
    pub fn stable_id(&self) -> String {
        format!("gogs:{}", self.id)
    }
}

/// What a commit says about its author. Anyone can write anything there: a claim, never an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub name: String,
    pub email: String,
}

/// The words of `when.event` in a pipeline file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Push,
    Tag,
    PullRequest,
    PullRequestClosed,
    Release,
    Cron,
    Manual,
    Promote,
    Rollback,
}

impl EventKind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Push,
        Self::Tag,
        Self::PullRequest,
        Self::PullRequestClosed,
        Self::Release,
        Self::Cron,
        Self::Manual,
        Self::Promote,
        Self::Rollback,
    ];

    /// The word people write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Tag => "tag",
            Self::PullRequest => "pull_request",
            Self::PullRequestClosed => "pull_request_closed",
            Self::Release => "release",
            Self::Cron => "cron",
            Self::Manual => "manual",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
        }
    }
}

impl std::fmt::Display for EventKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The repository as a delivery describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    pub id: RepositoryId,
    pub name: RepositoryName,
    /// Short name; text of strangers.
    pub default_branch: String,
    pub is_private: bool,
    /// Where people look at it. From the payload: shown, never fetched.
    pub html_url: String,
}

/// One commit as the delivery lists it: newest first, cut to a few by Gogs, so never the whole truth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    pub sha: Sha,
    /// Whole message; text of strangers.
    pub message: String,
    pub author: Claim,
}

/// A push to a branch: the one event that builds today.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Short name, `feature/x`; text of strangers.
    pub branch: String,
    /// Where the branch stood; none for a new branch. Of the push that Gogs makes up for a merge it is the commit that the two sides share.
    pub before: Option<Sha>,
    /// Where the push that was heard of before this one left the branch, if not at `before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known_tip: Option<Sha>,
    pub after: Sha,
    /// As delivered. The commit with the sha `after` may be missing (a reset to an older commit lists only the removed ones).
    pub commits: Vec<Commit>,
    pub compare_url: Option<String>,
}

impl Push {
    /// Full name of the ref: `refs/heads/feature/x`.
    #[must_use]
    pub fn git_ref(&self) -> String {
        format!("refs/heads/{}", self.branch)
    }

    /// The delivered commit that the branch now points at, where Gogs listed it.
    #[must_use]
    pub fn head_commit(&self) -> Option<&Commit> {
        self.commits.iter().find(|commit| commit.sha == self.after)
    }
}

/// What starts a build, kept with it. Its JSON is stored: fields are only added, with a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub repository: Repository,
    pub sender: Actor,
    pub cause: Cause,
}

/// What kind of event, with what belongs to it. Tags, pull requests and the others join here when they build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    Push(Push),
}

impl Event {
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match &self.cause {
            Cause::Push(_) => EventKind::Push,
        }
    }

    /// Full name of the ref that is built.
    #[must_use]
    pub fn git_ref(&self) -> String {
        match &self.cause {
            Cause::Push(push) => push.git_ref(),
        }
    }

    /// Short name of the branch, where the event has one.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        match &self.cause {
            Cause::Push(push) => Some(&push.branch),
        }
    }

    /// The commit the event names.
    #[must_use]
    pub fn sha(&self) -> &Sha {
        match &self.cause {
            Cause::Push(push) => &push.after,
        }
    }

    /// Where the ref stood before; none where it is new.
    #[must_use]
    pub fn before(&self) -> Option<&Sha> {
        match &self.cause {
            Cause::Push(push) => push.before.as_ref(),
        }
    }
}
