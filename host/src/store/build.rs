//! The rows of builds and stages, their indexes, and the queries on them. [`build_lifecycle`](super::build_lifecycle) has the
//! transitions of builds, [`stage`](super::stage) those of stages.

use beespace_core::build::{Build, Stage};
use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::{BuildId, RepositoryId, StageId, StageNumber};
use beespace_core::status::Status;

use super::tables::{
    BUILD, BUILD_NUMBER, BUILD_OF_REPOSITORY, BUILD_OF_REPOSITORY_STATUS, BUILD_OF_STATUS, Key, LAST_RUN, STAGE, STAGE_SUMMARY,
    Table, last_id,
};
use super::transaction::{Order, Read, Rows, Write};
use super::{StoreError, row};

fn build_key(id: BuildId) -> Key {
    Key::new().id(id.0)
}

fn stage_key(id: StageId) -> Key {
    build_key(id.build).u16(id.stage.0)
}

/// Parses a key of the run queue.
#[must_use]
pub fn stage_id_of_key(key: &[u8]) -> Option<StageId> {
    let (build, stage) = key.split_at_checked(16)?;
    Some(StageId {
        build: BuildId(uuid::Uuid::from_slice(build).ok()?),
        stage: StageNumber(u16::from_be_bytes(stage.try_into().ok()?)),
    })
}

/// The key of a stage in the run queue.
#[must_use]
pub fn key_of_stage(id: StageId) -> Vec<u8> {
    stage_key(id).as_slice().to_vec()
}

fn status_byte(status: Status) -> u8 {
    let index = Status::ALL.iter().position(|other| *other == status).unwrap_or_default();
    u8::try_from(index).unwrap_or(u8::MAX)
}

/// The keys of a build in the indexes by status: of all builds, and of its repository.
fn status_keys(build: &Build) -> [(Table, Key); 2] {
    let status = Key::new().byte(status_byte(build.status));
    let of_repository = Key::new().u64(build.event.repository.id.0).bytes(status.as_slice());
    [(BUILD_OF_STATUS, status.id(build.id.0)), (BUILD_OF_REPOSITORY_STATUS, of_repository.id(build.id.0))]
}

fn run_key(repository: RepositoryId, branch: &str) -> Key {
    Key::new().u64(repository.0).text(branch)
}

/// Reading builds and stages, in both kinds of transaction.
pub trait Builds: Rows + Sized {
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn build(&self, id: BuildId) -> Result<Option<Build>, StoreError> {
        self.row(BUILD, "build", build_key(id).as_slice())
    }

    /// Stages of a build, in the order of the file.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn stages(&self, build: BuildId) -> Result<Vec<Stage>, StoreError> {
        let mut stages = Vec::new();
        self.scan(STAGE, build_key(build).as_slice(), None, Order::OldestFirst, &mut |_, value| {
            stages.push(row::decode("stage", value)?);
            Ok(true)
        })?;
        Ok(stages)
    }

    /// The [summaries](Stage::summary) of a build's stages, in the order of the file.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn stage_summaries(&self, build: BuildId) -> Result<Vec<Stage>, StoreError> {
        let (prefix, mut summaries) = (build_key(build), Vec::new());
        self.scan(STAGE_SUMMARY, prefix.as_slice(), None, Order::OldestFirst, &mut |_, value| {
            summaries.push(row::decode("stage", value)?);
            Ok(true)
        })?;
        // The stages of a build that began under an earlier version may have none.
        let count = self.keys(STAGE, prefix.as_slice(), None, Order::OldestFirst, usize::MAX)?.len();
        if summaries.len() == count { Ok(summaries) } else { self.stages(build) }
    }

    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn stage(&self, id: StageId) -> Result<Option<Stage>, StoreError> {
        self.row(STAGE, "stage", stage_key(id).as_slice())
    }
}

impl Builds for Read {}
impl Builds for Write<'_> {}

/// Which builds a list contains.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuildFilter {
    pub repository: Option<RepositoryId>,
    pub status: Option<Status>,
    /// The last id of the previous page.
    pub after: Option<BuildId>,
}

