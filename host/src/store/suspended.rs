//! Suspended notifiers.
//!
//! A notifier whose binding turns out to be misconfigured is **suspended**: its notices keep their order but leave the queue. A
//! notifier that refuses a notice is not suspended yet, because the notice itself may be the cause
//! ([`refusals`](beespace_core::notifier_refusals)). A restart of the server or a retry by a person resumes it. Both take effect
//! at once. The backlog of waiting notices is updated in batches: after a week it may have thousands of rows, and no other write
//! must wait that long.

use beespace_core::ids::NoticeId;
use beespace_core::notice::{AttemptOutcome, Notice, NoticeState};
use beespace_core::notifier_refusals::Refusals;
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::build::Builds as _;
use super::notice::{Notices as _, OrderingKey};
use super::tables::{Key, REFUSALS, SUSPENDED_BINDING, UNFINISHED_NOTICE, last_id};
use super::transaction::{Order, Read, Rows, Write};
use super::{Queue, Store, StoreError, row};

/// The maximum number of notices updated in one transaction.
const BATCH: usize = 100;

/// Why and since when a binding is suspended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    pub reason: String,
    pub since: Timestamp,
}

/// The row of a binding that is suspended, or that was resumed while some of its notices are still marked as suspended.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    suspension: Suspension,
    /// Whether the binding is resumed. The row stays until all notices are updated.
    is_resumed: bool,
    /// The position of the last updated notice, empty before the first batch. `None`: all notices are updated.
    propagated_to: Option<Vec<u8>>,
    /// Whether a resumed binding also sends the notices at once that wait for their next attempt.
    #[serde(default)]
    includes_pending: bool,
}

impl Row {
    /// A row whose notices all have to be updated.
    fn new(suspension: Suspension, is_resumed: bool) -> Self {
        Self { suspension, is_resumed, propagated_to: Some(Vec::new()), includes_pending: false }
    }
}

fn binding_key(binding: &str) -> Key {
    Key::new().text(binding)
}

fn rows(store: &impl Rows) -> Result<Vec<(String, Row)>, StoreError> {
    let mut rows = Vec::new();
    store.scan(SUSPENDED_BINDING, &[], None, Order::OldestFirst, &mut |key, value| {
        let name = String::from_utf8_lossy(key.strip_suffix(&[0]).unwrap_or(key)).into_owned();
        rows.push((name, row::decode("suspended_binding", value)?));
        Ok(true)
    })?;
    Ok(rows)
}

/// Reading suspensions, in both kinds of transaction.
pub trait SuspendedBindings: Rows + Sized {
    /// The suspension of a binding; `None` if the binding is not suspended.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn suspension(&self, binding: &str) -> Result<Option<Suspension>, StoreError> {
        let row: Option<Row> = self.row(SUSPENDED_BINDING, "suspended_binding", binding_key(binding).as_slice())?;
        Ok(row.filter(|row| !row.is_resumed).map(|row| row.suspension))
    }

    /// All suspended bindings.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn suspended_bindings(&self) -> Result<Vec<(String, Suspension)>, StoreError> {
        let suspended = rows(self)?.into_iter().filter(|(_, row)| !row.is_resumed);
        Ok(suspended.map(|(binding, row)| (binding, row.suspension)).collect())
    }
}

impl SuspendedBindings for Read {}
impl SuspendedBindings for Write<'_> {}

