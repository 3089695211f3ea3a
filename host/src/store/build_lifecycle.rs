//! The life cycle of a build: created, prepared, running, finished. [`Write::refresh_build`] derives the build's status from its
//! stages. The transaction that finishes a build also writes its notices, so a build finishes exactly once.

use beespace_core::build::{Build, Phase, Stage};
use beespace_core::change_event::ChangeEvent;
use beespace_core::event::EventKind;
use beespace_core::ids::BuildId;
use beespace_core::notice::NoticeKind;
use beespace_core::policy::Decision;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::schedule::Schedule;
use beespace_core::stage_graph;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_core::trigger::LastSeenRef;
use beespace_core::trust::Trust;

use super::build::{Builds as _, key_of_stage};
use super::delivery::Deliveries as _;
use super::queue::{DueTime, FairnessKey};
use super::repository::Repositories as _;
use super::transaction::Write;
use super::{Queue, Store, StoreError};

/// The outcome of preparing a build.
#[derive(Debug, Clone)]
pub enum Prepared {
    /// The build has stages. Those that may run are queued.
    Stages { build: Box<Build>, stages: Vec<Stage>, decisions: Vec<Decision> },
    /// The build ends without stages and gets a number: invalid file, nothing to run, or source unavailable.
    Over { build: Box<Build>, decisions: Vec<Decision> },
    /// There is nothing to build. The build is removed, and its delivery shows the reason.
    Ignored(Reason),
}

impl Prepared {
    /// Adds a decision about the whole build, if there is one.
    #[must_use]
    pub fn with_decision(mut self, decision: Option<Decision>) -> Self {
        if let Self::Stages { decisions, .. } | Self::Over { decisions, .. } = &mut self {
            decisions.splice(0..0, decision);
        }
        self
    }
}

impl Write<'_> {
    /// Stores a new build and queues it for preparation: the only way in which a build begins. A push is recorded for its
    /// branch with it, and a pull request under its number.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub fn create_build(&self, build: &Build) -> Result<(), StoreError> {
        let event = &build.event;
        if let (None, Some(push)) = (build.restart_of, LastSeenRef::of_push(event)) {
            self.record_ref(event.repository.id, &event.git_ref(), Some(&push))?;
        }
        if let (None, Some(pull)) = (build.restart_of, event.pull_request()) {
            self.record_pull_request(event.repository.id, pull, build.created_at)?;
        }
        self.add_waiting(build)?;
        // The builds of strangers wait for each other, and not before those of the repository.
        let is_of_stranger = event.pull_request().is_some_and(|pull| pull.is_from_fork(event.repository.id));
        let fairness_key = match is_of_stranger {
            true => FairnessKey::of_forks(event.repository.id),
            false => FairnessKey::of_repository(event.repository.id),
        };
        self.put_build(build)?;
        self.enqueue(Queue::Prepare, build.id.0.as_bytes(), fairness_key, DueTime::now(build.created_at))
    }

    /// Removes a build that turned out to have nothing to run, and stores the reason in its delivery.
    fn ignore_build(&self, build: &Build, reason: &Reason) -> Result<(), StoreError> {
        let repository = build.event.repository.id;
        self.remove_build(build)?;
        if let Some(delivery) = build.delivery.map_or(Ok(None), |id| self.delivery(id))? {
            let delivery = delivery.without_build(build.id, reason);
            self.put_delivery(&delivery)?;
            self.announce(ChangeEvent::DeliveryProcessed { repository, delivery: delivery.id });
        }
        Ok(())
    }

    /// Stores the outcome of preparing a build.
    pub(super) fn apply_prepared(&self, id: BuildId, prepared: &Prepared, now: Timestamp) -> Result<(), StoreError> {
        let current = self.build(id)?.ok_or(StoreError::NotFound("build"))?;
        if current.phase != Phase::Prepare {
            // A person ended the build meanwhile.
            return self.dequeue(Queue::Prepare, id.0.as_bytes());
        }
        let (build, stages, decisions) = match prepared {
            Prepared::Stages { build, stages, decisions } => (build, stages.as_slice(), decisions.as_slice()),
            Prepared::Over { build, decisions } => (build, [].as_slice(), decisions.as_slice()),
            Prepared::Ignored(reason) => {
                if reason.code == ReasonCode::NoPipelineFile && current.defines_schedules() {
                    self.adopt_schedules(&current, &[], now)?;
                }
                self.ignore_build(&current, reason)?;
                return self.dequeue(Queue::Prepare, id.0.as_bytes());
            }
        };
        let mut build = Build::clone(build);
        if let Some(reason) = self.record_tag(&build)? {
            self.ignore_build(&current, &reason)?;
            return self.dequeue(Queue::Prepare, id.0.as_bytes());
        }
        if build.number.is_none() {
            build.number = Some(self.next_number(build.event.repository.id)?);
        }
        build.phase = Phase::Run;
        for decision in decisions {
            self.put_decision(decision)?;
        }
        for stage in stages {
            self.put_stage(stage)?;
            if stage.status == Status::Pending && !stage.waits_for_needs {
                let fairness_key = FairnessKey::of_repository(build.event.repository.id);
                self.enqueue(Queue::Run, &key_of_stage(stage.id()), fairness_key, DueTime::now(now))?;
            }
        }
        self.dequeue(Queue::Prepare, id.0.as_bytes())?;
        self.put_build(&build)?;
        self.adopt_admitted_schedules(&build, stages, now)?;
        if stages.is_empty() {
            return self.finish_build(build, &[], now);
        }
        if stages.iter().any(|stage| stage.status == Status::Blocked) {
            self.add_notices(NoticeKind::ApprovalRequested, &build, stages, now)?;
        }
        self.refresh_build(id, now)
    }

    /// Takes over the schedules of the pipeline files, once they are admitted: no stage is declined or waits for an approval, and
    /// the build is no error. If no pipeline runs for this event, a scheduled build is still admitted like any other.
    pub(super) fn adopt_admitted_schedules(&self, build: &Build, stages: &[Stage], now: Timestamp) -> Result<(), StoreError> {
        let is_open = |stage: &Stage| matches!(stage.status, Status::Blocked | Status::Declined);
        let is_admitted = !stages.iter().any(is_open) && (!stages.is_empty() || build.status == Status::Skipped);
        if !is_admitted || !build.defines_schedules() || build.trust() != Trust::Trusted {
            return Ok(());
        }
        let schedules: Vec<Schedule> = build.schedules().cloned().collect();
        self.adopt_schedules(build, &schedules, now)
    }

    /// Records the commit of a tag that is built. Returns a reason if the tag is already built there.
    fn record_tag(&self, build: &Build) -> Result<Option<Reason>, StoreError> {
        let repeated = self.repeated_tag(build)?;
        if let (EventKind::Tag, None, Some(head), None) = (build.event.kind(), build.restart_of, &build.head, &repeated) {
            let seen = LastSeenRef::of_tag(head.sha.clone());
            self.record_ref(build.event.repository.id, &build.event.git_ref(), Some(&seen))?;
        }
        Ok(repeated)
    }

    /// Releases the stages whose needs have finished, derives the build's status and reason from its stages, and finishes the
    /// build if all of them have finished.
    pub(super) fn refresh_build(&self, id: BuildId, now: Timestamp) -> Result<(), StoreError> {
        let stored = self.build(id)?.ok_or(StoreError::NotFound("build"))?;
        let stages = self.release_stages(&stored, now)?;
        let (status, reason) = stage_graph::status(&stages, &stored.event.sender.stable_id(), now);
        let started_at = stages.iter().filter_map(|stage| stage.started_at).min();
        let is_same = (stored.status, &stored.reason, stored.started_at) == (status, &reason, started_at);
        // The row holds the text of all pipeline files, and most changes of a stage do not change it.
        if is_same && !status.is_over() {
            return Ok(());
        }
        let build = Build { status, reason, started_at, ..stored };
        if !build.status.is_over() {
            return self.put_build(&build);
        }
        self.finish_build(build, &self.stages(id)?, now)
    }

    fn finish_build(&self, mut build: Build, stages: &[Stage], now: Timestamp) -> Result<(), StoreError> {
        if self.build(build.id)?.is_some_and(|stored| stored.phase == Phase::Finished) {
            return Ok(());
        }
        build.phase = Phase::Finished;
        build.finished_at = Some(now);
        self.put_build(&build)?;
        self.record_run(&build, stages)?;
        self.add_notices(NoticeKind::BuildFinished, &build, stages, now)?;
        self.announce(ChangeEvent::BuildFinished {
            repository: build.event.repository.id,
            build: build.id,
            status: build.status,
        });
        Ok(())
    }
}

