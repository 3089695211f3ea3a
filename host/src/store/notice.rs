//! The rows of notices and their order of delivery.
//!
//! The notices of one binding about one build share an [`OrderingKey`] and are sent one at a time, in the order of their sequence
//! numbers. [`UNFINISHED_NOTICE`] lists the unfinished notices in this order. The queue contains the ordering key itself, once;
//! it becomes due when the oldest unfinished notice does. The transaction that finishes a notice removes it from the list and
//! queues the next one.

use std::collections::BTreeMap;

use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::NoticeId;
use beespace_core::notice::{Notice, NoticeState, Receipt};
use beespace_core::time::Timestamp;

use super::queue::{DueTime, FairnessKey};
use super::tables::{Key, NOTICE, NOTICE_OF_BUILD, NOTICE_OF_STATE, NOTICE_SEQUENCE, RECEIPT, UNFINISHED_NOTICE, last_id};
use super::transaction::{Order, Read, Rows, Write};
use super::{Queue, StoreError};

/// The key of notices that are sent in order: those of one binding about one build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderingKey {
    /// The notifier binding.
    pub binding: String,
    /// The subject of the notices: `build/{id}`.
    pub name: String,
}

impl OrderingKey {
    /// The ordering key of a notice.
    #[must_use]
    pub fn of(notice: &Notice) -> Self {
        Self { binding: notice.binding.clone(), name: notice.thread.clone() }
    }

    /// Parses a key of [`Queue::Notice`]; `None` if it is invalid.
    #[must_use]
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let mut texts = key.split(|byte| *byte == 0).map(|text| String::from_utf8(text.to_vec()).ok());
        let (binding, name, end) = (texts.next()??, texts.next()??, texts.next()??);
        (end.is_empty() && texts.next().is_none()).then_some(Self { binding, name })
    }

    /// The key in [`Queue::Notice`].
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        ordering_key(&self.binding, &self.name).as_slice().to_vec()
    }
}

fn ordering_key(binding: &str, name: &str) -> Key {
    Key::new().text(binding).text(name)
}

fn position_key(notice: &Notice) -> Key {
    ordering_key(&notice.binding, &notice.thread).u64(notice.sequence)
}

fn state_key(state: NoticeState) -> Key {
    Key::new().text(state.as_str())
}

fn build_notice_key(notice: &Notice) -> Key {
    Key::new().id(notice.build.0).id(notice.id.0)
}

/// Reading notices, in both kinds of transaction.
pub trait Notices: Rows + Sized {
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn notice(&self, id: NoticeId) -> Result<Option<Notice>, StoreError> {
        self.row(NOTICE, "notice", id.0.as_bytes())
    }

    /// The last receipt of the binding's notifier for this subject.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn receipt(&self, binding: &str, name: &str) -> Result<Option<Receipt>, StoreError> {
        self.row(RECEIPT, "receipt", ordering_key(binding, name).as_slice())
    }

    /// The oldest unfinished notice of an ordering key: the next one to send.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn oldest_unfinished(&self, key: &OrderingKey) -> Result<Option<Notice>, StoreError> {
        let prefix = ordering_key(&key.binding, &key.name);
        let mut oldest = None;
        self.scan(UNFINISHED_NOTICE, prefix.as_slice(), None, Order::OldestFirst, &mut |_, id| {
            oldest = last_id(id).map(NoticeId);
            Ok(oldest.is_none())
        })?;
        oldest.map_or(Ok(None), |id| self.notice(id))
    }
}

impl Notices for Read {}
impl Notices for Write<'_> {}

/// A notifier with pending notices, of which at least one could not be sent yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailingNotifier {
    pub binding: String,
    /// The number of its pending notices, including those that were not attempted yet.
    pub pending: usize,
    /// Why the last attempt of its newest attempted notice failed.
    pub last_error: String,
    /// The time of the next attempt of any of them.
    pub next_attempt_at: Timestamp,
}

