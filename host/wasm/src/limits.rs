//! What one call of a plugin may use. Every number is summed over the call's store.

use std::time::Duration;

/// Budgets of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long the plugin's own code may run. Counted in ticks of the engine ([`crate::TICK`]) in which it really ran, so that
    /// a machine under load does not turn a quick policy into a denial; an endless loop ends after this much time.
    pub guest_time: Duration,
    /// From start to end by the clock, waiting for host functions (a remote server, git) included.
    pub total_time: Duration,
    /// All linear memories and tables together, in bytes.
    pub memory_bytes: usize,
    /// Bytes the plugin may pass to the host in one call of a host function, or answer with.
    pub hostcall_bytes: usize,
    /// Bytes of an answer after it was read: texts, patches, plans.
    pub output_bytes: usize,
    /// Bytes of the documents that go in.
    pub input_bytes: usize,
    /// Open handles (secrets, requests, streams).
    pub handles: usize,
    /// Lines kept of its log; what comes after them is counted and dropped, and a flood ends the call.
    pub log_lines: usize,
    /// Bytes kept of its log.
    pub log_bytes: usize,
    /// HTTP requests it may send.
    pub http_requests: u32,
}

impl Limits {
    /// For a policy: 100 ms, 32 MiB. It has nothing to wait for but the machine: ten seconds see a heavy one through beside builds that use every
    /// core: for two of them it gets what is left over, then a fortieth of one.
    #[must_use]
    pub fn policy() -> Self {
        Self {
            guest_time: Duration::from_millis(100),
            total_time: Duration::from_secs(10),
            memory_bytes: 32 << 20,
            hostcall_bytes: 4 << 20,
            output_bytes: 1 << 20,
            input_bytes: 4 << 20,
            handles: 1_000,
            log_lines: 256,
            log_bytes: 64 << 10,
            http_requests: 0,
        }
    }

    /// For a round of a step type: 250 ms of its own, 10 s with reading the commit's files, 64 MiB.
    #[must_use]
    pub fn step_type() -> Self {
        Self { guest_time: Duration::from_millis(250), memory_bytes: 64 << 20, ..Self::policy() }
    }

    /// For one attempt of a notifier: 10 s, of which 1 s its own, 128 MiB, 20 requests.
    #[must_use]
    pub fn notifier() -> Self {
        Self { guest_time: Duration::from_secs(1), memory_bytes: 128 << 20, http_requests: 20, ..Self::policy() }
    }

    /// For a converter: 250 ms, 64 MiB.
    #[must_use]
    pub fn converter() -> Self {
        Self { guest_time: Duration::from_millis(250), memory_bytes: 64 << 20, ..Self::policy() }
    }
}
