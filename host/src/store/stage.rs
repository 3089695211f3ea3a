//! Changes of stages. Every change goes through [`Write::change_stage`], which also updates the queue and the build's status.

use beespace_core::build::{Round, Stage, Step};
use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::{RepositoryId, StageId, StepId};
use beespace_core::notice::NoticeKind;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;

use super::build::{Builds as _, key_of_stage};
use super::queue::{DueTime, FairnessKey};
use super::transaction::Write;
use super::{Queue, Store, StoreError};

/// A stage before and after a change.
pub(super) struct StageChange<'s> {
    pub(super) old: &'s Stage,
    pub(super) new: &'s Stage,
}

impl Write<'_> {
    /// Changes one stage and updates everything that depends on it: the run queue, the stages that need it, the build, the
    /// outbox.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] from `change`, or if it would change the status of a finished stage.
    pub fn change_stage(
        &self,
        id: StageId,
        now: Timestamp,
        change: impl Fn(&mut Stage) -> Result<(), StoreError>,
    ) -> Result<Stage, StoreError> {
        let old = self.stage(id)?.ok_or(StoreError::NotFound("stage"))?;
        let mut stage = old.clone();
        change(&mut stage)?;
        if stage == old {
            return Ok(stage);
        }
        if old.status.is_over() && stage.status != old.status {
            return Err(StoreError::Conflict(format!("the stage has already finished: {}", old.status)));
        }
        if stage.status.is_over() && stage.finished_at.is_none() {
            stage.finished_at = Some(now);
        }
        self.put_stage(&stage)?;
        let repository = self.build(id.build)?.ok_or(StoreError::NotFound("build"))?.event.repository.id;
        self.announce_changes(repository, &StageChange { old: &old, new: &stage });
        let finished_steps = |stage: &Stage| stage.steps.iter().filter(|step| step.status.is_over()).count();
        // A stage that makes progress must not become a dead letter because the server restarts often.
        if finished_steps(&stage) > finished_steps(&old) {
            self.reset_attempts(Queue::Run, &key_of_stage(id))?;
        }
        if visible_state(&stage) != visible_state(&old) {
            self.update_run_queue(repository, &StageChange { old: &old, new: &stage }, now)?;
            self.refresh_build(id.build, now)?;
        }
        if old.status == Status::Blocked && stage.status == Status::Pending {
            let build = self.build(id.build)?.ok_or(StoreError::NotFound("build"))?;
            self.adopt_admitted_schedules(&build, &self.stages(id.build)?, now)?;
        }
        if needs_new_approval(&old, &stage) {
            let build = self.build(id.build)?.ok_or(StoreError::NotFound("build"))?;
            self.add_notices(NoticeKind::ApprovalRequested, &build, &self.stages(id.build)?, now)?;
        }
        Ok(stage)
    }

    fn update_run_queue(&self, repository: RepositoryId, change: &StageChange<'_>, now: Timestamp) -> Result<(), StoreError> {
        let &StageChange { old, new } = change;
        let (key, fairness_key) = (key_of_stage(new.id()), FairnessKey::of_repository(repository));
        match new.status {
            // Approved before the stages that it needs have finished: the end of the last one queues it.
            Status::Pending if new.waits_for_needs => Ok(()),
            Status::Pending if old.status == Status::Blocked => self.enqueue(Queue::Run, &key, fairness_key, DueTime::now(now)),
            // The stage ended while it waited for approval: the worker removes its containers.
            status if status.is_over() && old.awaiting_approval_since.is_some() => {
                self.enqueue(Queue::Run, &key, fairness_key, DueTime::now(now))
            }
            // The row leaves the queue after the worker has removed the containers that are not needed during the wait.
            Status::Blocked if new.awaiting_approval_since.is_some() => Ok(()),
            status if status.is_over() || status == Status::Blocked => self.dequeue(Queue::Run, &key),
            _ => Ok(()),
        }
    }

    pub(super) fn announce_changes(&self, repository: RepositoryId, change: &StageChange<'_>) {
        let &StageChange { old, new } = change;
        let id = new.id();
        if visible_state(old) != visible_state(new) {
            self.announce(ChangeEvent::StageChanged { repository, stage: id, status: new.display_status() });
        }
        for step in &new.steps {
            let before = old.step(step.number);
            if before.is_none_or(|before| before.status != step.status || before.reason != step.reason) {
                let step_id = StepId { build: id.build, stage: id.stage, step: step.number, attempt: step.attempt };
                self.announce(ChangeEvent::StepChanged { repository, step: step_id, status: step.status });
            }
        }
    }
}

/// The parts of a stage that determine its build's status and its queue row.
fn visible_state(stage: &Stage) -> impl PartialEq + '_ {
    let block_reasons: Vec<_> = stage.blocked_steps().map(|(step, _)| &step.reason).collect();
    (stage.status, stage.display_status(), &stage.reason, stage.started_at, block_reasons)
}

/// Whether a person must decide something new, or something whose earlier approval has expired.
fn needs_new_approval(old: &Stage, stage: &Stage) -> bool {
    let was_decided = |step: &Step| step.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::ApprovalDecided);
    let was_requested = |step: &Step, round: &Round| {
        old.blocked_steps()
            .any(|(other, requested)| other.number == step.number && requested.decision == round.decision && !was_decided(other))
    };
    let is_blocked = stage.status == Status::Blocked;
    (is_blocked && old.status == Status::Pending)
        || stage.blocked_steps().any(|(step, round)| !was_decided(step) && !was_requested(step, round))
}

impl Store {
    /// Changes one stage and everything that depends on it, in one transaction. See [`Write::change_stage`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError`] if the store cannot be written.
    pub async fn change_stage(
        &self,
        id: StageId,
        now: Timestamp,
        change: impl Fn(&mut Stage) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<Stage, StoreError> {
        self.write(move |write| write.change_stage(id, now, &change)).await
    }
}
