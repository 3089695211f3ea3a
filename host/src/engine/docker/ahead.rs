//! What was done for containers ahead of their turn. Known to this process alone: another one does it anew.

use std::collections::HashMap;

use beespace_core::digest::Digest;
use beespace_core::ids::StepId;

use crate::engine::Launch;

/// A container: its step, and its id in the step's plan.
type Key = (StepId, String);

#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Made and not started, with what was asked for.
    made: HashMap<Key, Digest>,
    /// Scripts that lie with those of their stage.
    scripts: HashMap<Key, Digest>,
}

impl Ahead {
    pub(super) fn note_made(&mut self, launch: &Launch, order: Digest) {
        self.made.insert(key(launch), order);
    }

    pub(super) fn note_script(&mut self, launch: &Launch, script: Digest) {
        self.scripts.insert(key(launch), script);
    }

    /// What the container was made of, where it was. Said once: its turn has come.
    pub(super) fn take_made(&mut self, launch: &Launch) -> Option<Digest> {
        self.made.remove(&key(launch))
    }

    pub(super) fn has_script(&self, launch: &Launch, script: Digest) -> bool {
        self.scripts.get(&key(launch)) == Some(&script)
    }

    pub(super) fn forget(&mut self, is_gone: impl Fn(StepId) -> bool) {
        for known in [&mut self.made, &mut self.scripts] {
            known.retain(|(step, _), _| !is_gone(*step));
        }
    }
}

fn key(launch: &Launch) -> Key {
    (launch.step, launch.container.clone())
}
