//! An approval holds for what was approved, under the policies that asked for it. Where one of them changed while a person was being
//! waited for, all of them are asked again, and what was approved under the old ones counts no more.

use std::collections::BTreeSet;

use beespace_core::build::Stage;
use beespace_core::digest::Digest;
use beespace_core::floor;
use beespace_core::ids::StageId;
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

/// Asks again where that is due.
///
/// # Errors
/// The store's.
pub async fn where_due(app: &App, id: StageId) -> Result<(), Trouble> {
    let stage = app.store.read()?.stage(id)?.ok_or(StoreError::NotFound("stage"))?;
    if stage.status != Status::Pending || !is_stale(app, &stage)? {
        return Ok(());
    }
    let build = app.build(id.build)?;
    let Some(file) = &build.file else { return Ok(()) };
    // It was read without a problem when the stage was made.
    let Ok(located) = pipeline::read(&file.path, file.text.as_bytes()) else { return Ok(()) };
    tracing::info!(stage = %id, "policies have changed since it was approved: they are asked again");
    let change = Change::of(app, &build).await;
    let (again, decisions) = prepare::stage(app, &build, located.pipeline, &change).await;
    let notifiers = app.plugins.notifier_names();
    let again = Stage { created_at: stage.created_at, remarks: stage.remarks, ..again };
    let stored = app.store.write(move |write| {
        decisions.iter().try_for_each(|decision| write.put_decision(decision))?;
        write.change_stage(id, &notifiers, now(), |stage| {
            // A person may have stopped it while the policies were asked.
            if stage.status == Status::Pending && stage.cancel_requested.is_none() {
                *stage = again.clone();
            }
            Ok(())
        })
    });
    stored.await?;
    Ok(())
}

/// Whether a person approved something under other policies than those of today.
fn is_stale(app: &App, stage: &Stage) -> Result<bool, StoreError> {
    let read = app.store.read()?;
    for approval in &stage.approvals {
        let decision = read.decision(approval.decision)?.ok_or(StoreError::NotFound("decision"))?;
        if asked(&decision) != would_ask(app, &decision) {
            return Ok(true);
        }
    }
    Ok(false)
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
