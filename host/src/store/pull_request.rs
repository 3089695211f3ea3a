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
    /// Its builds that may wait: a new head or a closing ends them without a search among all builds.
    #[serde(default)]
    pub waiting: Vec<BuildId>,
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
        let (head, mut waiting) = known.map_or((None, Vec::new()), |known| (known.head, known.waiting));
        if reported.change == PullRequestChange::Closed {
            let message = format!("pull request #{} was closed before the build started", reported.number);
            self.skip_waiting(&std::mem::take(&mut waiting), &Reason::new(ReasonCode::PullRequestClosed, message), now)?;
        }
        let row = KnownPullRequest { details: reported.clone(), is_open, head, waiting };
        self.put_pull_request(repository, &row)
    }

    /// Notes a build of a pull request among those that may wait.
    pub(super) fn add_waiting(&self, build: &Build) -> Result<(), StoreError> {
        let (repository, Some(pull)) = (build.event.repository.id, build.event.pull_request()) else { return Ok(()) };
        let known = self.pull_request(repository, pull.number)?.filter(|_| pull.change != PullRequestChange::Closed);
        let Some(mut row) = known else { return Ok(()) };
        row.waiting.push(build.id);
        self.put_pull_request(repository, &row)
    }

    fn put_pull_request(&self, repository: RepositoryId, row: &KnownPullRequest) -> Result<(), StoreError> {
        self.put(PULL_REQUEST, "pull_request", key(repository, row.details.number).as_slice(), row)
    }

    /// Ends those of the builds of which nothing has run.
    fn skip_waiting(&self, builds: &[BuildId], reason: &Reason, now: Timestamp) -> Result<(), StoreError> {
        for id in builds {
            let Some(build) = self.build(*id)? else { continue };
            match build.phase {
                Phase::Finished => {}
                Phase::Prepare => {
                    let build = Box::new(Build { status: Status::Skipped, reason: Some(reason.clone()), ..build });
                    self.apply_prepared(*id, &Prepared::Over { build, decisions: Vec::new() }, now)?;
                }
                Phase::Run => self.skip_stages(*id, reason, now)?,
            }
        }
        Ok(())
    }

    /// Ends the stages of a build, unless one of them has started.
    fn skip_stages(&self, id: BuildId, reason: &Reason, now: Timestamp) -> Result<(), StoreError> {
        let stages = self.stages(id)?;
        if stages.iter().any(|stage| stage.started_at.is_some()) {
            return Ok(());
        }
        for stage in stages.iter().filter(|stage| !stage.status.is_over()) {
            let skip = |stage: &mut Stage| {
                user_action::skip(stage, reason, now);
                Ok(())
            };
            // The end of one stage may have ended others that need it.
            match self.change_stage(stage.id(), now, skip) {
                Ok(_) | Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Store {
    /// Stores the commit that a build of a pull request builds. A head is built once, unless the pull request is reopened or a
    /// person restarts the build. Earlier builds of the pull request that wait end.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError`] if the store cannot be written.
    pub async fn record_pull_request_head(
        &self,
        id: BuildId,
        sha: Sha,
        is_confirmed: bool,
        now: Timestamp,
    ) -> Result<HeadRecorded, StoreError> {
        self.write(move |write| {
            let mut build = write.build(id)?.ok_or(StoreError::NotFound("build"))?;
            if build.phase != Phase::Prepare {
                // A person or the end of the pull request ended the build meanwhile.
                return Ok(HeadRecorded::Stored);
            }
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
                let (own, earlier): (Vec<BuildId>, Vec<BuildId>) = known.waiting.iter().copied().partition(|other| *other >= id);
                let row = KnownPullRequest { head: Some(RecordedHead { sha: sha.clone(), build: id }), waiting: own, ..known };
                write.put_pull_request(repository, &row)?;
                let message = format!("pull request #{number} has the newer head {}", sha.short());
                write.skip_waiting(&earlier, &Reason::new(ReasonCode::Superseded, message), now)?;
            }
            (build.commit, build.head_unconfirmed) = (Some(sha.clone()), !is_confirmed);
            write.put_build(&build)?;
            Ok(HeadRecorded::Stored)
        })
        .await
    }
}
