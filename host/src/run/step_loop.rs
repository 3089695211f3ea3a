//! The main phase of a stage: a loop that moves its steps until the stage ends or waits for approval.

use std::sync::Arc;
use std::time::Duration;

use beespace_core::build::Stage;
use beespace_core::change_event::ChangeEvent;
use beespace_core::graph;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_core::user_action;
use tokio::time::sleep;

use super::container::StartMode;
use super::stage_run::StageRun;
use super::step_run::FinishedStep;
use super::step_tasks::StepTasks;
use super::transitions;
use crate::clock::now;
use crate::store::StoreError;
use crate::store::watch::ChangeSubscription;
use crate::worker::WorkError;

/// A person's request to a running stage.
enum StageSignal {
    Cancel(Reason),
    /// The next plan of a blocked step has been decided.
    Resume,
}

/// Moves steps until no step moves: then the stage is over or waits for approval. Returns the tasks that still clean up.
///
/// # Errors
/// [`WorkError::HandedOver`] when the server stops; the store's.
pub(super) async fn drive(
    run: &Arc<StageRun>,
    stage: &Stage,
    mut changes: ChangeSubscription,
) -> Result<(StepTasks, Stage), WorkError> {
    let mut tasks = StepTasks::default();
    tasks.reconcile(run, stage, StartMode::Resume);
    let time_left = run.time_left(stage);
    let deadline = sleep(time_left);
    tokio::pin!(deadline);
    let (mut is_cancelled, mut finished) = (false, None);
    loop {
        let stage = run.advance(finished.take(), is_cancelled).await?;
        if stage.status != Status::Running {
            return Ok((tasks, stage));
        }
        tasks.reconcile(run, &stage, StartMode::Fresh);
        let cancel = tokio::select! {
            Some(step) = tasks.next_finished() => {
                finished = Some(step?);
                None
            }
            signal = run.next_signal(&mut changes), if !is_cancelled => match signal? {
                StageSignal::Cancel(reason) => Some(reason),
                StageSignal::Resume => None,
            },
            () = &mut deadline, if !is_cancelled => Some(timeout_reason(time_left)),
            () = run.app.stopping.cancelled() => {
                // The tasks are awaited, so that no task writes to the logs when the next process opens them. The
                // containers keep running.
                tasks.detach().await;
                return Err(WorkError::HandedOver);
            }
        };
        if let Some(reason) = cancel {
            is_cancelled = true;
            let stage = run.cancel_all_steps(&reason).await?;
            tasks.reconcile(run, &stage, StartMode::Fresh);
        }
    }
}

fn cancelled_by(person: &str) -> Reason {
    Reason::new(ReasonCode::Cancelled, format!("cancelled by {person}"))
}

fn timeout_reason(time_left: Duration) -> Reason {
    Reason::new(
        ReasonCode::StageTimeout,
        format!("the stage exceeded its timeout ({} s were left when it started or resumed)", time_left.as_secs()),
    )
    .help("raise `timeout` in the pipeline file; `[limits] stage_timeout` of the instance is the longest one")
}

impl StageRun {
    /// Stores how a step ended and everything that follows from it: which steps start, or that the stage is over. All of it
    /// is one change, because each change is a disk sync that the next step waits for.
    async fn advance(self: &Arc<Self>, finished: Option<FinishedStep>, is_cancelled: bool) -> Result<Stage, StoreError> {
        let (run, at) = (Arc::clone(self), now());
        let advance = move |stage: &mut Stage| {
            if let Some(step) = &finished {
                step.apply(stage);
            }
            match &stage.cancel_requested {
                Some(request) => transitions::cancel_if_idle(stage, &cancelled_by(&request.by), at),
                None if !is_cancelled => {
                    user_action::resume(stage, &run.caused_by(), at);
                    transitions::apply_all(stage, &run.conditions, at);
                }
                None => {}
            }
            if stage.steps.iter().any(|step| step.status == Status::Running) {
                transitions::resume_clock(stage, at);
            } else {
                transitions::conclude(stage, &run.caused_by(), at);
            }
        };
        self.update_stage(advance).await
    }

    /// Resolves when the row shows that a person cancelled the stage or decided about a blocked step.
    async fn next_signal(&self, changes: &mut ChangeSubscription) -> Result<StageSignal, StoreError> {
        loop {
            let stage = self.stage()?;
            if let Some(request) = &stage.cancel_requested {
                return Ok(StageSignal::Cancel(cancelled_by(&request.by)));
            }
            if user_action::can_resume(&stage, &self.caused_by(), now()) {
                return Ok(StageSignal::Resume);
            }
            let concerns_stage = |event: &ChangeEvent| match event {
                ChangeEvent::StageChanged { stage, .. } => *stage == self.id,
                ChangeEvent::StepChanged { step, status: Status::Blocked, .. } => step.stage_id() == self.id,
                _ => false,
            };
            changes.next_matching(concerns_stage).await;
        }
    }

    /// Cancels every unfinished step: running steps receive a cancel request, pending steps never start.
    async fn cancel_all_steps(&self, reason: &Reason) -> Result<Stage, StoreError> {
        let (reason, at) = (reason.clone(), now());
        self.update_stage(move |stage| {
            let moves = graph::cancel_all(&graph::nodes(stage), &reason);
            moves.iter().for_each(|one| transitions::apply(stage, one, at));
            stage.reason = Some(reason.clone());
        })
        .await
    }
}
