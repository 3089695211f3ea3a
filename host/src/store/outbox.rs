//! Notices on their way. Written in the transaction of what they tell of; sent at least once, in order within a thread.
//!
//! A thread is what one binding says of one build. Its notices stand in line ([`NOTICE_OF_THREAD`]); what waits in the queue is the
//! thread, for the first of its line. The transaction that settles a notice takes it out of the line and lets the next one step
//! forward. What a binding that is [`held`](super::suspended) has to say keeps its place, outside the queue.

use beespace_core::build::{Build, Stage};
use beespace_core::change_event::ChangeEvent;
use beespace_core::digest::Digest;
use beespace_core::ids::NoticeId;
use beespace_core::notice::{self, AttemptOutcome, Notice, NoticeKind, NoticeState, Receipt};
use beespace_core::time::Timestamp;

use super::build::Notifiers;
use super::queue::FairnessKey;
use super::suspended::{SuspendedBindings as _, suspend_notice};
use super::tables::{Key, NOTICE, NOTICE_OF_BUILD, NOTICE_OF_STATE, NOTICE_OF_THREAD, NOTICE_SEQUENCE, RECEIPT, last_id};
use super::transaction::{Order, Read, Rows, Write};
use super::{Queue, Store, StoreError};

/// Notices that go one at a time, in order: one binding's word on one build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderingKey {
    pub binding: String,
    pub name: String,
}

impl OrderingKey {
    /// The thread that a notice belongs to.
    #[must_use]
    pub fn of(notice: &Notice) -> Self {
        Self { binding: notice.binding.clone(), name: notice.thread.clone() }
    }

    /// The thread that waits under this key of [`Queue::Notice`]; none where the key is not one of ours.
    #[must_use]
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let mut texts = key.split(|byte| *byte == 0).map(|text| String::from_utf8(text.to_vec()).ok());
        let (binding, name, end) = (texts.next()??, texts.next()??, texts.next()??);
        (end.is_empty() && texts.next().is_none()).then_some(Self { binding, name })
    }

    /// Its key in [`Queue::Notice`].
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        ordering_key(&self.binding, &self.name).as_slice().to_vec()
    }
}

fn ordering_key(binding: &str, thread: &str) -> Key {
    Key::new().text(binding).text(thread)
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
        self.row(RECEIPT, "receipt", ordering_key(binding, thread).as_slice())
    }

    /// The notice whose turn it is in a thread.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn oldest_unfinished(&self, thread: &OrderingKey) -> Result<Option<Notice>, StoreError> {
        let first = unfinished_notices(self, &ordering_key(&thread.binding, &thread.name), 1)?;
        first.first().map_or(Ok(None), |id| self.notice(*id))
    }
}

impl Notices for Read {}
impl Notices for Write<'_> {}

/// Notices that stand in line under `prefix`, by thread and place.
fn unfinished_notices(rows: &impl Rows, prefix: &Key, limit: usize) -> Result<Vec<NoticeId>, StoreError> {
    let mut ids = Vec::new();
    rows.scan(NOTICE_OF_THREAD, prefix.as_slice(), None, Order::OldestFirst, &mut |_, id| {
        ids.extend(last_id(id).map(NoticeId));
        Ok(ids.len() < limit)
    })?;
    Ok(ids)
}

