//! What changed, for everybody who watches: pages, API streams, metrics, workers. Sent after the change is durable.

use serde::{Deserialize, Serialize};

use crate::ids::{BuildId, DeliveryId, NoticeId, RepositoryId, StageId, StepId};
use crate::notice::NoticeState;
use crate::status::Status;

/// One change. Carries ids and the new word, never the content: who needs more reads the row.
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
    /// Exactly once a build.
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
