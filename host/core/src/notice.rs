//! A fact for people, `beespace.notice/v1`, on its way to a notifier.

use serde::{Deserialize, Serialize};

use crate::digest::Document;
use crate::ids::{BuildId, NoticeId};
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

/// What a notifier returned for a thread, so that it can edit in place of adding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub external_id: String,
    pub url: Option<String>,
    pub state: Vec<u8>,
}
