//! Re-evaluates policies before a delayed start. Decisions and approvals are valid under the rules under which they were made:
//! bindings, their grants and order, and limits. If one of these changed while a stage waited, its policies are evaluated again,
//! and approvals under the old rules no longer count.

use std::collections::BTreeSet;

use beespace_core::build::{Build, Round, Stage, Step};
use beespace_core::build_admission::PIPELINE_FROM_TARGET;
use beespace_core::ids::{DecisionId, StageId};
use beespace_core::pipeline::{self, ParsedPipeline, SourceFile};
use beespace_core::policy::approval::PendingApproval;
use beespace_core::policy::{Decision, Ruling};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_core::user_action;

use super::admit::{self, denied_reason};
use super::labels::with_present_labels;
use super::plan_budget::PlanBudget;
use super::round::{admit_round, next_plan_subject};
use super::stage::{end_before_start, plan_stage};
use super::values::with_values;
use crate::app::App;
use crate::clock::now;
use crate::source::ChangeSet;
use crate::store::StoreError;
use crate::store::build::Builds as _;
use crate::store::decision::Decisions as _;

/// Evaluates policies again when decisions were made under other rules than today's: about the whole stage before it has started,
/// afterwards about the plans for which its steps wait.
///
/// # Errors
/// The store's.
pub async fn reevaluate_if_stale(app: &App, id: StageId) -> Result<(), StoreError> {
    let stage = app.store.read()?.stage(id)?.ok_or(StoreError::NotFound("stage"))?;
    if stage.status.is_over() || stage.status == Status::Blocked {
        return Ok(());
    }
    let stale = stale_decisions(app, &stage)?;
    if stale.is_empty() {
        return Ok(());
    }
    tracing::info!(stage = %id, "the rules have changed since the policies were evaluated; evaluating them again");
    let build = app.build(id.build)?;
    let (change_set, _) = ChangeSet::read(app.mirrors.of(build.event.repository.id), &build).await;
    let change_set = with_present_labels(app, &build, change_set).await;
    match stage.started_at {
        None => reevaluate_stage(app, &build, &change_set, stage).await,
        Some(_) => reevaluate_plans(app, &build, &change_set, &stage, &stale).await,
    }
}

/// The decisions that the stage relies on and that were made under other rules than today's: before the start the one about the
/// pipeline, which stands for all of the stage, because they are made together; afterwards those for which steps wait.
fn stale_decisions(app: &App, stage: &Stage) -> Result<BTreeSet<DecisionId>, StoreError> {
    let relied_on: Vec<DecisionId> = match stage.started_at {
        None => stage.decision.into_iter().collect(),
        Some(_) => stage.approvals.iter().map(|pending| pending.decision).filter(|id| is_open(stage, *id)).collect(),
    };
    let read = app.store.read()?;
    let mut stale = BTreeSet::new();
    for id in relied_on {
        // A decision that no longer exists cannot be relied on.
        if read.decision(id)?.and_then(|decision| decision.rules) != Some(app.rules) {
            stale.insert(id);
        }
    }
    Ok(stale)
}

/// Whether a step waits for the approval that this decision requires, or is about to: the server may have ended before it
/// stored that the step is blocked.
fn is_open(stage: &Stage, decision: DecisionId) -> bool {
    let is_new = |pending: &PendingApproval| pending.decision == decision && pending.approved_by.is_empty();
    let waits = |step: &Step| match step.status {
        Status::Blocked => true,
        Status::Running => stage.approvals.iter().any(is_new),
        _ => false,
    };
    let has_decision = |step: &&Step| step.round.as_ref().is_some_and(|round| round.decision == decision);
    stage.approvals.iter().any(|pending| pending.decision == decision && pending.declined.is_none())
        && stage.steps.iter().filter(has_decision).any(waits)
}

/// Decides `build.admit` again. Returns why the stage must not run: the build is denied now, or its files were chosen under a
/// decision that would choose others today.
async fn readmit(app: &App, build: &Build, change_set: &ChangeSet) -> (Option<Decision>, Option<Reason>) {
    let decision = admit::build(app, build, &change_set.event).await;
    let takes_files_of_target = decision.as_ref().is_some_and(|decision| decision.obliges(PIPELINE_FROM_TARGET));
    let end = match &decision {
        Some(Decision { ruling: Ruling::Denied { by }, .. }) => Some(denied_reason("the build", by)),
        _ if takes_files_of_target != build.pipeline_from.is_some() => {
            let message = "the policies have changed, and would now take the pipeline files from another commit";
            let restart = "run `beespace build restart`: the new build reads the files that the present policies choose";
            Some(Reason::new(ReasonCode::PipelineNotApproved, message).help(restart))
        }
        _ => None,
    };
    (decision, end)
}

async fn decline(app: &App, id: StageId, decision: Option<Decision>, reason: Reason) -> Result<(), StoreError> {
    store_decisions(app, id, decision.into_iter().collect(), move |stage| {
        // A person may have cancelled the stage during the evaluation.
        if stage.status == Status::Pending && stage.cancel_requested.is_none() {
            stage.status = Status::Declined;
            stage.reason = Some(reason.clone());
            end_before_start(stage);
        }
    })
    .await
}

