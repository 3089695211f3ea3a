//! A fact for people, `beespace.notice/v1`, on its way to a notifier.

use serde::{Deserialize, Serialize};

use crate::build::{Build, Stage};
use crate::digest::Document;
use crate::ids::{BuildId, NoticeId};
use crate::outcome::Reason;
use crate::time::Timestamp;

/// Name of the schema of a notice's subject.
pub const SCHEMA: &str = "beespace.notice/v1";

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NoticeKind {
    #[serde(rename = "build.finished")]
    BuildFinished,
    #[serde(rename = "approval.requested")]
    ApprovalRequested,
}

impl NoticeKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuildFinished => "build.finished",
            Self::ApprovalRequested => "approval.requested",
        }
    }
}

/// One notice for one notifier binding: a row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub id: NoticeId,
    pub kind: NoticeKind,
    pub build: BuildId,
    /// Name of the binding that sends it.
    pub binding: String,
    /// Notices of one thread and binding go one at a time, in the order of `sequence`.
    pub thread: String,
    pub sequence: u64,
    /// The same for every attempt: the receiver can drop repetitions.
    pub idempotency_key: String,
    pub subject: Document,
    pub state: NoticeState,
    /// Attempts begun.
    pub attempts: u32,
    /// Attempts whose outcome nobody knows (trap, timeout, crash).
    pub unknown_outcomes: u32,
    /// Why the last attempt did not work.
    pub last_error: Option<String>,
    pub next_attempt_at: Timestamp,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeState {
    Pending,
    Sent,
    /// Given up; a person can replay it.
    Dead,
    /// The binding is misconfigured; waits until it is mended and replayed.
    Suspended,
}

impl NoticeState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Dead => "dead",
            Self::Suspended => "suspended",
        }
    }
}

/// What a notifier returned for a thread, so that it can edit in place of adding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub external_id: String,
    pub url: Option<String>,
    pub state: Vec<u8>,
}

/// The subject of a notice: what happened, in `beespace.notice/v1`. Addresses are not in it; the host adds them when it sends.
#[must_use]
pub fn document(kind: NoticeKind, build: &Build, stages: &[Stage]) -> Document {
    let event = &build.event;
    let stages: Vec<_> = stages
        .iter()
        .map(|stage| {
            let steps: Vec<_> = stage
                .steps
                .iter()
                .map(|step| serde_json::json!({ "name": step.name, "status": step.status, "reason": text(step.reason.as_ref()) }))
                .collect();
            serde_json::json!({
                "number": stage.number,
                "name": stage.pipeline.name,
                "status": stage.status,
                "reason": text(stage.reason.as_ref()),
                "steps": steps,
            })
        })
        .collect();
    let subject = serde_json::json!({
        "kind": kind,
        "build": {
            "id": build.id,
            "number": build.number,
            "status": build.status,
            "reason": text(build.reason.as_ref()),
            "created_at_ms": build.created_at,
            "started_at_ms": build.started_at,
            "finished_at_ms": build.finished_at,
            "stages": stages,
        },
        "repository": { "id": event.repository.id, "owner": event.repository.name.owner(), "name": event.repository.name.name() },
        "event": event.kind(),
        "ref": event.git_ref(),
        "sha": event.sha(),
        "message": build.head.as_ref().map(|head| head.message.as_str()),
        "author": build.head.as_ref().map(|head| &head.author),
        "actor": { "id": event.sender.stable_id(), "name": event.sender.login },
    });
    Document::new(SCHEMA, &subject)
}

fn text(reason: Option<&Reason>) -> Option<String> {
    reason.map(ToString::to_string)
}
