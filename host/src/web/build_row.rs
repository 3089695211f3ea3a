//! A build in a list.

use beespace_core::build::Build;
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;

use super::icon::StatusLabel;
use crate::html::Html;
use crate::store::status_filter::StatusFilter;
use crate::urls::{self, Urls};
use crate::view::build_title::{branch_or_tag, build_name, build_title};
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
    /// `took 6.8 s`; empty before its start.
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
    pub fn new(urls: &Urls, build: &Build, now: Timestamp) -> Self {
        let shows_reason = !matches!(build.status, Status::Success | Status::Running);
        Self {
            status: StatusLabel(build.status),
            href: urls.build(build),
            title: build_title(build),
            name: build_name(build),
            branch: branch_or_tag(build),
            sha: build.short_sha().to_owned(),
            actor: build.event.sender.login.clone(),
            why: build.reason.as_ref().filter(|_| shows_reason).map(one_line_reason),
            took: duration_label(build, now),
            at: time::time_element(build.created_at, now),
        }
    }
}

/// A reason in one line: its first part is more specific than its summary. Further parts are counted.
fn one_line_reason(reason: &Reason) -> String {
    match reason.parts.as_slice() {
        [] => reason.message.clone(),
        [part] => part.to_string(),
        [part, more @ ..] => format!("{part}; and {} more", more.len()),
    }
}

/// How long a build took, in words: a number alone could be anything.
fn duration_label(build: &Build, now: Timestamp) -> String {
    let duration = time::elapsed(build.started_at, build.finished_at, now);
    match (duration.is_empty(), build.finished_at) {
        (true, _) => duration,
        (false, Some(_)) => format!("took {duration}"),
        (false, None) => format!("running for {duration}"),
    }
}

/// The status filters above a list of builds.
#[must_use]
pub fn filter_chips(base: &str, chosen: StatusFilter) -> Vec<FilterChip> {
    let one = StatusFilter::One;
    let choices = [
        ("All", StatusFilter::All),
        ("Running", one(Status::Running)),
        ("Pending", one(Status::Pending)),
        ("Blocked", one(Status::Blocked)),
        ("Failed", StatusFilter::Failed),
        ("Declined", one(Status::Declined)),
    ];
    let chip = |(label, filter): (&'static str, StatusFilter)| FilterChip {
        href: if filter == StatusFilter::All { base.to_owned() } else { format!("{base}?status={filter}") },
        label,
        current: filter == chosen,
    };
    choices.into_iter().map(chip).collect()
}

/// Link to the next page of a list.
#[must_use]
pub fn older_href(base: &str, chosen: StatusFilter, after: &str) -> String {
    let status = if chosen == StatusFilter::All { String::new() } else { format!("status={chosen}&") };
    format!("{base}?{status}after={}", urls::encode(after))
}

#[cfg(test)]
mod tests {
    use beespace_core::reason_code::ReasonCode;

    use super::*;

    #[test]
    fn a_reason_in_one_line_counts_what_it_leaves_out() {
        let part = |name: &str| Reason::new(ReasonCode::SecretMissing, format!("secret {name} is missing"));
        let reason = Reason::new(ReasonCode::SecretMissing, "2 secrets are missing");
        assert_eq!(one_line_reason(&reason), "2 secrets are missing");
        assert_eq!(one_line_reason(&reason.clone().part(part("a"))), "secret a is missing");
        assert_eq!(one_line_reason(&reason.part(part("a")).part(part("b"))), "secret a is missing; and 1 more");
    }
}
