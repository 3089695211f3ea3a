//! The eight webhook payloads of Gogs, typed, one file each.
//!
//! The shapes are those of Gogs 0.11.91 to 0.15 (`internal/route/api/v1/types`, before 0.15 go-gogs-client), which have the same
//! fields. Unknown fields are ignored. A list may be `null`: 0.12 and later send `null` for an empty list. Fields that Beespace
//! needs are mandatory. All text is untrusted: Gogs sanitizes some names for HTML and passes the rest as people typed it.

mod comment;
mod create;
mod delete;
mod fork;
mod issue;
mod pull_request;
mod push;
mod release;
mod repository;
mod sha;
mod user;

use serde::{Deserialize, Deserializer};

pub use comment::{Comment, CommentAction, IssueComment};
pub use create::{Create, RefType};
pub use delete::Delete;
pub use fork::Fork;
pub use issue::{Changes, Issue, IssueAction, IssuePullRequest, Issues, Label, Milestone, PreviousText};
pub use pull_request::{PullRequest, PullRequestAction, PullRequestEvent};
pub use push::{Commit, CommitUser, Push};
pub use release::{Release, ReleaseAction, ReleaseEvent};
pub use repository::{Permissions, Repository};
pub use user::User;

use crate::ids::RepositoryId;
use crate::reason::Reason;
use crate::reason_code::ReasonCode;
use crate::verify::Verified;

/// Names of all Gogs events, as webhooks and the header `X-Gogs-Event` spell them.
pub const EVENTS: [&str; 8] = ["create", "delete", "fork", "push", "issues", "issue_comment", "pull_request", "release"];

/// The payload of a delivery in Gogs' own form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GogsEvent {
    Push(Box<Push>),
    BranchCreated(Box<Create>),
    TagCreated(Box<Create>),
    /// A branch or a tag was deleted.
    Deleted(Box<Delete>),
    Forked(Box<Fork>),
    Issue(Box<Issues>),
    IssueComment(Box<IssueComment>),
    PullRequest(Box<PullRequestEvent>),
    Release(Box<ReleaseEvent>),
}

impl GogsEvent {
    /// The repository of the event: for a fork the one that was forked, for a pull request its target.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        match self {
            Self::Push(push) => &push.repository,
            Self::BranchCreated(create) | Self::TagCreated(create) => &create.repository,
            Self::Deleted(delete) => &delete.repository,
            Self::Forked(fork) => &fork.repository,
            Self::Issue(issues) => &issues.repository,
            Self::IssueComment(comment) => &comment.repository,
            Self::PullRequest(event) => &event.repository,
            Self::Release(event) => &event.repository,
        }
    }

    /// The numeric id of [`GogsEvent::repository`].
    #[must_use]
    pub fn repository_id(&self) -> RepositoryId {
        RepositoryId(self.repository().id)
    }

    /// The user who caused the event, authenticated by Gogs.
    #[must_use]
    pub fn sender(&self) -> &User {
        match self {
            Self::Push(push) => &push.sender,
            Self::BranchCreated(create) | Self::TagCreated(create) => &create.sender,
            Self::Deleted(delete) => &delete.sender,
            Self::Forked(fork) => &fork.sender,
            Self::Issue(issues) => &issues.sender,
            Self::IssueComment(comment) => &comment.sender,
            Self::PullRequest(event) => &event.sender,
            Self::Release(event) => &event.sender,
        }
    }
}

/// A signed body is not a valid payload of the named event. The reason is stored with the delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct MalformedPayload {
    /// The problem, its location in the body, and the remedy.
    pub reason: Reason,
}

/// Parses a signed body as the event named in `X-Gogs-Event`. The header is not signed, so an attacker can replay a signed body
/// under another name. A payload without the fields of that event is an error; a payload that has them has only the
/// effects of that event.
///
/// # Errors
/// [`MalformedPayload`] if the event is not in [`EVENTS`], the body is not JSON, or a mandatory field is missing.
pub fn parse(event: &str, body: &Verified<Vec<u8>>) -> Result<Verified<GogsEvent>, MalformedPayload> {
    let json = body.get().as_slice();
    let parsed = match event {
        "push" => GogsEvent::Push(parse_payload(event, json)?),
        "create" => created(parse_payload(event, json)?),
        "delete" => GogsEvent::Deleted(parse_payload(event, json)?),
        "fork" => GogsEvent::Forked(parse_payload(event, json)?),
        "issues" => GogsEvent::Issue(parse_payload(event, json)?),
        "issue_comment" => GogsEvent::IssueComment(parse_payload(event, json)?),
        "pull_request" => GogsEvent::PullRequest(parse_payload(event, json)?),
        "release" => GogsEvent::Release(parse_payload(event, json)?),
        unknown => return Err(unknown_event(unknown)),
    };
    Ok(body.derive(parsed))
}

fn created(create: Box<Create>) -> GogsEvent {
    match create.ref_type {
        RefType::Branch => GogsEvent::BranchCreated(create),
        RefType::Tag => GogsEvent::TagCreated(create),
    }
}

fn parse_payload<'a, T: Deserialize<'a>>(event: &str, json: &'a [u8]) -> Result<Box<T>, MalformedPayload> {
    serde_json::from_slice(json).map(Box::new).map_err(|error| MalformedPayload {
        reason: Reason::new(ReasonCode::MalformedPayload, format!("the body is not a valid Gogs `{event}` payload: {error}"))
            .help("if Gogs is newer than this Beespace, report the problem; otherwise check for a proxy that changes requests"),
    })
}

fn unknown_event(event: &str) -> MalformedPayload {
    let shown: String = event.chars().take(40).collect();
    MalformedPayload {
        reason: Reason::new(
            ReasonCode::UnknownEvent,
            format!("{shown:?} is not a Gogs event; known events: {}", EVENTS.join(", ")),
        )
        .help("check that no proxy between Gogs and Beespace changes the header `X-Gogs-Event`"),
    }
}

/// Reads `null` as the default value: Gogs writes empty lists and missing objects as `null`.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
