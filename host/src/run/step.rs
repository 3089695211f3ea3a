//! One step: its rounds, and one log for all of them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use beespace_core::build::{Round, Stage, Step};
use beespace_core::exit::{Exit, ExitCause};
use beespace_core::ids::StepNumber;
use beespace_core::plan::StepPlan;
use beespace_core::policy::Approved;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::approved::ApprovalCheck;
use super::container::StartMode;
use super::next_attempt::NextAttempt;
use super::next_round::AfterRound;
use super::round::{RoundOutcome, RoundRun};
use super::stage_run::StageRun;
use super::step_log::StepLog;
use super::step_run::{FinishedStep, StepOutcome, StepRun};
use super::workspace;
use crate::clock::now;
use crate::log::LogError;

/// Why a log may be incomplete when its container ended during an outage of the engine.
const OUTPUT_MAY_BE_MISSING: &str = "the engine was unreachable when a container ended, so its last output may be missing";

/// The time limit of a cleanup round.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the containers of a step stay after the step has ended: an engine that is removing containers starts the next
/// ones late.
const REMOVAL_DELAY: Duration = Duration::from_secs(1);

/// Runs a step to its end, or until its next plan waits for approval: as many attempts as its `retry` allows.
///
/// # Errors
/// The store's or the log's.
pub(super) async fn run(
    run: Arc<StageRun>,
    number: StepNumber,
    mut mode: StartMode,
    cancel: CancellationToken,
) -> anyhow::Result<FinishedStep> {
    loop {
        let (finished, next) = attempt(&run, number, mode, &cancel).await?;
        let Some(next) = next else { return Ok(finished) };
        next.begin(&run, number, &cancel).await?;
        mode = StartMode::Fresh;
    }
}

/// Runs one attempt at a step. Returns the next one, if there is one.
async fn attempt(
    run: &Arc<StageRun>,
    number: StepNumber,
    mode: StartMode,
    cancel: &CancellationToken,
) -> anyhow::Result<(FinishedStep, Option<NextAttempt>)> {
    let stage = run.stage()?;
    let step = stage.step(number).context("the step is not in its stage")?.clone();
    let finished = |outcome, log_incomplete| FinishedStep { number, outcome, log_incomplete, at: now() };
    if number == StepNumber::CLONE {
        let (status, reason) = workspace::fill(run, &step, mode, cancel).await?;
        return Ok((finished(StepOutcome::new(status, reason), None), None));
    }
    let log = StepLog::open(run, &step, cancel).await?;
    let step_run = StepRun { run: Arc::clone(run), stage, step, log, cancel: cancel.clone() };
    let outcome = step_run.run_rounds(mode).await?;
    // The log of a program that ended by itself contains only what the program wrote. Pages and the command line show the reason.
    let has_ended_itself = !outcome.exits.is_empty() && outcome.exits.iter().all(|exit| exit.cause == ExitCause::Exited);
    if let Some(reason) = outcome.reason.as_ref().filter(|_| !has_ended_itself) {
        step_run.log.write_line(&reason.to_string()).await?;
    }
    if !outcome.status.is_over() {
        step_run.log.flush().await?;
        return Ok((finished(outcome, None), None));
    }
    let next = NextAttempt::after(&step_run, &outcome);
    if let Some(next) = &next {
        step_run.log.write_line(&next.line()).await?;
    }
    let may_lack_output = outcome.exits.iter().any(|exit| exit.output_incomplete);
    let incomplete = step_run.log.finish(may_lack_output.then_some(OUTPUT_MAY_BE_MISSING)).await?;
    Ok((finished(outcome, incomplete), next))
}

/// Finishes the logs of steps that ended while they waited for approval: no task ran them then.
pub(super) async fn finish_logs(run: &StageRun, stage: &Stage) {
    let needed_approval = |round: &Round| stage.approvals.iter().any(|pending| pending.decision == round.decision);
    let over = stage.steps.iter().filter(|step| step.status.is_over() && step.started_at.is_some());
    for step in over.filter(|step| step.round.as_ref().is_some_and(needed_approval)) {
        if let Err(error) = finish_log(run, step).await {
            tracing::warn!(step = %run.step_id(step), %error, "could not finish a step's log");
        }
    }
}

/// Leaves a log that is already finished as it is.
async fn finish_log(run: &StageRun, step: &Step) -> Result<(), LogError> {
    // Do not wait for a full disk: the step is over, and its stage occupies a slot.
    let is_over = CancellationToken::new();
    is_over.cancel();
    let log = StepLog::open(run, step, &is_over).await?;
    if let Some(reason) = &step.reason {
        log.write_line(&reason.to_string()).await?;
    }
    log.finish(None).await.map(drop)
}

