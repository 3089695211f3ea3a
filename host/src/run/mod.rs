//! Runs a stage: the sources into its workspace, then its steps as a graph. Every change is a row before it is acted on, so that
//! another process can take the stage up wherever this one ends.

mod container;
mod engine_retry;
mod next_round;
mod prefetch;
mod round;
mod secrets;
mod step;
mod step_log;
mod step_tasks;
mod transitions;
mod workspace;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use beespace_core::build::{Build, Stage, Step};
use beespace_core::change_event::ChangeEvent;
use beespace_core::graph;
use beespace_core::ids::{StageId, StepId, StepNumber};
use beespace_core::mask;
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::user_action;
use tokio::sync::{RwLock, broadcast};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::change_set::Change;
use crate::clock::now;
use crate::disk;
use crate::engine::EngineError;
use crate::reevaluate;
use crate::store::Queue;
use crate::store::StoreError;
use crate::store::build::Builds as _;
use crate::store::build::key_of_stage;
use crate::worker::Trouble;
use container::Begin;
use engine_retry::EngineRetry;
use secrets::StageSecrets;
use step::FinishedStep;
use step_tasks::StepTasks;

/// What people want of a stage that runs.
enum StageSignal {
    Stop(Reason),
    /// A step whose next plan waited has its answer.
    Resume,
}

/// One stage in hand.
struct StageRun {
    app: Arc<App>,
    id: StageId,
    build: Build,
    change: Change,
    secrets: StageSecrets,
    mask: mask::Secrets,
    /// Cancelled once the engine has the stage open.
    opened: CancellationToken,
    /// Written while the stage is removed and opened anew, read while something is made ready in it.
    stands: RwLock<()>,
}

/// Takes a stage from wherever it stands to its end.
///
/// # Errors
/// [`Trouble::HandedOver`] when the server stops: its containers run on. [`Trouble::CallKind`] while the disk is too full to start.
pub async fn stage(app: &Arc<App>, id: StageId) -> Result<(), Trouble> {
    // From before the first look at the row, so that no wish to stop is missed.
    let wishes = app.store.watch();
    wait_for_room(app, id).await?;
    reevaluate::where_due(app, id).await?;
    let build = app.build(id.build)?;
    let (begun, change) = tokio::join!(begin(app, &build, id), Change::of(app, &build));
    let stage = begun?;
    let run = match StageRun::open(app, build, change, &stage) {
        Ok(run) => Arc::new(run),
        Err(reason) if stage.status == Status::Running => return Ok(give_up(app, id, reason).await?),
        Err(_) => return rest(app, &stage).await,
    };
    if stage.status != Status::Running {
        step::end_logs(&run, &stage).await;
        return rest(app, &stage).await;
    }
    if let Err(reason) = run.is_admitted(&stage)? {
        return Ok(give_up(app, id, reason).await?);
    }
    tokio::select! {
        () = reopen(&run, &stage) => {}
        () = app.stopping.cancelled() => return Err(Trouble::HandedOver),
    }
    let (hands, stage) = tokio::select! {
        driven = drive(&run, &stage, wishes) => driven?,
        never = prove(app, id) => match never {},
    };
    hands.rest(&run).await;
    step::end_logs(&run, &stage).await;
    rest(app, &stage).await
}

/// Leaves the engine what a stage that does not run may keep: nothing where it is over, its workspace where it waits for a person. Only then
/// the stage leaves the queue.
async fn rest(app: &App, stage: &Stage) -> Result<(), Trouble> {
    let (id, status) = (stage.id(), stage.status);
    if status.is_over() {
        destroy_in_engine(app, id).await;
    } else if stage.awaiting_approval_since.is_some()
        && let Err(error) = app.engine.close(id).await
    {
        tracing::warn!(stage = %id, %error, "a stage waits for a person and keeps its network: it could not be given back yet");
        return Err(Trouble::Wait { until: now() + CLOSE_RETRY });
    }
    // Looked at again in the transaction: a person may have released or ended the stage since, and that row must stay.
    let leave = app.store.write(move |write| match write.stage(id)? {
        Some(stage) if stage.status != status => Ok(()),
        _ => write.dequeue(Queue::Run, &key_of_stage(id)),
    });
    Ok(leave.await?)
}

/// Ends a stage that cannot be brought to its own end: what runs of it is stopped, what waits never starts.
///
/// # Errors
/// The store's.
pub async fn give_up(app: &App, id: StageId, reason: Reason) -> Result<(), StoreError> {
    let at = now();
    let end = move |stage: &mut Stage| {
        stage.status = Status::Error;
        stage.reason = Some(reason.clone());
        for step in stage.steps.iter_mut().filter(|step| !step.status.is_over()) {
            step.status = if step.started_at.is_some() { Status::Error } else { Status::Skipped };
            step.reason = Some(reason.clone());
            step.finished_at = step.started_at.map(|_| at);
        }
        Ok(())
    };
    app.store.change_stage(id, app.plugins.notifier_names(), at, end).await?;
    destroy_in_engine(app, id).await;
    Ok(())
}

