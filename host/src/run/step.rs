//! One step: its rounds, and one log for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use beespace_core::build::{Round, Stage, Step};
use beespace_core::environment::{self, Given};
use beespace_core::graph;
use beespace_core::ids::StepNumber;
use beespace_core::outcome::{Conclusion, Directive, Exit, Reason};
use beespace_core::plan::StepPlan;
use beespace_core::policy::{Approved, approval};
use beespace_core::status::Status;
use beespace_wasm::RoundEnd;
use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use super::round::RoundRun;
use super::{StageRun, workspace};
use crate::clock::now;
use crate::log::Source;
use crate::prepare;
use crate::store::decision::Decisions as _;

/// Rounds of a step type at most.
const MAX_ROUNDS: u16 = 32;

/// Whether a step starts, or is taken up where another process left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    Fresh,
    Again,
}

/// How a step ended.
struct End {
    status: Status,
    reason: Option<Reason>,
    conclusion: Option<Conclusion>,
}

impl End {
    fn new(status: Status, reason: Option<Reason>) -> Self {
        Self { status, reason, conclusion: None }
    }

    fn error(reason: Reason) -> Self {
        Self::new(Status::Error, Some(reason))
    }
}

/// Runs a step to its end and writes it down.
pub(super) async fn run(run: Arc<StageRun>, number: StepNumber, begin: Begin, cancel: CancellationToken) -> anyhow::Result<()> {
    let stage = run.stage()?;
    let step = stage.steps.iter().find(|step| step.number == number).context("the step is not in its stage")?.clone();
    if number == StepNumber::CLONE {
        let (status, reason) = workspace::fill(&run, &step, &cancel).await?;
        return end(&run, number, End::new(status, reason), None).await;
    }
    let log = Journal::open(&run, &step).await?;
    let step_run = StepRun { run: Arc::clone(&run), stage, step, log, cancel };
    let ended = step_run.rounds(begin).await?;
    if let Some(reason) = &ended.reason {
        step_run.log.say(&reason.to_string()).await?;
    }
    let dropped = step_run.log.finish().await?.map_or(0, |log| log.dropped);
    let incomplete = (dropped > 0).then(|| format!("{dropped} bytes beyond the limit of the log were dropped"));
    end(&run, number, ended, incomplete).await?;
    run.app.engine.release(run.step_id(&step_run.step)).await.or_else(|error| {
        tracing::warn!(%error, "a step's containers could not be removed; its stage's end does it");
        Ok(())
    })
}

async fn end(run: &StageRun, number: StepNumber, end: End, incomplete: Option<String>) -> anyhow::Result<()> {
    let at = now();
    run.change_step(number, move |step| {
        step.status = end.status;
        // A step that was stopped keeps the reason why someone stopped it.
        if !(end.status == Status::Killed && step.reason.is_some()) {
            step.reason.clone_from(&end.reason);
        }
        if let Some(conclusion) = &end.conclusion {
            step.findings.clone_from(&conclusion.findings);
        }
        step.log_incomplete.clone_from(&incomplete);
        step.finished_at = Some(at);
    })
    .await?;
    Ok(())
}

/// A step in hand.
struct StepRun {
    run: Arc<StageRun>,
    stage: Stage,
    step: Step,
    log: Journal,
    cancel: CancellationToken,
}

impl StepRun {
    async fn rounds(&self, mut begin: Begin) -> anyhow::Result<End> {
        let Some(mut round) = self.step.round.clone() else {
            return Ok(End::error(
                Reason::new("no-plan", "the step has no plan").help("this is a mistake of the server: please report it"),
            ));
        };
        loop {
            let approved = match self.approved(&round)? {
                Ok(approved) => Arc::new(approved),
                Err(reason) => return Ok(End::error(reason)),
            };
            let exits = match self.exits(&round, &approved, begin).await? {
                Ok(exits) => exits,
                Err(reason) => return Ok(End::error(reason)),
            };
            let Some(uses) = &round.plan.uses else { return Ok(end_of_image_step(&exits)) };
            match self.react(uses, &round.plan, exits).await? {
                Next::Round(plan) if round.number + 1 < MAX_ROUNDS => {
                    // Before the next round is stored: its containers are called as this one's are, and those must not be taken for them.
                    let released = self.run.app.engine.release(self.run.step_id(&self.step)).await;
                    if let Err(error) = released {
                        return Ok(End::error(error.reason()));
                    }
                    round = self.store_round(round.number + 1, plan).await?;
                }
                Next::Round(_) => {
                    let message = format!("the step type asked for more than {MAX_ROUNDS} rounds");
                    return Ok(End::error(Reason::new("too-many-rounds", message)));
                }
                Next::End(end) => return Ok(end),
            }
            begin = Begin::Fresh;
        }
    }

