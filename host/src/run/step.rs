//! One step: its rounds, and one log for all of them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use beespace_core::build::{Round, Stage, Step};
use beespace_core::environment::{self, Inputs};
use beespace_core::exit::Exit;
use beespace_core::graph;
use beespace_core::ids::{DecisionId, StepNumber};
use beespace_core::plan::StepPlan;
use beespace_core::policy::approval::PendingApproval;
use beespace_core::policy::{Approved, Decision, NotApproved, Subject, approval};
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::step_type::Conclusion;
use beespace_core::time::Timestamp;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::container::Begin;
use super::next_round::AfterRound;
use super::round::RoundRun;
use super::step_log::StepLog;
use super::{StageRun, workspace};
use crate::clock::now;
use crate::log::LogError;
use crate::store::decision::Decisions as _;

/// What a log may lack whose container ended while the engine was away.
const OUTPUT_MAY_BE_MISSING: &str = "the engine was away when a container ended, and what it printed last may be missing";

/// How long cleaning up after a stop may take.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the containers of a step stay when it has ended: an engine that removes them starts the next ones late.
const REMOVAL_DELAY: Duration = Duration::from_secs(1);

/// How a step ended.
pub(super) struct StepOutcome {
    pub(super) status: Status,
    pub(super) reason: Option<Reason>,
    pub(super) conclusion: Option<Conclusion>,
    /// How the containers of its last round ended.
    exits: Vec<Exit>,
}

impl StepOutcome {
    pub(super) fn new(status: Status, reason: Option<Reason>) -> Self {
        Self { status, reason, conclusion: None, exits: Vec::new() }
    }

    fn with_exits(self, exits: Vec<Exit>) -> Self {
        Self { exits, ..self }
    }

    pub(super) fn error(reason: Reason) -> Self {
        Self::new(Status::Error, Some(reason))
    }
}

/// The end of a step as it is to be written down.
pub(super) struct FinishedStep {
    pub(super) number: StepNumber,
    outcome: StepOutcome,
    incomplete: Option<String>,
    at: Timestamp,
}

impl FinishedStep {
    pub(super) fn apply(&self, stage: &mut Stage) {
        let end = &self.outcome;
        if let Some(step) = stage.step_mut(self.number) {
            // One that is to stop waits for nobody.
            let is_stopped = end.status == Status::Blocked && step.reason.is_some();
            step.status = if is_stopped { Status::Killed } else { end.status };
            // A step that was stopped keeps the reason why someone stopped it.
            if !(step.status == Status::Killed && step.reason.is_some()) {
                step.reason.clone_from(&end.reason);
            }
            if !end.exits.is_empty() {
                step.exits.clone_from(&end.exits);
            }
            if let Some(conclusion) = &end.conclusion {
                step.findings.clone_from(&conclusion.findings);
            }
            step.log_incomplete.clone_from(&self.incomplete);
            step.finished_at = step.status.is_over().then_some(self.at);
        }
    }
}

/// Runs a step to its end, or to where its next plan waits for a person.
pub(super) async fn run(
    run: Arc<StageRun>,
    number: StepNumber,
    begin: Begin,
    cancel: CancellationToken,
) -> anyhow::Result<FinishedStep> {
    let stage = run.stage()?;
    let step = stage.step(number).context("the step is not in its stage")?.clone();
    if number == StepNumber::CLONE {
        let (status, reason) = workspace::fill(&run, &step, begin, &cancel).await?;
        return Ok(FinishedStep { number, outcome: StepOutcome::new(status, reason), incomplete: None, at: now() });
    }
    let log = StepLog::open(&run, &step, &cancel).await?;
    let step_run = StepRun { run, stage, step, log, cancel };
    let end = step_run.run_rounds(begin).await?;
    if let Some(reason) = &end.reason {
        step_run.log.say(&reason.to_string()).await?;
    }
    if !end.status.is_over() {
        step_run.log.flush().await?;
        return Ok(FinishedStep { number, outcome: end, incomplete: None, at: now() });
    }
    let was_unseen = end.exits.iter().any(|exit| exit.output_incomplete);
    let incomplete = step_run.log.finish(was_unseen.then_some(OUTPUT_MAY_BE_MISSING)).await?;
    Ok(FinishedStep { number, outcome: end, incomplete, at: now() })
}

