//! Bindings through which nothing goes. One that is misconfigured is **held**: what it has to say keeps its place, outside the queue, until
//! a start or a person lets it go again. Both count at once; the notices that stand in line hear of it piece by piece, because after a week
//! there may be thousands, and nobody's change waits that long.

use beespace_core::ids::NoticeId;
use beespace_core::notice::{Notice, NoticeState};
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::outbox::{Notices as _, OrderingKey};
use super::tables::{BINDING_HELD, Key, NOTICE_OF_THREAD, last_id};
use super::transaction::{Order, Read, Rows, Write};
use super::{Queue, Store, StoreError, row};

/// Notices that hear of it in one transaction.
const BATCH: usize = 100;

/// Why nothing goes through a binding, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    pub reason: String,
    pub since: Timestamp,
}

/// The row of a binding that is held, or was until now.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    suspension: Suspension,
    /// It is let go, and the row stays until all its notices have heard of it.
    is_resumed: bool,
    /// The place in its lines up to which they have heard of it; none: all have.
    propagated_to: Option<Vec<u8>>,
}

impl Row {
    /// Every line is still to be told.
    fn new(suspension: Suspension, is_resumed: bool) -> Self {
        Self { suspension, is_resumed, propagated_to: Some(Vec::new()) }
    }
}

fn binding_key(binding: &str) -> Key {
    Key::new().text(binding)
}

fn rows(store: &impl Rows) -> Result<Vec<(String, Row)>, StoreError> {
    let mut rows = Vec::new();
    store.scan(BINDING_HELD, &[], None, Order::OldestFirst, &mut |key, value| {
        let name = String::from_utf8_lossy(key.strip_suffix(&[0]).unwrap_or(key)).into_owned();
        rows.push((name, row::decode("binding_held", value)?));
        Ok(true)
    })?;
    Ok(rows)
}

/// What both kinds of transaction can tell of bindings that are held.
pub trait SuspendedBindings: Rows + Sized {
    /// Why nothing goes through a binding; none: it is free.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn held(&self, binding: &str) -> Result<Option<Suspension>, StoreError> {
        let row: Option<Row> = self.row(BINDING_HELD, "binding_held", binding_key(binding).as_slice())?;
        Ok(row.filter(|row| !row.is_resumed).map(|row| row.suspension))
    }

    /// Every binding that is held.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn suspended_bindings(&self) -> Result<Vec<(String, Suspension)>, StoreError> {
        let held = rows(self)?.into_iter().filter(|(_, row)| !row.is_resumed);
        Ok(held.map(|(binding, row)| (binding, row.suspension)).collect())
    }
}

impl SuspendedBindings for Read {}
impl SuspendedBindings for Write<'_> {}

impl Write<'_> {
    /// Nothing goes through the binding of `notice` from now on, for the reason that it met.
    pub(super) fn suspend_binding(&self, notice: &Notice, now: Timestamp) -> Result<(), StoreError> {
        self.dequeue(Queue::Notice, &OrderingKey::of(notice).key())?;
        if self.held(&notice.binding)?.is_some() {
            return Ok(());
        }
        let held = Suspension { reason: notice.last_error.clone().unwrap_or_default(), since: now };
        self.propagate_batch(&notice.binding, Row::new(held, false), now)
    }

    /// Lets a held binding go again: what stands in its lines begins anew, in order.
    pub(super) fn resume_binding(&self, binding: &str, now: Timestamp) -> Result<(), StoreError> {
        let Some(held) = self.held(binding)? else { return Ok(()) };
        self.propagate_batch(binding, Row::new(held, true), now)
    }

    /// Tells the next piece of a binding's lines whether it is held, and keeps in mind how far that came.
    fn propagate_batch(&self, binding: &str, mut row: Row, now: Timestamp) -> Result<(), StoreError> {
        let key = binding_key(binding);
        let after = row.propagated_to.take().filter(|place| !place.is_empty());
        let places = self.keys(NOTICE_OF_THREAD, key.as_slice(), after.as_deref(), Order::OldestFirst, BATCH)?;
        for place in &places {
            let id = self.bytes(NOTICE_OF_THREAD, place)?.and_then(|id| last_id(&id)).map(NoticeId);
            let notice = id.map_or(Ok(None), |id| self.notice(id))?;
            notice.map_or(Ok(()), |notice| self.propagate_to(notice, &row, now))?;
        }
        row.propagated_to = places.last().filter(|_| places.len() == BATCH).cloned();
        if row.is_resumed && row.propagated_to.is_none() {
            return self.remove(BINDING_HELD, key.as_slice()).map(drop);
        }
        self.put(BINDING_HELD, "binding_held", key.as_slice(), &row)
    }

    fn propagate_to(&self, mut notice: Notice, row: &Row, now: Timestamp) -> Result<(), StoreError> {
        let thread = OrderingKey::of(&notice);
        match (row.is_resumed, notice.state) {
            (true, NoticeState::Suspended) => {
                notice.requeue(now);
                self.put_notice(&notice)?;
                self.promote_next(&thread)
            }
            (false, NoticeState::Pending) => {
                suspend_notice(&mut notice, &row.suspension.reason);
                self.put_notice(&notice)?;
                self.dequeue(Queue::Notice, &thread.key())
            }
            _ => Ok(()),
        }
    }
}

/// Keeps a notice back because of its binding.
pub(super) fn suspend_notice(notice: &mut Notice, why: &str) {
    notice.state = NoticeState::Suspended;
    notice.last_error = Some(format!("its notifier is suspended: {why}"));
}

impl Store {
    /// Lets every held binding go again.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn resume_all_bindings(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |write| {
            let held = rows(write)?;
            held.into_iter().try_for_each(|(binding, row)| write.propagate_batch(&binding, Row::new(row.suspension, true), now))
        })
        .await
    }

    /// Tells the next piece of the lines of some binding whether it is held. Says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn propagate_suspension(&self, now: Timestamp) -> Result<bool, StoreError> {
        let is_told = |row: &Row| row.propagated_to.is_none();
        if rows(&self.read()?)?.iter().all(|(_, row)| is_told(row)) {
            return Ok(false);
        }
        self.write(move |write| {
            let mut open = rows(write)?.into_iter().filter(|(_, row)| !is_told(row));
            open.next().map_or(Ok(false), |(binding, row)| write.propagate_batch(&binding, row, now).map(|()| true))
        })
        .await
    }
}
