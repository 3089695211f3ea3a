//! Exit codes and failures, the same for all commands.

use std::process::ExitCode;

use axum::http::StatusCode;

use crate::http_problem::Problem;

/// The exit codes. They are part of the public interface: their meaning does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command succeeded.
    Ok = 0,
    /// The build that the command shows, a check, or the server failed.
    Failed = 1,
    /// The command line or a request parameter is invalid.
    Usage = 2,
    /// The configuration or a pipeline file is invalid.
    Config = 3,
    /// The requested object does not exist.
    NotFound = 4,
    /// The request conflicts with the current state, or a policy denied it.
    Refused = 5,
    /// Authentication failed or the token lacks the right.
    Auth = 6,
    /// The server is unreachable, or Gogs or the store is unavailable.
    Unreachable = 7,
    /// An internal error.
    Bug = 70,
    /// The reader of the output closed it early. The number is that of a program that SIGPIPE ended (128 + 13).
    ClosedPipe = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed: the message for stderr, its remedy, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    pub help: Option<String>,
}

impl Failure {
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), help: None }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "error: {}", self.message)?;
        self.help.iter().try_for_each(|help| write!(f, "\n  help: {help}"))
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = match problem.status_code() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Auth,
            StatusCode::NOT_FOUND => Exit::NotFound,
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => Exit::Refused,
            StatusCode::BAD_REQUEST => Exit::Usage,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => Exit::Unreachable,
            _ => Exit::Bug,
        };
        let message = match &problem.request_id {
            Some(id) if exit == Exit::Bug => format!("{} (request {id})", problem.detail),
            _ => problem.detail.clone(),
        };
        Self { exit, message, help: problem.help }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::ClosedPipe } else { Exit::Bug };
        Self::new(exit, error.to_string())
    }
}
