//! Stages that wait for others. The transaction that ends the last stage that one needs also queues or skips that one, so a crash
//! loses and repeats nothing.

use beespace_core::build::{Build, Stage};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::stage_graph::{self, StageMove};
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_core::user_action::{self, ActionRefused};

use super::build::{Builds as _, key_of_stage};
use super::queue::{DueTime, FairnessKey};
use super::stage::StageChange;
use super::transaction::Write;
use super::{Queue, Store, StoreError};

impl Write<'_> {
    /// Queues or skips the stages of a build that need not wait any longer; the others show what they wait for. Returns the
    /// summaries of all stages of the build: it is called after each change of a stage, and a build may have a thousand.
    pub(super) fn release_stages(&self, build: &Build, now: Timestamp) -> Result<Vec<Stage>, StoreError> {
        let mut summaries = self.stage_summaries(build.id)?;
        loop {
            let mut has_moved = false;
            for one in stage_graph::next_moves(&summaries) {
                let Some(summary) = summaries.iter_mut().find(|summary| summary.number == one.stage()) else { continue };
                // Most moves are waits that the stage shows already.
                if matches!(&one, StageMove::Wait(_, reason) if summary.reason.as_ref() == Some(reason)) {
                    continue;
                }
                let mut stage = self.stage(summary.id())?.ok_or(StoreError::NotFound("stage"))?;
                has_moved |= self.apply_move(build, &mut stage, &one, now)?;
                *summary = stage.summary();
            }
            if !has_moved {
                return Ok(summaries);
            }
        }
    }

    /// Returns whether other stages may move now.
    fn apply_move(&self, build: &Build, stage: &mut Stage, one: &StageMove, now: Timestamp) -> Result<bool, StoreError> {
        let old = stage.clone();
        match one {
            StageMove::Skip(_, reason) => stage_graph::skip(stage, reason, now),
            StageMove::Release(_) => stage.waits_for_needs = false,
            StageMove::Wait(..) => {}
        }
        // A stage that also waits for an approval shows that.
        if stage.status == Status::Pending {
            stage.reason = match one {
                StageMove::Wait(_, reason) => Some(reason.clone()),
                _ => Some(Reason::new(ReasonCode::Capacity, "waiting for a free slot")),
            };
        }
        if *stage == old {
            return Ok(false);
        }
        let repository = build.event.repository.id;
        self.put_stage(stage)?;
        self.announce_changes(repository, &StageChange { old: &old, new: stage });
        if matches!(one, StageMove::Release(_)) && stage.status == Status::Pending {
            let fairness_key = FairnessKey::of_repository(repository);
            self.enqueue(Queue::Run, &key_of_stage(stage.id()), fairness_key, DueTime::now(now))?;
        }
        Ok(!matches!(one, StageMove::Wait(..)))
    }
}

impl Store {
    /// Cancels all stages of a build that are not over, in one transaction. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError`] if the store cannot be written.
    pub async fn cancel_stages(&self, build: &Build, by: &str, now: Timestamp) -> Result<bool, StoreError> {
        let (id, by) = (build.id, by.to_owned());
        self.write(move |write| {
            let open: Vec<Stage> = write.stages(id)?.into_iter().filter(|stage| !stage.status.is_over()).collect();
            // First all are marked: the end of one must not start another.
            for stage in &open {
                let mark = |stage: &mut Stage| {
                    user_action::request_cancel(stage, &by, now);
                    Ok(())
                };
                write.change_stage(stage.id(), now, mark)?;
            }
            for stage in &open {
                write.change_stage(stage.id(), now, |stage| match user_action::cancel(stage, &by, now) {
                    Ok(()) | Err(ActionRefused::AlreadyFinished(_)) => Ok(()),
                    Err(refused) => Err(StoreError::Conflict(refused.to_string())),
                })?;
            }
            Ok(!open.is_empty())
        })
        .await
    }
}
