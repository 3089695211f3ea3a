//! One build in a list.

use beespace_core::build::Build;
use beespace_core::event::Cause;
use beespace_core::reason::Reason;
use beespace_core::sanitize;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;

use super::html::{self, Html, StatusLabel};
use crate::urls::{self, BuildKey};

/// A build as lists show it.
#[derive(Debug, Clone)]
pub struct BuildRow {
    pub status: StatusLabel,
    pub href: String,
    pub title: String,
    pub place: String,
    pub branch: String,
    pub sha: String,
    pub actor: String,
    pub why: Option<String>,
    pub took: String,
    pub at: Html,
}

/// A choice above a list.
#[derive(Debug, Clone)]
pub struct FilterChip {
    pub href: String,
    pub label: &'static str,
    pub current: bool,
}

/// The first line of the commit's message, where anybody knows it.
#[must_use]
pub fn build_title(build: &Build) -> String {
    let delivered = match &build.event.cause {
        Cause::Push(push) => push.head_commit().map(|commit| commit.message.as_str()),
    };
    let message = build.head.as_ref().map(|head| head.message.as_str()).or(delivered);
    let line = message.and_then(|message| message.lines().map(str::trim).find(|line| !line.is_empty()));
    line.map_or_else(|| format!("{} to {}", build.event.kind(), branch_or_ref(build)), sanitize::line)
}

/// The branch, or the whole ref where there is none.
#[must_use]
pub fn branch_or_ref(build: &Build) -> String {
    build.event.branch().map_or_else(|| sanitize::line(&build.event.git_ref()), sanitize::line)
}

/// `acme/app #12`; without a number while nobody knows whether there is a pipeline file.
#[must_use]
pub fn build_name(build: &Build) -> String {
    let name = &build.event.repository.name;
    build.number.map_or_else(|| name.to_string(), |number| format!("{name} #{number}"))
}

/// The build's number, where it has one by now.
#[must_use]
pub fn number_label(build: &Build) -> String {
    build.number.map_or_else(|| "no number yet".to_owned(), |number| number.to_string())
}

/// The build's page.
#[must_use]
pub fn build_href(build: &Build) -> String {
    urls::build(&build.event.repository.name, BuildKey::of(build))
}

impl BuildRow {
    #[must_use]
    pub fn new(build: &Build, now: Timestamp) -> Self {
        let tells_why = !matches!(build.status, Status::Success | Status::Running);
        Self {
            status: StatusLabel(build.status),
            href: build_href(build),
            title: build_title(build),
            place: build_name(build),
            branch: branch_or_ref(build),
            sha: build.event.sha().short().to_owned(),
            actor: build.event.sender.login.clone(),
            why: build.reason.as_ref().filter(|_| tells_why).map(one_line_reason),
            took: html::elapsed(build.started_at, build.finished_at, now),
            at: html::time(build.created_at, now),
        }
    }
}

/// A reason in one line: its first part says more than what sums the parts up.
fn one_line_reason(reason: &Reason) -> String {
    reason.parts.first().map_or_else(|| reason.message.clone(), ToString::to_string)
}

/// The choices above a list of builds.
#[must_use]
pub fn filter_chips(base: &str, chosen: Option<Status>) -> Vec<FilterChip> {
    let choices = [
        ("All", None),
        ("Running", Some(Status::Running)),
        ("Waiting", Some(Status::Pending)),
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

/// Where the next page of a list is.
#[must_use]
pub fn older_href(base: &str, chosen: Option<Status>, after: &str) -> String {
    let status = chosen.map_or_else(String::new, |status| format!("status={status}&"));
    format!("{base}?{status}after={}", urls::encode(after))
}
