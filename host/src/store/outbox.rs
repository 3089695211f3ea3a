//! Notices on their way. Written in the transaction of what they tell of; sent at least once, in order within a thread.

use beespace_core::build::{Build, Stage};
use beespace_core::digest::Digest;
use beespace_core::ids::NoticeId;
use beespace_core::notice::{self, Notice, NoticeKind, NoticeState, Receipt};
use beespace_core::run_event::RunEvent;
use beespace_core::time::Timestamp;

use super::build::Notifiers;
use super::tables::{Key, NOTICE, NOTICE_SEQUENCE, RECEIPT, last_id};
use super::transaction::{Order, Read, Rows, Write};
use super::{Queue, Store, StoreError};

fn thread_key(binding: &str, thread: &str) -> Key {
    Key::new().text(binding).text(thread)
}

/// What both kinds of transaction can tell of notices.
pub trait Notices: Rows + Sized {
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn notice(&self, id: NoticeId) -> Result<Option<Notice>, StoreError> {
        self.row(NOTICE, "notice", id.0.as_bytes())
    }

    /// What the binding's notifier returned last for the thread.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn receipt(&self, binding: &str, thread: &str) -> Result<Option<Receipt>, StoreError> {
        self.row(RECEIPT, "receipt", thread_key(binding, thread).as_slice())
    }
}

impl Notices for Read {}
impl Notices for Write<'_> {}

impl Read {
    /// Notices, newest first; `after` is the last id of the page before.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn notices(&self, state: Option<NoticeState>, after: Option<NoticeId>, limit: usize) -> Result<Vec<Notice>, StoreError> {
        let mut notices = Vec::new();
        let after = after.map(|id| *id.0.as_bytes());
        self.walk(NOTICE, &[], after.as_ref().map(<[u8; 16]>::as_slice), Order::NewestFirst, &mut |key, _| {
            let notice = last_id(key).map_or(Ok(None), |id| self.notice(NoticeId(id)))?;
            notices.extend(notice.filter(|notice| state.is_none_or(|state| notice.state == state)));
            Ok(notices.len() < limit)
        })?;
        Ok(notices)
    }
}

impl Read {
    /// An earlier notice of the same binding and thread that is still on its way.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn earlier_of_thread(&self, notice: &Notice) -> Result<Option<Notice>, StoreError> {
        let waiting = self.waiting(Queue::Notice)?;
        let ids = waiting.iter().filter_map(|(key, _)| last_id(key)).map(NoticeId);
        for id in ids.filter(|id| *id != notice.id) {
            let other = self.notice(id)?;
            let is_before = |other: &Notice| {
                other.binding == notice.binding && other.thread == notice.thread && other.sequence < notice.sequence
            };
            if let Some(other) = other.filter(is_before) {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }
}

impl Write<'_> {
    /// Writes one notice for each binding.
    pub(super) fn notify(
        &self,
        kind: NoticeKind,
        build: &Build,
        stages: &[Stage],
        notifiers: &Notifiers,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let subject = notice::document(kind, build, stages);
        let thread = format!("build/{}", build.id);
        for binding in notifiers.iter() {
            let id = NoticeId(uuid::Uuid::now_v7());
            let sequence = self.next_sequence(binding, &thread)?;
            let key =
                Digest::of_parts([build.id.0.as_bytes(), kind.as_str().as_bytes(), &sequence.to_be_bytes(), binding.as_bytes()]);
            let notice = Notice {
                id,
                kind,
                build: build.id,
                binding: binding.clone(),
                thread: thread.clone(),
                sequence,
                idempotency_key: key.hex(),
                subject: subject.clone(),
                state: NoticeState::Pending,
                attempts: 0,
                unknown_outcomes: 0,
                last_error: None,
                next_attempt_at: now,
                created_at: now,
                finished_at: None,
            };
            self.put_notice(&notice)?;
            self.enqueue(Queue::Notice, id.0.as_bytes(), now)?;
        }
        Ok(())
    }

    fn next_sequence(&self, binding: &str, thread: &str) -> Result<u64, StoreError> {
        let key = thread_key(binding, thread);
        let last: Option<u64> = self.row(NOTICE_SEQUENCE, "notice_sequence", key.as_slice())?;
        let next = last.unwrap_or_default() + 1;
        self.put(NOTICE_SEQUENCE, "notice_sequence", key.as_slice(), &next)?;
        Ok(next)
    }

    fn put_notice(&self, notice: &Notice) -> Result<(), StoreError> {
        self.announce(RunEvent::NoticeChanged { notice: notice.id, state: notice.state });
        self.put(NOTICE, "notice", notice.id.0.as_bytes(), notice)
    }
}

impl Store {
    /// Changes a notice; one that is no longer pending leaves the queue, one that became pending joins it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError`] where the store cannot be written.
    pub async fn change_notice(
        &self,
        id: NoticeId,
        receipt: Option<Receipt>,
        change: impl Fn(&mut Notice) + Send + 'static,
    ) -> Result<Notice, StoreError> {
        self.write(move |write| {
            let mut notice = write.notice(id)?.ok_or(StoreError::NotFound("notice"))?;
            change(&mut notice);
            write.put_notice(&notice)?;
            if let Some(receipt) = &receipt {
                write.put(RECEIPT, "receipt", thread_key(&notice.binding, &notice.thread).as_slice(), receipt)?;
            }
            match notice.state {
                NoticeState::Pending => write.enqueue(Queue::Notice, id.0.as_bytes(), notice.next_attempt_at)?,
                _ => write.dequeue(Queue::Notice, id.0.as_bytes())?,
            }
            Ok(notice)
        })
        .await
    }
}
