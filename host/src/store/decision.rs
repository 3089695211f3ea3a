//! Decisions. A row is written once and never changed.

use beespace_core::ids::{BuildId, DecisionId};
use beespace_core::policy::Decision;

use super::StoreError;
use super::tables::{DECISION, DECISION_OF_BUILD, Key, last_id};
use super::transaction::{Order, Read, Rows, Write};

/// Reading decisions, in both kinds of transaction.
pub trait Decisions: Rows + Sized {
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn decision(&self, id: DecisionId) -> Result<Option<Decision>, StoreError> {
        self.row(DECISION, "decision", id.0.as_bytes())
    }
}

impl Decisions for Read {}
impl Decisions for Write<'_> {}

impl Read {
    /// All decisions of a build, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn decisions(&self, build: BuildId) -> Result<Vec<Decision>, StoreError> {
        let keys = self.keys(DECISION_OF_BUILD, build.0.as_bytes(), None, Order::OldestFirst, usize::MAX)?;
        keys.iter().filter_map(|key| last_id(key)).filter_map(|id| self.decision(DecisionId(id)).transpose()).collect()
    }
}

impl Write<'_> {
    /// Stores a decision.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub fn put_decision(&self, decision: &Decision) -> Result<(), StoreError> {
        let key = Key::new().id(decision.stage.build.0).id(decision.id.0);
        self.put_bytes(DECISION_OF_BUILD, key.as_slice(), &[])?;
        self.put(DECISION, "decision", decision.id.0.as_bytes(), decision)
    }
}
