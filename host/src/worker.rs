//! Takes rows that wait, a fair turn for each repository, and never the same row twice at once. Woken by the commit that queues a
//! row, never by polling.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use beespace_core::reason::Reason;
use beespace_core::time::{Timestamp, backoff};
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::store::queue::{self, Claim, FairnessKey, QueuePosition, Queues as _};
use crate::store::{Queue, Store, StoreError};

/// The longest sleep: a worker that has not looked for longer than a few of these is stuck, and `/readyz` says so.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// A worker that has not looked for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// How long a row is left alone whose work the store could not keep.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// How often, a second apart, it is tried to tell the store so.
const STORE_RETRIES: u32 = 10;

/// How one worker does.
#[derive(Debug, Default)]
pub struct Heartbeat {
    /// Milliseconds since the epoch when it looked at its queue last.
    last_beat: AtomicU64,
    in_progress: AtomicUsize,
}

impl Heartbeat {
    /// The worker looks at its queue.
    pub fn look(&self, now: Timestamp) {
        self.last_beat.store(now.0, Ordering::Relaxed);
    }

    fn set_in_progress(&self, rows: usize) {
        self.in_progress.store(rows, Ordering::Relaxed);
    }

    /// Rows that are worked on.
    #[must_use]
    pub fn in_progress(&self) -> usize {
        self.in_progress.load(Ordering::Relaxed)
    }
}

/// How the workers do.
#[derive(Debug, Clone, Default)]
pub struct Heartbeats([Arc<Heartbeat>; Queue::COUNT]);

impl Heartbeats {
    /// The beat of one queue's worker.
    #[must_use]
    pub fn of(&self, queue: Queue) -> Arc<Heartbeat> {
        self.0.get(queue as usize).cloned().unwrap_or_default()
    }

    /// Queues whose worker has not looked lately.
    #[must_use]
    pub fn stuck(&self, now: Timestamp) -> Vec<Queue> {
        let is_late = |queue: &Queue| now.since(Timestamp(self.of(*queue).last_beat.load(Ordering::Relaxed))) >= STUCK_AFTER;
        Queue::ALL.into_iter().filter(is_late).collect()
    }
}

/// How working on a row did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Our own trouble: counts as an attempt, then backs off.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// Something outside is awaited: counts nothing. The row itself says what for.
    #[error("waits until {}", until.0)]
    Wait { until: Timestamp },
    /// The server stops: the row stays as it is, for the next process.
    #[error("handed over")]
    HandedOver,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// Whether what failed is the store, and not what was done with it.
fn is_store_failure(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(StoreError::Unavailable(_))))
}

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What is done with the row of this id.
pub type Duty<T> = Box<dyn Fn(Vec<u8>) -> Work<T> + Send + Sync>;
/// The same, with the reason why it is done.
pub type DutyWithReason<T> = Box<dyn Fn(Vec<u8>, Reason) -> Work<T> + Send + Sync>;

/// What a worker does with the rows of its queue.
pub struct Duties {
    /// Takes the row to its end; it must leave the queue by that.
    pub work: Duty<Result<(), Trouble>>,
    /// The attempts are used up: ends the row as something people see.
    pub bury: DutyWithReason<Result<(), StoreError>>,
}

impl std::fmt::Debug for Duties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Duties")
    }
}

/// The rows that are worked on, by their ids.
type InProgressRows = HashMap<Vec<u8>, InProgress>;

/// Whose turn a row takes, and what works on it.
#[derive(Debug)]
struct InProgress {
    fairness_key: FairnessKey,
    task: task::Id,
}

/// One queue's worker.
#[derive(Debug)]
pub struct Worker {
    pub store: Store,
    pub queue: Queue,
    /// Rows worked on at once.
    pub parallel: usize,
    /// Of them, rows of one turn: where this is less, nobody who is slow has all the places.
    pub parallel_per_key: usize,
    pub duties: Duties,
    pub heartbeat: Arc<Heartbeat>,
    pub now: fn() -> Timestamp,
}

