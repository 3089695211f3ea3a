//! Builds and their stages. Whatever changes a stage goes through [`Write::change_stage`], which keeps the build's word true and, in
//! the transaction that ends a build, fills the outbox: a build is over exactly once.

use std::sync::Arc;

use beespace_core::build::{Build, Phase, Stage};
use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::{BuildId, RepositoryId, StageId, StageNumber};
use beespace_core::notice::NoticeKind;
use beespace_core::policy::Decision;
use beespace_core::reason::Reason;
use beespace_core::status::{Status, fold};
use beespace_core::time::Timestamp;
use beespace_core::user_action;

use super::delivery::{Deliveries, DeliveryOutcome};
use super::queue::FairnessKey;
use super::tables::{
    BUILD, BUILD_NUMBER, BUILD_OF_REPOSITORY, BUILD_OF_REPOSITORY_STATUS, BUILD_OF_STATUS, DELIVERY, Key, LAST_RUN, STAGE, Table,
    last_id,
};
use super::transaction::{Order, Read, Rows, Write};
use super::{Queue, Store, StoreError, row};

/// Names of the notifier bindings that hear of what happens.
pub type Notifiers = Arc<[String]>;

/// What preparing a build came to.
#[derive(Debug, Clone)]
pub enum Prepared {
    /// It has stages; those that may run are queued.
    Stages { build: Box<Build>, stages: Vec<Stage>, decisions: Vec<Decision> },
    /// It ends without any, and gets its number: invalid file, nothing to run, source not to be had.
    Over { build: Box<Build>, decisions: Vec<Decision> },
    /// There is nothing to build: it was never one. The delivery shows why.
    Ignored(Reason),
}

fn build_key(id: BuildId) -> Key {
    Key::new().id(id.0)
}

fn stage_key(id: StageId) -> Key {
    build_key(id.build).u16(id.stage.0)
}

/// Reads a stage's id back from a queue's key.
#[must_use]
pub fn stage_id_of_key(key: &[u8]) -> Option<StageId> {
    let (build, stage) = key.split_at_checked(16)?;
    Some(StageId {
        build: BuildId(uuid::Uuid::from_slice(build).ok()?),
        stage: StageNumber(u16::from_be_bytes(stage.try_into().ok()?)),
    })
}

/// The queue's key of a stage.
#[must_use]
pub fn key_of_stage(id: StageId) -> Vec<u8> {
    stage_key(id).as_slice().to_vec()
}

fn status_byte(status: Status) -> u8 {
    let place = Status::ALL.iter().position(|other| *other == status).unwrap_or_default();
    u8::try_from(place).unwrap_or(u8::MAX)
}

/// Where a build stands in the lists of its status: everybody's and its repository's.
fn status_keys(build: &Build) -> [(Table, Key); 2] {
    let status = Key::new().byte(status_byte(build.status));
    let of_repository = Key::new().u64(build.event.repository.id.0).bytes(status.as_slice());
    [(BUILD_OF_STATUS, status.id(build.id.0)), (BUILD_OF_REPOSITORY_STATUS, of_repository.id(build.id.0))]
}

fn run_key(repository: RepositoryId, branch: &str) -> Key {
    Key::new().u64(repository.0).text(branch)
}

/// What both kinds of transaction can tell of builds.
pub trait Builds: Rows + Sized {
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn build(&self, id: BuildId) -> Result<Option<Build>, StoreError> {
        self.row(BUILD, "build", build_key(id).as_slice())
    }

    /// Stages of a build, in the order of the file.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn stages(&self, build: BuildId) -> Result<Vec<Stage>, StoreError> {
        let mut stages = Vec::new();
        self.scan(STAGE, build_key(build).as_slice(), None, Order::OldestFirst, &mut |_, value| {
            stages.push(row::decode("stage", value)?);
            Ok(true)
        })?;
        Ok(stages)
    }

    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn stage(&self, id: StageId) -> Result<Option<Stage>, StoreError> {
        self.row(STAGE, "stage", stage_key(id).as_slice())
    }
}

impl Builds for Read {}
impl Builds for Write<'_> {}

/// Which builds a list shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuildFilter {
    pub repository: Option<RepositoryId>,
    pub status: Option<Status>,
    /// The last id of the page before.
    pub after: Option<BuildId>,
}

