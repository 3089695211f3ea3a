//! The queues of the workers. Claiming a row counts an attempt before the work begins, so an attempt that crashes the
//! server counts as well. Failed rows are retried with backoff. After the fifth attempt a row ends as a dead letter,
//! which stays visible and can be retried.
//!
//! A row keeps its delay beside its due time. So a clock that is set back delays nothing: a row that would be due later than its
//! own delay from now was queued at a time that has not come yet, and is due now.

use std::time::Duration;

use beespace_core::digest::Digest;
use beespace_core::ids::RepositoryId;
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::tables::{DELIVERY_QUEUE, Key, NOTICE_QUEUE, PREPARE_QUEUE, QUEUE_ORDER, RUN_QUEUE, SCHEDULE_QUEUE, Table};
use super::transaction::{Order, Read, Rows, Write};
use super::{Queue, Store, StoreError, row};

/// The maximum number of attempts, after which a row ends as a dead letter.
pub const MAX_ATTEMPTS: u32 = 5;

/// How many waiting rows of a fairness key are looked at for one that a clock which was set back has left behind.
const DISPLACED_ROWS: usize = 8;

impl Queue {
    fn table(self) -> Table {
        match self {
            Self::Delivery => DELIVERY_QUEUE,
            Self::Prepare => PREPARE_QUEUE,
            Self::Run => RUN_QUEUE,
            Self::Notice => NOTICE_QUEUE,
            Self::Schedule => SCHEDULE_QUEUE,
        }
    }

    fn key(self) -> Key {
        Key::new().byte(self as u8)
    }
}

/// The unit of fair scheduling. Rows with the same key run in order of their due time; the worker takes the keys round-robin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FairnessKey(u64);

impl FairnessKey {
    /// The key of a repository's work.
    #[must_use]
    pub fn of_repository(id: RepositoryId) -> Self {
        Self(id.0)
    }

    /// The key of the builds that forks of a repository cause, while they are prepared.
    #[must_use]
    pub fn of_forks(id: RepositoryId) -> Self {
        Self(id.0 | 1 << 63)
    }

    /// The key of a notifier binding. Notices are scheduled by binding and not by repository, so a slow receiver delays only its
    /// own notices.
    #[must_use]
    pub fn of_binding(name: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = Digest::of(name).0;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    fn key(self, queue: Queue) -> Key {
        queue.key().u64(self.0)
    }
}

/// When a row is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueTime {
    pub at: Timestamp,
    /// The time between queueing the row and `at`.
    pub delay: Duration,
}

impl DueTime {
    /// Due as soon as it is queued.
    #[must_use]
    pub fn now(now: Timestamp) -> Self {
        Self { at: now, delay: Duration::ZERO }
    }

    /// Due at `at`, as seen at `now`.
    #[must_use]
    pub fn at(at: Timestamp, now: Timestamp) -> Self {
        Self { at, delay: at.since(now) }
    }

    fn is_reached(self, now: Timestamp) -> bool {
        self.at <= now || self.at.since(now) > self.delay
    }

    /// The delay as the value of a position in the order of execution.
    fn value(self) -> [u8; 8] {
        u64::try_from(self.delay.as_millis()).unwrap_or(u64::MAX).to_be_bytes()
    }
}

/// A row of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// The number of attempts begun.
    pub attempts: u32,
    pub fairness_key: FairnessKey,
    pub not_before: Timestamp,
    /// The error of the last attempt.
    pub last_error: Option<String>,
}

/// The position of a row in the order of execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePosition {
    pub fairness_key: FairnessKey,
    pub due: DueTime,
    pub id: Vec<u8>,
}

impl QueuePosition {
    fn key(&self, queue: Queue) -> Key {
        order_key(queue, self.fairness_key, self.due.at, &self.id)
    }

