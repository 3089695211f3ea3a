//! An approval holds for what was approved, under the policies that asked for it. Where one of them changed while a person was being
//! waited for, all of them are asked again, and what was approved under the old ones counts no more.

use std::collections::BTreeSet;

use beespace_core::build::{Build, Round, Stage, Step};
use beespace_core::digest::Digest;
use beespace_core::ids::{DecisionId, StageId};
use beespace_core::pipeline;
use beespace_core::policy::BASELINE_POLICY;
use beespace_core::policy::Decision;
use beespace_core::policy::approval::PendingApproval;
use beespace_core::status::Status;
use beespace_core::user_action;

use crate::app::App;
use crate::change_set::Change;
use crate::clock::now;
use crate::prepare;
use crate::store::StoreError;
use crate::store::build::Builds as _;
use crate::store::decision::Decisions as _;
use crate::worker::Trouble;

/// Asks again where that is due: about the whole stage before it has begun, and since about the plans that its steps wait with.
///
/// # Errors
/// The store's.
pub async fn where_due(app: &App, id: StageId) -> Result<(), Trouble> {
    let stage = app.store.read()?.stage(id)?.ok_or(StoreError::NotFound("stage"))?;
    if stage.status.is_over() || stage.status == Status::Blocked {
        return Ok(());
    }
    let stale = stale(app, &stage)?;
    if stale.is_empty() {
        return Ok(());
    }
    tracing::info!(stage = %id, "policies have changed since people were asked: they are asked again");
    let build = app.build(id.build)?;
    let change = Change::of(app, &build).await;
    match stage.started_at {
        None => reevaluate_stage(app, &build, &change, stage).await,
        Some(_) => reevaluate_plans(app, &build, &change, &stage, &stale).await,
    }
}

/// The decisions by which people are asked, or have answered, under other policies than those of today.
fn stale(app: &App, stage: &Stage) -> Result<BTreeSet<DecisionId>, StoreError> {
    let read = app.store.read()?;
    let mut stale = BTreeSet::new();
    for pending in stage.approvals.iter().filter(|pending| stage.started_at.is_none() || is_open(stage, pending.decision)) {
        // A decision that is gone cannot be relied on.
        let decision = read.decision(pending.decision)?;
        if decision.is_none_or(|decision| policies_asked(&decision) != current_policies(app, &decision)) {
            stale.insert(pending.decision);
        }
    }
    Ok(stale)
}

/// Whether a step waits with the plan that this decision is about, or is about to: the server ended before it was written down that it waits.
fn is_open(stage: &Stage, decision: DecisionId) -> bool {
    let is_new = |pending: &PendingApproval| pending.decision == decision && pending.approved_by.is_empty();
    let waits = |step: &Step| match step.status {
        Status::Blocked => true,
        Status::Running => stage.approvals.iter().any(is_new),
        _ => false,
    };
    let is_its = |step: &&Step| step.round.as_ref().is_some_and(|round| round.decision == decision);
    stage.approvals.iter().any(|pending| pending.decision == decision && pending.declined.is_none())
        && stage.steps.iter().filter(is_its).any(waits)
}

async fn reevaluate_stage(app: &App, build: &Build, change: &Change, stage: Stage) -> Result<(), Trouble> {
    let Some(file) = &build.file else { return Ok(()) };
    // It was read without a problem when the stage was made.
    let Ok(located) = pipeline::read(&file.path, file.text.as_bytes()) else { return Ok(()) };
    let (again, decisions) = prepare::stage(app, build, located.pipeline, change).await;
    let id = stage.id();
    let again = Stage { created_at: stage.created_at, remarks: stage.remarks, ..again };
    store(app, id, decisions, move |stage| {
        // A person may have stopped it while the policies were asked.
        if stage.status == Status::Pending && stage.cancel_requested.is_none() {
            *stage = again.clone();
        }
    })
    .await
}

