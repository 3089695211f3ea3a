//! A build in a list.

use beespace_core::build::Build;
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;

use super::icon::StatusLabel;
use crate::html::Html;
use crate::urls;
use crate::view::build_title::{branch_or_ref, build_href, build_name, build_title};
use crate::view::time;

/// A build in a list.
#[derive(Debug, Clone)]
pub struct BuildRow {
    pub status: StatusLabel,
    pub href: String,
    pub title: String,
    /// `acme/app #12`.
    pub name: String,
    pub branch: String,
    pub sha: String,
    pub actor: String,
    pub why: Option<String>,
    pub took: String,
    pub at: Html,
}

/// A filter link above a list.
#[derive(Debug, Clone)]
pub struct FilterChip {
    pub href: String,
    pub label: &'static str,
    pub current: bool,
}

impl BuildRow {
    #[must_use]
    pub fn new(build: &Build, now: Timestamp) -> Self {
        let shows_reason = !matches!(build.status, Status::Success | Status::Running);
        Self {
            status: StatusLabel(build.status),
            href: build_href(build),
            title: build_title(build),
            name: build_name(build),
            branch: branch_or_ref(build),
            sha: build.event.sha().short().to_owned(),
            actor: build.event.sender.login.clone(),
            why: build.reason.as_ref().filter(|_| shows_reason).map(one_line_reason),
            took: time::elapsed(build.started_at, build.finished_at, now),
            at: time::time_element(build.created_at, now),
        }
    }
}

/// A reason in one line: its first part is more specific than its summary.
fn one_line_reason(reason: &Reason) -> String {
    reason.parts.first().map_or_else(|| reason.message.clone(), ToString::to_string)
}

/// The status filters above a list of builds.
#[must_use]
pub fn filter_chips(base: &str, chosen: Option<Status>) -> Vec<FilterChip> {
    let choices = [
        ("All", None),
        ("Running", Some(Status::Running)),
        ("Pending", Some(Status::Pending)),
        ("Blocked", Some(Status::Blocked)),
        ("Failed", Some(Status::Failure)),
        ("Declined", Some(Status::Declined)),
    ];
    let chip = |(label, status): (&'static str, Option<Status>)| FilterChip {
        href: status.map_or_else(|| base.to_owned(), |status| format!("{base}?status={status}")),
        label,
        current: status == chosen,
    };
    choices.into_iter().map(chip).collect()
}

/// Link to the next page of a list.
#[must_use]
pub fn older_href(base: &str, chosen: Option<Status>, after: &str) -> String {
    let status = chosen.map_or_else(String::new, |status| format!("status={status}&"));
    format!("{base}?{status}after={}", urls::encode(after))
}
