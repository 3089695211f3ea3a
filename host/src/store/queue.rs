//! Rows that wait for a worker. Taking one counts an attempt before the work begins, so that a row which kills the server is
//! counted too; after the fifth it ends as a dead letter that people see and can replay.

use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::tables::{Key, QUEUE};
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

    fn key(self, id: &[u8]) -> Key {
        Key::new().byte(self as u8).bytes(id)
    }
}

/// A row that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Attempts begun.
    pub attempts: u32,
    pub not_before: Timestamp,
    /// What went wrong last.
    pub last_error: Option<String>,
}

impl Read {
    /// Ids in `queue`, oldest first, with when each may be taken.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn waiting(&self, queue: Queue) -> Result<Vec<(Vec<u8>, Waiting)>, StoreError> {
        let mut waiting = Vec::new();
        self.walk(QUEUE, &[queue as u8], None, Order::OldestFirst, &mut |key, value| {
            waiting.push((key.get(1..).unwrap_or_default().to_vec(), row::decode("queue", value)?));
            Ok(true)
        })?;
        Ok(waiting)
    }
}

impl Write<'_> {
    /// Puts a row into a queue, or back into it with no attempts counted.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub fn enqueue(&self, queue: Queue, id: &[u8], not_before: Timestamp) -> Result<(), StoreError> {
        self.put_waiting(queue, id, &Waiting { attempts: 0, not_before, last_error: None })
    }

    fn put_waiting(&self, queue: Queue, id: &[u8], waiting: &Waiting) -> Result<(), StoreError> {
        self.put(QUEUE, "queue", queue.key(id).as_slice(), waiting)?;
        self.wake(queue);
        Ok(())
    }

    /// The work is done: the row leaves the queue.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub fn dequeue(&self, queue: Queue, id: &[u8]) -> Result<(), StoreError> {
        self.remove(QUEUE, queue.key(id).as_slice())?;
        Ok(())
    }

    fn waiting_row(&self, queue: Queue, id: &[u8]) -> Result<Option<Waiting>, StoreError> {
        self.row(QUEUE, "queue", queue.key(id).as_slice())
    }

    /// The work on a row has come further: the attempts before this one are forgiven.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub fn forgive(&self, queue: Queue, id: &[u8]) -> Result<(), StoreError> {
        let Some(mut waiting) = self.waiting_row(queue, id)? else { return Ok(()) };
        waiting.attempts = waiting.attempts.min(1);
        self.put(QUEUE, "queue", queue.key(id).as_slice(), &waiting)
    }
}

/// What came of taking a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
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
    pub async fn take(&self, queue: Queue, id: Vec<u8>) -> Result<Taken, StoreError> {
        self.write(move |write| {
            let Some(mut waiting) = write.waiting_row(queue, &id)? else { return Ok(Taken::Gone) };
            if waiting.attempts >= MAX_ATTEMPTS {
                return Ok(Taken::Exhausted);
            }
            waiting.attempts += 1;
            write.put(QUEUE, "queue", queue.key(&id).as_slice(), &waiting)?;
            Ok(Taken::Attempt(waiting.attempts))
        })
        .await
    }

    /// Puts a row off. `counts`: whether the attempt stays counted (our own trouble) or not (something outside is awaited).
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn put_off(
        &self,
        queue: Queue,
        id: Vec<u8>,
        until: Timestamp,
        error: Option<String>,
        counts: bool,
    ) -> Result<(), StoreError> {
        self.write(move |write| {
            let Some(mut waiting) = write.waiting_row(queue, &id)? else { return Ok(()) };
            waiting.not_before = until;
            waiting.last_error.clone_from(&error);
            if !counts {
                waiting.attempts = waiting.attempts.saturating_sub(1);
            }
            write.put_waiting(queue, &id, &waiting)
        })
        .await
    }
}