async fn reevaluate_stage(app: &App, build: &Build, change_set: &ChangeSet, stage: Stage) -> Result<(), StoreError> {
    let (admission, end) = readmit(app, build, change_set).await;
    if let Some(reason) = end {
        return decline(app, stage.id(), admission, reason).await;
    }
    let sources: Vec<_> = build.files.iter().map(|file| SourceFile { path: &file.path, bytes: file.text.as_bytes() }).collect();
    // The files had no problems when the stage was planned for the first time.
    let Ok(parsed) = pipeline::read_files(&sources) else { return Ok(()) };
    let is_same = |parsed: &ParsedPipeline| parsed.place == stage.place && parsed.pipeline.cell == stage.pipeline.cell;
    let Some(parsed) = parsed.into_iter().find(is_same) else { return Ok(()) };
    let Ok(pipeline) = with_values(build, &parsed) else { return Ok(()) };
    let id = stage.id();
    let (again, mut decisions) = plan_stage(app, build, id, pipeline, (change_set, &PlanBudget::default())).await;
    decisions.extend(admission);
    // The remarks about `when` stay: the event is the same. Those about limits are new.
    let kept = stage.remarks.into_iter().filter(|remark| remark.code != ReasonCode::TimeoutLowered);
    let remarks = kept.chain(again.remarks).collect();
    let Stage { created_at, place, needs, starts_on, .. } = stage;
    let again = Stage { created_at, place, needs, starts_on, remarks, ..again };
    store_decisions(app, id, decisions, move |stage| {
        // A person may have cancelled the stage during the evaluation.
        if stage.status == Status::Pending && stage.cancel_requested.is_none() {
            *stage = again.clone();
        }
    })
    .await
}

async fn reevaluate_plans(
    app: &App,
    build: &Build,
    change_set: &ChangeSet,
    stage: &Stage,
    stale: &BTreeSet<DecisionId>,
) -> Result<(), StoreError> {
    let rounds = stage.steps.iter().filter_map(|step| Some((step, step.round.as_ref()?)));
    for (step, round) in rounds.filter(|(_, round)| stale.contains(&round.decision)) {
        let (decision, plan) = admit_round(app, build, stage, round.plan.clone(), change_set).await;
        let approval = PendingApproval::for_decision(&decision, next_plan_subject(&step.name));
        let (number, old, caused_by) = (step.number, round.decision, build.event.sender.stable_id());
        let again = Round { plan, decision: decision.id, ..round.clone() };
        store_decisions(app, stage.id(), vec![decision], move |stage| {
            // A person may have ended the step during the evaluation.
            if stage.status.is_over() || !is_open(stage, old) {
                return;
            }
            stage.approvals.retain(|pending| pending.decision != old);
            stage.approvals.extend(approval.clone());
            if let Some(step) = stage.step_mut(number) {
                step.round = Some(again.clone());
            }
            user_action::update_reasons(stage, &caused_by, now());
        })
        .await?;
    }
    Ok(())
}

/// Stores the decisions and changes the stage in one transaction.
async fn store_decisions(
    app: &App,
    id: StageId,
    decisions: Vec<Decision>,
    change: impl Fn(&mut Stage) + Send + 'static,
) -> Result<(), StoreError> {
    let stored = app.store.write(move |write| {
        decisions.iter().try_for_each(|decision| write.put_decision(decision))?;
        write.change_stage(id, now(), |stage| {
            change(stage);
            Ok(())
        })
    });
    stored.await.map(drop)
}

#[cfg(test)]
mod tests {
    use beespace_core::digest::Digest;
    use beespace_core::ids::{BuildId, StageNumber, StepNumber};
    use beespace_core::plan::StepPlan;
    use beespace_core::policy::approval::Approver;
    use beespace_core::time::Timestamp;

    use super::*;

    const DECISION: DecisionId = DecisionId(uuid::Uuid::nil());

    /// A stage whose step has this status, and whose next plan requires approval.
    fn stage(status: Status) -> Stage {
        let pipeline = pipeline::read("f", b"steps: [{ name: work, uses: rounds }]").unwrap().pipeline;
        let id = StageId { build: BuildId(uuid::Uuid::nil()), stage: StageNumber(1) };
        let round = Some(Round::first(StepPlan::default(), DECISION));
        let step = Step { status, round, ..Step::pending(StepNumber(1), "work") };
        let mut stage = Stage::pending(id, pipeline, None, vec![step], Timestamp(1));
        stage.started_at = Some(Timestamp(1));
        stage.approvals.push(PendingApproval {
            decision: DECISION,
            subject: Digest::of("plan"),
            description: "plan".to_owned(),
            requirements: Vec::new(),
            approved_by: Vec::new(),
            declined: None,
        });
        stage
    }

    #[test]
    fn an_approval_is_open_while_a_step_waits_for_it_or_is_about_to() {
        assert!(is_open(&stage(Status::Blocked), DECISION));
        assert!(is_open(&stage(Status::Running), DECISION), "the server ended before the step was blocked");
        assert!(!is_open(&stage(Status::Success), DECISION));
        let mut approved = stage(Status::Running);
        approved.approvals[0].approved_by.push(Approver { id: "admin".to_owned(), at: Timestamp(1), reason: None });
        assert!(!is_open(&approved, DECISION), "an approved plan that runs is not evaluated again");
    }

    #[test]
    fn a_declined_approval_is_not_open() {
        let mut declined = stage(Status::Blocked);
        declined.approvals[0].declined = Some(Reason::new(ReasonCode::DeclinedByPerson, "declined by admin"));
        assert!(!is_open(&declined, DECISION));
    }
}
