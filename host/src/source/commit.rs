//! The commit of a build: fetched into the mirror, and described.

use beespace_core::build::{Base, Build, Head};
use beespace_core::event::Cause;
use beespace_core::ids::{BuildId, Sha};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_core::trigger;
use tokio::sync::OwnedRwLockReadGuard;
use url::Url;

use super::diff::PushRange;
use super::fetch::ForgeCredentials;
use super::pinned_commits::Lookup;
use super::{Mirror, SourceError};

/// A commit in the mirror. Its objects stay as long as this value, and longer if it is pinned.
#[derive(Debug)]
pub struct FetchedCommit {
    pub head: Head,
    pub(super) mirror: Mirror,
    _held: OwnedRwLockReadGuard<()>,
}

impl FetchedCommit {
    /// Keeps the commit as long as its build.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be written.
    pub async fn pin(&self, build: BuildId) -> Result<(), SourceError> {
        self.mirror.pin(build, &self.head).await
    }
}

/// The result of resolving a build's commit.
#[derive(Debug)]
pub enum Resolution {
    Commit(Box<FetchedCommit>),
    /// The commit no longer exists, or did not become available in time: the build ends here.
    Ended(Status, Reason),
    /// The commit message contains a directive to skip the build.
    Ignored(Reason),
}

/// A mirror after a fetch, which may have failed. Its objects stay as long as this value.
#[derive(Debug)]
pub struct FetchAttempt {
    mirror: Mirror,
    result: Result<(), SourceError>,
    held: OwnedRwLockReadGuard<()>,
}

impl FetchAttempt {
    /// Fetches, as [`Mirror::fetch`] does.
    pub async fn begin(
        mirror: Mirror,
        origin: impl Future<Output = Result<Url, SourceError>>,
        credentials: &ForgeCredentials,
    ) -> Self {
        let held = mirror.hold().await;
        let result = mirror.fetch(origin, credentials).await;
        Self { mirror, result, held }
    }
}

/// Finds the build's commit. A commit that is already in the mirror is built even while Gogs is unreachable.
///
/// # Errors
/// [`SourceError`]; if it [is retryable](SourceError::is_retryable), Gogs or the disk has to recover first.
pub async fn resolve(fetch: FetchAttempt, build: &Build) -> Result<Resolution, SourceError> {
    let (sha, git_ref) = (build.event.sha(), build.event.git_ref());
    let FetchAttempt { mirror, result: fetched, held } = fetch;
    if let Err(error) = &fetched
        && error.is_refusal()
    {
        return Err(error.clone());
    }
    let lookup = match mirror.find(sha, &git_ref).await {
        Ok(Lookup::Found) => Lookup::Found,
        other => {
            fetched?;
            other?
        }
    };
    match lookup {
        Lookup::Found => {}
        Lookup::MovedOn { newer } => return Ok(Resolution::Ended(Status::Skipped, moved_on(&git_ref, sha, &newer))),
        Lookup::Missing => return Err(SourceError::CommitMissing { git_ref, commit: sha.short().to_owned() }),
    }
    let ((message, author), base) = tokio::try_join!(mirror.commit_message(sha), base(&mirror, build))?;
    // A restart is a person's decision, which takes precedence over the commit message.
    if let Some(directive) = trigger::skip_directive(&message).filter(|_| build.restart_of.is_none()) {
        return Ok(Resolution::Ignored(trigger::skip_reason(directive)));
    }
    let head = Head { sha: sha.clone(), message, author, base };
    Ok(Resolution::Commit(Box::new(FetchedCommit { head, mirror, _held: held })))
}

fn moved_on(git_ref: &str, sha: &Sha, newer: &Sha) -> Reason {
    let message = format!("{git_ref} now points to {}; {} can no longer be fetched from Gogs", newer.short(), sha.short());
    Reason::new(ReasonCode::RefMoved, message)
}

async fn base(mirror: &Mirror, build: &Build) -> Result<Base, SourceError> {
    let Cause::Push(push) = &build.event.cause;
    let push = PushRange {
        before: push.before.as_ref(),
        last_known_tip: push.last_known_tip.as_ref(),
        after: &push.after,
        branch: &push.branch,
        default_branch: &build.event.repository.default_branch,
    };
    mirror.base(push).await
}