/// Ends the logs of steps that were ended while they waited for a person: nobody had them in hand.
pub(super) async fn end_logs(run: &StageRun, stage: &Stage) {
    let was_asked = |round: &Round| stage.approvals.iter().any(|pending| pending.decision == round.decision);
    let over = stage.steps.iter().filter(|step| step.status.is_over() && step.started_at.is_some());
    for step in over.filter(|step| step.round.as_ref().is_some_and(was_asked)) {
        if let Err(error) = finish_log(run, step).await {
            tracing::warn!(step = %run.step_id(step), %error, "a log could not be ended");
        }
    }
}

/// Does nothing to one that has its end.
async fn finish_log(run: &StageRun, step: &Step) -> Result<(), LogError> {
    // A full disk is not waited for: the step is over, and its stage holds a place.
    let is_over = CancellationToken::new();
    is_over.cancel();
    let log = StepLog::open(run, step, &is_over).await?;
    if let Some(reason) = &step.reason {
        log.say(&reason.to_string()).await?;
    }
    log.finish(None).await.map(drop)
}

/// Removes the containers of a step whose end is stored, unless the stage comes to rest soon, which removes them all.
pub(super) async fn remove_containers(run: Arc<StageRun>, stage: Stage, number: StepNumber, at_rest: CancellationToken) {
    let Some(step) = stage.step(number).filter(|step| step.number != StepNumber::CLONE) else { return };
    if timeout(REMOVAL_DELAY, at_rest.cancelled()).await.is_ok() {
        return;
    }
    if let Err(error) = run.app.engine.release(run.step_id(step)).await {
        tracing::warn!(%error, "a step's containers could not be removed; its stage's end does it");
    }
}

/// A plan that may not run, what was decided about it, and what people were asked.
pub(super) struct Refusal {
    pub(super) decision: Decision,
    pub(super) error: NotApproved,
    pub(super) approval: Option<PendingApproval>,
}

/// A step in hand.
pub(super) struct StepRun {
    pub(super) run: Arc<StageRun>,
    pub(super) stage: Stage,
    pub(super) step: Step,
    pub(super) log: StepLog,
    pub(super) cancel: CancellationToken,
}

impl StepRun {
    async fn run_rounds(&self, mut begin: Begin) -> anyhow::Result<StepOutcome> {
        let Some(mut round) = self.step.round.clone() else {
            return Ok(StepOutcome::error(
                Reason::new("no-plan", "the step has no plan").help("this is a mistake of the server: please report it"),
            ));
        };
        loop {
            let approved = match self.run.approved(&self.run.stage()?, (round.plan.clone(), round.decision))? {
                Ok(approved) => Arc::new(approved),
                Err(refusal) => return Ok(self.refusal_outcome(&refusal)),
            };
            let exits = match self.stored_or_new_exits(&round, &approved, begin).await? {
                Ok(exits) => exits,
                Err(reason) => return Ok(StepOutcome::error(reason)),
            };
            if round.is_cleanup {
                return Ok(StepOutcome::new(Status::Killed, exits.iter().find_map(Exit::reason)).with_exits(exits));
            }
            let Some(uses) = &round.plan.uses else { return Ok(image_step_outcome(&exits).with_exits(exits)) };
            round = match self.react(uses, &round, exits.clone()).await? {
                AfterRound::Round(next) => next,
                AfterRound::End(end) => return Ok(end.with_exits(exits)),
            };
            begin = Begin::Fresh;
        }
    }

