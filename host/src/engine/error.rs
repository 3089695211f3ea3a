//! Failures of an engine.

use std::time::Duration;

use beespace_core::error_cause::colon;
use beespace_core::ids::{StageId, StepId};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;

/// A failure of the engine; never something that a user's program did.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the engine at {host} does not respond: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("the engine did not respond within {} s ({call})", after.as_secs())]
    TimedOut { call: &'static str, after: Duration },
    #[error("the engine refused a request ({call}, status {status}){}", colon(message))]
    Refused { call: &'static str, status: u16, message: String },
    #[error("the engine sent an invalid response ({call}){}", colon(cause))]
    InvalidResponse { call: &'static str, cause: String },
    #[error("the engine has version {api} of its API; at least version {wanted} is required")]
    TooOld { api: String, wanted: &'static str },
    #[error("the engine no longer supports this version of its API{}", colon(message))]
    TooNew { message: String },
    #[error("the program at {host} is not an engine: it does not know the request for its version (status 404)")]
    NotAnEngine { host: String },
    #[error("{host:?} is not an address of an engine")]
    InvalidAddress { host: String },
    #[error("{0:?} cannot be part of a container's name: use 1 to 32 lower-case letters and digits")]
    InvalidInstance(String),
    #[error("the sources could not be read: {0}")]
    SourcesUnreadable(#[from] std::io::Error),
    #[error("stage {0} is not open")]
    NotOpen(StageId),
    #[error("the plan of step {step} has no container {container:?}")]
    NoSuchContainer { step: StepId, container: String },
    #[error("container {container} still runs {} s after it was killed", after.as_secs())]
    Unkillable { container: String, after: Duration },
    /// An error that only one kind of engine has, with its own code and remedy.
    #[error("{}", reason.message)]
    Specific {
        reason: Box<Reason>,
        /// A later attempt can succeed.
        is_transient: bool,
    },
}

impl EngineError {
    /// The error as a reason for people: a code to search for, and a remedy.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let (code, help) = match self {
            Self::Unreachable { .. } => (
                ReasonCode::EngineUnreachable,
                "check that the engine runs and that the server's user may open its socket; see `[engine] host` in beespace.toml",
            ),
            Self::TimedOut { .. } => (
                ReasonCode::EngineSlow,
                "see the engine's own log, and restart the engine if it hangs; running steps survive this only with \
                 `live-restore`",
            ),
            Self::Refused { .. } => (ReasonCode::EngineRefused, "see the engine's own log"),
            Self::InvalidResponse { .. } | Self::NotAnEngine { .. } => {
                (ReasonCode::EngineInvalidResponse, "check that the program at `[engine] host` in beespace.toml is an engine")
            }
            Self::TooOld { .. } => (ReasonCode::EngineTooOld, "install a newer version of the engine"),
            Self::TooNew { .. } => (ReasonCode::EngineTooNew, "install a newer Beespace, or an older version of the engine"),
            Self::InvalidAddress { .. } => (
                ReasonCode::EngineAddress,
                "set `[engine] host` in beespace.toml to `unix:///var/run/docker.sock` or `tcp://HOST:PORT`",
            ),
            Self::InvalidInstance(_) => (
                ReasonCode::EngineInstance,
                "remove the instance's id from the store, but only if none of its containers still runs",
            ),
            Self::SourcesUnreadable(_) => {
                (ReasonCode::SourcesUnreadable, "check whether the disk of `data.dir` is full or failing")
            }
            Self::NotOpen(_) | Self::NoSuchContainer { .. } => {
                (ReasonCode::EngineOrder, "this is an error in the server: please report it")
            }
            Self::Unkillable { .. } => (ReasonCode::EngineUnkillable, "restart the engine; the step counts as lost"),
            Self::Specific { reason, .. } => return Reason::clone(reason),
        };
        Reason::new(code, self.to_string()).help(help)
    }

    /// Whether a later attempt can succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Refused { status: 500.., .. } => true,
            Self::Specific { is_transient, .. } => *is_transient,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_with_a_colon_if_the_engine_explains_nothing() {
        let nothing = String::new;
        for error in [
            EngineError::Refused { call: "version", status: 404, message: nothing() },
            EngineError::InvalidResponse { call: "info", cause: nothing() },
            EngineError::TooNew { message: " ".to_owned() },
        ] {
            let text = error.to_string();
            assert!(text.ends_with(|end: char| end.is_alphanumeric() || end == ')'), "{text:?}");
        }
        let explained = EngineError::Refused { call: "pull", status: 500, message: "no space".to_owned() };
        assert_eq!(explained.to_string(), "the engine refused a request (pull, status 500): no space");
    }
}
