//! Rows that wait for a worker. Taking one counts an attempt before the work begins, so that a row which kills the server is
//! counted too; after the fifth it ends as a dead letter that people see and can replay.

use beespace_core::digest::Digest;
use beespace_core::ids::RepositoryId;
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::tables::{DELIVERY_QUEUE, Key, NOTICE_QUEUE, PREPARE_QUEUE, QUEUE_OF_TURN, RUN_QUEUE, Table};
use super::transaction::{Order, Read, Rows, Write};
use super::{Store, StoreError, row};

/// How often a row is tried before it is given up.
pub const MAX_ATTEMPTS: u32 = 5;

/// What waits, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Deliveries that nobody has looked at.
    Delivery,
    /// Builds whose source, pipeline and plans are still to come.
    Prepare,
    /// Stages that may run, or run.
    Run,
    /// Notices to be sent.
    Notice,
}

impl Queue {
    pub const ALL: [Self; 4] = [Self::Delivery, Self::Prepare, Self::Run, Self::Notice];
    pub const COUNT: usize = Self::ALL.len();

    /// The word in figures.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Prepare => "prepare",
            Self::Run => "run",
            Self::Notice => "notice",
        }
    }

    fn table(self) -> Table {
        match self {
            Self::Delivery => DELIVERY_QUEUE,
            Self::Prepare => PREPARE_QUEUE,
            Self::Run => RUN_QUEUE,
            Self::Notice => NOTICE_QUEUE,
        }
    }

    fn key(self) -> Key {
        Key::new().byte(self as u8)
    }
}

/// Whose turn a row takes. Rows of one turn go one after the other, turns go round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FairnessKey(u64);

impl FairnessKey {
    /// Work for a repository takes the repository's turn.
    #[must_use]
    pub fn of_repository(id: RepositoryId) -> Self {
        Self(id.0)
    }

    /// What a binding says takes the binding's turn: its receiver may be slow, and no repository is to blame for that.
    #[must_use]
    pub fn of_binding(name: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = Digest::of(name).0;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    fn key(self, queue: Queue) -> Key {
        queue.key().u64(self.0)
    }
}

/// A row that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Attempts begun.
    pub attempts: u32,
    pub fairness_key: FairnessKey,
    pub not_before: Timestamp,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// A row's place in the order in which the rows of its queue are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuePosition {
    pub fairness_key: FairnessKey,
    pub not_before: Timestamp,
    pub id: Vec<u8>,
}

impl QueuePosition {
    fn key(&self, queue: Queue) -> Key {
        self.fairness_key.key(queue).u64(self.not_before.0).bytes(&self.id)
    }

    fn of_key(key: &[u8]) -> Option<Self> {
        let (turn, rest) = key.get(1..)?.split_first_chunk()?;
        let (not_before, id) = rest.split_first_chunk()?;
        let (turn, not_before) = (FairnessKey(u64::from_be_bytes(*turn)), Timestamp(u64::from_be_bytes(*not_before)));
        Some(Self { fairness_key: turn, not_before, id: id.to_vec() })
    }
}

/// What of a queue can be taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// The first row of each turn that has one.
    pub first: Vec<QueuePosition>,
    /// When the next row will be due that is not yet.
    pub next_due_at: Option<Timestamp>,
}

/// What both kinds of transaction can tell of queues.
pub trait Queues: Rows + Sized {
    /// How a row of `queue` stands; none where it has left.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn queue_entry(&self, queue: Queue, id: &[u8]) -> Result<Option<QueueEntry>, StoreError> {
        self.row(queue.table(), "queue", id)
    }
}

impl Queues for Read {}
impl Queues for Write<'_> {}

