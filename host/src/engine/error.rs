//! What goes wrong between us and an engine.

use std::time::Duration;

use beespace_core::ids::{StageId, StepId};
use beespace_core::reason::Reason;
use ipnet::Ipv4Net;

/// The engine's own trouble; never something a user's program did.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the engine at {host} does not answer: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("the engine did not answer within {} s ({call})", after.as_secs())]
    TimedOut { call: &'static str, after: Duration },
    #[error("the engine refused ({call}, {status}): {message}")]
    Refused { call: &'static str, status: u16, message: String },
    #[error("the engine gave an answer that makes no sense ({call}): {cause}")]
    InvalidResponse { call: &'static str, cause: String },
    #[error("the engine speaks version {api} of its API; at least {wanted} is needed")]
    TooOld { api: String, wanted: &'static str },
    #[error("the engine does not speak with us any more: {message}")]
    TooNew { message: String },
    #[error("{host:?} is no address of an engine")]
    InvalidAddress { host: String },
    #[error("{0:?} cannot be part of a container's name: expected 1 to 32 lower-case letters and digits")]
    InvalidInstance(String),
    #[error("the sources could not be read: {0}")]
    SourcesUnreadable(#[from] std::io::Error),
    #[error("stage {0} is not open")]
    NotOpen(StageId),
    #[error("the plan of step {step} has no container {container:?}")]
    NoSuchContainer { step: StepId, container: String },
    #[error("no addresses of {pool} are left for another network: {said}")]
    NoSubnetLeft { pool: Ipv4Net, said: String },
    #[error("the network of a stage cannot be closed to what must not be reached from it: {said}")]
    IsolationFailed { said: String },
    #[error("the container that holds the network of a stage does not say that it does")]
    PauseNotReady,
    #[error("container {container} still runs {} s after it was killed", after.as_secs())]
    Unkillable { container: String, after: Duration },
}

impl EngineError {
    /// The same for people: a code to search for, and what to do.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let (code, help) = match self {
            Self::Unreachable { .. } => (
                "engine-unreachable",
                "is it running, and may the user of the server open its socket? See `[engine] host` in beespace.toml",
            ),
            Self::TimedOut { .. } => (
                "engine-slow",
                "look at the engine's own log, and restart it where it hangs; running steps outlive that only where it has `live-restore`",
            ),
            Self::Refused { .. } => ("engine-refused", "look at the engine's own log"),
            Self::PauseNotReady => ("engine-network-not-held", "look at the engine's own log"),
            Self::InvalidResponse { .. } => ("engine-nonsense", "is something else listening at `[engine] host`?"),
            Self::TooOld { .. } => ("engine-too-old", "install Docker 20.10 or newer"),
            Self::TooNew { .. } => ("engine-too-new", "install a newer Beespace, or an engine that is not so new"),
            Self::InvalidAddress { .. } => {
                ("engine-address", "write `unix:///var/run/docker.sock` or `tcp://HOST:PORT` in `[engine] host` of beespace.toml")
            }
            Self::InvalidInstance(_) => {
                ("engine-instance", "remove the instance's id from the store only if nothing of it runs any more")
            }
            Self::SourcesUnreadable(_) => ("sources-unreadable", "is the disk of `data.dir` full or failing?"),
            Self::NotOpen(_) | Self::NoSuchContainer { .. } => {
                ("engine-order", "this is a mistake of the server: please report it")
            }
            Self::NoSubnetLeft { .. } => (
                "engine-networks",
                "set `[engine] network_pool` in beespace.toml to addresses that nobody else has, or remove networks that nobody uses \
                 (`docker network prune`)",
            ),
            Self::IsolationFailed { said } if said.contains("metadata") => (
                "engine-network-open",
                "a kernel takes it since 4.17; where no cloud's credentials are in reach, set `[engine] metadata_access = true`",
            ),
            Self::IsolationFailed { .. } => (
                "engine-network-open",
                "the engine's kernel needs rules for routing (`CONFIG_IP_MULTIPLE_TABLES`), and the container that holds the network the \
                 right to set them (NET_ADMIN)",
            ),
            Self::Unkillable { .. } => ("engine-unkillable", "restart the engine; the step counts as lost"),
        };
        Reason::new(code, self.to_string()).help(help)
    }

    /// Whether trying again later can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::TimedOut { .. }
                | Self::NoSubnetLeft { .. }
                | Self::PauseNotReady
                | Self::Refused { status: 500.., .. }
        )
    }
}
