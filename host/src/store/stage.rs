//! Stages as they change. Whatever changes one goes through [`Write::change_stage`], which keeps its queue row and its build's word true.

use beespace_core::build::{Round, Stage, Step};
use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::{RepositoryId, StageId, StepId};
use beespace_core::notice::NoticeKind;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_core::user_action;

use super::build::{Builds as _, Notifiers, key_of_stage};
use super::queue::FairnessKey;
use super::transaction::Write;
use super::{Queue, Store, StoreError};

impl Write<'_> {
    /// Changes one stage and all that follows from it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] from `change`, or where it would change the word of a stage that is over.
    pub fn change_stage(
        &self,
        id: StageId,
        notifiers: &Notifiers,
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
            return Err(StoreError::Conflict(format!("the stage is over: {}", old.status)));
        }
        if stage.status.is_over() && stage.finished_at.is_none() {
            stage.finished_at = Some(now);
        }
        self.put_stage(&stage)?;
        let repository = self.build(id.build)?.ok_or(StoreError::NotFound("build"))?.event.repository.id;
        self.announce_changes(repository, id, &old, &stage);
        let ended = |stage: &Stage| stage.steps.iter().filter(|step| step.status.is_over()).count();
        // Many restarts of the server must not bury a stage that gets on between them.
        if ended(&stage) > ended(&old) {
            self.reset_attempts(Queue::Run, &key_of_stage(id))?;
        }
        if visible_state(&stage) != visible_state(&old) {
            self.update_run_queue(repository, id, (&old, &stage), now)?;
            self.refresh_build(id.build, notifiers, now)?;
        }
        if needs_new_approval(&old, &stage) {
            let build = self.build(id.build)?.ok_or(StoreError::NotFound("build"))?;
            self.add_notices(NoticeKind::ApprovalRequested, &build, &self.stages(id.build)?, notifiers, now)?;
        }
        Ok(stage)
    }

    fn update_run_queue(
        &self,
        of: RepositoryId,
        id: StageId,
        (old, stage): (&Stage, &Stage),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let key = key_of_stage(id);
        match stage.status {
            Status::Pending if old.status == Status::Blocked => {
                self.enqueue(Queue::Run, &key, FairnessKey::of_repository(of), now)
            }
            // Ended while it waited: whoever takes the row puts away what is left of it.
            status if status.is_over() && old.awaiting_approval_since.is_some() => {
                self.enqueue(Queue::Run, &key, FairnessKey::of_repository(of), now)
            }
            // Leaves once what it does not need meanwhile is put away.
            Status::Blocked if stage.awaiting_approval_since.is_some() => Ok(()),
            status if status.is_over() || status == Status::Blocked => self.dequeue(Queue::Run, &key),
            _ => Ok(()),
        }
    }

    fn announce_changes(&self, repository: RepositoryId, id: StageId, old: &Stage, stage: &Stage) {
        if visible_state(old) != visible_state(stage) {
            self.announce(ChangeEvent::StageChanged { repository, stage: id, status: stage.display_status() });
        }
        for step in &stage.steps {
            let before = old.step(step.number);
            if before.is_none_or(|before| before.status != step.status || before.reason != step.reason) {
                let step_id = StepId { build: id.build, stage: id.stage, step: step.number, attempt: step.attempt };
                self.announce(ChangeEvent::StepChanged { repository, step: step_id, status: step.status });
            }
        }
    }
}

/// What of a stage its build's word and its place in the queue depend on.
fn visible_state(stage: &Stage) -> impl PartialEq + '_ {
    let waits: Vec<_> = stage.blocked_steps().map(|(step, _)| &step.reason).collect();
    (stage.status, stage.display_status(), &stage.reason, stage.started_at, waits)
}

/// Whether people are asked for something that they had not been asked for, or whose answer has lapsed.
fn needs_new_approval(old: &Stage, stage: &Stage) -> bool {
    let had_answer = |step: &Step| step.reason.as_ref().is_some_and(|reason| reason.code == user_action::APPROVAL_DECIDED);
    let asked_before = |step: &Step, round: &Round| {
        old.blocked_steps()
            .any(|(other, asked)| other.number == step.number && asked.decision == round.decision && !had_answer(other))
    };
    let is_blocked = stage.status == Status::Blocked;
    (is_blocked && old.status == Status::Pending)
        || stage.blocked_steps().any(|(step, round)| !had_answer(step) && !asked_before(step, round))
}

impl Store {
    /// Changes one stage and all that follows from it, in one transaction.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError`] where the store cannot be written.
    pub async fn change_stage(
        &self,
        id: StageId,
        notifiers: Notifiers,
        now: Timestamp,
        change: impl Fn(&mut Stage) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<Stage, StoreError> {
        self.write(move |write| write.change_stage(id, &notifiers, now, &change)).await
    }
}
