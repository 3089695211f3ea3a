//! The resource limits of one call. Every number is summed over the store of the call.

use std::time::Duration;

/// The limits of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long the plugin's own code may run. It is counted in engine ticks ([`crate::TICK`]) at which the code was running, so
    /// that a fast policy does not fail on a machine under load. An endless loop ends after this time.
    pub guest_time: Duration,
    /// Wall-clock time of the call, including waits in host functions (a remote server, git).
    pub total_time: Duration,
    /// Bytes of all linear memories and tables together.
    pub memory_bytes: usize,
    /// Bytes that the plugin may pass to one host function or return from the call.
    pub hostcall_bytes: usize,
    /// Bytes of the converted result: texts, patches, plans.
    pub output_bytes: usize,
    /// Bytes of the input documents.
    pub input_bytes: usize,
    /// Open handles (secrets, requests, streams).
    pub handles: usize,
    /// Lines of the plugin's log that are kept. Further lines are dropped and counted; a flood of them ends the call.
    pub log_lines: usize,
    /// Bytes of the plugin's log that are kept.
    pub log_bytes: usize,
    /// HTTP requests that the plugin may send.
    pub http_requests: u32,
}

impl Limits {
    /// Limits of a policy: 100 ms, 32 MiB. A policy waits for nothing but CPU time. The total of ten seconds is enough for an
    /// expensive policy beside builds that use every core: it gets idle time for two seconds, then a fortieth of one core.
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

    /// Limits of a round of a step type: 250 ms, 10 s in total including reads of the commit's files, 64 MiB.
    #[must_use]
    pub fn step_type() -> Self {
        Self { guest_time: Duration::from_millis(250), memory_bytes: 64 << 20, ..Self::policy() }
    }

    /// Limits of one attempt of a notifier: 1 s, 10 s in total, 128 MiB, 20 requests.
    #[must_use]
    pub fn notifier() -> Self {
        Self { guest_time: Duration::from_secs(1), memory_bytes: 128 << 20, http_requests: 20, ..Self::policy() }
    }

    /// Limits of a converter: 250 ms, 64 MiB.
    #[must_use]
    pub fn converter() -> Self {
        Self { guest_time: Duration::from_millis(250), memory_bytes: 64 << 20, ..Self::policy() }
    }
}
