//! Errors that only this engine has, with their code and remedy.

use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use ipnet::Ipv4Net;

use crate::engine::EngineError;

/// The engine refused to import the image of pause containers, without which no stage can start.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the engine refused to import the image of its pause containers: {message}")]
pub(super) struct PauseImageRefused {
    pub(super) message: String,
}

impl From<PauseImageRefused> for EngineError {
    fn from(error: PauseImageRefused) -> Self {
        let help = "find the cause in the engine's own log; a rule of the engine or of a proxy in front of it may forbid imports \
                    (`POST /images/create`)";
        // A disk can be emptied; every other refusal lasts.
        let is_transient = error.message.contains("no space left");
        let reason = Reason::new(ReasonCode::EnginePauseImageRefused, error.to_string()).help(help);
        Self::Specific { reason: Box::new(reason), is_transient }
    }
}

/// Why a stage's network is not usable.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkError {
    #[error("{pool} has no free addresses for another network: {message}")]
    NoSubnetLeft { pool: Ipv4Net, message: String },
    /// The pause container could not apply an isolation rule; the message is its output.
    #[error("cannot install network isolation rules: {message}")]
    IsolationFailed { message: String },
    /// The engine went down, or the connection to the pause container broke.
    #[error("the stage's pause container did not become ready")]
    PauseNotReady,
}

impl NetworkError {
    fn reason(&self) -> Reason {
        let (code, help) = match self {
            Self::NoSubnetLeft { .. } => (
                ReasonCode::EngineNetworksExhausted,
                "set `[engine] network_pool` in beespace.toml to addresses that nothing else uses, or remove unused networks \
                 (`docker network prune`)",
            ),
            Self::IsolationFailed { message } if message.contains("metadata") => (
                ReasonCode::EngineIsolationFailed,
                "the rule needs Linux 4.17 or newer; if no cloud credentials are in reach, set `[engine] metadata_access = true`",
            ),
            Self::IsolationFailed { .. } => (
                ReasonCode::EngineIsolationFailed,
                "the engine's kernel needs policy routing (`CONFIG_IP_MULTIPLE_TABLES`), and the pause container needs the \
                 capability to set it (NET_ADMIN)",
            ),
            Self::PauseNotReady => (ReasonCode::EnginePauseNotReady, "see the engine's own log"),
        };
        Reason::new(code, self.to_string()).help(help)
    }

    /// Whether a later attempt can succeed: a stage that ends frees its addresses.
    fn is_transient(&self) -> bool {
        match self {
            Self::NoSubnetLeft { .. } | Self::PauseNotReady => true,
            Self::IsolationFailed { .. } => false,
        }
    }
}

impl From<NetworkError> for EngineError {
    fn from(error: NetworkError) -> Self {
        Self::Specific { reason: Box::new(error.reason()), is_transient: error.is_transient() }
    }
}
