//! The first phase of a stage: whether it runs now, from what is stored and from what the disk allows.

use std::sync::Arc;

use beespace_core::build::{Build, Stage};
use beespace_core::ids::StageId;
use beespace_core::pipeline::eval_when::{Facts, StageConditions};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_core::user_action;

use super::approved::ApprovalCheck;
use super::stage_run::{StageRun, update_stage};
use crate::app::App;
use crate::clock::now;
use crate::disk;
use crate::planning::reevaluate;
use crate::source::ChangeSet;
use crate::store::StoreError;
use crate::store::build::Builds as _;
use crate::worker::WorkError;

/// The result of the admission of a stage.
pub(super) enum Admission {
    Admitted(Arc<StageRun>, Stage),
    /// The stage must not run, or cannot.
    Refused(Reason),
    /// The stage is over or waits for approval, and only has to be closed. Without a run when its secrets could not be opened.
    NotRunning(Option<Arc<StageRun>>, Stage),
}

/// Waits for disk space, evaluates changed policies again, and marks the stage as running.
///
/// # Errors
/// [`WorkError::Wait`] while the disk is too full to start; the store's.
pub(super) async fn admit(app: &Arc<App>, id: StageId) -> Result<Admission, WorkError> {
    wait_for_disk_space(app, id).await?;
    reevaluate::reevaluate_if_stale(app, id).await?;
    let build = app.build(id.build)?;
    let mirror = app.mirrors.of(build.event.repository.id);
    let (marked, (change_set, facts)) = tokio::join!(mark_running(app, &build, id), ChangeSet::read(mirror, &build));
    let stage = marked?;
    let is_running = stage.status == Status::Running;
    let conditions = evaluate_conditions(&stage, facts).await?;
    let run = match StageRun::open(app, build, (change_set, conditions), &stage) {
        Ok(run) => Arc::new(run),
        Err(reason) if is_running => return Ok(Admission::Refused(reason)),
        Err(_) => return Ok(Admission::NotRunning(None, stage)),
    };
    if !is_running {
        return Ok(Admission::NotRunning(Some(run), stage));
    }
    let refusal = match why_not_admitted(&run, &stage)? {
        // A step of a stage that has begun reports a missing secret itself.
        None if stage.steps.iter().all(|step| step.started_at.is_none()) => run.secrets.missing_for(&stage, &run.conditions),
        refusal => refusal,
    };
    Ok(match refusal {
        Some(reason) => Admission::Refused(reason),
        None => Admission::Admitted(run, stage),
    })
}

/// A stage that has not started waits for disk space and shows the reason; one that has started continues.
async fn wait_for_disk_space(app: &App, id: StageId) -> Result<(), WorkError> {
    let stage = app.store.read()?.stage(id)?;
    if stage.is_none_or(|stage| stage.status != Status::Pending) {
        return Ok(());
    }
    let Err(reason) = disk::check_free_space(&app.config) else { return Ok(()) };
    let at = now();
    let explain = move |stage: &mut Stage| {
        if stage.status == Status::Pending {
            stage.reason = Some(reason.clone());
        }
    };
    update_stage(app, id, explain).await?;
    Err(WorkError::Wait { until: at + disk::RECHECK_INTERVAL })
}

/// Marks the stage as running, and the steps whose next plan has been decided. Leaves a stage that is over or waits for approval.
async fn mark_running(app: &App, build: &Build, id: StageId) -> Result<Stage, StoreError> {
    let at = now();
    let caused_by = build.event.sender.stable_id();
    let mark = move |stage: &mut Stage| {
        user_action::block_if_expired(stage, &caused_by, at);
        if stage.status == Status::Pending {
            stage.status = Status::Running;
            stage.reason = None;
            user_action::resume(stage, &caused_by, at);
            stage.started_at.get_or_insert(at);
        }
    };
    update_stage(app, id, mark).await
}

/// The conditions of the steps. The comparison of many paths with many patterns takes a while, so it happens once, on a thread of
/// its own, and before any transaction.
async fn evaluate_conditions(stage: &Stage, facts: Facts) -> anyhow::Result<StageConditions> {
    let pipeline = stage.pipeline.clone();
    Ok(tokio::task::spawn_blocking(move || StageConditions::evaluate(&pipeline, &facts)).await?)
}

/// Why the policies, or the people whose approval they require, have not admitted exactly this pipeline; none if they have.
fn why_not_admitted(run: &StageRun, stage: &Stage) -> anyhow::Result<Option<Reason>> {
    let not_admitted = |error: &str| Reason::new(ReasonCode::PipelineNotApproved, format!("the pipeline must not run: {error}"));
    let Some(decision) = stage.decision else { return Ok(Some(not_admitted("no policy decision is stored"))) };
    Ok(match run.check_approval(stage, stage.pipeline.clone(), decision)? {
        ApprovalCheck::Approved(_) => None,
        ApprovalCheck::Refused(refusal) => Some(not_admitted(&refusal.error.to_string())),
    })
}
