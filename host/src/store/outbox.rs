//! The outbox: notices and the attempts to send them. A notice is written in the transaction of the change that it reports, and
//! is sent at least once. [`notice`](super::notice) defines the order of delivery, [`suspended`](super::suspended) what happens
//! to the notices of a misconfigured notifier.

use beespace_core::build::{Build, Stage};
use beespace_core::digest::Digest;
use beespace_core::ids::NoticeId;
use beespace_core::notice::{self, AttemptOutcome, Notice, NoticeKind, NoticeState, Receipt};
use beespace_core::time::Timestamp;

use super::notice::{Notices as _, OrderingKey};
use super::suspended::{SuspendedBindings as _, suspend_notice};
use super::tables::RECEIPT;
use super::transaction::Write;
use super::{Queue, Store, StoreError};

/// The id of a notice: a UUIDv7 whose random part is derived from the idempotency key. A transaction can run twice and must then
/// write the same rows, so it draws no random ids. Within a millisecond, ids sort by sequence number.
fn notice_id(created_at: Timestamp, sequence: u64, key: &Digest) -> NoticeId {
    let [high, low] = u16::try_from(sequence).unwrap_or(u16::MAX).to_be_bytes();
    let [a, b, c, d, e, f, g, h, ..] = key.0;
    NoticeId(uuid::Builder::from_unix_timestamp_millis(created_at.0, &[high, low, a, b, c, d, e, f, g, h]).into_uuid())
}

/// How an attempt to send a notice ended.
#[derive(Debug, Clone)]
pub struct FinishedAttempt {
    pub outcome: AttemptOutcome,
    /// The notifier's receipt, which it gets with the next notice of the same ordering key.
    pub receipt: Option<Receipt>,
}

impl Write<'_> {
    /// Adds a notice for each notifier.
    pub(super) fn add_notices(
        &self,
        kind: NoticeKind,
        build: &Build,
        stages: &[Stage],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let subject = notice::subject_document(kind, build, stages);
        let name = format!("build/{}", build.id);
        for binding in self.notifiers.iter() {
            let ordering_key = OrderingKey { binding: binding.clone(), name: name.clone() };
            let sequence = self.next_sequence(&ordering_key)?;
            let idempotency_key =
                Digest::of_parts([build.id.0.as_bytes(), kind.as_str().as_bytes(), &sequence.to_be_bytes(), binding.as_bytes()]);
            let mut notice = Notice {
                id: notice_id(now, sequence, &idempotency_key),
                kind,
                build: build.id,
                binding: ordering_key.binding.clone(),
                thread: ordering_key.name.clone(),
                sequence,
                idempotency_key: idempotency_key.hex(),
                subject: subject.clone(),
                state: NoticeState::Pending,
                retrying_since: now,
                attempts: 0,
                earlier_attempts: 0,
                unknown_outcomes: 0,
                last_error: None,
                next_attempt_at: now,
                created_at: now,
                finished_at: None,
            };
            if let Some(suspension) = self.suspension(binding)? {
                suspend_notice(&mut notice, &suspension.reason);
            }
            let is_first = self.oldest_unfinished(&ordering_key)?.is_none();
            self.put_notice(&notice)?;
            self.add_unfinished(&notice)?;
            // An ordering key that is already queued keeps its due time and its attempts.
            if is_first {
                self.promote_next(&ordering_key, now)?;
            }
        }
        Ok(())
    }

    /// Stores a notice after an attempt and updates its ordering key and its binding accordingly.
    fn apply_notice_outcome(&self, mut notice: Notice, now: Timestamp) -> Result<Notice, StoreError> {
        if notice.state == NoticeState::Pending
            && let Some(suspension) = self.suspension(&notice.binding)?
        {
            // The binding was suspended during the attempt.
            suspend_notice(&mut notice, &suspension.reason);
        }
        self.put_notice(&notice)?;
        match notice.state {
            // The worker reschedules the ordering key for the next attempt.
            NoticeState::Pending => {}
            NoticeState::Sent | NoticeState::DeadLetter => self.remove_unfinished(&notice, now)?,
            NoticeState::Suspended => self.suspend_binding(&notice, now)?,
        }
        Ok(notice)
    }
}

