//! Stages in hand in this process, so that a person can stop one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use beespace_core::ids::StageId;
use tokio_util::sync::CancellationToken;

/// The stages in hand; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<HashMap<StageId, CancellationToken>>>);

/// A stage is in hand while this lives.
#[derive(Debug)]
pub struct InHand {
    running: Running,
    stage: StageId,
    pub cancel: CancellationToken,
}

impl Running {
    /// Takes a stage in hand.
    #[must_use]
    pub fn enter(&self, stage: StageId) -> InHand {
        let cancel = CancellationToken::new();
        self.lock().insert(stage, cancel.clone());
        InHand { running: self.clone(), stage, cancel }
    }

    /// Stops a stage where it is in hand; what is only queued is stopped by its row.
    pub fn cancel(&self, stage: StageId) {
        if let Some(cancel) = self.lock().get(&stage) {
            cancel.cancel();
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<StageId, CancellationToken>> {
        // The map is whole after each call, even if a thread panicked between two.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.running.lock().remove(&self.stage);
    }
}
