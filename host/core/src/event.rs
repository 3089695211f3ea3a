//! An event of the forge in Beespace's own typed form.
//!
//! It names two kinds of people, which must never be confused: an [`Actor`] is authenticated by the forge, a [`Claim`] is only
//! stated in a commit.

use serde::{Deserialize, Serialize};

use crate::ids::{RepositoryId, RepositoryName, Sha};

/// The person who caused the event, authenticated by Gogs (`sender`). The only identity to decide on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Gogs' numeric user id.
    pub id: u64,
    /// Login name, for people.
    pub login: String,
}

impl Actor {
    /// The stable id that plugins receive: `gogs:42`.
    #[must_use]
    pub fn stable_id(&self) -> String {
        format!("gogs:{}", self.id)
    }
}

/// The author as stated in a commit. Anyone can write anything there, so it is a claim, never an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub name: String,
    pub email: String,
}

impl Claim {
    /// The claim of a commit. A commit may have megabytes of name; at most [`MAX_CLAIM_CHARS`] of each text are kept.
    #[must_use]
    pub fn shortened(name: &str, email: &str) -> Self {
        Self { name: shorten(name, MAX_CLAIM_CHARS), email: shorten(email, MAX_CLAIM_CHARS) }
    }
}

/// The kind of an event, as `when.event` in a pipeline file names it.
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
    /// All kinds, in the order of the documentation.
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

    /// The kinds that can happen in this version. A condition on another one would never hold.
    pub const SUPPORTED: [Self; 1] = [Self::Push];

    /// The keyword in pipeline files.
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

/// A repository as Gogs describes it when it is asked. What the body of a delivery claims about it is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    pub id: RepositoryId,
    pub name: RepositoryName,
    /// Short name; untrusted text.
    pub default_branch: String,
    pub is_private: bool,
    /// Address of the repository's page. It is shown, but never fetched.
    pub html_url: String,
}

/// The longest message of a commit that is stored, in characters. A commit may have megabytes of it.
pub const MAX_MESSAGE_CHARS: usize = 16 * 1024;
/// The longest name and the longest address of an author that are stored, in characters.
pub const MAX_CLAIM_CHARS: usize = 200;

/// The beginning of an untrusted text that is stored and shown; `…` marks what is missing.
#[must_use]
pub fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// One commit as the delivery lists it. Gogs lists only a few, newest first, so the list is incomplete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    pub sha: Sha,
    /// The message, at most [`MAX_MESSAGE_CHARS`] of it; untrusted text.
    pub message: String,
    pub author: Claim,
    /// The number of parents: two or more for a merge. Git knows it; deliveries do not state it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parents: Option<usize>,
}

/// A push to a branch: today the only event that causes builds.
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
        format!("refs/heads/{}", self.branch)
    }

    /// The commit that the branch now points to, if Gogs listed it.
    #[must_use]
    pub fn head_commit(&self) -> Option<&Commit> {
        self.commits.iter().find(|commit| commit.sha == self.after)
    }
}

/// The event that caused a build, stored with it as JSON: fields are only added, with a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub repository: Repository,
    pub sender: Actor,
    pub cause: Cause,
}

/// The details of an event by kind. Tags, pull requests and others become variants when they cause builds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    Push(Push),
}

impl Event {
    /// The kind of the event.
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

    /// Short name of the branch, if the event has one.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        match &self.cause {
            Cause::Push(push) => Some(&push.branch),
        }
    }

    /// The commit that the event names.
    #[must_use]
    pub fn sha(&self) -> &Sha {
        match &self.cause {
            Cause::Push(push) => &push.after,
        }
    }

    /// The commit that the ref pointed to before; `None` for a new ref.
    #[must_use]
    pub fn before(&self) -> Option<&Sha> {
        match &self.cause {
            Cause::Push(push) => push.before.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_of_a_commit_are_shortened() {
        let claim = Claim::shortened(&"ä".repeat(3_000_000), "ada@example.org");
        assert_eq!((claim.name.chars().count(), &*claim.email), (MAX_CLAIM_CHARS + 1, "ada@example.org"));
        assert!(claim.name.ends_with("ä…"));
        let whole = "🐝".repeat(MAX_MESSAGE_CHARS);
        assert_eq!(shorten(&whole, MAX_MESSAGE_CHARS), whole);
    }
}