impl Worker {
    /// Works until `stopping`, then waits for the rows in hand.
    pub async fn serve(self, stopping: CancellationToken) {
        let worker = Arc::new(self);
        let mut in_hand = InProgressRows::new();
        let mut turns = RoundRobin::default();
        let mut tasks = JoinSet::new();
        while !stopping.is_cancelled() {
            worker.heartbeat.look((worker.now)());
            let pause = worker.start_due_or_log(&mut in_hand, &mut turns, &mut tasks);
            worker.heartbeat.set_in_progress(in_hand.len());
            tokio::select! {
                () = stopping.cancelled() => {}
                () = worker.store.wait_for_work(worker.queue) => {}
                Some(done) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                    let task = done.map_or_else(|panic| panic.id(), |(task, ())| task);
                    in_hand.retain(|_, held| held.task != task);
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Looks whether there is something to do; says how long there will be nothing.
    fn start_due_or_log(
        self: &Arc<Self>,
        in_hand: &mut InProgressRows,
        turns: &mut RoundRobin,
        tasks: &mut JoinSet<()>,
    ) -> Duration {
        if in_hand.len() >= self.parallel {
            return HEARTBEAT_INTERVAL;
        }
        self.start_due(in_hand, turns, tasks).unwrap_or_else(|error| {
            tracing::warn!(%error, queue = ?self.queue, "the queue cannot be read");
            Duration::from_secs(1)
        })
    }

    /// Starts what is due and fits. Looks at the first rows of each turn and at none behind them: a long queue is no slower than a short one.
    fn start_due(
        self: &Arc<Self>,
        in_hand: &mut InProgressRows,
        turns: &mut RoundRobin,
        tasks: &mut JoinSet<()>,
    ) -> Result<Duration, StoreError> {
        let (read, now) = (self.store.read()?, (self.now)());
        let mut due = read.due(self.queue, now, |id| in_hand.contains_key(id))?;
        while in_hand.len() < self.parallel {
            let is_full =
                |turn: FairnessKey| in_hand.values().filter(|held| held.fairness_key == turn).count() >= self.parallel_per_key;
            due.first.retain(|place| !is_full(place.fairness_key));
            let Some(place) = turns.next(&due.first).map(|chosen| due.first.swap_remove(chosen)) else { break };
            let task = tasks.spawn(Arc::clone(self).process_row(place.id.clone())).id();
            in_hand.insert(place.id.clone(), InProgress { fairness_key: place.fairness_key, task });
            due.first.extend(read.due_after(self.queue, &place, now, |id| in_hand.contains_key(id))?);
        }
        Ok(due.next_due_at.map_or(HEARTBEAT_INTERVAL, |at| at.since(now).min(HEARTBEAT_INTERVAL)))
    }

    /// One attempt at a row.
    async fn process_row(self: Arc<Self>, id: Vec<u8>) {
        if let Err(error) = self.attempt(&id).await {
            tracing::error!(%error, queue = ?self.queue, "a row could not be settled; it stays in the queue");
            // The store itself is in trouble: without a pause the row would be taken again at once.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn attempt(&self, id: &[u8]) -> Result<(), StoreError> {
        let attempt = match self.store.take(self.queue, id.to_vec()).await? {
            Claim::Gone => return Ok(()),
            Claim::Exhausted => return self.dead_letter(id).await,
            Claim::Attempt(attempt) => attempt,
        };
        let work = tokio::spawn((self.duties.work)(id.to_vec()));
        let outcome = work.await.unwrap_or_else(|panic| Err(Trouble::Failed(anyhow::anyhow!("it panicked: {panic}"))));
        let now = (self.now)();
        match outcome {
            Ok(()) => Ok(()),
            Err(Trouble::HandedOver) => self.store.reschedule(self.queue, id.to_vec(), now, None, false).await,
            Err(Trouble::Wait { until }) => self.store.reschedule(self.queue, id.to_vec(), until, None, false).await,
            Err(Trouble::Failed(error)) if is_store_failure(&error) => {
                tracing::warn!(queue = ?self.queue, error = format!("{error:#}"), "the store is awaited");
                self.defer_without_attempt(id, now + STORE_RETRY, &format!("{error:#}")).await
            }
            Err(Trouble::Failed(error)) => {
                tracing::warn!(queue = ?self.queue, attempt, error = format!("{error:#}"), "an attempt failed");
                if attempt >= queue::MAX_ATTEMPTS {
                    let text = format!("{error:#}");
                    self.store.reschedule(self.queue, id.to_vec(), now, Some(text), true).await?;
                    return self.dead_letter(id).await;
                }
                let until = now + backoff(attempt);
                self.store.reschedule(self.queue, id.to_vec(), until, Some(format!("{error:#}")), true).await
            }
        }
    }

    /// Puts a row off for the store's own trouble, which is no attempt of the row's; the store may well have the trouble still.
    async fn defer_without_attempt(&self, id: &[u8], until: Timestamp, error: &str) -> Result<(), StoreError> {
        let put_off = || self.store.reschedule(self.queue, id.to_vec(), until, Some(error.to_owned()), false);
        for _ in 1..STORE_RETRIES {
            match put_off().await {
                Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_secs(1)).await,
                other => return other,
            }
        }
        put_off().await
    }

    async fn dead_letter(&self, id: &[u8]) -> Result<(), StoreError> {
        let last = self.store.read()?.queue_entry(self.queue, id)?.and_then(|row| row.last_error);
        let last = last.unwrap_or_else(|| "the server ended while it worked on it".to_owned());
        let message = format!("given up after {} attempts: {last}", queue::MAX_ATTEMPTS);
        (self.duties.bury)(id.to_vec(), Reason::new("dead-letter", message)).await
    }
}

/// Who was served how long ago.
#[derive(Debug, Default)]
struct RoundRobin {
    served: HashMap<FairnessKey, u64>,
    count: u64,
}

impl RoundRobin {
    /// The place in `due` of the row whose turn was served the longest ago; of several, of the one that has waited longest.
    fn next(&mut self, due: &[QueuePosition]) -> Option<usize> {
        let key = |(_, place): &(usize, &QueuePosition)| {
            (self.served.get(&place.fairness_key).copied().unwrap_or_default(), place.not_before, place.id.clone())
        };
        let (chosen, turn) = due.iter().enumerate().min_by_key(key).map(|(chosen, place)| (chosen, place.fairness_key))?;
        self.count += 1;
        self.served.insert(turn, self.count);
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use beespace_core::ids::RepositoryId;

    use super::*;

    #[test]
    fn a_repository_with_many_rows_leaves_turns_to_others() {
        let place = |(repository, at): (u64, u64)| QueuePosition {
            fairness_key: FairnessKey::of_repository(RepositoryId(repository)),
            not_before: Timestamp(at),
            id: vec![],
        };
        let mut due: Vec<QueuePosition> = [(1, 1), (1, 2), (1, 3), (2, 4), (3, 5)].into_iter().map(place).collect();
        let mut turns = RoundRobin::default();
        let mut order = Vec::new();
        while let Some(chosen) = turns.next(&due) {
            order.push(due.swap_remove(chosen).not_before.0);
        }
        assert_eq!(order, [1, 4, 5, 2, 3]);
    }
}