    fn of_row(key: &[u8], value: &[u8]) -> Option<Self> {
        let (fairness_key, rest) = key.get(1..)?.split_first_chunk()?;
        let (at, id) = rest.split_first_chunk()?;
        let delay = value.first_chunk().map_or(Duration::ZERO, |delay| Duration::from_millis(u64::from_be_bytes(*delay)));
        let due = DueTime { at: Timestamp(u64::from_be_bytes(*at)), delay };
        Some(Self { fairness_key: FairnessKey(u64::from_be_bytes(*fairness_key)), due, id: id.to_vec() })
    }
}

fn order_key(queue: Queue, fairness_key: FairnessKey, at: Timestamp, id: &[u8]) -> Key {
    fairness_key.key(queue).u64(at.0).bytes(id)
}

/// The rows of a queue that are ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// The first ready row of each fairness key.
    pub ready: Vec<QueuePosition>,
    /// The due time of the next row that is not ready yet.
    pub next_due_at: Option<Timestamp>,
}

/// Reading queues, in both kinds of transaction.
pub trait Queues: Rows + Sized {
    /// The entry of a row in `queue`; `None` if the row is not queued.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn queue_entry(&self, queue: Queue, id: &[u8]) -> Result<Option<QueueEntry>, StoreError> {
        self.row(queue.table(), "queue", id)
    }
}

impl Queues for Read {}
impl Queues for Write<'_> {}

impl Read {
    /// All entries of `queue` with their ids, by id.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn queue_entries(&self, queue: Queue) -> Result<Vec<(Vec<u8>, QueueEntry)>, StoreError> {
        let mut entries = Vec::new();
        self.scan(queue.table(), &[], None, Order::OldestFirst, &mut |key, value| {
            entries.push((key.to_vec(), row::decode("queue", value)?));
            Ok(true)
        })?;
        Ok(entries)
    }

    /// The number of rows in `queue` (its backlog), in constant time.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn queue_length(&self, queue: Queue) -> Result<u64, StoreError> {
        self.count(queue.table())
    }

    /// The rows of `queue` that are due at `now`, except those that are `taken`. Reads a few rows per fairness key, whatever the
    /// length of the queue.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn due(&self, queue: Queue, now: Timestamp, taken: impl Fn(&[u8]) -> bool) -> Result<Due, StoreError> {
        let mut due = Due::default();
        let mut after = None;
        while let Some(head) = self.first_position(queue.key(), after, |_| false)? {
            let prefix = head.fairness_key.key(queue);
            let first = self.first_position(prefix.clone(), None, &taken)?;
            let (ready, later) = match first {
                Some(first) if first.due.is_reached(now) => {
                    let after_now = prefix.clone().u64(now.0.saturating_add(1));
                    (Some(first), self.first_position(prefix.clone(), Some(after_now), &taken)?)
                }
                Some(waits) => (self.displaced_position(queue, &waits, now, &taken)?, Some(waits)),
                None => (None, None),
            };
            due.ready.extend(ready);
            due.next_due_at = due.next_due_at.into_iter().chain(later.map(|position| position.due.at)).min();
            after = Some(prefix.u64(u64::MAX));
        }
        Ok(due)
    }

    /// The next due row after `position` with the same fairness key.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn due_after(
        &self,
        queue: Queue,
        position: &QueuePosition,
        now: Timestamp,
        taken: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<QueuePosition>, StoreError> {
        let next = self.first_position(position.fairness_key.key(queue), Some(position.key(queue)), &taken)?;
        match next {
            Some(waits) if !waits.due.is_reached(now) => self.displaced_position(queue, &waits, now, &taken),
            next => Ok(next),
        }
    }

    /// A row behind `waits`, which is not due, that the clock has left behind when it was set back. Only the next few rows and
    /// the last one are looked at: the others follow when these are done.
    fn displaced_position(
        &self,
        queue: Queue,
        waits: &QueuePosition,
        now: Timestamp,
        taken: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<QueuePosition>, StoreError> {
        let (prefix, after) = (waits.fairness_key.key(queue), waits.key(queue));
        let is_displaced = |position: &QueuePosition| position.due.is_reached(now) && !taken(&position.id);
        for (order, after, mut rows_left) in
            [(Order::OldestFirst, Some(after.as_slice()), DISPLACED_ROWS), (Order::NewestFirst, None, 1)]
        {
            let mut found = None;
            self.scan(QUEUE_ORDER, prefix.as_slice(), after, order, &mut |key, value| {
                rows_left -= 1;
                found = QueuePosition::of_row(key, value).filter(is_displaced);
                Ok(found.is_none() && rows_left > 0)
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first position under `prefix`, after the key `after`, that is not `taken`.
    fn first_position(
        &self,
        prefix: Key,
        after: Option<Key>,
        taken: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<QueuePosition>, StoreError> {
        let mut found = None;
        let after = after.as_ref().map(Key::as_slice);
        self.scan(QUEUE_ORDER, prefix.as_slice(), after, Order::OldestFirst, &mut |key, value| {
            found = QueuePosition::of_row(key, value).filter(|position| !taken(&position.id));
            Ok(found.is_none())
        })?;
        Ok(found)
    }
}

impl Write<'_> {
    /// Adds a row to a queue. A row that is already queued starts again with no attempts.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub fn enqueue(&self, queue: Queue, id: &[u8], fairness_key: FairnessKey, due: DueTime) -> Result<(), StoreError> {
        let entry = QueueEntry { attempts: 0, fairness_key, not_before: due.at, last_error: None };
        self.put_queue_entry(queue, id, &entry, due)
    }

    fn put_queue_entry(&self, queue: Queue, id: &[u8], entry: &QueueEntry, due: DueTime) -> Result<(), StoreError> {
        self.dequeue(queue, id)?;
        let key = order_key(queue, entry.fairness_key, due.at, id);
        self.put_bytes(QUEUE_ORDER, key.as_slice(), &due.value())?;
        self.put(queue.table(), "queue", id, entry)?;
        self.wake(queue);
        Ok(())
    }

    /// Removes a row from the queue because its work is done.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub fn dequeue(&self, queue: Queue, id: &[u8]) -> Result<(), StoreError> {
        let Some(entry) = self.queue_entry(queue, id)? else { return Ok(()) };
        self.remove(QUEUE_ORDER, order_key(queue, entry.fairness_key, entry.not_before, id).as_slice())?;
        self.remove(queue.table(), id)?;
        Ok(())
    }

    /// Resets the count of attempts to the current one, because the work on the row made progress.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub fn reset_attempts(&self, queue: Queue, id: &[u8]) -> Result<(), StoreError> {
        let Some(mut entry) = self.queue_entry(queue, id)? else { return Ok(()) };
        entry.attempts = entry.attempts.min(1);
        self.put(queue.table(), "queue", id, &entry)
    }
}

/// The outcome of claiming a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The attempt with this number has been counted.
    Attempt(u32),
    /// No attempts are left.
    Exhausted,
    /// The row is no longer queued.
    Gone,
}

