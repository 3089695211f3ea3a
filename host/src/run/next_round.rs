//! What comes after a round of a step type: its end, or another round, which policies judge as they did the first.

use beespace_core::build::Round;
use beespace_core::exit::Exit;
use beespace_core::plan::StepPlan;
use beespace_core::policy::approval::PendingApproval;
use beespace_core::policy::{NotApproved, Ruling};
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::step_type::{Conclusion, Directive};
use beespace_core::user_action;
use beespace_wasm::RoundEnd;

use super::engine_retry::EngineRetry;
use super::step::{Refusal, StepOutcome, StepRun};
use crate::clock::now;
use crate::log::Origin;
use crate::prepare;

/// Rounds of a step type at most.
const MAX_ROUNDS: u16 = 32;

/// What comes after a round.
pub(super) enum AfterRound {
    Round(Round),
    End(StepOutcome),
}

impl StepRun {
    /// Asks the step type, tells the log what it says, and stores the next round where it wants one.
    pub(super) async fn react(&self, uses: &str, round: &Round, exits: Vec<Exit>) -> anyhow::Result<AfterRound> {
        let Some(step_type) = self.run.app.plugins.step_types.get(uses) else {
            let message = format!("there is no step type {uses:?} here any more");
            return Ok(AfterRound::End(StepOutcome::error(Reason::new("unknown-step-type", message))));
        };
        let input = prepare::step_input(&self.run.build, &self.stage, &self.step.name, &self.run.change);
        let is_stopped = self.cancel.is_cancelled();
        let end = if is_stopped { RoundEnd::Cancelled } else { RoundEnd::Exited(exits) };
        let answer = step_type.react(input, &round.plan, end).await;
        for line in &answer.report.log {
            self.log.write(Origin::HOST, now(), format!("{uses}: {}\n", line.message).into()).await?;
        }
        match answer.result {
            Ok(Directive::Run(plan)) => self.next_round(round, plan, is_stopped).await,
            Ok(Directive::Done(conclusion)) => Ok(AfterRound::End(self.conclude(conclusion, is_stopped).await?)),
            Err(error) => Ok(AfterRound::End(StepOutcome::error(Reason::new("step-type", error.to_string())))),
        }
    }

    async fn next_round(&self, round: &Round, plan: StepPlan, cleans_up: bool) -> anyhow::Result<AfterRound> {
        if round.number + 1 >= MAX_ROUNDS {
            let message = format!("the step type asked for more than {MAX_ROUNDS} rounds");
            return Ok(AfterRound::End(StepOutcome::error(Reason::new("too-many-rounds", message))));
        }
        self.log.flush().await?;
        // The containers go before the next round is stored: its containers are called as these are, and these must not be taken for them.
        let mut patience = EngineRetry::new();
        while let Err(error) = self.run.app.engine.release(self.run.step_id(&self.step)).await {
            if !patience.should_retry(&error, &self.cancel).await {
                return Ok(AfterRound::End(StepOutcome::error(error.reason())));
            }
        }
        Ok(AfterRound::Round(self.store_round(round.number + 1, plan, cleans_up).await?))
    }

    /// Tells the reader of the log what the step type found. A step that was stopped stays one, whatever its type makes of it.
    async fn conclude(&self, conclusion: Conclusion, is_stopped: bool) -> anyhow::Result<StepOutcome> {
        for finding in &conclusion.findings {
            let remedy = finding.remedy.as_deref().map_or(String::new(), |remedy| format!(" ({remedy})"));
            self.log.say(&format!("{}: {}{remedy}", finding.rule_id, finding.message)).await?;
        }
        let reason = (!conclusion.message.is_empty()).then(|| Reason::new("step-type", conclusion.message.clone()));
        let status = if is_stopped { Status::Killed } else { conclusion.status };
        let mut end = StepOutcome::new(status, reason);
        end.conclusion = Some(conclusion);
        Ok(end)
    }

    /// A further round passes policies as the first one did, before it is stored.
    async fn store_round(&self, number: u16, plan: StepPlan, cleans_up: bool) -> anyhow::Result<Round> {
        let (decision, plan) = prepare::admit_round(&self.run.app, &self.run.build, &self.stage, plan, &self.run.change).await;
        let round = Round { number, plan, decision: decision.id, is_cleanup: cleans_up };
        let (id, stored, step_number) = (self.run.id, round.clone(), self.step.number);
        let question = PendingApproval::for_decision(&decision, prepare::next_plan_subject(&self.step.name));
        let notifiers = self.run.app.plugins.notifier_names();
        let at = now();
        self.run
            .app
            .store
            .write(move |write| {
                write.put_decision(&decision)?;
                write.change_stage(id, &notifiers, at, |stage| {
                    stage.approvals.extend(question.clone());
                    if let Some(step) = stage.step_mut(step_number) {
                        step.round = Some(stored.clone());
                        step.exits.clear();
                    }
                    Ok(())
                })
            })
            .await?;
        Ok(round)
    }

    /// What becomes of a step whose plan may not run: it ends, or waits for a person; one that is to stop stays stopped. What the first round
    /// needed was settled before the stage began; this is about later ones.
    pub(super) fn refusal_outcome(&self, Refusal { decision, error, approval: question }: &Refusal) -> StepOutcome {
        let is_stopped = self.cancel.is_cancelled();
        let (status, reason) = match (&decision.ruling, error, question) {
            (Ruling::Denied { by }, NotApproved::Denied, _) => {
                (Status::Declined, prepare::denied_reason(&prepare::next_plan_subject(&self.step.name), by))
            }
            (_, NotApproved::ApprovalMissing, Some(PendingApproval { declined: Some(said), .. })) => {
                (Status::Declined, said.clone())
            }
            (_, NotApproved::ApprovalMissing, Some(_)) if is_stopped => {
                let message = format!(
                    "{} needs approval, which a step that is to stop does not wait for",
                    prepare::next_plan_subject(&self.step.name)
                );
                (Status::Killed, Reason::new("approval", message))
            }
            (_, NotApproved::ApprovalMissing, Some(question)) => {
                (Status::Blocked, user_action::approval_reason(&[question], &self.run.caused_by(), now()))
            }
            _ => (Status::Error, Reason::new("not-approved", format!("the plan may not run: {error}"))),
        };
        StepOutcome::new(if is_stopped { Status::Killed } else { status }, Some(reason))
    }
}
