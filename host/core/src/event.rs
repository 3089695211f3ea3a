//! An event of the forge in Beespace's own typed form.
//!
//! It names two kinds of people, which must never be confused: an [`Actor`] is authenticated by the forge, a [`Claim`] is only
//! stated in a commit.

mod cause;
mod kind;
mod pull_request;
mod started;

use serde::{Deserialize, Serialize};

pub use self::cause::{Cause, Push, Release, Tag, tag_ref};
pub use self::kind::EventKind;
pub use self::pull_request::{PullRequest, PullRequestChange, SourceRepository, bounded_labels};
pub use self::started::{Cron, Deployment, GivenParams, Manual, Revision, is_target_name};
use crate::ids::{RepositoryId, RepositoryName, Sha};

/// How an actor is identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A user of Gogs.
    #[default]
    User,
    /// A person whom only this server knows, for example the holder of its admin token.
    Local,
    /// A schedule of this server.
    Schedule,
}

/// The person who caused the event: the `sender` of a delivery that the webhook's secret signed, or whom this server has
/// authenticated. Gogs has authenticated the sender, unless an administrator of the repository forged the delivery. The only
/// identity to decide on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Gogs' numeric user id; 0 for an actor who is not a user of Gogs.
    pub id: u64,
    /// Login name, for people.
    pub login: String,
    #[serde(default)]
    pub kind: ActorKind,
}

impl Actor {
    /// A user of Gogs.
    #[must_use]
    pub fn user(id: u64, login: impl Into<String>) -> Self {
        Self { id, login: login.into(), kind: ActorKind::User }
    }

    /// A person whom only this server knows, by the id that the records of their actions carry.
    #[must_use]
    pub fn local(id: impl Into<String>) -> Self {
        Self { id: 0, login: id.into(), kind: ActorKind::Local }
    }

    /// A schedule, by its name.
    #[must_use]
    pub fn schedule(name: impl Into<String>) -> Self {
        Self { id: 0, login: name.into(), kind: ActorKind::Schedule }
    }

