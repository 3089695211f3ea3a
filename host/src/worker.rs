//! The worker of one queue. It claims due rows, round robin between repositories, and never works on a row twice at once.
//! The commit that queues a row wakes it; it does not poll.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::time::{Timestamp, backoff};
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::store::queue::{self, Claim, DueTime, FairnessKey, QueuePosition, Queues as _};
use crate::store::{Queue, Read, Store, StoreError};

/// The longest sleep of a worker, and so the longest interval between two of its heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// A worker without a heartbeat for this long is stuck, and `/readyz` reports it.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// How long a row is deferred when the store could not keep the result of its work.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// How often the deferral itself is attempted, one second apart, while the store is unavailable.
const STORE_RETRIES: u32 = 10;

/// The sign of life of one worker.
#[derive(Debug, Default)]
pub struct Heartbeat {
    /// Milliseconds since the epoch when the worker last looked at its queue.
    last_beat: AtomicU64,
    in_progress: AtomicUsize,
}

impl Heartbeat {
    /// Records that the worker looks at its queue.
    pub fn beat(&self, now: Timestamp) {
        self.last_beat.store(now.0, Ordering::Relaxed);
    }

    fn set_in_progress(&self, rows: usize) {
        self.in_progress.store(rows, Ordering::Relaxed);
    }

    /// The number of rows that the worker is working on.
    #[must_use]
    pub fn in_progress(&self) -> usize {
        self.in_progress.load(Ordering::Relaxed)
    }
}

/// The heartbeats of all workers.
#[derive(Debug, Clone, Default)]
pub struct Heartbeats([Arc<Heartbeat>; Queue::COUNT]);

impl Heartbeats {
    /// The heartbeat of one queue's worker.
    #[must_use]
    pub fn of(&self, queue: Queue) -> Arc<Heartbeat> {
        self.0.get(queue as usize).cloned().unwrap_or_default()
    }

    /// The queues whose worker is stuck.
    #[must_use]
    pub fn stuck(&self, now: Timestamp) -> Vec<Queue> {
        let is_late = |queue: &Queue| now.since(Timestamp(self.of(*queue).last_beat.load(Ordering::Relaxed))) >= STUCK_AFTER;
        Queue::ALL.into_iter().filter(is_late).collect()
    }
}

/// Why the work on a row did not end.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// An internal failure: counts as an attempt, and the row is retried with backoff.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// The row waits for an external condition, which the row names: this does not count as an attempt.
    #[error("waits until {}", until.0)]
    Wait { until: Timestamp },
    /// The server stops: the row stays as it is for the next process.
    #[error("handed over")]
    HandedOver,
}

impl From<StoreError> for WorkError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// How long a row waits for Gogs or for disk space before it ends.
pub const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// The delay before the next look at something that has been `waited` for: 1 s at first, 10 minutes at most.
#[must_use]
pub fn wait_delay(waited: Duration) -> Duration {
    backoff((waited.as_secs().max(1).ilog2() / 2 + 1).min(6))
}

impl WorkError {
    /// The row waits since `since` for an external condition.
    #[must_use]
    pub fn wait_since(since: Timestamp, now: Timestamp) -> Self {
        Self::Wait { until: now + wait_delay(now.since(since)) }
    }
}

/// Whether the store itself failed, and not the work on the row.
fn is_store_failure(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(StoreError::Unavailable(_))))
}

/// Processes the rows of one queue.
pub trait Consumer: Send + Sync + 'static {
    /// The id of a row.
    type Id: Clone + Send + 'static;

    /// The id in a row's key; none when the key is not readable.
    fn id_of_key(key: &[u8]) -> Option<Self::Id>;

    /// Processes the row to its end, with which it must leave the queue.
    fn process(&self, id: Self::Id) -> impl Future<Output = Result<(), WorkError>> + Send;

    /// How many rows with the same fairness key may be worked on at once now, if that changes while the server runs; otherwise
    /// [`Worker::parallel_per_key`] applies.
    ///
    /// # Errors
    /// The store's.
    fn key_limit(&self, _read: &Read) -> Result<Option<usize>, StoreError> {
        Ok(None)
    }

    /// Ends a row whose attempts are used up as a dead letter that people see.
    fn dead_letter(&self, id: Self::Id, reason: Reason) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The rows in progress, by their keys.
type InProgressRows = HashMap<Vec<u8>, InProgress>;

