//! Takes rows that wait, a fair turn for each repository, and never the same row twice at once. Woken by the commit that queues a
//! row, never by polling.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use beespace_core::outcome::Reason;
use beespace_core::time::{Timestamp, backoff};
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::store::queue::{self, Taken};
use crate::store::{Queue, Store, StoreError, Waiting};

/// The longest sleep: a worker that has not looked for longer than a few of these is stuck, and `/readyz` says so.
const BEAT: Duration = Duration::from_secs(10);

/// A worker that has not looked for this long is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// How one worker does.
#[derive(Debug, Default)]
pub struct Beat {
    /// Milliseconds since the epoch when it looked at its queue last.
    looked_at: AtomicU64,
    in_hand: AtomicUsize,
}

impl Beat {
    /// The worker looks at its queue.
    pub fn look(&self, now: Timestamp) {
        self.looked_at.store(now.0, Ordering::Relaxed);
    }

    fn hold(&self, rows: usize) {
        self.in_hand.store(rows, Ordering::Relaxed);
    }

    /// Rows that are worked on.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::Relaxed)
    }
}

/// How the workers do.
#[derive(Debug, Clone, Default)]
pub struct Beats([Arc<Beat>; Queue::COUNT]);

impl Beats {
    /// The beat of one queue's worker.
    #[must_use]
    pub fn of(&self, queue: Queue) -> Arc<Beat> {
        self.0.get(queue as usize).cloned().unwrap_or_default()
    }

    /// Queues whose worker has not looked lately.
    #[must_use]
    pub fn stuck(&self, now: Timestamp) -> Vec<Queue> {
        let is_late = |queue: &Queue| now.since(Timestamp(self.of(*queue).looked_at.load(Ordering::Relaxed))) >= STUCK;
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

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What is done with the row of this id.
pub type Duty<T> = Box<dyn Fn(Vec<u8>) -> Work<T> + Send + Sync>;
/// The same, with the reason why it is done.
pub type DutyWithReason<T> = Box<dyn Fn(Vec<u8>, Reason) -> Work<T> + Send + Sync>;
/// Whose turn the row of this id takes.
pub type TurnOf = Box<dyn Fn(&[u8]) -> u64 + Send + Sync>;

/// What a worker does with the rows of its queue.
pub struct Duties {
    /// Takes the row to its end; it must leave the queue by that.
    pub work: Duty<Result<(), Trouble>>,
    /// The attempts are used up: ends the row as something people see.
    pub bury: DutyWithReason<Result<(), StoreError>>,
    /// Whose turn the row takes; rows of one number share turns.
    pub turn_of: TurnOf,
    /// The row could be taken but for the bound on what runs at once.
    pub crowded_out: Duty<()>,
}

impl std::fmt::Debug for Duties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Duties")
    }
}

/// The rows that are worked on, by their ids.
type InHand = HashMap<Vec<u8>, Held>;

/// Whose turn a row takes, and what works on it.
#[derive(Debug)]
struct Held {
    whose: u64,
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
    pub parallel_of_turn: usize,
    pub duties: Duties,
    pub beat: Arc<Beat>,
    pub now: fn() -> Timestamp,
}