impl Write<'_> {
    /// Suspends the binding of a notice because of the notice's error.
    pub(super) fn suspend_binding(&self, notice: &Notice, now: Timestamp) -> Result<(), StoreError> {
        self.dequeue(Queue::Notice, &OrderingKey::of(notice).key())?;
        if self.suspension(&notice.binding)?.is_some() {
            return Ok(());
        }
        let suspension = Suspension { reason: notice.last_error.clone().unwrap_or_default(), since: now };
        self.propagate_batch(&notice.binding, Row::new(suspension, false), now)
    }

    /// Records the result of an attempt for the binding. A refusal that proves a misconfiguration becomes one.
    pub(super) fn judge_refusal(&self, notice: &Notice, outcome: AttemptOutcome) -> Result<AttemptOutcome, StoreError> {
        let key = binding_key(&notice.binding);
        match outcome {
            AttemptOutcome::Sent => self.remove(REFUSALS, key.as_slice()).map(|_| AttemptOutcome::Sent),
            AttemptOutcome::Refused(why) => {
                let Some(build) = self.build(notice.build)? else { return Ok(AttemptOutcome::Refused(why)) };
                let mut refusals: Refusals = self.row(REFUSALS, "refusals", key.as_slice())?.unwrap_or_default();
                refusals.add(build.id, build.event.repository.id);
                self.put(REFUSALS, "refusals", key.as_slice(), &refusals)?;
                let is_proof = refusals.prove_misconfiguration(self.has_several_repositories()?);
                Ok(if is_proof { AttemptOutcome::Misconfigured(why) } else { AttemptOutcome::Refused(why) })
            }
            other => Ok(other),
        }
    }

    /// Resumes a suspended binding: its notices start again, in order.
    pub(super) fn resume_binding(&self, binding: &str, now: Timestamp) -> Result<(), StoreError> {
        self.remove(REFUSALS, binding_key(binding).as_slice())?;
        let Some(suspension) = self.suspension(binding)? else { return Ok(()) };
        self.propagate_batch(binding, Row::new(suspension, true), now)
    }

    /// Updates the next batch of the binding's notices and stores the progress.
    fn propagate_batch(&self, binding: &str, mut row: Row, now: Timestamp) -> Result<(), StoreError> {
        let key = binding_key(binding);
        let after = row.propagated_to.take().filter(|position| !position.is_empty());
        let positions = self.keys(UNFINISHED_NOTICE, key.as_slice(), after.as_deref(), Order::OldestFirst, BATCH)?;
        for position in &positions {
            let id = self.bytes(UNFINISHED_NOTICE, position)?.and_then(|id| last_id(&id)).map(NoticeId);
            let notice = id.map_or(Ok(None), |id| self.notice(id))?;
            notice.map_or(Ok(()), |notice| self.propagate_to(notice, &row, now))?;
        }
        row.propagated_to = positions.last().filter(|_| positions.len() == BATCH).cloned();
        if row.is_resumed && row.propagated_to.is_none() {
            return self.remove(SUSPENDED_BINDING, key.as_slice()).map(drop);
        }
        self.put(SUSPENDED_BINDING, "suspended_binding", key.as_slice(), &row)
    }

    fn propagate_to(&self, mut notice: Notice, row: &Row, now: Timestamp) -> Result<(), StoreError> {
        let ordering_key = OrderingKey::of(&notice);
        let waits = row.includes_pending && notice.state == NoticeState::Pending && notice.next_attempt_at > now;
        match (row.is_resumed, notice.state) {
            (true, state) if waits || state == NoticeState::Suspended => {
                notice.requeue(now);
                self.put_notice(&notice)?;
                self.promote_next(&ordering_key, now)
            }
            (false, NoticeState::Pending) => {
                suspend_notice(&mut notice, &row.suspension.reason);
                self.put_notice(&notice)?;
                self.dequeue(Queue::Notice, &ordering_key.key())
            }
            _ => Ok(()),
        }
    }
}

/// Marks a notice as suspended because of its binding.
pub(super) fn suspend_notice(notice: &mut Notice, reason: &str) {
    notice.state = NoticeState::Suspended;
    notice.last_error = Some(format!("the notifier is suspended: {reason}"));
}

impl Store {
    /// Sends all unfinished notices of a binding at once, in order: the suspended ones, and those that wait for their next
    /// attempt.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn retry_notices_of(&self, binding: String, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |write| {
            write.remove(REFUSALS, binding_key(&binding).as_slice())?;
            let suspension = write.suspension(&binding)?.unwrap_or(Suspension { reason: String::new(), since: now });
            write.propagate_batch(&binding, Row { includes_pending: true, ..Row::new(suspension, true) }, now)
        })
        .await
    }

    /// Resumes all suspended bindings.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn resume_all_bindings(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |write| {
            for key in write.keys(REFUSALS, &[], None, Order::OldestFirst, usize::MAX)? {
                write.remove(REFUSALS, &key)?;
            }
            let rows = rows(write)?;
            rows.into_iter().try_for_each(|(binding, row)| write.propagate_batch(&binding, Row::new(row.suspension, true), now))
        })
        .await
    }

    /// Updates one batch of notices of a binding that was suspended or resumed. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn propagate_suspension(&self, now: Timestamp) -> Result<bool, StoreError> {
        let is_complete = |row: &Row| row.propagated_to.is_none();
        if rows(&self.read()?)?.iter().all(|(_, row)| is_complete(row)) {
            return Ok(false);
        }
        self.write(move |write| {
            let mut incomplete = rows(write)?.into_iter().filter(|(_, row)| !is_complete(row));
            incomplete.next().map_or(Ok(false), |(binding, row)| write.propagate_batch(&binding, row, now).map(|()| true))
        })
        .await
    }
}
