//! A reason, as pages show it: what happened, why part by part, what to do.

use beespace_core::reason::Reason;
use beespace_core::status::Status;

use super::html::{Html, icon};

/// Something a person must read before anything else on the page.
#[derive(Debug, Clone)]
pub struct Callout {
    /// Colour and icon.
    pub status: &'static str,
    pub icon: Html,
    pub title: String,
    pub message: String,
    pub parts: Vec<String>,
    pub help: Option<String>,
}

impl Callout {
    /// `description`: who has this status, in words (`This build`, `Stage test`).
    #[must_use]
    pub fn new(what: &str, status: Status, reason: &Reason) -> Self {
        let says = match status {
            Status::Pending => "waits",
            Status::Blocked => "waits for a person's word",
            Status::Running => "runs",
            Status::Success => "succeeded",
            Status::Failure => "failed",
            Status::Declined => "was declined",
            Status::Error => "could not be run",
            Status::Killed => "was stopped",
            Status::Skipped => "was skipped",
        };
        Self {
            status: status.as_str(),
            icon: icon(status.as_str()),
            title: format!("{what} {says}"),
            message: reason.message.clone(),
            parts: reason.parts.iter().map(ToString::to_string).collect(),
            help: reason.help.clone(),
        }
    }
}