    /// The stable id that plugins receive: `gogs:42`, `admin`, or `schedule:nightly`.
    #[must_use]
    pub fn stable_id(&self) -> String {
        match self.kind {
            ActorKind::User => format!("gogs:{}", self.id),
            ActorKind::Local => self.login.clone(),
            ActorKind::Schedule => format!("schedule:{}", self.login),
        }
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

/// A repository as Gogs describes it when it is asked. The body of a delivery may claim anything about it, so nothing is taken
/// from there.
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

/// The event that caused a build, stored with it as JSON: fields are only added, with a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub repository: Repository,
    pub sender: Actor,
    pub cause: Cause,
}

impl Event {
    /// The kind of the event.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match &self.cause {
            Cause::Push(_) => EventKind::Push,
            Cause::Tag(_) => EventKind::Tag,
            Cause::Release(_) => EventKind::Release,
            Cause::PullRequest(pull) if pull.change == PullRequestChange::Closed => EventKind::PullRequestClosed,
            Cause::PullRequest(_) => EventKind::PullRequest,
            Cause::Manual(_) => EventKind::Manual,
            Cause::Promote(_) => EventKind::Promote,
            Cause::Rollback(_) => EventKind::Rollback,
            Cause::Cron(_) => EventKind::Cron,
        }
    }

    /// Full name of the ref that is built; the commit itself for a manual build of a commit.
    #[must_use]
    pub fn git_ref(&self) -> String {
        match &self.cause {
            Cause::Push(push) => push.git_ref(),
            Cause::Tag(tag) => tag_ref(&tag.name),
            Cause::Release(release) => tag_ref(&release.tag),
            Cause::PullRequest(pull) => pull.git_ref(),
            Cause::Manual(manual) => manual.revision.git_ref(),
            Cause::Promote(deployment) | Cause::Rollback(deployment) => deployment.git_ref.clone(),
            Cause::Cron(cron) => cron.revision.git_ref(),
        }
    }

    /// Short name of the branch that is built; `None` for a tag and for a pull request.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        match &self.cause {
            Cause::Push(push) => Some(&push.branch),
            Cause::Tag(_) | Cause::Release(_) | Cause::PullRequest(_) => None,
            Cause::Manual(manual) => manual.revision.branch(),
            Cause::Promote(deployment) | Cause::Rollback(deployment) => deployment.branch.as_deref(),
            Cause::Cron(cron) => cron.revision.branch(),
        }
    }

    /// Short name of the tag that is built; `None` for a branch.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match &self.cause {
            Cause::Push(_) | Cause::PullRequest(_) => None,
            Cause::Tag(tag) => Some(&tag.name),
            Cause::Release(release) => Some(&release.tag),
            Cause::Manual(manual) => manual.revision.tag(),
            Cause::Promote(deployment) | Cause::Rollback(deployment) => deployment.tag.as_deref(),
            Cause::Cron(cron) => cron.revision.tag(),
        }
    }

    /// The pull request, if the event is about one.
    #[must_use]
    pub fn pull_request(&self) -> Option<&PullRequest> {
        match &self.cause {
            Cause::PullRequest(pull) => Some(pull),
            _ => None,
        }
    }

    /// Like [`pull_request`](Self::pull_request), for changing what is known about it.
    pub fn pull_request_mut(&mut self) -> Option<&mut PullRequest> {
        match &mut self.cause {
            Cause::PullRequest(pull) => Some(pull),
            _ => None,
        }
    }

    /// Short name of the branch that is built, for a pull request of its target: the branch of conditions and of the build that
    /// policies compare with.
    #[must_use]
    pub fn branch_or_target(&self) -> Option<&str> {
        self.branch().or_else(|| self.pull_request().map(|pull| pull.target_branch.as_str()))
    }

    /// The push, if the event is one.
    #[must_use]
    pub fn push(&self) -> Option<&Push> {
        match &self.cause {
            Cause::Push(push) => Some(push),
            _ => None,
        }
    }

    /// The commit that the event names; `None` if only the fetched ref tells it.
    #[must_use]
    pub fn sha(&self) -> Option<&Sha> {
        match &self.cause {
            Cause::Push(push) => Some(&push.after),
            Cause::Tag(_) | Cause::Release(_) | Cause::PullRequest(_) => None,
            Cause::Manual(manual) => manual.revision.commit(),
            Cause::Promote(deployment) | Cause::Rollback(deployment) => Some(&deployment.commit),
            Cause::Cron(cron) => cron.revision.commit(),
        }
    }

    /// The promotion or the rollback, if the event is one.
    #[must_use]
    pub fn deployment(&self) -> Option<&Deployment> {
        match &self.cause {
            Cause::Promote(deployment) | Cause::Rollback(deployment) => Some(deployment),
            _ => None,
        }
    }

    /// The target of a promotion or a rollback.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.deployment().map(|deployment| deployment.target.as_str())
    }

    /// The name of the schedule that started the build.
    #[must_use]
    pub fn schedule(&self) -> Option<&str> {
        match &self.cause {
            Cause::Cron(cron) => Some(&cron.schedule),
            _ => None,
        }
    }

    /// The revision that a person or a schedule asked for. Only a successful fetch tells which commit it is.
    #[must_use]
    pub fn started_revision(&self) -> Option<&Revision> {
        match &self.cause {
            Cause::Manual(manual) => Some(&manual.revision),
            Cause::Cron(cron) => Some(&cron.revision),
            _ => None,
        }
    }

    /// The values for the params of the pipelines, if the kind of the event has them: a person or a schedule started the build.
    #[must_use]
    pub fn params(&self) -> Option<&GivenParams> {
        match &self.cause {
            Cause::Manual(manual) => Some(&manual.params),
            Cause::Promote(deployment) | Cause::Rollback(deployment) => Some(&deployment.params),
            Cause::Cron(cron) => Some(&cron.params),
            Cause::Push(_) | Cause::Tag(_) | Cause::Release(_) | Cause::PullRequest(_) => None,
        }
    }

    /// The commit that the ref pointed to before; `None` for a new ref, and for events that have none.
    #[must_use]
    pub fn before(&self) -> Option<&Sha> {
        self.push().and_then(|push| push.before.as_ref())
    }

    /// Whether `[skip ci]` in the message of the commit suppresses the build. It concerns pushes and pull requests: whoever
    /// creates a tag or a release, or starts a build, wants that build.
    #[must_use]
    pub fn heeds_skip_directive(&self) -> bool {
        matches!(self.kind(), EventKind::Push | EventKind::PullRequest)
    }

    /// A title for people while the commit's message is unknown.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        match &self.cause {
            Cause::Push(push) => push.head_commit().map(|commit| commit.message.as_str()),
            Cause::Release(release) => Some(release.title.as_str()).filter(|title| !title.is_empty()),
            Cause::PullRequest(pull) => Some(&pull.title),
            Cause::Tag(_) | Cause::Manual(_) | Cause::Promote(_) | Cause::Rollback(_) | Cause::Cron(_) => None,
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