impl Read {
    /// Builds, newest first.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn builds(&self, filter: BuildFilter, limit: usize) -> Result<Vec<Build>, StoreError> {
        self.builds_of_ids(&self.build_ids(filter, limit)?)
    }

    /// Ids of builds, newest first: for who puts lists together before it looks at the builds.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
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

    /// The builds with these ids, in their order.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn builds_of_ids(&self, ids: &[BuildId]) -> Result<Vec<Build>, StoreError> {
        ids.iter().filter_map(|id| self.build(*id).transpose()).collect()
    }

    /// The last build of a branch that ran and is over.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn last_run(&self, repository: RepositoryId, branch: &str) -> Result<Option<BuildId>, StoreError> {
        let id = self.bytes(LAST_RUN, run_key(repository, branch).as_slice())?;
        Ok(id.and_then(|bytes| last_id(&bytes)).map(BuildId))
    }

    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn build_by_number(&self, repository: RepositoryId, number: u64) -> Result<Option<Build>, StoreError> {
        let id = self.bytes(BUILD_NUMBER, Key::new().u64(repository.0).u64(number).as_slice())?;
        id.and_then(|bytes| last_id(&bytes)).map_or(Ok(None), |id| self.build(BuildId(id)))
    }
}

impl Write<'_> {
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

    /// A build that nobody has prepared yet.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub fn put_new_build(&self, build: &Build) -> Result<(), StoreError> {
        self.put_build(build)?;
        self.enqueue(
            Queue::Prepare,
            build.id.0.as_bytes(),
            FairnessKey::of_repository(build.event.repository.id),
            build.created_at,
        )
    }

    /// The row leaves with its places in all lists.
    pub(super) fn remove_build(&self, build: &Build) -> Result<(), StoreError> {
        let repository = Key::new().u64(build.event.repository.id.0);
        if let Some(number) = build.number {
            self.remove(BUILD_NUMBER, repository.clone().u64(number).as_slice())?;
        }
        self.remove_from_indexes(build)?;
        self.remove(BUILD_OF_REPOSITORY, repository.id(build.id.0).as_slice())?;
        self.remove(BUILD, build_key(build.id).as_slice()).map(drop)
    }

    /// It was never one: its delivery says why.
    fn ignore_build(&self, build: &Build, reason: &Reason) -> Result<(), StoreError> {
        let repository = build.event.repository.id;
        self.remove_build(build)?;
        if let Some(mut delivery) = build.delivery.map_or(Ok(None), |id| self.delivery(id))? {
            delivery.outcome = DeliveryOutcome::Ignored(reason.clone());
            self.put(DELIVERY, "delivery", delivery.id.0.as_bytes(), &delivery)?;
            self.announce(ChangeEvent::DeliveryProcessed { repository, delivery: delivery.id });
        }
        Ok(())
    }

    pub(super) fn put_stage(&self, stage: &Stage) -> Result<(), StoreError> {
        let id = stage.id();
        self.put(STAGE, "stage", stage_key(id).as_slice(), stage)
    }

    /// Ends what preparing began.
    fn apply_prepared(&self, id: BuildId, prepared: &Prepared, notifiers: &Notifiers, now: Timestamp) -> Result<(), StoreError> {
        let current = self.build(id)?.ok_or(StoreError::NotFound("build"))?;
        if current.phase != Phase::Prepare {
            // Someone ended it meanwhile.
            return self.dequeue(Queue::Prepare, id.0.as_bytes());
        }
        let (build, stages, decisions) = match prepared {
            Prepared::Stages { build, stages, decisions } => (build, stages.as_slice(), decisions.as_slice()),
            Prepared::Over { build, decisions } => (build, [].as_slice(), decisions.as_slice()),
            Prepared::Ignored(reason) => {
                self.ignore_build(&current, reason)?;
                return self.dequeue(Queue::Prepare, id.0.as_bytes());
            }
        };
        let mut build = Build::clone(build);
        if build.number.is_none() {
            build.number = Some(self.next_number(build.event.repository.id)?);
        }
        build.phase = Phase::Run;
        for decision in decisions {
            self.put_decision(decision)?;
        }
        for stage in stages {
            self.put_stage(stage)?;
            if stage.status == Status::Pending {
                let turn = FairnessKey::of_repository(build.event.repository.id);
                self.enqueue(Queue::Run, &key_of_stage(stage.id()), turn, now)?;
            }
        }
        self.dequeue(Queue::Prepare, id.0.as_bytes())?;
        self.put_build(&build)?;
        if stages.is_empty() {
            return self.finish_build(build, &[], notifiers, now);
        }
        if stages.iter().any(|stage| stage.status == Status::Blocked) {
            self.add_notices(NoticeKind::ApprovalRequested, &build, stages, notifiers, now)?;
        }
        self.refresh_build(id, notifiers, now)
    }

    /// Folds the stages' words into the build's, and ends it where all are over.
    pub(super) fn refresh_build(&self, id: BuildId, notifiers: &Notifiers, now: Timestamp) -> Result<(), StoreError> {
        let mut build = self.build(id)?.ok_or(StoreError::NotFound("build"))?;
        let stages = self.stages(id)?;
        build.status = fold(stages.iter().map(Stage::display_status));
        build.started_at = stages.iter().filter_map(|stage| stage.started_at).min();
        let speaker = stages.iter().find(|stage| stage.display_status() == build.status);
        build.reason = speaker.and_then(|stage| user_action::status_reason(stage, &build.event.sender.stable_id(), now));
        if !build.status.is_over() {
            return self.put_build(&build);
        }
        self.finish_build(build, &stages, notifiers, now)
    }

    fn finish_build(&self, mut build: Build, stages: &[Stage], notifiers: &Notifiers, now: Timestamp) -> Result<(), StoreError> {
        if self.build(build.id)?.is_some_and(|stored| stored.phase == Phase::Finished) {
            return Ok(());
        }
        build.phase = Phase::Finished;
        build.finished_at = Some(now);
        self.put_build(&build)?;
        self.record_run(&build, stages)?;
        self.add_notices(NoticeKind::BuildFinished, &build, stages, notifiers, now)?;
        self.announce(ChangeEvent::BuildFinished {
            repository: build.event.repository.id,
            build: build.id,
            status: build.status,
        });
        Ok(())
    }
}