/// What it leaves is found by its labels within a minute (`workers`).
async fn destroy_in_engine(app: &App, id: StageId) {
    if let Err(error) = app.engine.destroy(id).await {
        tracing::warn!(stage = %id, %error, "a stage's containers, network or workspace could not be removed");
    }
}

/// Between two looks at a disk that is too full.
const DISK_RECHECK: Duration = Duration::from_secs(15);

/// Between two tries to give a network back.
const CLOSE_RETRY: Duration = Duration::from_secs(15);

/// A stage that was in hand for this long is not what ends the server. Its time limit bounds how often that can be said of it.
const RESET_ATTEMPTS_AFTER: Duration = Duration::from_secs(10);

/// Sees to it that a stage which was only in hand while the server died of something else is not given up for that.
async fn prove(app: &App, id: StageId) -> Infallible {
    sleep(RESET_ATTEMPTS_AFTER).await;
    if let Err(error) = app.store.write(move |write| write.reset_attempts(Queue::Run, &key_of_stage(id))).await {
        tracing::warn!(stage = %id, %error, "that the stage gets on could not be noted");
    }
    std::future::pending().await
}

/// A stage that has not started waits for room on the disk and says so; one that runs goes on.
async fn wait_for_room(app: &App, id: StageId) -> Result<(), Trouble> {
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
        Ok(())
    };
    app.store.change_stage(id, app.plugins.notifier_names(), at, explain).await?;
    Err(Trouble::Wait { until: at + DISK_RECHECK })
}

/// A stage that is taken up gets its network back: a reboot, or an engine that was restarted, has stopped what held it, and of one that waited
/// for a person it was given back. There nothing runs yet that would suffer from an engine that is away, so it is waited for.
async fn reopen(run: &StageRun, stage: &Stage) {
    let is_filled = stage.steps.iter().any(|step| step.number == StepNumber::CLONE && step.status == Status::Success);
    if !is_filled {
        return;
    }
    let mut patience = EngineRetry::new();
    while let Err(trouble) = try_reopen(run).await {
        let waits = stage.awaiting_approval_since.is_some() && run.stage().is_ok_and(|stage| stage.cancel_requested.is_none());
        if !waits || !patience.should_retry(&trouble, &CancellationToken::new()).await {
            tracing::warn!(stage = %run.id, error = %trouble, "the stage's network could not be brought back; its steps will say so");
            return;
        }
    }
}

/// Only where something of the stage is still there: a workspace that was removed must not come back empty.
async fn try_reopen(run: &StageRun) -> Result<(), EngineError> {
    if run.app.engine.inventory().await?.contains(&run.id) {
        run.app.engine.open(run.id).await?;
        run.opened.cancel();
    }
    Ok(())
}

/// Marks the stage as running, and its steps whose next plan has its answer. Not one that is over or waits for a person.
async fn begin(app: &App, build: &Build, id: StageId) -> Result<Stage, StoreError> {
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
        Ok(())
    };
    let stage = app.store.change_stage(id, app.plugins.notifier_names(), at, mark).await?;
    Ok(stage)
}

/// Moves steps until none moves any more, and with that the stage to its end, or to where it waits for a person.
async fn drive(
    run: &Arc<StageRun>,
    stage: &Stage,
    mut wishes: broadcast::Receiver<ChangeEvent>,
) -> Result<(StepTasks, Stage), Trouble> {
    let mut hands = StepTasks::default();
    hands.reconcile(run, stage, Begin::Again);
    let left = run.time_left(stage);
    let deadline = sleep(left);
    tokio::pin!(deadline);
    let (mut stopped, mut ended) = (false, None);
    loop {
        let stage = run.advance(ended.take(), stopped).await?;
        if stage.status != Status::Running {
            return Ok((hands, stage));
        }
        hands.reconcile(run, &stage, Begin::Fresh);
        let stop = tokio::select! {
            Some(end) = hands.next_finished() => {
                ended = Some(end?);
                None
            }
            wish = run.next_signal(&mut wishes), if !stopped => match wish? {
                StageSignal::Stop(reason) => Some(reason),
                StageSignal::Resume => None,
            },
            () = &mut deadline, if !stopped => Some(timeout_reason(left)),
            () = run.app.stopping.cancelled() => {
                // Waited for, so that nobody writes to the logs any more when the next process does. The containers run on.
                hands.detach().await;
                return Err(Trouble::HandedOver);
            }
        };
        if let Some(reason) = stop {
            stopped = true;
            let stage = run.cancel_all_steps(&reason).await?;
            hands.reconcile(run, &stage, Begin::Fresh);
        }
    }
}

fn cancelled_by(who: &str) -> Reason {
    Reason::new(graph::CANCELLED, format!("cancelled by {who}"))
}

fn timeout_reason(left: Duration) -> Reason {
    Reason::new(
        "stage-timeout",
        format!("the stage ran into its time limit ({} s were left when it started or was taken up)", left.as_secs()),
    )
    .help("raise `timeout` in the pipeline file, or `[limits] stage_timeout` of the instance")
}

