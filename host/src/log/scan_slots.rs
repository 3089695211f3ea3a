//! The number of scans of logs that run at once.
//!
//! A page with a search reads up to 32 MiB of a log. Without a bound, many such pages would keep both the CPU and the threads of
//! the blocking pool from the other work, for example from the verification of deliveries.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::LogError;

/// Scans that run at once.
const RUNNING: usize = 2;
/// Scans that wait. They wait for a few seconds at most, because a scan is bounded.
const WAITING: usize = 16;

/// The slots of a [`LogStore`](super::LogStore). Clones share them.
#[derive(Debug, Clone)]
pub(super) struct ScanSlots {
    running: Arc<Semaphore>,
    /// One permit for each scan that runs or waits.
    admitted: Arc<Semaphore>,
}

/// The right to scan, until it is dropped.
#[derive(Debug)]
pub(super) struct ScanSlot {
    _running: OwnedSemaphorePermit,
    _admitted: OwnedSemaphorePermit,
}

impl Default for ScanSlots {
    fn default() -> Self {
        Self { running: Arc::new(Semaphore::new(RUNNING)), admitted: Arc::new(Semaphore::new(RUNNING + WAITING)) }
    }
}

impl ScanSlots {
    /// Waits for a slot.
    ///
    /// # Errors
    /// [`LogError::TooManyScans`] if enough others wait already.
    pub(super) async fn acquire(&self) -> Result<ScanSlot, LogError> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| LogError::TooManyScans)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| LogError::TooManyScans)?;
        Ok(ScanSlot { _running: running, _admitted: admitted })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_bounded_number_of_scans_runs_and_waits_and_the_others_are_refused_at_once() {
        let slots = ScanSlots::default();
        let acquire = || Box::pin(slots.acquire());
        let mut running: Vec<_> = (0..RUNNING).map(|_| acquire().now_or_never().unwrap().unwrap()).collect();
        let mut waiting: Vec<_> = (0..WAITING).map(|_| acquire()).collect();
        assert!(waiting.iter_mut().all(|wait| wait.now_or_never().is_none()));
        assert!(matches!(acquire().now_or_never(), Some(Err(LogError::TooManyScans))));
        // A request that is given up frees its place in the queue.
        waiting.pop();
        let mut last = acquire();
        assert!((&mut last).now_or_never().is_none());
        running.pop();
        let first = waiting.remove(0);
        assert!(first.now_or_never().is_some_and(|slot| slot.is_ok()), "the first one that waited runs next");
    }
}