async fn reevaluate_plans(
    app: &App,
    build: &Build,
    change: &Change,
    stage: &Stage,
    stale: &BTreeSet<DecisionId>,
) -> Result<(), Trouble> {
    let rounds = stage.steps.iter().filter_map(|step| Some((step, step.round.as_ref()?)));
    for (step, round) in rounds.filter(|(_, round)| stale.contains(&round.decision)) {
        let (decision, plan) = prepare::admit_round(app, build, stage, round.plan.clone(), change).await;
        let question = PendingApproval::for_decision(&decision, prepare::next_plan_subject(&step.name));
        let (number, old, caused_by) = (step.number, round.decision, build.event.sender.stable_id());
        let again = Round { plan, decision: decision.id, ..round.clone() };
        store(app, stage.id(), vec![decision], move |stage| {
            // A person may have ended the step while the policies were asked.
            if stage.status.is_over() || !is_open(stage, old) {
                return;
            }
            stage.approvals.retain(|pending| pending.decision != old);
            stage.approvals.extend(question.clone());
            if let Some(step) = stage.step_mut(number) {
                step.round = Some(again.clone());
            }
            user_action::update_reasons(stage, &caused_by, now());
        })
        .await?;
    }
    Ok(())
}

async fn store(
    app: &App,
    id: StageId,
    decisions: Vec<Decision>,
    change: impl Fn(&mut Stage) + Send + 'static,
) -> Result<(), Trouble> {
    let notifiers = app.plugins.notifier_names();
    let stored = app.store.write(move |write| {
        decisions.iter().try_for_each(|decision| write.put_decision(decision))?;
        write.change_stage(id, &notifiers, now(), |stage| {
            change(stage);
            Ok(())
        })
    });
    stored.await?;
    Ok(())
}

/// A policy as it takes part: name, component, settings, and what its word is worth.
type PolicyFingerprint = (String, Option<Digest>, Option<Digest>, &'static str);

fn policies_asked(decision: &Decision) -> BTreeSet<PolicyFingerprint> {
    let policies = decision.evaluations.iter().filter(|one| one.policy != BASELINE_POLICY);
    policies.map(|one| (one.policy.clone(), one.component, one.settings, one.mode.as_str())).collect()
}

fn current_policies(app: &App, decision: &Decision) -> BTreeSet<PolicyFingerprint> {
    let bindings = app.plugins.at(decision.point).into_iter().map(|(_, binding)| binding);
    bindings.map(|one| (one.policy, Some(one.component), Some(one.settings), one.mode.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use beespace_core::ids::{BuildId, StageNumber, StepNumber};
    use beespace_core::plan::StepPlan;
    use beespace_core::policy::approval::Approver;
    use beespace_core::reason::Reason;
    use beespace_core::time::Timestamp;

    use super::*;

    const ASKED: DecisionId = DecisionId(uuid::Uuid::nil());

    /// One whose step has this status, with its next plan about which people were asked.
    fn stage(status: Status) -> Stage {
        let pipeline = pipeline::read("f", b"steps: [{ name: work, uses: rounds }]").unwrap().pipeline;
        let id = StageId { build: BuildId(uuid::Uuid::nil()), stage: StageNumber(1) };
        let step = Step { status, round: Some(Round::first(StepPlan::default(), ASKED)), ..Step::pending(StepNumber(1), "work") };
        let mut stage = Stage::pending(id, pipeline, None, vec![step], Timestamp(1));
        stage.started_at = Some(Timestamp(1));
        stage.approvals.push(PendingApproval {
            decision: ASKED,
            subject: Digest::of("plan"),
            description: "plan".to_owned(),
            requirements: Vec::new(),
            approved_by: Vec::new(),
            declined: None,
        });
        stage
    }

    #[test]
    fn a_question_is_open_while_a_step_waits_with_it_or_is_about_to() {
        assert!(is_open(&stage(Status::Blocked), ASKED));
        assert!(is_open(&stage(Status::Running), ASKED), "the server ended before the step was blocked");
        assert!(!is_open(&stage(Status::Success), ASKED));
        let mut approved = stage(Status::Running);
        approved.approvals[0].approved_by.push(Approver { id: "admin".to_owned(), at: Timestamp(1) });
        assert!(!is_open(&approved, ASKED), "what runs with a yes is not asked about again");
    }

    #[test]
    fn a_no_closes_it() {
        let mut declined = stage(Status::Blocked);
        declined.approvals[0].declined = Some(Reason::new("declined-by-person", "declined by admin"));
        assert!(!is_open(&declined, ASKED));
    }
}
