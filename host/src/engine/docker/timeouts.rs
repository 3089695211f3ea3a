//! How long the engine may take, call by call.

use std::time::Duration;

/// The times after which we stop waiting. Each is far above what a healthy engine needs: to run into one is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For calls that an engine answers from its own books.
    pub quick: Duration,
    /// For starting and removing containers, networks and volumes: they wait for kernel and disk.
    pub slow: Duration,
    /// For moving a workspace.
    pub transfer: Duration,
    /// A pull that says nothing for this long is stuck.
    pub pull_idle: Duration,
    /// A wait for a container's end is asked anew this often, in case its answer got lost.
    pub exit_poll: Duration,
    /// How long an engine may be away (a restart of it takes a second) before we give up on a container that may well run on.
    pub max_outage: Duration,
    /// From KILL to giving up.
    pub after_kill: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            quick: Duration::from_secs(30),
            slow: Duration::from_secs(120),
            transfer: Duration::from_secs(30 * 60),
            pull_idle: Duration::from_secs(5 * 60),
            exit_poll: Duration::from_secs(60),
            max_outage: Duration::from_secs(60),
            after_kill: Duration::from_secs(30),
        }
    }
}

/// What kind of call one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    Quick,
    Slow,
    Transfer,
}

impl Timeouts {
    pub(super) fn for_call(&self, wait: CallKind) -> Duration {
        match wait {
            CallKind::Quick => self.quick,
            CallKind::Slow => self.slow,
            CallKind::Transfer => self.transfer,
        }
    }
}
