//! The kinds of events.

use serde::{Deserialize, Serialize};

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
