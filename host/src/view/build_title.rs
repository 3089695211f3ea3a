//! The title and the name of a build.

use beespace_core::build::Build;
use beespace_core::event::{EventKind, shorten};
use beespace_core::sanitize;

/// The longest title, in characters. Lists have many titles.
const MAX_TITLE_CHARS: usize = 300;

/// The title of a release, else the first line of the commit message; `push to BRANCH` while the message is unknown.
#[must_use]
pub fn build_title(build: &Build) -> String {
    let (git, delivered) = (build.head.as_ref().map(|head| head.message.as_str()), build.event.title());
    let message = if build.event.kind() == EventKind::Release { delivered.or(git) } else { git.or(delivered) };
    let line = message.and_then(|message| message.lines().map(str::trim).find(|line| !line.is_empty()));
    let shown = |line: &str| sanitize::line(&shorten(line, MAX_TITLE_CHARS));
    line.map_or_else(|| unknown_title(build), shown)
}

fn unknown_title(build: &Build) -> String {
    let between = if build.event.branch().is_some() { "to " } else { "" };
    format!("{} {between}{}", build.event.kind(), branch_or_tag(build))
}

/// The commit message after its first line; empty if that is all of it, or while the message is unknown.
#[must_use]
pub fn message_body(build: &Build) -> String {
    let message = build.head.as_ref().map_or("", |head| head.message.trim());
    message.split_once('\n').map_or_else(String::new, |(_, body)| sanitize::lines(body.trim()))
}

/// The branch or the tag; the full ref of an event with neither.
#[must_use]
pub fn branch_or_tag(build: &Build) -> String {
    let name = build.event.branch().or(build.event.tag());
    name.map_or_else(|| sanitize::line(&build.event.git_ref()), sanitize::line)
}

/// `acme/app #12`. A build has no number until its pipeline file has been found.
#[must_use]
pub fn build_name(build: &Build) -> String {
    build.label()
}

/// The build's number, or `no number yet` until its pipeline file has been found.
#[must_use]
pub fn number_label(build: &Build) -> String {
    build.number.map_or_else(|| "no number yet".to_owned(), |number| number.to_string())
}