impl Read {
    /// Notices, newest first; `after` is the last id of the page before.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
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
    /// Writes one notice for each binding.
    pub(super) fn add_notices(
        &self,
        kind: NoticeKind,
        build: &Build,
        stages: &[Stage],
        notifiers: &Notifiers,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let subject = notice::subject_document(kind, build, stages);
        let name = format!("build/{}", build.id);
        for binding in notifiers.iter() {
            let thread = OrderingKey { binding: binding.clone(), name: name.clone() };
            let sequence = self.next_sequence(&thread)?;
            let key =
                Digest::of_parts([build.id.0.as_bytes(), kind.as_str().as_bytes(), &sequence.to_be_bytes(), binding.as_bytes()]);
            let mut notice = Notice {
                id: NoticeId(uuid::Uuid::now_v7()),
                kind,
                build: build.id,
                binding: thread.binding.clone(),
                thread: thread.name.clone(),
                sequence,
                idempotency_key: key.hex(),
                subject: subject.clone(),
                state: NoticeState::Pending,
                retrying_since: now,
                attempts: 0,
                unknown_outcomes: 0,
                last_error: None,
                next_attempt_at: now,
                created_at: now,
                finished_at: None,
            };
            if let Some(held) = self.held(binding)? {
                suspend_notice(&mut notice, &held.reason);
            }
            let is_first = self.oldest_unfinished(&thread)?.is_none();
            self.put_notice(&notice)?;
            self.add_unfinished(&notice)?;
            // The row of a thread that waits already keeps its time and its count.
            if is_first {
                self.promote_next(&thread)?;
            }
        }
        Ok(())
    }

    fn next_sequence(&self, thread: &OrderingKey) -> Result<u64, StoreError> {
        let key = thread.key();
        let last: Option<u64> = self.row(NOTICE_SEQUENCE, "notice_sequence", &key)?;
        let next = last.unwrap_or_default() + 1;
        self.put(NOTICE_SEQUENCE, "notice_sequence", &key, &next)?;
        Ok(next)
    }

    pub(super) fn put_notice(&self, notice: &Notice) -> Result<(), StoreError> {
        if let Some(old) = self.notice(notice.id)? {
            self.remove(NOTICE_OF_STATE, state_key(old.state).id(old.id.0).as_slice())?;
        }
        self.put_bytes(NOTICE_OF_STATE, state_key(notice.state).id(notice.id.0).as_slice(), &[])?;
        self.put_bytes(NOTICE_OF_BUILD, build_notice_key(notice).as_slice(), &[])?;
        self.announce(ChangeEvent::NoticeChanged { notice: notice.id, state: notice.state });
        self.put(NOTICE, "notice", notice.id.0.as_bytes(), notice)
    }

    /// It leaves with its place in line, and the thread with the last of its notices.
    pub(super) fn remove_notice(&self, notice: &Notice) -> Result<(), StoreError> {
        let thread = OrderingKey::of(notice).key();
        self.remove(NOTICE, notice.id.0.as_bytes())?;
        self.remove(NOTICE_OF_STATE, state_key(notice.state).id(notice.id.0).as_slice())?;
        self.remove(NOTICE_OF_BUILD, build_notice_key(notice).as_slice())?;
        self.remove(NOTICE_OF_THREAD, position_key(notice).as_slice())?;
        self.dequeue(Queue::Notice, &thread)?;
        self.remove(RECEIPT, &thread)?;
        self.remove(NOTICE_SEQUENCE, &thread).map(drop)
    }

    fn add_unfinished(&self, notice: &Notice) -> Result<(), StoreError> {
        self.put_bytes(NOTICE_OF_THREAD, position_key(notice).as_slice(), notice.id.0.as_bytes())
    }

    /// Queues the thread for the first of its line, or takes it out of the queue where nobody may go.
    pub(super) fn promote_next(&self, thread: &OrderingKey) -> Result<(), StoreError> {
        match self.oldest_unfinished(thread)?.filter(|first| first.state == NoticeState::Pending) {
            Some(first) => {
                self.enqueue(Queue::Notice, &thread.key(), FairnessKey::of_binding(&thread.binding), first.next_attempt_at)
            }
            None => self.dequeue(Queue::Notice, &thread.key()),
        }
    }

    /// The notice leaves its line, and the next one may go at once.
    fn remove_unfinished(&self, notice: &Notice) -> Result<(), StoreError> {
        self.remove(NOTICE_OF_THREAD, position_key(notice).as_slice())?;
        self.promote_next(&OrderingKey::of(notice))
    }

