//! The reaction of a step type to a round: the step's end, or another round, which policies evaluate like the first.

use beespace_core::build::Round;
use beespace_core::exit::Exit;
use beespace_core::plan::StepPlan;
use beespace_core::policy::approval::PendingApproval;
use beespace_core::policy::{NotApproved, Ruling};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_core::step_type::{Conclusion, Directive};
use beespace_core::user_action;
use beespace_wasm::RoundEnd;

use super::approved::Refusal;
use super::engine_retry::EngineRetry;
use super::step_run::{StepOutcome, StepRun};
use crate::clock::now;
use crate::log::Origin;
use crate::planning::{self, round};
use crate::plugins;

/// The maximum number of rounds of a step.
const MAX_ROUNDS: u16 = 32;

/// The continuation after a round.
pub(super) enum AfterRound {
    NextRound(Round),
    End(StepOutcome),
}

impl StepRun {
    /// Calls the step type, writes its log lines, and stores the next round if it plans one.
    ///
    /// # Errors
    /// The store's or the log's.
    pub(super) async fn react(&self, uses: &str, round: &Round, exits: Vec<Exit>) -> anyhow::Result<AfterRound> {
        let Some(step_type) = self.run.app.plugins.step_types.get(uses) else {
            let message = format!("step type {uses:?} is no longer configured");
            return Ok(AfterRound::End(StepOutcome::error(Reason::new(ReasonCode::UnknownStepType, message))));
        };
        let input = planning::step_input(&self.run.build, &self.stage, &self.step.name, &self.run.change_set);
        let is_cancelled = self.cancel.is_cancelled();
        let end = if is_cancelled { RoundEnd::Cancelled } else { RoundEnd::Exited(exits) };
        let react = || step_type.react(input.clone(), &round.plan, end.clone());
        let answer = plugins::when_free(react, |error| error.class).await;
        for line in &answer.report.log {
            self.log.write(Origin::HOST, now(), format!("{uses}: {}\n", line.message).into()).await?;
        }
        match answer.result {
            Ok(Directive::Run(plan)) => self.next_round(round, plan, is_cancelled).await,
            Ok(Directive::Done(conclusion)) => Ok(AfterRound::End(self.conclude(conclusion, is_cancelled).await?)),
            Err(error) => Ok(AfterRound::End(StepOutcome::error(Reason::new(ReasonCode::StepTypeFailed, error.to_string())))),
        }
    }

    async fn next_round(&self, round: &Round, plan: StepPlan, is_cleanup: bool) -> anyhow::Result<AfterRound> {
        if round.number + 1 >= MAX_ROUNDS {
            let message = format!("the step type requested more than {MAX_ROUNDS} rounds");
            return Ok(AfterRound::End(StepOutcome::error(Reason::new(ReasonCode::TooManyRounds, message))));
        }
        self.log.flush().await?;
        // The containers are removed before the next round is stored: its containers have the same names and must not be mistaken
        // for these.
        let mut retry = EngineRetry::new();
        while let Err(error) = self.run.app.engine.release(self.run.step_id(&self.step)).await {
            if !retry.should_retry(&error, &self.cancel).await {
                return Ok(AfterRound::End(StepOutcome::error(error.reason())));
            }
        }
        Ok(AfterRound::NextRound(self.store_round(round.number + 1, plan, is_cleanup).await?))
    }

    /// Writes the findings of the step type to the log. A cancelled step stays killed, whatever its step type concludes.
    async fn conclude(&self, conclusion: Conclusion, is_cancelled: bool) -> anyhow::Result<StepOutcome> {
        for finding in &conclusion.findings {
            let remedy = finding.remedy.as_deref().map_or(String::new(), |remedy| format!(" ({remedy})"));
            self.log.write_line(&format!("{}: {}{remedy}", finding.rule_id, finding.message)).await?;
        }
        let reason =
            (!conclusion.message.is_empty()).then(|| Reason::new(ReasonCode::StepTypeResult, conclusion.message.clone()));
        let status = if is_cancelled { Status::Killed } else { conclusion.status };
        let mut outcome = StepOutcome::new(status, reason);
        outcome.conclusion = Some(conclusion);
        Ok(outcome)
    }

    /// Policies evaluate a further round like the first one, before it is stored.
    async fn store_round(&self, number: u16, plan: StepPlan, is_cleanup: bool) -> anyhow::Result<Round> {
        let (app, build) = (&self.run.app, &self.run.build);
        let change_set = planning::with_present_labels(app, build, self.run.change_set.clone()).await;
        let (decision, plan) = round::admit_round(app, build, &self.stage, plan, &change_set).await;
        let round = Round { number, plan, decision: decision.id, is_cleanup };
        let (id, stored, step_number) = (self.run.id, round.clone(), self.step.number);
        let approval = PendingApproval::for_decision(&decision, round::next_plan_subject(&self.step.name));
        let mut written = self.stage.pipeline.steps.iter();
        let is_retried = written.any(|written| written.name == self.step.name && written.retry.is_some());
        let at = now();
        self.run
            .app
            .store
            .write(move |write| {
                write.put_decision(&decision)?;
                write.change_stage(id, at, |stage| {
                    stage.approvals.extend(approval.clone());
                    if let Some(step) = stage.step_mut(step_number) {
                        if is_retried {
                            step.first_round = step.first_round.take().or(step.round.take());
                        }
                        step.round = Some(stored.clone());
                        step.exits.clear();
                    }
                    Ok(())
                })
            })
            .await?;
        Ok(round)
    }

    /// The outcome of a step whose plan must not run: it is declined, or waits for approval; a cancelled step stays killed.
    /// Only later rounds come here: the first round was decided before the stage started.
    pub(super) fn refusal_outcome(&self, Refusal { decision, error, approval }: &Refusal) -> StepOutcome {
        let is_cancelled = self.cancel.is_cancelled();
        let subject = round::next_plan_subject(&self.step.name);
        let (status, reason) = match (&decision.ruling, error, approval) {
            (Ruling::Denied { by }, NotApproved::Denied, _) => (Status::Declined, planning::denied_reason(&subject, by)),
            (_, NotApproved::ApprovalMissing, Some(PendingApproval { declined: Some(reason), .. })) => {
                (Status::Declined, reason.clone())
            }
            (_, NotApproved::ApprovalMissing, Some(_)) if is_cancelled => {
                let message = format!("{subject} needs approval, and a cancelled step does not wait for approval");
                (Status::Killed, Reason::new(ReasonCode::CancelledBeforeApproval, message))
            }
            (_, NotApproved::ApprovalMissing, Some(approval)) => {
                (Status::Blocked, user_action::approval_reason(&[approval], &self.run.caused_by(), now()))
            }
            _ => (Status::Error, Reason::new(ReasonCode::NotApproved, format!("the plan must not run: {error}"))),
        };
        StepOutcome::new(if is_cancelled { Status::Killed } else { status }, Some(reason))
    }
}
