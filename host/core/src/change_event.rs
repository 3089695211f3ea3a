//! Change events, for pages, API streams, metrics and workers. An event is sent after its change is durable.

use serde::{Deserialize, Serialize};

use crate::ids::{BuildId, DeliveryId, NoticeId, RepositoryId, StageId, StepId};
use crate::notice::NoticeState;
use crate::status::Status;

/// One change. It carries ids and the new status, never the content; a receiver that needs more reads the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ChangeEvent {
    DeliveryStored {
        repository: RepositoryId,
        delivery: DeliveryId,
    },
    DeliveryProcessed {
        repository: RepositoryId,
        delivery: DeliveryId,
    },
    BuildChanged {
        repository: RepositoryId,
        build: BuildId,
        status: Status,
    },
    StageChanged {
        repository: RepositoryId,
        stage: StageId,
        status: Status,
    },
    StepChanged {
        repository: RepositoryId,
        step: StepId,
        status: Status,
    },
    /// Sent exactly once per build.
    BuildFinished {
        repository: RepositoryId,
        build: BuildId,
        status: Status,
    },
    NoticeChanged {
        notice: NoticeId,
        state: NoticeState,
    },
}

impl ChangeEvent {
    /// The build that has changed, itself or one of its stages or steps.
    #[must_use]
    pub fn build(&self) -> Option<BuildId> {
        match self {
            Self::BuildChanged { build, .. } | Self::BuildFinished { build, .. } => Some(*build),
            Self::StageChanged { stage, .. } => Some(stage.build),
            Self::StepChanged { step, .. } => Some(step.build),
            Self::DeliveryStored { .. } | Self::DeliveryProcessed { .. } | Self::NoticeChanged { .. } => None,
        }
    }
}