impl Read {
    /// Ids in `queue`, oldest first, with how each stands.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn queue_entries(&self, queue: Queue) -> Result<Vec<(Vec<u8>, QueueEntry)>, StoreError> {
        let mut waiting = Vec::new();
        self.scan(queue.table(), &[], None, Order::OldestFirst, &mut |key, value| {
            waiting.push((key.to_vec(), row::decode("queue", value)?));
            Ok(true)
        })?;
        Ok(waiting)
    }

    /// How many rows are in `queue`. However many there are, it takes as long.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn queue_length(&self, queue: Queue) -> Result<u64, StoreError> {
        self.count(queue.table())
    }

    /// What of `queue` is due at `now`, without rows that are `taken`. Looks at a few rows for each turn, however many wait.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn due(&self, queue: Queue, now: Timestamp, taken: impl Fn(&[u8]) -> bool) -> Result<Due, StoreError> {
        let mut due = Due::default();
        let mut after = None;
        while let Some(front) = self.first_position(queue.key(), after, |_| false)? {
            let of_turn = front.fairness_key.key(queue);
            let first = self.first_position(of_turn.clone(), None, &taken)?;
            let later = match first {
                Some(first) if first.not_before <= now => {
                    due.first.push(first);
                    self.first_position(of_turn.clone(), Some(of_turn.clone().u64(now.0 + 1)), &taken)?
                }
                not_yet => not_yet,
            };
            due.next_due_at = due.next_due_at.into_iter().chain(later.map(|place| place.not_before)).min();
            after = Some(of_turn.u64(u64::MAX));
        }
        Ok(due)
    }

    /// The row that is due after `place` in the same turn.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn due_after(
        &self,
        queue: Queue,
        place: &QueuePosition,
        now: Timestamp,
        taken: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<QueuePosition>, StoreError> {
        let next = self.first_position(place.fairness_key.key(queue), Some(place.key(queue)), taken)?;
        Ok(next.filter(|next| next.not_before <= now))
    }

    /// The first place under `prefix`, beyond `after`, that is not `taken`.
    fn first_position(
        &self,
        prefix: Key,
        after: Option<Key>,
        taken: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<QueuePosition>, StoreError> {
        let mut found = None;
        let after = after.as_ref().map(Key::as_slice);
        self.scan(QUEUE_OF_TURN, prefix.as_slice(), after, Order::OldestFirst, &mut |key, _| {
            found = QueuePosition::of_key(key).filter(|place| !taken(&place.id));
            Ok(found.is_none())
        })?;
        Ok(found)
    }
}

impl Write<'_> {
    /// Puts a row into a queue, or back into it with no attempts counted.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub fn enqueue(&self, queue: Queue, id: &[u8], turn: FairnessKey, not_before: Timestamp) -> Result<(), StoreError> {
        self.put_queue_entry(queue, id, &QueueEntry { attempts: 0, fairness_key: turn, not_before, last_error: None })
    }

    fn put_queue_entry(&self, queue: Queue, id: &[u8], waiting: &QueueEntry) -> Result<(), StoreError> {
        self.dequeue(queue, id)?;
        let place = QueuePosition { fairness_key: waiting.fairness_key, not_before: waiting.not_before, id: id.to_vec() };
        self.put_bytes(QUEUE_OF_TURN, place.key(queue).as_slice(), &[])?;
        self.put(queue.table(), "queue", id, waiting)?;
        self.wake(queue);
        Ok(())
    }

    /// The work is done: the row leaves the queue.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub fn dequeue(&self, queue: Queue, id: &[u8]) -> Result<(), StoreError> {
        let Some(waiting) = self.queue_entry(queue, id)? else { return Ok(()) };
        let place = QueuePosition { fairness_key: waiting.fairness_key, not_before: waiting.not_before, id: id.to_vec() };
        self.remove(QUEUE_OF_TURN, place.key(queue).as_slice())?;
        self.remove(queue.table(), id)?;
        Ok(())
    }

    /// The work on a row has come further: the attempts before this one are forgiven.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub fn reset_attempts(&self, queue: Queue, id: &[u8]) -> Result<(), StoreError> {
        let Some(mut waiting) = self.queue_entry(queue, id)? else { return Ok(()) };
        waiting.attempts = waiting.attempts.min(1);
        self.put(queue.table(), "queue", id, &waiting)
    }
}

/// What came of taking a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The attempt is counted; its number.
    Attempt(u32),
    /// The attempts are used up.
    Exhausted,
    /// Somebody settled it meanwhile.
    Gone,
}

impl Store {
    /// Counts an attempt at a row.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn take(&self, queue: Queue, id: Vec<u8>) -> Result<Claim, StoreError> {
        self.write(move |write| {
            let Some(mut waiting) = write.queue_entry(queue, &id)? else { return Ok(Claim::Gone) };
            if waiting.attempts >= MAX_ATTEMPTS {
                return Ok(Claim::Exhausted);
            }
            waiting.attempts += 1;
            write.put(queue.table(), "queue", &id, &waiting)?;
            Ok(Claim::Attempt(waiting.attempts))
        })
        .await
    }

    /// Puts a row off. `counts`: whether the attempt stays counted (our own trouble) or not (something outside is awaited).
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn reschedule(
        &self,
        queue: Queue,
        id: Vec<u8>,
        until: Timestamp,
        error: Option<String>,
        counts: bool,
    ) -> Result<(), StoreError> {
        self.write(move |write| {
            let Some(mut waiting) = write.queue_entry(queue, &id)? else { return Ok(()) };
            waiting.not_before = until;
            waiting.last_error.clone_from(&error);
            if !counts {
                waiting.attempts = waiting.attempts.saturating_sub(1);
            }
            write.put_queue_entry(queue, &id, &waiting)
        })
        .await
    }
}