    /// Writes what a notice has become by an attempt, with all that follows from it for its thread and its binding.
    fn apply_notice_outcome(&self, mut notice: Notice, now: Timestamp) -> Result<Notice, StoreError> {
        if notice.state == NoticeState::Pending
            && let Some(held) = self.held(&notice.binding)?
        {
            // The binding was held while this one was under way.
            suspend_notice(&mut notice, &held.reason);
        }
        self.put_notice(&notice)?;
        match notice.state {
            // The worker puts the thread off to the next attempt.
            NoticeState::Pending => {}
            NoticeState::Sent | NoticeState::DeadLetter => self.remove_unfinished(&notice)?,
            NoticeState::Suspended => self.suspend_binding(&notice, now)?,
        }
        Ok(notice)
    }
}

impl Store {
    /// Counts an attempt before it begins. The count of the queue stays as it is. One whose binding is held is kept back in its place.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError`] where the store cannot be written.
    pub async fn begin_notice_attempt(&self, id: NoticeId) -> Result<Notice, StoreError> {
        self.write(move |write| {
            let mut notice = write.notice(id)?.ok_or(StoreError::NotFound("notice"))?;
            match write.held(&notice.binding)? {
                Some(held) => {
                    suspend_notice(&mut notice, &held.reason);
                    write.dequeue(Queue::Notice, &OrderingKey::of(&notice).key())?;
                }
                None => notice.begin_attempt(),
            }
            write.put_notice(&notice)?;
            Ok(notice)
        })
        .await
    }

    /// Writes what came of an attempt. A notice that is settled by it makes place for the next of its thread in the same
    /// transaction; one that finds its binding misconfigured holds all that the binding has to say.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError`] where the store cannot be written.
    pub async fn finish_notice_attempt(
        &self,
        id: NoticeId,
        (attempt, receipt): (AttemptOutcome, Option<Receipt>),
        now: Timestamp,
        jitter: f64,
    ) -> Result<Notice, StoreError> {
        self.write(move |write| {
            let mut notice = write.notice(id)?.ok_or(StoreError::NotFound("notice"))?;
            notice.record_outcome(attempt.clone(), now, jitter);
            if let Some(receipt) = &receipt {
                write.put(RECEIPT, "receipt", &OrderingKey::of(&notice).key(), receipt)?;
            }
            write.apply_notice_outcome(notice, now)
        })
        .await
    }

    /// Gives up the first notice of a thread, and lets the next one go. A thread without any leaves the queue.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn dead_letter_notice(
        &self,
        thread: OrderingKey,
        why: String,
        now: Timestamp,
    ) -> Result<Option<Notice>, StoreError> {
        self.write(move |write| {
            let Some(mut notice) = write.oldest_unfinished(&thread)? else {
                write.dequeue(Queue::Notice, &thread.key())?;
                return Ok(None);
            };
            notice.state = NoticeState::DeadLetter;
            notice.last_error = Some(why.clone());
            notice.finished_at = Some(now);
            write.apply_notice_outcome(notice, now).map(Some)
        })
        .await
    }

    /// Sends a notice again that was given up, or kept back. A binding that was held is let go by it: who replays has mended it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] where the notice is on its way or has arrived.
    pub async fn replay_notice(&self, id: NoticeId, now: Timestamp) -> Result<Notice, StoreError> {
        self.write(move |write| {
            let mut notice = write.notice(id)?.ok_or(StoreError::NotFound("notice"))?;
            if !matches!(notice.state, NoticeState::DeadLetter | NoticeState::Suspended) {
                let text = "Only a notice that was given up or suspended can be sent again.";
                return Err(StoreError::Conflict(text.to_owned()));
            }
            notice.requeue(now);
            write.put_notice(&notice)?;
            write.add_unfinished(&notice)?;
            write.resume_binding(&notice.binding, now)?;
            write.promote_next(&OrderingKey::of(&notice))?;
            Ok(notice)
        })
        .await
    }
}
