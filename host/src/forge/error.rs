//! What went wrong with Gogs, and what to do.

use beespace_core::reason::Reason;

/// Why Gogs did not do it. No text holds the token: it travels in a header alone, and headers are never shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    /// No connection, no answer in time, or trouble of Gogs' own (5xx).
    #[error("Gogs cannot be reached: {0}")]
    Unreachable(String),
    /// 401.
    #[error("Gogs does not take the token")]
    Unauthorized,
    /// 403.
    #[error("the token's user may not {0}")]
    Forbidden(String),
    /// 404, which Gogs also says to those who may not know.
    #[error("Gogs shows no {0}")]
    NotFound(String),
    /// Another no, with what Gogs said.
    #[error("Gogs refused to {what}: {status} {message}")]
    Refused { what: String, status: u16, message: String },
    /// A redirect. The token is never sent after one.
    #[error("Gogs redirects to another address")]
    Redirected,
    /// A page in place of an answer of the API.
    #[error("the answer is no answer of Gogs' API: {0}")]
    UnexpectedResponse(String),
    /// The client could not be made: certificates that cannot be read.
    #[error("{0}")]
    Setup(String),
}

impl ForgeError {
    /// For people: what happened and what to do.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let (code, help) = match self {
            Self::Unreachable(_) => {
                ("waiting-for-gogs", "see that Gogs runs and that `gogs.url` is its address as seen from here")
            }
            Self::Unauthorized => (
                "token-refused",
                "make a new token in Gogs (Your Settings, Applications), put it into the file of `gogs.token_file`, and restart the server",
            ),
            Self::Forbidden(_) => ("token-rights", "make the token's user an administrator of the repository in Gogs"),
            Self::NotFound(_) => ("not-in-gogs", "look at the name; a private repository must be shared with the token's user"),
            Self::Refused { .. } => ("gogs-refused", "Gogs' log says more"),
            Self::Redirected => ("gogs-redirects", "make `gogs.url` the address that Gogs ends at (its EXTERNAL_URL)"),
            Self::UnexpectedResponse(_) => (
                "not-the-api",
                "see that `gogs.url` is Gogs' own address and that the token's user is not prohibited from signing in",
            ),
            Self::Setup(_) => ("gogs-setup", "look at `gogs.ca_file`"),
        };
        Reason::new(code, self.to_string()).help(help)
    }
}