impl Write<'_> {
    /// Remembers the build as its branch's last where something of it ran.
    fn record_run(&self, build: &Build, stages: &[Stage]) -> Result<(), StoreError> {
        match build.event.branch() {
            Some(branch) if stages.iter().any(|stage| stage.started_at.is_some()) => {
                self.put_bytes(LAST_RUN, run_key(build.event.repository.id, branch).as_slice(), build.id.0.as_bytes())
            }
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Ends preparing: stages, decisions, number and queue rows in one transaction.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn store_prepared(
        &self,
        id: BuildId,
        prepared: Prepared,
        notifiers: Notifiers,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |write| write.apply_prepared(id, &prepared, &notifiers, now)).await
    }

    /// Says why a build that is not prepared yet still waits.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn set_waiting_reason(&self, id: BuildId, reason: Reason) -> Result<(), StoreError> {
        self.write(move |write| {
            let Some(mut build) = write.build(id)? else { return Ok(()) };
            if build.phase == Phase::Prepare {
                build.reason = Some(reason.clone());
                write.put_build(&build)?;
            }
            Ok(())
        })
        .await
    }

    /// Ends a build that has no stages yet.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where it is over already or has stages: those are stopped one by one.
    pub async fn end_unprepared(
        &self,
        id: BuildId,
        status: Status,
        reason: Reason,
        notifiers: Notifiers,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |write| {
            let mut build = write.build(id)?.ok_or(StoreError::NotFound("build"))?;
            if build.phase != Phase::Prepare {
                return Err(StoreError::Conflict(format!("it is {} already", build.status)));
            }
            build.status = status;
            build.reason = Some(reason.clone());
            write.apply_prepared(id, &Prepared::Over { build: Box::new(build), decisions: Vec::new() }, &notifiers, now)
        })
        .await
    }

    /// Builds the same event once more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] while the first still waits or runs.
    pub async fn restart_build(&self, id: BuildId, new: BuildId, now: Timestamp) -> Result<Build, StoreError> {
        self.write(move |write| {
            let old = write.build(id)?.ok_or(StoreError::NotFound("build"))?;
            if old.phase != Phase::Finished {
                return Err(StoreError::Conflict(format!("it is {}; cancel it first", old.status)));
            }
            let build = Build { restart_of: Some(id), ..Build::pending(new, old.event, now) };
            write.put_new_build(&build)?;
            Ok(build)
        })
        .await
    }
}
