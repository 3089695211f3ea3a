//! Bindings through which nothing goes. One that is misconfigured is **held**: what it has to say keeps its place, outside the queue, until
//! a start or a person lets it go again.

use beespace_core::notice::{Notice, NoticeState};
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::outbox::{Notices as _, Thread, in_line};
use super::tables::{BINDING_HELD, Key};
use super::transaction::{Order, Read, Rows, Write};
use super::{Queue, Store, StoreError, row};

/// Why nothing goes through a binding, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub why: String,
    pub since: Timestamp,
}

fn binding_key(binding: &str) -> Key {
    Key::new().text(binding)
}

/// What both kinds of transaction can tell of bindings that are held.
pub trait HeldBindings: Rows + Sized {
    /// Why nothing goes through a binding; none: it is free.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn held(&self, binding: &str) -> Result<Option<Held>, StoreError> {
        self.row(BINDING_HELD, "binding_held", binding_key(binding).as_slice())
    }

    /// Every binding that is held.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn held_bindings(&self) -> Result<Vec<(String, Held)>, StoreError> {
        let mut held = Vec::new();
        self.walk(BINDING_HELD, &[], None, Order::OldestFirst, &mut |key, value| {
            let name = String::from_utf8_lossy(key.strip_suffix(&[0]).unwrap_or(key)).into_owned();
            held.push((name, row::decode("binding_held", value)?));
            Ok(true)
        })?;
        Ok(held)
    }
}

impl HeldBindings for Read {}
impl HeldBindings for Write<'_> {}

impl Write<'_> {
    /// Nothing goes through the binding of `notice` from now on, for the reason that it met.
    pub(super) fn hold(&self, notice: &Notice, now: Timestamp) -> Result<(), StoreError> {
        let key = binding_key(&notice.binding);
        let held = match self.held(&notice.binding)? {
            Some(held) => held,
            None => Held { why: notice.last_error.clone().unwrap_or_default(), since: now },
        };
        self.put(BINDING_HELD, "binding_held", key.as_slice(), &held)?;
        for mut waiting in self.waiting_of_binding(&notice.binding)? {
            if waiting.state == NoticeState::Pending {
                suspend(&mut waiting, &held.why);
                self.put_notice(&waiting)?;
            }
            self.dequeue(Queue::Notice, &Thread::of(&waiting).key())?;
        }
        Ok(())
    }

    /// Lets a held binding go again: what stands in its lines begins anew, in order.
    pub(super) fn release(&self, binding: &str, now: Timestamp) -> Result<(), StoreError> {
        if !self.remove(BINDING_HELD, binding_key(binding).as_slice())? {
            return Ok(());
        }
        for mut waiting in self.waiting_of_binding(binding)? {
            if waiting.state == NoticeState::Suspended {
                waiting.start_over(now);
                self.put_notice(&waiting)?;
            }
            self.step_forward(&Thread::of(&waiting))?;
        }
        Ok(())
    }

    fn waiting_of_binding(&self, binding: &str) -> Result<Vec<Notice>, StoreError> {
        let ids = in_line(self, &binding_key(binding), usize::MAX)?;
        ids.into_iter().filter_map(|id| self.notice(id).transpose()).collect()
    }
}

/// Keeps a notice back because of its binding.
pub(super) fn suspend(notice: &mut Notice, why: &str) {
    notice.state = NoticeState::Suspended;
    notice.last_error = Some(format!("its notifier is suspended: {why}"));
}

impl Store {
    /// Lets every held binding go again.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn release_bindings(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |write| {
            let held = write.held_bindings()?;
            held.into_iter().try_for_each(|(binding, _)| write.release(&binding, now))
        })
        .await
    }
}
