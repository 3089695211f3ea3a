//! What was done for containers ahead of their turn. Known to this process alone: another one does it anew.

use std::collections::HashMap;

use beespace_core::digest::Digest;
use beespace_core::ids::StepId;

use super::deferred_start::DeferredStart;
use crate::engine::Launch;

/// A container: its step, and its id in the step's plan.
type Key = (StepId, String);

#[derive(Debug, Default)]
pub(super) struct Precreated {
    containers: HashMap<Key, Made>,
    /// Scripts that lie with those of their stage.
    scripts: HashMap<Key, Digest>,
}

/// A container whose turn has not come.
#[derive(Debug)]
pub(super) struct Made {
    /// What was asked for.
    pub(super) order: Digest,
    /// The line to it, where it has started.
    pub(super) held: Option<DeferredStart>,
}

impl Precreated {
    pub(super) fn note_made(&mut self, launch: &Launch, made: Made) {
        self.containers.insert(key(launch), made);
    }

    pub(super) fn is_made(&self, launch: &Launch) -> bool {
        self.containers.contains_key(&key(launch))
    }

    pub(super) fn note_script(&mut self, launch: &Launch, script: Digest) {
        self.scripts.insert(key(launch), script);
    }

    /// The container, where it was made. Given once: its turn has come.
    pub(super) fn take_container(&mut self, launch: &Launch) -> Option<Made> {
        self.containers.remove(&key(launch))
    }

    pub(super) fn has_script(&self, launch: &Launch, script: Digest) -> bool {
        self.scripts.get(&key(launch)) == Some(&script)
    }

    pub(super) fn forget(&mut self, is_gone: impl Fn(StepId) -> bool) {
        self.containers.retain(|(step, _), _| !is_gone(*step));
        self.scripts.retain(|(step, _), _| !is_gone(*step));
    }
}

fn key(launch: &Launch) -> Key {
    (launch.step, launch.container.clone())
}