impl StageRun {
    fn open(app: &Arc<App>, build: Build, change: Change, stage: &Stage) -> Result<Self, Reason> {
        let plans = stage.steps.iter().filter_map(|step| step.round.as_ref());
        let planned = plans.flat_map(|round| &round.plan.containers).flat_map(|container| &container.secrets);
        let mut names: BTreeSet<String> = planned.map(|mount| mount.secret.clone()).collect();
        names.extend(stage.pipeline.secret_names().map(str::to_owned));
        let secrets = StageSecrets::open(app, &build, &names)?;
        let id = stage.id();
        let opened = CancellationToken::new();
        let stands = RwLock::default();
        Ok(Self { app: Arc::clone(app), id, change, mask: secrets.mask()?, secrets, build, opened, stands })
    }

    /// Whether policies, and people where asked, have let exactly this pipeline in.
    fn is_admitted(&self, stage: &Stage) -> anyhow::Result<Result<(), Reason>> {
        let not_admitted = |error: String| Reason::new("not-admitted", format!("the pipeline may not run: {error}"));
        let Some(decision) = stage.decision else { return Ok(Err(not_admitted("nobody has decided about it".to_owned()))) };
        let admitted = self.approved(stage, (stage.pipeline.clone(), decision))?;
        Ok(admitted.map(drop).map_err(|refusal| not_admitted(refusal.error.to_string())))
    }

    fn stage(&self) -> Result<Stage, StoreError> {
        self.app.store.read()?.stage(self.id)?.ok_or(StoreError::NotFound("stage"))
    }

    /// The stable id of who caused the build.
    fn caused_by(&self) -> String {
        self.build.event.sender.stable_id()
    }

    fn step_id(&self, step: &Step) -> StepId {
        StepId { build: self.id.build, stage: self.id.stage, step: step.number, attempt: step.attempt }
    }

    async fn change(&self, change: impl Fn(&mut Stage) + Send + 'static) -> Result<Stage, StoreError> {
        let change = move |stage: &mut Stage| {
            change(stage);
            Ok(())
        };
        self.app.store.change_stage(self.id, self.app.plugins.notifier_names(), now(), change).await
    }

    async fn update_step(&self, number: StepNumber, change: impl Fn(&mut Step) + Send + 'static) -> Result<Stage, StoreError> {
        self.change(move |stage| stage.step_mut(number).into_iter().for_each(&change)).await
    }

    fn time_left(&self, stage: &Stage) -> Duration {
        let limit = stage.pipeline.timeout.unwrap_or(self.app.config.limits.stage_timeout);
        limit.saturating_sub(stage.run_duration(now()))
    }

    /// Writes down how a step ended and all that follows from it: whose turn it is, or that the stage is over. One change, because each is a turn of
    /// the disk that the next step waits for.
    async fn advance(self: &Arc<Self>, ended: Option<FinishedStep>, stopped: bool) -> Result<Stage, StoreError> {
        let (run, at) = (Arc::clone(self), now());
        let advance = move |stage: &mut Stage| {
            if let Some(ended) = &ended {
                ended.apply(stage);
            }
            match &stage.cancel_requested {
                Some(request) => transitions::cancel_if_idle(stage, &cancelled_by(&request.by), at),
                None if !stopped => {
                    user_action::resume(stage, &run.caused_by(), at);
                    transitions::apply_all(stage, &run.change.facts, at);
                }
                None => {}
            }
            if stage.steps.iter().any(|step| step.status == Status::Running) {
                transitions::resume_clock(stage, at);
            } else {
                transitions::conclude(stage, &run.caused_by(), at);
            }
        };
        self.change(advance).await
    }

    /// Resolves when a person wants something of the stage: the row says so.
    async fn next_signal(&self, wishes: &mut broadcast::Receiver<ChangeEvent>) -> Result<StageSignal, StoreError> {
        loop {
            let stage = self.stage()?;
            if let Some(request) = &stage.cancel_requested {
                return Ok(StageSignal::Stop(cancelled_by(&request.by)));
            }
            if user_action::can_resume(&stage, &self.caused_by(), now()) {
                return Ok(StageSignal::Resume);
            }
            loop {
                match wishes.recv().await {
                    Ok(ChangeEvent::StageChanged { stage, .. }) if stage == self.id => break,
                    Ok(ChangeEvent::StepChanged { step, status: Status::Blocked, .. }) if step.stage_id() == self.id => break,
                    Ok(_) => {}
                    // Too many changes came meanwhile; one of them may have been about this stage.
                    Err(broadcast::error::RecvError::Lagged(_)) => break,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }

    /// Ends every step that is not over: those that run are to be stopped, those that wait never start.
    async fn cancel_all_steps(&self, reason: &Reason) -> Result<Stage, StoreError> {
        let (reason, at) = (reason.clone(), now());
        self.change(move |stage| {
            let moves = graph::cancel_all(&graph::nodes(stage), &reason);
            moves.iter().for_each(|one| transitions::apply(stage, one, at));
            stage.reason = Some(reason.clone());
        })
        .await
    }
}