impl Read {
    /// The notifiers whose receivers currently refuse notices, by name, according to the newest `limit` pending notices.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn failing_notifiers(&self, limit: usize) -> Result<Vec<FailingNotifier>, StoreError> {
        let mut pending: BTreeMap<String, Vec<Notice>> = BTreeMap::new();
        for notice in self.notices(Some(NoticeState::Pending), None, limit)? {
            pending.entry(notice.binding.clone()).or_default().push(notice);
        }
        let failing = pending.into_iter().filter_map(|(binding, notices)| {
            let mut failed = notices.iter().filter(|notice| notice.attempts > 0 && notice.last_error.is_some());
            let newest = failed.next()?;
            let next_attempt_at = failed.map(|notice| notice.next_attempt_at).fold(newest.next_attempt_at, Timestamp::min);
            let last_error = newest.last_error.clone().unwrap_or_default();
            Some(FailingNotifier { binding, pending: notices.len(), last_error, next_attempt_at })
        });
        Ok(failing.collect())
    }

    /// Notices, newest first. `after` is the last id of the previous page.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn notices(&self, state: Option<NoticeState>, after: Option<NoticeId>, limit: usize) -> Result<Vec<Notice>, StoreError> {
        let (table, prefix) = match state {
            Some(state) => (NOTICE_OF_STATE, state_key(state)),
            None => (NOTICE, Key::new()),
        };
        let after = after.map(|id| prefix.clone().id(id.0));
        let keys = self.keys(table, prefix.as_slice(), after.as_ref().map(Key::as_slice), Order::NewestFirst, limit)?;
        let ids = keys.iter().filter_map(|key| last_id(key)).map(NoticeId);
        ids.filter_map(|id| self.notice(id).transpose()).collect()
    }
}

impl Write<'_> {
    /// Assigns the next sequence number of an ordering key.
    pub(super) fn next_sequence(&self, key: &OrderingKey) -> Result<u64, StoreError> {
        let key = key.key();
        let last: Option<u64> = self.row(NOTICE_SEQUENCE, "notice_sequence", &key)?;
        let next = last.unwrap_or_default() + 1;
        self.put(NOTICE_SEQUENCE, "notice_sequence", &key, &next)?;
        Ok(next)
    }

    /// Writes the row and updates its indexes.
    pub(super) fn put_notice(&self, notice: &Notice) -> Result<(), StoreError> {
        if let Some(old) = self.notice(notice.id)? {
            self.remove(NOTICE_OF_STATE, state_key(old.state).id(old.id.0).as_slice())?;
        }
        self.put_bytes(NOTICE_OF_STATE, state_key(notice.state).id(notice.id.0).as_slice(), &[])?;
        self.put_bytes(NOTICE_OF_BUILD, build_notice_key(notice).as_slice(), &[])?;
        self.announce(ChangeEvent::NoticeChanged { notice: notice.id, state: notice.state });
        self.put(NOTICE, "notice", notice.id.0.as_bytes(), notice)
    }

    /// Removes a notice when its build is removed, together with the rows of its ordering key.
    pub(super) fn remove_notice(&self, notice: &Notice) -> Result<(), StoreError> {
        let key = OrderingKey::of(notice).key();
        self.remove(NOTICE, notice.id.0.as_bytes())?;
        self.remove(NOTICE_OF_STATE, state_key(notice.state).id(notice.id.0).as_slice())?;
        self.remove(NOTICE_OF_BUILD, build_notice_key(notice).as_slice())?;
        self.remove(UNFINISHED_NOTICE, position_key(notice).as_slice())?;
        self.dequeue(Queue::Notice, &key)?;
        self.remove(RECEIPT, &key)?;
        self.remove(NOTICE_SEQUENCE, &key).map(drop)
    }

    /// Adds the notice to the unfinished ones, at the position of its sequence number.
    pub(super) fn add_unfinished(&self, notice: &Notice) -> Result<(), StoreError> {
        self.put_bytes(UNFINISHED_NOTICE, position_key(notice).as_slice(), notice.id.0.as_bytes())
    }

    /// Queues the ordering key for its oldest unfinished notice, or removes it from the queue if that notice is not pending.
    pub(super) fn promote_next(&self, key: &OrderingKey, now: Timestamp) -> Result<(), StoreError> {
        match self.oldest_unfinished(key)?.filter(|oldest| oldest.state == NoticeState::Pending) {
            Some(oldest) => {
                let due = DueTime::at(oldest.next_attempt_at, now);
                self.enqueue(Queue::Notice, &key.key(), FairnessKey::of_binding(&key.binding), due)
            }
            None => self.dequeue(Queue::Notice, &key.key()),
        }
    }

    /// Removes a finished notice from the unfinished ones and queues the next one.
    pub(super) fn remove_unfinished(&self, notice: &Notice, now: Timestamp) -> Result<(), StoreError> {
        self.remove(UNFINISHED_NOTICE, position_key(notice).as_slice())?;
        self.promote_next(&OrderingKey::of(notice), now)
    }
}
