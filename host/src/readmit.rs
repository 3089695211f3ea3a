//! An approval holds for what was approved, under the policies that asked for it. Where one of them changed while a person was being
//! waited for, all of them are asked again, and what was approved under the old ones counts no more.

use std::collections::BTreeSet;

use beespace_core::build::{Build, PendingApproval, Round, Stage};
use beespace_core::digest::Digest;
use beespace_core::floor;
use beespace_core::ids::{DecisionId, StageId};
use beespace_core::pipeline;
use beespace_core::policy::Decision;
use beespace_core::status::Status;

use crate::app::App;
use crate::change::Change;
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
    if stage.status.is_over() || stage.status == Status::Blocked || !stage.asked().any(|pending| is_stale(app, pending)) {
        return Ok(());
    }
    tracing::info!(stage = %id, "policies have changed since it was approved: they are asked again");
    let build = app.build(id.build)?;
    let change = Change::of(app, &build).await;
    if stage.started_at.is_none() { whole(app, &build, &change, stage).await } else { plans(app, &build, &change, stage).await }
}

async fn whole(app: &App, build: &Build, change: &Change, stage: Stage) -> Result<(), Trouble> {
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

async fn plans(app: &App, build: &Build, change: &Change, stage: Stage) -> Result<(), Trouble> {
    let stale: BTreeSet<DecisionId> = stage.asked().filter(|one| is_stale(app, one)).map(|one| one.decision).collect();
    for (step, round) in stage.blocked().filter(|(_, round)| stale.contains(&round.decision)) {
        let (decision, plan) = prepare::admit_round(app, build, &stage, round.plan.clone(), change).await;
        let question = PendingApproval::of(&decision, prepare::next_plan(&step.name));
        let (number, old) = (step.number, round.decision);
        let again = Round { plan, decision: decision.id, ..round.clone() };
        store(app, stage.id(), vec![decision], move |stage| {
            stage.approvals.retain(|pending| pending.decision != old);
            stage.approvals.extend(question.clone());
            stage.steps.iter_mut().filter(|step| step.number == number).for_each(|step| step.round = Some(again.clone()));
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

/// Whether people were asked under other policies than those of today.
fn is_stale(app: &App, pending: &PendingApproval) -> bool {
    let decision = app.store.read().and_then(|read| read.decision(pending.decision));
    // A decision that is gone cannot be relied on.
    decision.ok().flatten().is_none_or(|decision| asked(&decision) != would_ask(app, &decision))
}

/// A policy as it takes part: name, component, settings, and what its word is worth.
type Part = (String, Option<Digest>, Option<Digest>, &'static str);

fn asked(decision: &Decision) -> BTreeSet<Part> {
    let policies = decision.evaluations.iter().filter(|one| one.policy != floor::NAME);
    policies.map(|one| (one.policy.clone(), one.component, one.settings, one.mode.as_str())).collect()
}

fn would_ask(app: &App, decision: &Decision) -> BTreeSet<Part> {
    let bindings = app.plugins.at(decision.point).into_iter().map(|(_, binding)| binding);
    bindings.map(|one| (one.policy, Some(one.component), Some(one.settings), one.mode.as_str())).collect()
}
