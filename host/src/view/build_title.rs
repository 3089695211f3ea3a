//! The title and the name of a build.

use beespace_core::build::Build;
use beespace_core::event::{EventKind, shorten};
use beespace_core::ids::Sha;
use beespace_core::sanitize;

/// The longest title, in characters. Lists have many titles.
const MAX_TITLE_CHARS: usize = 300;

/// The title of a release, `#7 TITLE` for a pull request, else the first line of the commit message; `push to BRANCH` while the
/// message is unknown.
#[must_use]
pub fn build_title(build: &Build) -> String {
    if let Some(pull) = build.event.pull_request() {
        return sanitize::line(&shorten(&format!("#{} {}", pull.number, pull.title.trim()), MAX_TITLE_CHARS));
    }
    let (git, delivered) = (build.head.as_ref().map(|head| head.message.as_str()), build.event.title());
    let message = if build.event.kind() == EventKind::Release { delivered.or(git) } else { git.or(delivered) };
    let line = message.and_then(|message| message.lines().map(str::trim).find(|line| !line.is_empty()));
    let shown = |line: &str| sanitize::line(&shorten(line, MAX_TITLE_CHARS));
    format!("{}{}", deployment_prefix(build), line.map_or_else(|| unknown_title(build), shown))
}

/// `production: ` before the title of a promotion, `rollback of production: ` before that of a rollback.
fn deployment_prefix(build: &Build) -> String {
    let Some(target) = build.event.target() else { return String::new() };
    let rollback = if build.event.kind() == EventKind::Rollback { "rollback of " } else { "" };
    format!("{rollback}{target}: ")
}

fn unknown_title(build: &Build) -> String {
    let (kind, revision) = (build.event.kind(), branch_or_tag(build));
    match kind {
        EventKind::Manual => format!("manual build of {revision}"),
        _ if build.event.branch().is_some() => format!("{kind} to {revision}"),
        _ => format!("{kind} {revision}"),
    }
}

/// The label of the actor: what the person did.
#[must_use]
pub fn actor_label(build: &Build) -> &'static str {
    match build.event.kind() {
        EventKind::Push | EventKind::Tag => "Pushed by",
        EventKind::Release => "Released by",
        EventKind::PullRequest | EventKind::PullRequestClosed => "Pull request by",
        EventKind::Cron | EventKind::Manual | EventKind::Promote | EventKind::Rollback => "Started by",
    }
}

/// The merge of a pull request, `95a2db4 into main at 1f7e2d9`; none if nothing was merged.
#[must_use]
pub fn merge(build: &Build) -> Option<String> {
    let (merge, pull) = (build.merge.as_ref()?, build.event.pull_request()?);
    let (commit, target) = (merge.commit.short(), merge.target.short());
    Some(sanitize::line(&format!("{commit} into {} at {target}", pull.target_branch)))
}

/// The branch and the commit that the pipeline files come from, `main at 95a2db4`; none if they are those of the build's commit.
#[must_use]
pub fn pipeline_origin(build: &Build) -> Option<String> {
    let origin = build.pipeline_from.as_ref()?;
    Some(sanitize::line(&format!("{} at {}", origin.branch, origin.commit.short())))
}

/// The commit message after its first line; empty if that is all of it, or while the message is unknown. All of it for a pull
/// request, which has a title of its own.
#[must_use]
pub fn message_body(build: &Build) -> String {
    let message = build.head.as_ref().map_or("", |head| head.message.trim());
    if build.event.pull_request().is_some() {
        return sanitize::lines(message);
    }
    message.split_once('\n').map_or_else(String::new, |(_, body)| sanitize::lines(body.trim()))
}

/// The branch or the tag; `topic → main` for a pull request; the full ref of any other event, shortened if it is a commit.
#[must_use]
pub fn branch_or_tag(build: &Build) -> String {
    if let Some(pull) = build.event.pull_request() {
        let source = pull.source_label(build.event.repository.id);
        return sanitize::line(&format!("{source} → {}", pull.target_branch));
    }
    let (git_ref, commit) = (build.event.git_ref(), build.event.sha());
    let full = || commit.filter(|sha| sha.as_str() == git_ref).map_or(git_ref.as_str(), Sha::short);
    sanitize::line(build.event.branch().or(build.event.tag()).unwrap_or_else(full))
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
