//! Errors of requests to Gogs, each with its remedy.

use beespace_core::error_cause::colon;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;

/// Why a request to Gogs failed. No text contains the token: it is only sent in a header, and headers are never shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    /// No connection, a timeout, or an internal error of Gogs (5xx).
    #[error("Gogs cannot be reached at {url}: {cause}")]
    Unreachable { url: String, cause: String },
    /// 401.
    #[error("Gogs rejected the token")]
    Unauthorized,
    /// 403.
    #[error("the token's user is not allowed to {0}")]
    Forbidden(String),
    /// 404. Gogs also returns it if the user has no right to see the subject.
    #[error("Gogs has no {0} that the token's user can see")]
    NotFound(String),
    /// Another error status, with the message of Gogs, which may be empty.
    #[error("Gogs refused to {what}, with status {status}{}", colon(message))]
    Refused { what: String, status: u16, message: String },
    /// A redirect. The token is never sent after one.
    #[error("Gogs redirects to another address")]
    Redirected,
    /// A page, or JSON of another shape, instead of a response of the API.
    #[error("the response at {url} is not from the API of Gogs: {cause}")]
    UnexpectedResponse { url: String, cause: String },
    /// The client could not be created, for example because the certificates cannot be read.
    #[error("{0}")]
    Setup(String),
}

impl ForgeError {
    /// The error with its remedy, for people.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let (code, help) = match self {
            Self::Unreachable { .. } => {
                (ReasonCode::WaitingForGogs, "check that Gogs is running and that this server can reach it at `gogs.url`")
            }
            Self::Unauthorized => (
                ReasonCode::TokenRefused,
                "create a new token in Gogs (Your Settings, Applications), write it to the file that `gogs.token_file` names, \
                 and restart the server",
            ),
            Self::Forbidden(_) => (ReasonCode::TokenRights, "make the token's user an administrator of the repository in Gogs"),
            Self::NotFound(_) => {
                (ReasonCode::NotInGogs, "check the name; a private repository must be shared with the token's user")
            }
            Self::Refused { .. } => (ReasonCode::GogsRefused, "see the log of Gogs"),
            Self::Redirected => (ReasonCode::GogsRedirects, "set `gogs.url` to the final address of Gogs (its EXTERNAL_URL)"),
            Self::UnexpectedResponse { .. } => (
                ReasonCode::NotTheApi,
                "check that `gogs.url` is the URL of Gogs itself and that the token's user is not prohibited from signing in",
            ),
            Self::Setup(_) => (ReasonCode::GogsSetup, "check `gogs.ca_file`"),
        };
        Reason::new(code, self.to_string()).help(help)
    }
}