/// A row that a task is working on.
#[derive(Debug)]
struct InProgress {
    fairness_key: FairnessKey,
    task: task::Id,
}

/// One queue's worker.
#[derive(Debug)]
pub struct Worker<C> {
    pub store: Store,
    pub queue: Queue,
    /// The number of rows that are worked on at once.
    pub parallel: usize,
    /// How many of them may have the same fairness key. If this is less than `parallel`, a slow receiver cannot occupy all slots.
    pub parallel_per_key: usize,
    pub consumer: Arc<C>,
    pub heartbeat: Arc<Heartbeat>,
    pub now: fn() -> Timestamp,
}

impl<C: Consumer> Worker<C> {
    /// Works until `stopping`, then waits for the rows in progress.
    pub async fn serve(self, stopping: CancellationToken) {
        let worker = Arc::new(self);
        let mut in_progress = InProgressRows::new();
        let mut round_robin = RoundRobin::default();
        let mut tasks = JoinSet::new();
        while !stopping.is_cancelled() {
            worker.heartbeat.beat((worker.now)());
            let pause = worker.start_due_or_log(&mut in_progress, &mut round_robin, &mut tasks);
            worker.heartbeat.set_in_progress(in_progress.len());
            tokio::select! {
                () = stopping.cancelled() => {}
                () = worker.store.wait_for_work(worker.queue) => {}
                Some(done) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                    let task = done.map_or_else(|panic| panic.id(), |(task, ())| task);
                    in_progress.retain(|_, row| row.task != task);
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Starts the rows that are due; returns how long to sleep.
    fn start_due_or_log(
        self: &Arc<Self>,
        in_progress: &mut InProgressRows,
        round_robin: &mut RoundRobin,
        tasks: &mut JoinSet<()>,
    ) -> Duration {
        if in_progress.len() >= self.parallel {
            return HEARTBEAT_INTERVAL;
        }
        self.start_due(in_progress, round_robin, tasks).unwrap_or_else(|error| {
            tracing::warn!(%error, queue = ?self.queue, "could not read the queue");
            Duration::from_secs(1)
        })
    }

    /// Starts as many due rows as there are free slots. It reads only the first rows of each fairness key, whatever the
    /// length of the queue.
    fn start_due(
        self: &Arc<Self>,
        in_progress: &mut InProgressRows,
        round_robin: &mut RoundRobin,
        tasks: &mut JoinSet<()>,
    ) -> Result<Duration, StoreError> {
        let (read, now) = (self.store.read()?, (self.now)());
        let mut due = read.due(self.queue, now, |id| in_progress.contains_key(id))?;
        let per_key = self.consumer.key_limit(&read)?.unwrap_or(self.parallel_per_key);
        while in_progress.len() < self.parallel {
            let is_full = |key: FairnessKey| in_progress.values().filter(|row| row.fairness_key == key).count() >= per_key;
            due.ready.retain(|position| !is_full(position.fairness_key));
            let Some(position) = round_robin.next(&due.ready).map(|chosen| due.ready.swap_remove(chosen)) else { break };
            let task = tasks.spawn(Arc::clone(self).process_row(position.id.clone())).id();
            in_progress.insert(position.id.clone(), InProgress { fairness_key: position.fairness_key, task });
            due.ready.extend(read.due_after(self.queue, &position, now, |id| in_progress.contains_key(id))?);
        }
        Ok(due.next_due_at.map_or(HEARTBEAT_INTERVAL, |at| at.since(now).min(HEARTBEAT_INTERVAL)))
    }

    /// One attempt at a row.
    async fn process_row(self: Arc<Self>, key: Vec<u8>) {
        if let Err(error) = self.attempt(&key).await {
            tracing::error!(%error, queue = ?self.queue, "could not store the result of an attempt; the row stays in the queue");
            // The store is failing: without a pause the row would be claimed again at once.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn attempt(&self, key: &[u8]) -> Result<(), StoreError> {
        let Some(id) = C::id_of_key(key) else { return self.drop_unreadable(key).await };
        let attempt = match self.store.claim(self.queue, key.to_vec()).await? {
            Claim::Gone => return Ok(()),
            Claim::Exhausted => return self.dead_letter(key, id).await,
            Claim::Attempt(attempt) => attempt,
        };
        // A task of its own, so that a panic ends only this attempt.
        let (consumer, row) = (Arc::clone(&self.consumer), id.clone());
        let work = tokio::spawn(async move { consumer.process(row).await });
        let outcome = work.await.unwrap_or_else(|panic| Err(WorkError::Failed(anyhow::anyhow!("the attempt panicked: {panic}"))));
        let now = (self.now)();
        match outcome {
            Ok(()) => Ok(()),
            Err(WorkError::HandedOver) => self.store.reschedule(self.queue, key.to_vec(), DueTime::now(now), None, false).await,
            Err(WorkError::Wait { until }) => {
                self.store.reschedule(self.queue, key.to_vec(), DueTime::at(until, now), None, false).await
            }
            Err(WorkError::Failed(error)) if is_store_failure(&error) => {
                tracing::warn!(queue = ?self.queue, error = format!("{error:#}"), "the store is unavailable; waiting for it");
                self.defer_without_attempt(key, DueTime::at(now + STORE_RETRY, now), &format!("{error:#}")).await
            }
            Err(WorkError::Failed(error)) => {
                tracing::warn!(queue = ?self.queue, attempt, error = format!("{error:#}"), "an attempt failed");
                if attempt >= queue::MAX_ATTEMPTS {
                    let text = format!("{error:#}");
                    self.store.reschedule(self.queue, key.to_vec(), DueTime::now(now), Some(text), true).await?;
                    return self.dead_letter(key, id).await;
                }
                let until = DueTime::at(now + backoff(attempt), now);
                self.store.reschedule(self.queue, key.to_vec(), until, Some(format!("{error:#}")), true).await
            }
        }
    }

    /// Reschedules a row because the store failed; this does not count as an attempt. The store may still be failing.
    async fn defer_without_attempt(&self, key: &[u8], until: DueTime, error: &str) -> Result<(), StoreError> {
        let defer = || self.store.reschedule(self.queue, key.to_vec(), until, Some(error.to_owned()), false);
        for _ in 1..STORE_RETRIES {
            match defer().await {
                Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_secs(1)).await,
                other => return other,
            }
        }
        defer().await
    }

    async fn dead_letter(&self, key: &[u8], id: C::Id) -> Result<(), StoreError> {
        let last = self.store.read()?.queue_entry(self.queue, key)?.and_then(|entry| entry.last_error);
        let last = last.unwrap_or_else(|| "the server ended during the last attempt".to_owned());
        let message = format!("all {} attempts failed; the last error: {last}", queue::MAX_ATTEMPTS);
        self.consumer.dead_letter(id, Reason::new(ReasonCode::DeadLetter, message)).await
    }

    async fn drop_unreadable(&self, key: &[u8]) -> Result<(), StoreError> {
        tracing::error!(queue = ?self.queue, key = hex::encode(key), "a row with an unreadable key is removed from the queue");
        let (queue, key) = (self.queue, key.to_vec());
        self.store.write(move |write| write.dequeue(queue, &key)).await
    }
}

/// When each fairness key was served last.
#[derive(Debug, Default)]
struct RoundRobin {
    served: HashMap<FairnessKey, u64>,
    count: u64,
}

impl RoundRobin {
    /// The index in `due` of the row whose key was served the longest ago; of several, of the row that has waited longest.
    fn next(&mut self, due: &[QueuePosition]) -> Option<usize> {
        let rank = |(_, position): &(usize, &QueuePosition)| {
            let served = self.served.get(&position.fairness_key).copied().unwrap_or_default();
            (served, position.due.at, position.id.clone())
        };
        let (chosen, key) = due.iter().enumerate().min_by_key(rank).map(|(chosen, position)| (chosen, position.fairness_key))?;
        self.count += 1;
        self.served.insert(key, self.count);
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use beespace_core::ids::RepositoryId;

    use super::*;

    #[test]
    fn a_repository_with_many_rows_does_not_delay_the_others() {
        let position = |(repository, at): (u64, u64)| QueuePosition {
            fairness_key: FairnessKey::of_repository(RepositoryId(repository)),
            due: DueTime::now(Timestamp(at)),
            id: vec![],
        };
        let mut due: Vec<QueuePosition> = [(1, 1), (1, 2), (1, 3), (2, 4), (3, 5)].into_iter().map(position).collect();
        let mut round_robin = RoundRobin::default();
        let mut order = Vec::new();
        while let Some(chosen) = round_robin.next(&due) {
            order.push(due.swap_remove(chosen).due.at.0);
        }
        assert_eq!(order, [1, 4, 5, 2, 3]);
    }
}
