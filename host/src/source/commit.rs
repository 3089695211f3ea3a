//! The commit of a build: fetched into the mirror, and described.

use beespace_core::build::{Base, Build, Head};
use beespace_core::event::{Cause, Cron, Manual, Revision, Tag};
use beespace_core::git_ref::BRANCHES;
use beespace_core::ids::{BuildId, Sha};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_core::trigger;
use beespace_core::trust::{CommitLocation, Trust};
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
    /// How far its code is trusted, for this build.
    pub trust: Trust,
    pub(super) mirror: Mirror,
    _held: OwnedRwLockReadGuard<()>,
}

impl FetchedCommit {
    /// The tip of a branch in the same mirror.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be read.
    pub async fn branch_tip(&self, branch: &str) -> Result<Option<Sha>, SourceError> {
        self.mirror.tip(&format!("{BRANCHES}{branch}")).await
    }

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

impl FetchAttempt {
    /// Fetches the head of a pull request as well, unless its commit is there. A stranger chooses what that fetch brings, so its
    /// failure concerns this build alone.
    ///
    /// # Errors
    /// As [`Mirror::fetch`].
    pub async fn fetch_pull_request(
        &self,
        number: u64,
        sha: &Sha,
        url: &Url,
        credentials: &ForgeCredentials,
    ) -> Result<(), SourceError> {
        // Without Gogs, [`resolve`] reports why.
        if self.result.is_err() || self.mirror.has_commit(sha).await? {
            return Ok(());
        }
        self.mirror.fetch_pull_request(url, credentials, number).await
    }
}

/// Finds the build's commit. A commit that is already in the mirror is built even while Gogs is unreachable.
///
/// # Errors
/// [`SourceError`]; if it [is retryable](SourceError::is_retryable), Gogs or the disk has to recover first.
pub async fn resolve(fetch: FetchAttempt, build: &Build) -> Result<Resolution, SourceError> {
    let git_ref = build.event.git_ref();
    let FetchAttempt { mirror, result: fetched, held } = fetch;
    if let Err(error) = &fetched
        && error.is_refusal()
    {
        return Err(error.clone());
    }
    let revision = build.event.started_revision();
    if revision.is_some() && build.sha().is_none() {
        // The mirror may have an older state of the branch or tag, which nobody asked for.
        fetched.clone()?;
    }
    let lookup = match find(&mirror, build).await {
        Ok(Lookup::Found(sha)) => Lookup::Found(sha),
        other => {
            fetched?;
            other?
        }
    };
    let known = build.sha().map_or_else(String::new, |sha| sha.short().to_owned());
    let sha = match lookup {
        Lookup::Found(sha) => sha,
        Lookup::MovedOn { newer } => return Ok(Resolution::Ended(Status::Skipped, moved_on(&git_ref, &known, &newer))),
        Lookup::Missing if let Some(revision) = revision => {
            return Ok(Resolution::Ended(Status::Error, no_such_revision(revision)));
        }
        Lookup::Missing => return Err(SourceError::CommitMissing { git_ref, commit: known }),
        Lookup::NotACommit => return Ok(Resolution::Ended(Status::Error, not_a_commit(&git_ref))),
    };
    let ((message, author), base) = tokio::try_join!(mirror.commit_message(&sha), base(&mirror, build, &sha))?;
    // A restart is a person's decision, which takes precedence over the commit message.
    let heeds_directive = build.restart_of.is_none() && build.event.heeds_skip_directive();
    if let Some(directive) = trigger::skip_directive(&message).filter(|_| heeds_directive) {
        return Ok(Resolution::Ignored(trigger::skip_reason(directive)));
    }
    let trust = trust(&mirror, build, &sha).await?;
    let head = Head { sha, message, author, base };
    Ok(Resolution::Commit(Box::new(FetchedCommit { head, trust, mirror, _held: held })))
}

/// How far the code of the build is trusted now, by the branches and tags of the mirror.
async fn trust(mirror: &Mirror, build: &Build, sha: &Sha) -> Result<Trust, SourceError> {
    let location = match Trust::depends_on_location(&build.event) {
        true => mirror.location(sha).await?,
        false => CommitLocation::Elsewhere,
    };
    Ok(Trust::of_code(&build.event, location, build.trust))
}

/// Finds the commit in the mirror: the known one, or the one that the fetched ref names.
async fn find(mirror: &Mirror, build: &Build) -> Result<Lookup, SourceError> {
    if let Some(sha) = build.sha() {
        return mirror.find(sha, &build.event.git_ref()).await;
    }
    match &build.event.cause {
        Cause::Tag(Tag { name, object }) => mirror.find_tag(name, object.as_ref()).await,
        Cause::Release(release) => mirror.find_tag(&release.tag, None).await,
        Cause::Manual(Manual { revision, .. }) | Cause::Cron(Cron { revision, .. }) => mirror.find_revision(revision).await,
        // The commit of a pull request is found before the fetch; the others name theirs.
        Cause::PullRequest(_) | Cause::Push(_) | Cause::Promote(_) | Cause::Rollback(_) => Ok(Lookup::Missing),
    }
}

fn moved_on(git_ref: &str, known: &str, newer: &Sha) -> Reason {
    let lost = if known.is_empty() { "its former commit" } else { known };
    let message = format!("{git_ref} now points to {}; {lost} can no longer be fetched from Gogs", newer.short());
    Reason::new(ReasonCode::RefMoved, message)
}

fn no_such_revision(revision: &Revision) -> Reason {
    let help = match revision {
        Revision::Branch(_) | Revision::Tag(_) => "check its name, or push it first",
        Revision::Commit(_) => "push a branch or tag that contains it first",
    };
    Reason::new(ReasonCode::NoSuchRevision, format!("Gogs has no {revision} in this repository")).help(help)
}

fn not_a_commit(git_ref: &str) -> Reason {
    Reason::new(ReasonCode::NotACommit, format!("{git_ref} does not name a commit")).help("tag a commit to build it")
}

async fn base(mirror: &Mirror, build: &Build, sha: &Sha) -> Result<Base, SourceError> {
    if let Some(pull) = build.event.pull_request() {
        return mirror.base_of_pull_request(&pull.target_branch, sha).await;
    }
    let Some(push) = build.event.push() else {
        return Ok(Base::Unknown(format!("a {} build compares no commits", build.event.kind())));
    };
    let push = PushRange {
        before: push.before.as_ref(),
        last_known_tip: push.last_known_tip.as_ref(),
        after: &push.after,
        branch: &push.branch,
        default_branch: &build.event.repository.default_branch,
    };
    mirror.base(push).await
}
