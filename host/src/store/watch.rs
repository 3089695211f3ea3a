//! Waiting for changes of rows.

use beespace_core::change_event::ChangeEvent;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Store;

/// The changes since a subscription. A subscriber that is too slow loses the oldest of them.
#[derive(Debug)]
pub struct ChangeSubscription(broadcast::Receiver<ChangeEvent>);

/// One change, or the loss of several.
#[derive(Debug)]
pub enum NextChange {
    Event(ChangeEvent),
    /// So many changes were lost, because the subscriber was too slow.
    Lost(u64),
}

impl Store {
    /// Subscribes to all changes from now on. Subscribe before you read a row for the first time, so that no change is missed.
    #[must_use]
    pub fn watch_changes(&self) -> ChangeSubscription {
        ChangeSubscription(self.watch())
    }
}

impl ChangeSubscription {
    /// The next change. Never resolves once every handle on the store is gone.
    pub async fn next(&mut self) -> NextChange {
        match self.0.recv().await {
            Ok(event) => NextChange::Event(event),
            Err(RecvError::Lagged(lost)) => NextChange::Lost(lost),
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    /// Resolves when a change that `is_wanted` accepts has been committed, or may have been among lost changes: the caller
    /// reads the row to find out.
    pub async fn next_matching(&mut self, is_wanted: impl Fn(&ChangeEvent) -> bool) {
        loop {
            match self.next().await {
                NextChange::Event(event) if !is_wanted(&event) => {}
                NextChange::Event(_) | NextChange::Lost(_) => return,
            }
        }
    }
}
