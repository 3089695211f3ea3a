//! Pull requests: what is known about each, and the head that was built last.

use beespace_core::build::{Build, Phase, Stage};
use beespace_core::event::{PullRequest, PullRequestChange};
use beespace_core::ids::{BuildId, RepositoryId, Sha};
use beespace_core::pull_request_head::{RecordedHead, is_built_already};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_core::user_action;
use serde::{Deserialize, Serialize};

use super::build::Builds as _;
use super::build_lifecycle::Prepared;
use super::tables::{Key, PULL_REQUEST};
use super::transaction::{Read, Rows, Write};
use super::{Store, StoreError};

/// A pull request, as its last event reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPullRequest {
    pub details: PullRequest,
    pub is_open: bool,
    /// None before its first build.
    pub head: Option<RecordedHead>,
}

/// Whether the commit of a pull request's build was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadRecorded {
    Stored,
    /// Another build has this head.
    AlreadyBuilt(Reason),
}

fn key(repository: RepositoryId, number: u64) -> Key {
    Key::new().u64(repository.0).u64(number)
}

/// Reading pull requests, in both kinds of transaction.
pub trait PullRequests: Rows + Sized {
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn pull_request(&self, repository: RepositoryId, number: u64) -> Result<Option<KnownPullRequest>, StoreError> {
        self.row(PULL_REQUEST, "pull_request", key(repository, number).as_slice())
    }
}

impl PullRequests for Read {}
impl PullRequests for Write<'_> {}

impl Write<'_> {
    /// Keeps what an event reports about a pull request. If it was closed, its builds that wait end.
    pub(super) fn record_pull_request(
        &self,
        repository: RepositoryId,
        reported: &PullRequest,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let known = self.pull_request(repository, reported.number)?;
        let is_open = match reported.change {
            PullRequestChange::Opened | PullRequestChange::Synchronized | PullRequestChange::Reopened => true,
            PullRequestChange::Closed => false,
            PullRequestChange::Edited => known.as_ref().is_none_or(|known| known.is_open),
        };
        let row = KnownPullRequest { details: reported.clone(), is_open, head: known.and_then(|known| known.head) };
        self.put(PULL_REQUEST, "pull_request", key(repository, reported.number).as_slice(), &row)?;
        match reported.change {
            PullRequestChange::Closed => self.skip_waiting_builds(repository, reported.number, now),
            _ => Ok(()),
        }
    }

    /// Ends the builds of a pull request of which nothing has run.
    fn skip_waiting_builds(&self, repository: RepositoryId, number: u64, now: Timestamp) -> Result<(), StoreError> {
        let message = format!("pull request #{number} was closed before the build started");
        let reason = Reason::new(ReasonCode::PullRequestClosed, message);
        let is_meant = |build: &Build| {
            let pull = build.event.pull_request();
            pull.is_some_and(|pull| pull.number == number && pull.change != PullRequestChange::Closed)
        };
        for build in self.waiting_builds(repository)?.into_iter().filter(is_meant) {
            if build.phase == Phase::Prepare {
                let id = build.id;
                let build = Box::new(Build { status: Status::Skipped, reason: Some(reason.clone()), ..build });
                self.apply_prepared(id, &Prepared::Over { build, decisions: Vec::new() }, now)?;
                continue;
            }
            let stages = self.stages(build.id)?;
            if stages.iter().any(|stage| stage.started_at.is_some()) {
                continue;
            }
            for stage in stages.iter().filter(|stage| !stage.status.is_over()) {
                let skip = |stage: &mut Stage| {
                    user_action::skip(stage, &reason, now);
                    Ok(())
                };
                self.change_stage(stage.id(), now, skip)?;
            }
        }
        Ok(())
    }
}

impl Store {
    /// Stores the commit that a build of a pull request builds. A head is built once, unless the pull request is reopened or a
    /// person restarts the build.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError`] if the store cannot be written.
    pub async fn record_pull_request_head(&self, id: BuildId, sha: Sha, is_confirmed: bool) -> Result<HeadRecorded, StoreError> {
        self.write(move |write| {
            let mut build = write.build(id)?.ok_or(StoreError::NotFound("build"))?;
            let pull = build.event.pull_request().ok_or(StoreError::NotFound("pull request"))?;
            let (repository, number, change) = (build.event.repository.id, pull.number, pull.change);
            if let Some(known) = write.pull_request(repository, number)? {
                if is_built_already(change, &sha, id, known.head.as_ref()) {
                    let message = format!("pull request #{number} is already built at {}", sha.short());
                    let reason = Reason::new(ReasonCode::DuplicateHead, message);
                    return Ok(HeadRecorded::AlreadyBuilt(
                        reason.help("to build it again, use `beespace build restart`, or push a new commit"),
                    ));
                }
                let row = KnownPullRequest { head: Some(RecordedHead { sha: sha.clone(), build: id }), ..known };
                write.put(PULL_REQUEST, "pull_request", key(repository, number).as_slice(), &row)?;
            }
            (build.commit, build.head_unconfirmed) = (Some(sha.clone()), !is_confirmed);
            write.put_build(&build)?;
            Ok(HeadRecorded::Stored)
        })
        .await
    }
}