impl Read {
    /// Builds, newest first.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn builds(&self, filter: BuildFilter, limit: usize) -> Result<Vec<Build>, StoreError> {
        self.builds_of_ids(&self.build_ids(filter, limit)?)
    }

    /// Ids of builds, newest first: for lists that are assembled before the builds are read.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn build_ids(&self, filter: BuildFilter, limit: usize) -> Result<Vec<BuildId>, StoreError> {
        let (table, prefix) = match (filter.repository, filter.status) {
            (Some(repository), Some(status)) => {
                (BUILD_OF_REPOSITORY_STATUS, Key::new().u64(repository.0).byte(status_byte(status)))
            }
            (Some(repository), None) => (BUILD_OF_REPOSITORY, Key::new().u64(repository.0)),
            (None, Some(status)) => (BUILD_OF_STATUS, Key::new().byte(status_byte(status))),
            (None, None) => (BUILD, Key::new()),
        };
        let after = filter.after.map(|id| prefix.clone().id(id.0));
        let keys = self.keys(table, prefix.as_slice(), after.as_ref().map(Key::as_slice), Order::NewestFirst, limit)?;
        Ok(keys.iter().filter_map(|key| last_id(key)).map(BuildId).collect())
    }

    /// The builds with these ids, in the order of the ids.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn builds_of_ids(&self, ids: &[BuildId]) -> Result<Vec<Build>, StoreError> {
        ids.iter().filter_map(|id| self.build(*id).transpose()).collect()
    }

    /// Whether a build of the repository is not over.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn has_unfinished_builds(&self, repository: RepositoryId) -> Result<bool, StoreError> {
        for status in Status::ALL.into_iter().filter(|status| !status.is_over()) {
            let filter = BuildFilter { repository: Some(repository), status: Some(status), after: None };
            if !self.build_ids(filter, 1)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The last finished build of a branch in which a stage ran.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn last_run(&self, repository: RepositoryId, branch: &str) -> Result<Option<BuildId>, StoreError> {
        let id = self.bytes(LAST_RUN, run_key(repository, branch).as_slice())?;
        Ok(id.and_then(|bytes| last_id(&bytes)).map(BuildId))
    }

    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn build_by_number(&self, repository: RepositoryId, number: u64) -> Result<Option<Build>, StoreError> {
        let id = self.bytes(BUILD_NUMBER, Key::new().u64(repository.0).u64(number).as_slice())?;
        id.and_then(|bytes| last_id(&bytes)).map_or(Ok(None), |id| self.build(BuildId(id)))
    }
}

impl Write<'_> {
    /// Writes the row and updates its indexes.
    pub(super) fn put_build(&self, build: &Build) -> Result<(), StoreError> {
        let repository = build.event.repository.id;
        let old = self.build(build.id)?;
        if let Some(old) = &old {
            self.remove_from_indexes(old)?;
        }
        status_keys(build).iter().try_for_each(|(table, key)| self.put_bytes(*table, key.as_slice(), &[]))?;
        self.put_bytes(BUILD_OF_REPOSITORY, Key::new().u64(repository.0).id(build.id.0).as_slice(), &[])?;
        if let Some(number) = build.number {
            self.put_bytes(BUILD_NUMBER, Key::new().u64(repository.0).u64(number).as_slice(), build.id.0.as_bytes())?;
        }
        self.put(BUILD, "build", build_key(build.id).as_slice(), build)?;
        if old.is_none_or(|old| old.status != build.status || old.reason != build.reason || old.phase != build.phase) {
            self.announce(ChangeEvent::BuildChanged { repository, build: build.id, status: build.status });
        }
        Ok(())
    }

    fn remove_from_indexes(&self, build: &Build) -> Result<(), StoreError> {
        status_keys(build).iter().try_for_each(|(table, key)| self.remove(*table, key.as_slice()).map(drop))
    }

    /// Removes the row and its index entries.
    pub(super) fn remove_build(&self, build: &Build) -> Result<(), StoreError> {
        let repository = Key::new().u64(build.event.repository.id.0);
        if let Some(number) = build.number {
            self.remove(BUILD_NUMBER, repository.clone().u64(number).as_slice())?;
        }
        self.remove_from_indexes(build)?;
        self.remove(BUILD_OF_REPOSITORY, repository.id(build.id.0).as_slice())?;
        self.remove(BUILD, build_key(build.id).as_slice()).map(drop)
    }

    pub(super) fn put_stage(&self, stage: &Stage) -> Result<(), StoreError> {
        let key = stage_key(stage.id());
        self.put(STAGE_SUMMARY, "stage", key.as_slice(), &stage.summary())?;
        self.put(STAGE, "stage", key.as_slice(), stage)
    }

    /// Records the build as the last run of its branch if any of its stages ran.
    pub(super) fn record_run(&self, build: &Build, stages: &[Stage]) -> Result<(), StoreError> {
        match build.event.branch() {
            Some(branch) if stages.iter().any(|stage| stage.started_at.is_some()) => {
                self.put_bytes(LAST_RUN, run_key(build.event.repository.id, branch).as_slice(), build.id.0.as_bytes())
            }
            _ => Ok(()),
        }
    }
}