/// Removes the containers of a step whose end is stored. Does nothing when the stage closes soon, which removes them all.
pub(super) async fn remove_containers(run: Arc<StageRun>, stage: Stage, number: StepNumber, stage_closing: CancellationToken) {
    let Some(step) = stage.step(number).filter(|step| step.number != StepNumber::CLONE) else { return };
    if timeout(REMOVAL_DELAY, stage_closing.cancelled()).await.is_ok() {
        return;
    }
    if let Err(error) = run.app.engine.release(run.step_id(step)).await {
        tracing::warn!(%error, "could not remove a step's containers; they are removed when the stage ends");
    }
}

impl StepRun {
    async fn run_rounds(&self, mut mode: StartMode) -> anyhow::Result<StepOutcome> {
        let Some(mut round) = self.step.round.clone() else {
            return Ok(StepOutcome::error(
                Reason::new(ReasonCode::PlanningFailed, "the step has no plan")
                    .help("this is a bug in Beespace: please report it"),
            ));
        };
        loop {
            let approved = match self.run.check_approval(&self.run.stage()?, round.plan.clone(), round.decision)? {
                ApprovalCheck::Approved(approved) => Arc::new(approved),
                ApprovalCheck::Refused(refusal) => return Ok(self.refusal_outcome(&refusal)),
            };
            let exits = match self.stored_or_new_exits(&round, &approved, mode).await? {
                RoundOutcome::Exited(exits) => exits,
                RoundOutcome::Failed(reason) => return Ok(StepOutcome::error(reason)),
            };
            if round.is_cleanup {
                return Ok(StepOutcome::new(Status::Killed, exits.iter().find_map(Exit::reason)).with_exits(exits));
            }
            let Some(uses) = &round.plan.uses else { return Ok(image_step_outcome(&exits).with_exits(exits)) };
            round = match self.react(uses, &round, exits.clone()).await? {
                AfterRound::NextRound(next) => next,
                AfterRound::End(outcome) => return Ok(outcome.with_exits(exits)),
            };
            mode = StartMode::Fresh;
        }
    }

    /// The exits of a round: from the row when an earlier process has stored them, otherwise by running its containers.
    async fn stored_or_new_exits(
        &self,
        round: &Round,
        approved: &Arc<Approved<StepPlan>>,
        mode: StartMode,
    ) -> anyhow::Result<RoundOutcome> {
        if mode == StartMode::Resume && !self.step.exits.is_empty() {
            return Ok(RoundOutcome::Exited(self.step.exits.clone()));
        }
        let exits = match self.run_round(round, approved, mode).await? {
            RoundOutcome::Exited(exits) => exits,
            failed @ RoundOutcome::Failed(_) => return Ok(failed),
        };
        if exits.is_empty() {
            return Ok(RoundOutcome::Exited(exits));
        }
        // Once the exits are stored, the containers' output is never read from the engine again, so it has to be on disk first.
        self.log.flush().await?;
        if round.plan.uses.is_some() {
            // The step type's reaction may take a while and happens once. The exits of an image step are its end.
            let stored = exits.clone();
            self.run.update_step(self.step.number, move |step| step.exits.clone_from(&stored)).await?;
        }
        Ok(RoundOutcome::Exited(exits))
    }

    /// Runs the containers of a round. A cleanup round has a time limit of its own, because a person waits for the end of
    /// the step.
    async fn run_round(&self, round: &Round, plan: &Arc<Approved<StepPlan>>, mode: StartMode) -> anyhow::Result<RoundOutcome> {
        let secrets = match self.run.secrets.for_plan(plan.get()) {
            Ok(secrets) => secrets,
            Err(reason) => return Ok(RoundOutcome::Failed(reason)),
        };
        let env = self.run.environment(&self.run.stage()?, &self.step);
        let (step, number) = (self.run.step_id(&self.step), round.number);
        let cancel = if round.is_cleanup { &CancellationToken::new() } else { &self.cancel };
        let round_run = RoundRun { run: &self.run, step, number, mode, plan, env, secrets, log: &self.log, cancel };
        let mut outcome = pin!(round_run.run());
        tokio::select! {
            outcome = &mut outcome => outcome,
            () = sleep(CLEANUP_TIMEOUT), if round.is_cleanup => {
                cancel.cancel();
                outcome.await
            }
        }
    }
}

/// An `image:` step ends as its first container that failed, or else as its first container.
fn image_step_outcome(exits: &[Exit]) -> StepOutcome {
    let Some(exit) = exits.iter().find(|exit| !exit.is_success()).or(exits.first()) else {
        return StepOutcome::new(Status::Success, None);
    };
    let status = exit.cause.status(exit.code);
    StepOutcome::new(status, exit.reason())
}