impl Store {
    /// Claims a row: counts an attempt before the work begins.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn claim(&self, queue: Queue, id: Vec<u8>) -> Result<Claim, StoreError> {
        self.write(move |write| {
            let Some(mut entry) = write.queue_entry(queue, &id)? else { return Ok(Claim::Gone) };
            if entry.attempts >= MAX_ATTEMPTS {
                return Ok(Claim::Exhausted);
            }
            entry.attempts += 1;
            write.put(queue.table(), "queue", &id, &entry)?;
            Ok(Claim::Attempt(entry.attempts))
        })
        .await
    }

    /// Reschedules a row for a later attempt. `counts_attempt`: whether the current attempt stays counted (an internal failure)
    /// or not (the row waits for something external).
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn reschedule(
        &self,
        queue: Queue,
        id: Vec<u8>,
        due: DueTime,
        error: Option<String>,
        counts_attempt: bool,
    ) -> Result<(), StoreError> {
        self.write(move |write| {
            let Some(mut entry) = write.queue_entry(queue, &id)? else { return Ok(()) };
            entry.not_before = due.at;
            entry.last_error.clone_from(&error);
            if !counts_attempt {
                entry.attempts = entry.attempts.saturating_sub(1);
            }
            write.put_queue_entry(queue, &id, &entry, due)
        })
        .await
    }
}
