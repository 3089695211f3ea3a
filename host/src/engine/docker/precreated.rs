//! The index of containers that were created before their step began. It is kept in memory: another process creates them again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use beespace_core::digest::Digest;
use beespace_core::ids::StepId;

use super::deferred_start::DeferredStart;
use crate::engine::container_io::Launch;

/// A container: its step, and its id in the step's plan.
type Key = (StepId, String);

#[derive(Debug, Default)]
pub(super) struct Precreated(Mutex<Index>);

#[derive(Debug, Default)]
struct Index {
    containers: HashMap<Key, PrecreatedContainer>,
    /// Scripts that were uploaded with the sources of their stage.
    scripts: HashMap<Key, Digest>,
}

/// A container whose program has not begun.
#[derive(Debug)]
pub(super) struct PrecreatedContainer {
    /// The digest of its specification.
    pub(super) spec: Digest,
    /// The connection to it, if it was started early.
    pub(super) start: Option<DeferredStart>,
}

impl Precreated {
    fn index(&self) -> MutexGuard<'_, Index> {
        // No operation leaves the index inconsistent, so a poisoned lock is harmless.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_container(&self, launch: &Launch, container: PrecreatedContainer) {
        self.index().containers.insert(key(launch), container);
    }

    pub(super) fn has_container(&self, launch: &Launch) -> bool {
        self.index().containers.contains_key(&key(launch))
    }

    pub(super) fn add_script(&self, launch: &Launch, script: Digest) {
        self.index().scripts.insert(key(launch), script);
    }

    /// Removes the container from the index and returns it: its step begins.
    pub(super) fn take_container(&self, launch: &Launch) -> Option<PrecreatedContainer> {
        self.index().containers.remove(&key(launch))
    }

    pub(super) fn has_script(&self, launch: &Launch, script: Digest) -> bool {
        self.index().scripts.get(&key(launch)) == Some(&script)
    }

    pub(super) fn forget(&self, is_gone: impl Fn(StepId) -> bool) {
        let mut index = self.index();
        index.containers.retain(|(step, _), _| !is_gone(*step));
        index.scripts.retain(|(step, _), _| !is_gone(*step));
    }
}

fn key(launch: &Launch) -> Key {
    (launch.step, launch.container.clone())
}