impl Store {
    /// Stores the outcome of preparing a build: stages, decisions, number and queue rows, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn store_prepared(&self, id: BuildId, prepared: Prepared, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |write| write.apply_prepared(id, &prepared, now)).await
    }

    /// The number of a build that is being prepared. It gets one now if it has none.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn assign_number(&self, id: BuildId) -> Result<u64, StoreError> {
        self.write(move |write| {
            let mut build = write.build(id)?.ok_or(StoreError::NotFound("build"))?;
            if let Some(number) = build.number {
                return Ok(number);
            }
            let number = write.next_number(build.event.repository.id)?;
            build.number = Some(number);
            write.put_build(&build)?;
            Ok(number)
        })
        .await
    }

    /// Stores the reason why a build still waits for its preparation.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
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
    /// [`StoreError::Conflict`] if the build has finished or has stages: those are cancelled one by one.
    pub async fn end_unprepared(&self, id: BuildId, status: Status, reason: Reason, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |write| {
            let mut build = write.build(id)?.ok_or(StoreError::NotFound("build"))?;
            if build.phase != Phase::Prepare {
                return Err(StoreError::Conflict(format!("{} is already {}", build.label(), build.status)));
            }
            build.status = status;
            build.reason = Some(reason.clone());
            write.apply_prepared(id, &Prepared::Over { build: Box::new(build), decisions: Vec::new() }, now)
        })
        .await
    }

    /// Stores a build that nobody delivered: a person started it.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn start_build(&self, build: Build) -> Result<(), StoreError> {
        self.write(move |write| write.create_build(&build)).await
    }

    /// Creates a new build for the same event. It gets its number at once if the old build has one, because the commit is known
    /// to have a pipeline file.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] if the first build has not finished.
    pub async fn restart_build(&self, id: BuildId, new: BuildId, now: Timestamp) -> Result<Build, StoreError> {
        self.write(move |write| {
            let old = write.build(id)?.ok_or(StoreError::NotFound("build"))?;
            if old.phase != Phase::Finished {
                return Err(StoreError::Conflict(format!("{} is {}: cancel it first", old.label(), old.status)));
            }
            let number = old.number.map(|_| write.next_number(old.event.repository.id)).transpose()?;
            let (commit, trust) = (old.sha().cloned(), old.trust);
            let build = Build { number, restart_of: Some(id), commit, trust, ..Build::pending(new, old.event, now) };
            write.create_build(&build)?;
            Ok(build)
        })
        .await
    }
}