    /// How the containers of a round ended: told by the row where an earlier process has stored it, else by running them.
    async fn exits(
        &self,
        round: &Round,
        approved: &Arc<Approved<StepPlan>>,
        begin: Begin,
    ) -> anyhow::Result<Result<Vec<Exit>, Reason>> {
        if begin == Begin::Again && !self.step.exits.is_empty() {
            return Ok(Ok(self.step.exits.clone()));
        }
        if self.log.is_finished() && !round.plan.containers.is_empty() {
            // The end was told already and not stored: nothing may run after it.
            return Ok(
                Err(Reason::new("lost", "the server ended before it stored how the step ended").help("restart the build")),
            );
        }
        let exits = match self.run_round(round.number, approved, begin).await? {
            Ok(exits) => exits,
            Err(reason) => return Ok(Err(reason)),
        };
        let stored = exits.clone();
        self.run.change_step(self.step.number, move |step| step.exits.clone_from(&stored)).await?;
        Ok(Ok(exits))
    }

    /// The proof that the round may run, from what is stored.
    fn approved(&self, round: &Round) -> anyhow::Result<Result<Approved<StepPlan>, Reason>> {
        let decision = self.run.app.store.read()?.decision(round.decision)?.context("the decision about the plan is gone")?;
        let caused_by = self.run.build.event.sender.stable_id();
        let pending = self.stage.approvals.iter().find(|pending| pending.decision == decision.id);
        let approved = pending.and_then(|pending| approval::approved_digest(pending, &caused_by, now()));
        Ok(Approved::new(round.plan.clone(), &decision, approved)
            .map_err(|error| Reason::new("not-approved", format!("the plan may not run: {error}"))))
    }

    /// Runs the containers of a round.
    async fn run_round(
        &self,
        number: u16,
        plan: &Arc<Approved<StepPlan>>,
        begin: Begin,
    ) -> anyhow::Result<Result<Vec<Exit>, Reason>> {
        let secrets = match self.run.secrets.of_plan(plan.get()) {
            Ok(secrets) => secrets,
            Err(reason) => return Ok(Err(reason)),
        };
        let (step, env) = (self.run.step_id(&self.step), self.environment()?);
        RoundRun { run: &self.run, step, number, begin, plan, env, secrets, log: &self.log, cancel: &self.cancel }.exits().await
    }

    fn environment(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let stage = self.run.stage()?;
        let so_far = graph::status_so_far(&graph::nodes(&stage));
        let build_url = crate::address::build_url(&self.run.app.config.server.public_url, &self.run.build);
        Ok(environment::variables(&Given {
            build: &self.run.build,
            stage: &stage,
            step: &self.step,
            so_far,
            build_url: &build_url,
        }))
    }

    async fn react(&self, uses: &str, plan: &StepPlan, exits: Vec<Exit>) -> anyhow::Result<Next> {
        let Some(step_type) = self.run.app.plugins.step_types.get(uses) else {
            return Ok(Next::End(End::error(Reason::new(
                "unknown-step-type",
                format!("there is no step type {uses:?} here any more"),
            ))));
        };
        let input = prepare::step_input(&self.run.app, &self.run.build, &self.stage, &self.step.name, &self.run.change);
        let end = if self.cancel.is_cancelled() { RoundEnd::Cancelled } else { RoundEnd::Exited(exits) };
        let answer = step_type.react(input, plan, end).await;
        for line in &answer.report.log {
            self.log.write(Source::HOST, now(), format!("{}: {}\n", uses, line.message).into()).await?;
        }
        Ok(match answer.result {
            Ok(Directive::Run(plan)) => Next::Round(plan),
            Ok(Directive::Done(conclusion)) => Next::End(self.conclude(conclusion).await?),
            Err(error) => Next::End(End::error(Reason::new("step-type", error.to_string()))),
        })
    }

    /// Tells the reader of the log what the step type found.
    async fn conclude(&self, conclusion: Conclusion) -> anyhow::Result<End> {
        for finding in &conclusion.findings {
            let remedy = finding.remedy.as_deref().map_or(String::new(), |remedy| format!(" ({remedy})"));
            self.log.say(&format!("{}: {}{remedy}", finding.rule_id, finding.message)).await?;
        }
        let reason = (!conclusion.message.is_empty()).then(|| Reason::new("step-type", conclusion.message.clone()));
        Ok(End { status: conclusion.status, reason, conclusion: Some(conclusion) })
    }

    /// A further round passes policies as the first one did, before it is stored.
    async fn store_round(&self, number: u16, plan: StepPlan) -> anyhow::Result<Round> {
        let (decision, plan) = prepare::admit_round(&self.run.app, &self.run.build, &self.stage, plan, &self.run.change).await;
        let round = Round { number, plan, decision: decision.id };
        let (id, stored, step_number) = (self.run.id, round.clone(), self.step.number);
        let notifiers = self.run.app.plugins.notifier_names();
        let at = now();
        self.run
            .app
            .store
            .write(move |write| {
                write.put_decision(&decision)?;
                write.change_stage(id, &notifiers, at, |stage| {
                    for step in stage.steps.iter_mut().filter(|step| step.number == step_number) {
                        step.round = Some(stored.clone());
                        step.exits.clear();
                    }
                    Ok(())
                })
            })
            .await?;
        Ok(round)
    }
}

/// What comes after a round.
enum Next {
    Round(StepPlan),
    End(End),
}

/// An `image:` step ends as its container did.
fn end_of_image_step(exits: &[Exit]) -> End {
    let Some(exit) = exits.iter().find(|exit| !exit.is_success()).or(exits.first()) else {
        return End::new(Status::Success, None);
    };
    let status = exit.cause.status(exit.code);
    End::new(status, exit.reason())
}
