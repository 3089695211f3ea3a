//! How the program ends: one table for all commands.

use std::process::ExitCode;

use axum::http::StatusCode;

use crate::problem::Problem;

/// The exit codes. They are part of the interface and do not change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// A build that was asked about, or a check, did not succeed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration or a pipeline file is wrong.
    Config = 3,
    /// There is no such thing.
    NotFound = 4,
    /// It does not fit what stands there now, or a policy says no.
    Refused = 5,
    /// The server does not know who you are.
    Auth = 6,
    /// The server does not answer.
    Unreachable = 7,
    /// Our own trouble.
    Bug = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do it: the text for stderr, and the code.
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
        Self::new(Exit::Bug, error.to_string())
    }
}
