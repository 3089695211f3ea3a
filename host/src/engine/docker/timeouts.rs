//! The time limits of calls to the engine.

use std::time::Duration;

/// Time limits. Each is far above what a healthy engine needs, so reaching one means that something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For calls that read the engine's own records.
    pub quick: Duration,
    /// For starting and removing containers, networks and volumes, which wait for the kernel and the disk.
    pub slow: Duration,
    /// For the transfer of a workspace.
    pub transfer: Duration,
    /// A pull that reports nothing for this long has stalled.
    pub pull_idle: Duration,
    /// Interval at which a wait for a container's exit is repeated, in case the response was lost.
    pub exit_poll: Duration,
    /// How long an engine may be down (a restart takes a second) before we give up on a container that may still be running.
    pub max_outage: Duration,
    /// From KILL until a container that still runs counts as unkillable.
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

/// The kind of a call, which selects its time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    Quick,
    Slow,
    Transfer,
}

impl Timeouts {
    pub(super) fn for_call(&self, kind: CallKind) -> Duration {
        match kind {
            CallKind::Quick => self.quick,
            CallKind::Slow => self.slow,
            CallKind::Transfer => self.transfer,
        }
    }
}