impl Worker {
    /// Works until `stopping`, then waits for the rows in hand.
    pub async fn serve(self, stopping: CancellationToken) {
        let worker = Arc::new(self);
        let mut in_hand = InHand::new();
        let mut turns = Turns::default();
        let mut tasks = JoinSet::new();
        while !stopping.is_cancelled() {
            worker.beat.look((worker.now)());
            let pause = worker.take_due(&mut in_hand, &mut turns, &mut tasks).await;
            worker.beat.hold(in_hand.len());
            tokio::select! {
                () = stopping.cancelled() => {}
                () = worker.store.woken(worker.queue) => {}
                Some(done) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                    let task = done.map_or_else(|panic| panic.id(), |(task, ())| task);
                    in_hand.retain(|_, held| held.task != task);
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Starts what is due and fits; says how long nothing will be due.
    async fn take_due(self: &Arc<Self>, in_hand: &mut InHand, turns: &mut Turns, tasks: &mut JoinSet<()>) -> Duration {
        let now = (self.now)();
        let waiting = match self.store.read().and_then(|read| read.waiting(self.queue)) {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(%error, queue = ?self.queue, "the queue cannot be read");
                return Duration::from_secs(1);
            }
        };
        let next = waiting.iter().map(|(_, row)| row.not_before).filter(|at| *at > now).min();
        let due = waiting.into_iter().filter(|(id, row)| row.not_before <= now && !in_hand.contains_key(id));
        let mut due: Vec<(u64, Vec<u8>, Waiting)> = due.map(|(id, row)| ((self.duties.turn_of)(&id), id, row)).collect();
        while in_hand.len() < self.parallel {
            due.retain(|(whose, ..)| in_hand.values().filter(|held| held.whose == *whose).count() < self.parallel_of_turn);
            if due.is_empty() {
                break;
            }
            let (whose, id, _) = due.remove(turns.next(&due));
            let task = tasks.spawn(Arc::clone(self).work_on(id.clone())).id();
            in_hand.insert(id, Held { whose, task });
        }
        for (_, id, _) in due {
            (self.duties.crowded_out)(id).await;
        }
        next.map_or(BEAT, |at| at.since(now).min(BEAT))
    }

    /// One attempt at a row.
    async fn work_on(self: Arc<Self>, id: Vec<u8>) {
        if let Err(error) = self.attempt(&id).await {
            tracing::error!(%error, queue = ?self.queue, "a row could not be settled; it stays in the queue");
            // The store itself is in trouble: without a pause the row would be taken again at once.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn attempt(&self, id: &[u8]) -> Result<(), StoreError> {
        let attempt = match self.store.take(self.queue, id.to_vec()).await? {
            Taken::Gone => return Ok(()),
            Taken::Exhausted => return self.give_up(id).await,
            Taken::Attempt(attempt) => attempt,
        };
        let work = tokio::spawn((self.duties.work)(id.to_vec()));
        let outcome = work.await.unwrap_or_else(|panic| Err(Trouble::Failed(anyhow::anyhow!("it panicked: {panic}"))));
        let now = (self.now)();
        match outcome {
            Ok(()) => Ok(()),
            Err(Trouble::HandedOver) => self.store.put_off(self.queue, id.to_vec(), now, None, false).await,
            Err(Trouble::Wait { until }) => self.store.put_off(self.queue, id.to_vec(), until, None, false).await,
            Err(Trouble::Failed(error)) => {
                tracing::warn!(queue = ?self.queue, attempt, error = format!("{error:#}"), "an attempt failed");
                if attempt >= queue::MAX_ATTEMPTS {
                    let text = format!("{error:#}");
                    self.store.put_off(self.queue, id.to_vec(), now, Some(text), true).await?;
                    return self.give_up(id).await;
                }
                let until = now + backoff(attempt);
                self.store.put_off(self.queue, id.to_vec(), until, Some(format!("{error:#}")), true).await
            }
        }
    }

    async fn give_up(&self, id: &[u8]) -> Result<(), StoreError> {
        let waiting = self.store.read()?.waiting(self.queue)?;
        let last = waiting.into_iter().find(|(other, _)| other == id).and_then(|(_, row)| row.last_error);
        let last = last.unwrap_or_else(|| "the server ended while it worked on it".to_owned());
        let message = format!("given up after {} attempts: {last}", queue::MAX_ATTEMPTS);
        (self.duties.bury)(id.to_vec(), Reason::new("dead-letter", message)).await
    }
}

/// Who was served how long ago.
#[derive(Debug, Default)]
struct Turns {
    served: HashMap<u64, u64>,
    count: u64,
}

impl Turns {
    /// The place in `due` of the oldest row whose repository has waited longest for a turn.
    fn next(&mut self, due: &[(u64, Vec<u8>, Waiting)]) -> usize {
        let key = |(place, (whose, ..)): &(usize, &(u64, Vec<u8>, Waiting))| {
            (self.served.get(whose).copied().unwrap_or_default(), *place)
        };
        let chosen = due.iter().enumerate().min_by_key(key).map(|(place, (whose, ..))| (place, *whose));
        let (place, whose) = chosen.unwrap_or_default();
        self.count += 1;
        self.served.insert(whose, self.count);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_with_many_rows_leaves_turns_to_others() {
        let row = || Waiting { attempts: 0, not_before: Timestamp(0), last_error: None };
        let mut due: Vec<_> = [1, 1, 1, 2, 3].into_iter().map(|whose| (whose, vec![], row())).collect();
        let mut turns = Turns::default();
        let mut order = Vec::new();
        while !due.is_empty() {
            order.push(due.remove(turns.next(&due)).0);
        }
        assert_eq!(order, [1, 2, 3, 1, 1]);
    }
}
