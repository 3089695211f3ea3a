//! A highlighted message on a page: the fact, its cause and the remedy.

use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;

use super::icon::icon;
use crate::html::Html;

/// A message that a person should read before the rest of the page.
#[derive(Debug, Clone)]
pub struct Callout {
    /// Name of the status, which selects colour and icon.
    pub status: &'static str,
    pub icon: Html,
    pub title: String,
    pub message: String,
    pub parts: Vec<String>,
    pub help: Option<String>,
}

impl Callout {
    /// `what` has this status, for example `This build` or `Step "test"`.
    #[must_use]
    pub fn new(what: &str, status: Status, reason: &Reason) -> Self {
        let predicate = match status {
            Status::Pending => "is waiting",
            Status::Blocked => "is waiting for approval",
            Status::Running => "is running",
            Status::Success => "succeeded",
            Status::Failure => "failed",
            Status::Declined => "was declined",
            Status::Error => "could not be run",
            Status::Killed if reason.code == ReasonCode::Cancelled => "was cancelled",
            // A timeout.
            Status::Killed => "was killed",
            Status::Skipped => "was skipped",
        };
        Self {
            status: status.as_str(),
            icon: icon(status.as_str()),
            title: format!("{what} {predicate}"),
            message: reason.message.clone(),
            parts: reason.parts.iter().map(ToString::to_string).collect(),
            help: reason.help.clone(),
        }
    }
}