impl Store {
    /// Counts an attempt of a notice before it begins. The queue's own count is unchanged. If the binding is suspended, the
    /// notice is marked as suspended instead and leaves the queue.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError`] if the store cannot be written.
    pub async fn begin_notice_attempt(&self, id: NoticeId) -> Result<Notice, StoreError> {
        self.write(move |write| {
            let mut notice = write.notice(id)?.ok_or(StoreError::NotFound("notice"))?;
            match write.suspension(&notice.binding)? {
                Some(suspension) => {
                    suspend_notice(&mut notice, &suspension.reason);
                    write.dequeue(Queue::Notice, &OrderingKey::of(&notice).key())?;
                }
                None => notice.begin_attempt(),
            }
            write.put_notice(&notice)?;
            Ok(notice)
        })
        .await
    }

    /// Stores the outcome of an attempt. If it finishes the notice, the same transaction queues the next one of the ordering key.
    /// If the binding is misconfigured, the binding is suspended.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError`] if the store cannot be written.
    pub async fn finish_notice_attempt(
        &self,
        id: NoticeId,
        attempt: FinishedAttempt,
        now: Timestamp,
        jitter: f64,
    ) -> Result<Notice, StoreError> {
        self.write(move |write| {
            let mut notice = write.notice(id)?.ok_or(StoreError::NotFound("notice"))?;
            let outcome = write.judge_refusal(&notice, attempt.outcome.clone())?;
            notice.record_outcome(outcome, now, jitter);
            if let Some(receipt) = &attempt.receipt {
                write.put(RECEIPT, "receipt", &OrderingKey::of(&notice).key(), receipt)?;
            }
            write.apply_notice_outcome(notice, now)
        })
        .await
    }

    /// Ends the oldest unfinished notice of an ordering key as a dead letter and queues the next one. An ordering key without
    /// unfinished notices leaves the queue.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn dead_letter_notice(
        &self,
        key: OrderingKey,
        reason: String,
        now: Timestamp,
    ) -> Result<Option<Notice>, StoreError> {
        self.write(move |write| {
            let Some(mut notice) = write.oldest_unfinished(&key)? else {
                write.dequeue(Queue::Notice, &key.key())?;
                return Ok(None);
            };
            notice.state = NoticeState::DeadLetter;
            notice.last_error = Some(reason.clone());
            notice.finished_at = Some(now);
            write.apply_notice_outcome(notice, now).map(Some)
        })
        .await
    }

    /// Sends a notice again, or at once if it is waiting for its next attempt. A suspended binding is resumed: the person who
    /// retries a notice has corrected the configuration.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] if the notice has been sent.
    pub async fn retry_notice(&self, id: NoticeId, now: Timestamp) -> Result<Notice, StoreError> {
        self.write(move |write| {
            let mut notice = write.notice(id)?.ok_or(StoreError::NotFound("notice"))?;
            if notice.state == NoticeState::Sent {
                return Err(StoreError::Conflict(format!("notice {id} has already been sent")));
            }
            notice.requeue(now);
            write.put_notice(&notice)?;
            write.add_unfinished(&notice)?;
            write.resume_binding(&notice.binding, now)?;
            let key = OrderingKey::of(&notice);
            // The notices before it are sent first, so the oldest of them must not wait either.
            if let Some(mut oldest) = write.oldest_unfinished(&key)?.filter(|oldest| oldest.id != id) {
                oldest.requeue(now);
                write.put_notice(&oldest)?;
            }
            write.promote_next(&key, now)?;
            Ok(notice)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notice_ids_are_the_same_in_every_run_and_sort_by_time_and_sequence() {
        let id = |ms, sequence: u64| notice_id(Timestamp(ms), sequence, &Digest::of(sequence.to_be_bytes()));
        assert_eq!(id(5, 1), id(5, 1));
        assert_eq!(id(5, 1).0.get_version_num(), 7);
        assert!(id(5, 1) < id(5, 2) && id(5, 2) < id(5, 300) && id(5, 300) < id(6, 1));
    }
}
