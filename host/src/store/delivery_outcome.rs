//! The outcome of a delivery, and the kinds by which lists are filtered.

use beespace_core::ids::BuildId;
use beespace_core::reason::Reason;
use serde::{Deserialize, Serialize};

/// The outcome of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryOutcome {
    Waiting,
    Built(BuildId),
    Ignored(Reason),
    /// An internal error, or a body that cannot be parsed. A redelivery from Gogs or `beespace delivery retry` processes it
    /// again.
    DeadLetter(Reason),
}

/// The kind of an outcome, by which lists are filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeKind {
    Waiting,
    Built,
    Ignored,
    DeadLetter,
}

impl OutcomeKind {
    /// All kinds, in the order of a delivery's life.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Built, Self::Ignored, Self::DeadLetter];

    /// The stable name in APIs and texts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Built => "built",
            Self::Ignored => "ignored",
            Self::DeadLetter => "dead_letter",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl DeliveryOutcome {
    #[must_use]
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Self::Waiting => OutcomeKind::Waiting,
            Self::Built(_) => OutcomeKind::Built,
            Self::Ignored(_) => OutcomeKind::Ignored,
            Self::DeadLetter(_) => OutcomeKind::DeadLetter,
        }
    }
}
