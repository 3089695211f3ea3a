//! How long the engine may take, call by call.

use std::time::Duration;

/// The times after which we stop waiting. Each is far above what a healthy engine needs: to run into one is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// For calls that an engine answers from its own books.
    pub quick: Duration,
    /// For starting and removing containers, networks and volumes: they wait for kernel and disk.
    pub slow: Duration,
    /// For moving a workspace.
    pub transfer: Duration,
    /// A pull that says nothing for this long is stuck.
    pub pull: Duration,
    /// A wait for a container's end is asked anew this often, in case its answer got lost.
    pub ask: Duration,
    /// How long an engine may be away (a restart of it takes a second) before we give up on a container that may well run on.
    pub away: Duration,
    /// From KILL to giving up.
    pub killed: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            quick: Duration::from_secs(30),
            slow: Duration::from_secs(120),
            transfer: Duration::from_secs(30 * 60),
            pull: Duration::from_secs(5 * 60),
            ask: Duration::from_secs(60),
            away: Duration::from_secs(60),
            killed: Duration::from_secs(30),
        }
    }
}

/// What kind of call one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Quick,
    Slow,
    Transfer,
}

impl Waits {
    pub(super) fn of(&self, wait: Wait) -> Duration {
        match wait {
            Wait::Quick => self.quick,
            Wait::Slow => self.slow,
            Wait::Transfer => self.transfer,
        }
    }
}