    /// How the containers of a round ended: told by the row where an earlier process has stored it, else by running them.
    async fn stored_or_new_exits(
        &self,
        round: &Round,
        approved: &Arc<Approved<StepPlan>>,
        begin: Begin,
    ) -> anyhow::Result<Result<Vec<Exit>, Reason>> {
        if begin == Begin::Again && !self.step.exits.is_empty() {
            return Ok(Ok(self.step.exits.clone()));
        }
        let exits = match self.run_round(round, approved, begin).await? {
            Ok(exits) => exits,
            Err(reason) => return Ok(Err(reason)),
        };
        if exits.is_empty() {
            return Ok(Ok(exits));
        }
        // Once the row has their exits, nobody asks the engine again what the containers said.
        self.log.flush().await?;
        if round.plan.uses.is_some() {
            // What the step type makes of them may take a while, and is asked for once. The exits of an image step are its end.
            let stored = exits.clone();
            self.run.update_step(self.step.number, move |step| step.exits.clone_from(&stored)).await?;
        }
        Ok(Ok(exits))
    }

    /// Runs the containers of a round. What cleans up has its time, and not more: someone waits for the end.
    async fn run_round(
        &self,
        round: &Round,
        plan: &Arc<Approved<StepPlan>>,
        begin: Begin,
    ) -> anyhow::Result<Result<Vec<Exit>, Reason>> {
        let secrets = match self.run.secrets.for_plan(plan.get()) {
            Ok(secrets) => secrets,
            Err(reason) => return Ok(Err(reason)),
        };
        let env = self.run.environment(&self.run.stage()?, &self.step);
        let (step, number) = (self.run.step_id(&self.step), round.number);
        let cancel = if round.is_cleanup { &CancellationToken::new() } else { &self.cancel };
        let round_run = RoundRun { run: &self.run, step, number, begin, plan, env, secrets, log: &self.log, cancel };
        let mut exits = pin!(round_run.exits());
        tokio::select! {
            exits = &mut exits => exits,
            () = sleep(CLEANUP_TIMEOUT), if round.is_cleanup => {
                cancel.cancel();
                exits.await
            }
        }
    }
}

impl StageRun {
    /// The proof that a pipeline or a round's plan may run, from what is stored. A yes that held when the stage started holds until its end.
    pub(super) fn approved<T: Subject>(
        &self,
        stage: &Stage,
        (subject, decision): (T, DecisionId),
    ) -> anyhow::Result<Result<Approved<T>, Box<Refusal>>> {
        let decision = self.app.store.read()?.decision(decision)?.context("the decision about it is gone")?;
        let caused_by = self.caused_by();
        let pending = stage.approvals.iter().find(|pending| pending.decision == decision.id);
        let words = pending.filter(|pending| pending.declined.is_none());
        let last_word = words.iter().flat_map(|words| &words.approved_by).map(|by| by.at);
        let at = last_word.chain([stage.started_at.unwrap_or_else(now)]).max().unwrap_or_else(now);
        let approved = words.and_then(|words| approval::approved_digest(words, &caused_by, at));
        let refusal = |error| Refusal { error, approval: pending.cloned(), decision: decision.clone() };
        Ok(Approved::new(subject, &decision, approved).map_err(|error| Box::new(refusal(error))))
    }

    /// The variables of a step that starts as the stage stands.
    pub(super) fn environment(&self, stage: &Stage, step: &Step) -> BTreeMap<String, String> {
        let so_far = graph::status_so_far(&graph::nodes(stage));
        let build_url = crate::urls::build_url(&self.app.config.server.public_url, &self.build);
        environment::variables(&Inputs { build: &self.build, stage, step, status_so_far: so_far, build_url: &build_url })
    }
}

/// An `image:` step ends as its container did.
fn image_step_outcome(exits: &[Exit]) -> StepOutcome {
    let Some(exit) = exits.iter().find(|exit| !exit.is_success()).or(exits.first()) else {
        return StepOutcome::new(Status::Success, None);
    };
    let status = exit.cause.status(exit.code);
    StepOutcome::new(status, exit.reason())
}
