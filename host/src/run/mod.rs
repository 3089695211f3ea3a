//! Runs a stage: the sources into its workspace, then its steps as a graph. Every change is a row before it is acted on, so that
//! another process can take the stage up wherever this one ends.

mod after;
mod ahead;
mod container;
mod hands;
mod journal;
mod patience;
mod round;
mod secrets;
mod step;
mod workspace;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use beespace_core::build::{Build, Stage, Step};
use beespace_core::graph::{self, Move};
use beespace_core::ids::{StageId, StepId, StepNumber};
use beespace_core::intervention;
use beespace_core::outcome::Reason;
use beespace_core::pipeline::when::Facts;
use beespace_core::run_event::RunEvent;
use beespace_core::status::Status;
use beespace_core::{mask, time::Timestamp};
use tokio::sync::broadcast;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::change::Change;
use crate::clock::now;
use crate::disk;
use crate::readmit;
use crate::store::Queue;
use crate::store::StoreError;
use crate::store::build::Builds as _;
use crate::store::build::key_of_stage;
use crate::worker::Trouble;
use container::Begin;
use hands::Hands;
use secrets::StageSecrets;
use step::Ended;

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
}

/// Takes a stage from wherever it stands to its end.
///
/// # Errors
/// [`Trouble::HandedOver`] when the server stops: its containers run on. [`Trouble::Wait`] while the disk is too full to start.
pub async fn stage(app: &Arc<App>, id: StageId) -> Result<(), Trouble> {
    // From before the first look at the row, so that no wish to stop is missed.
    let wishes = app.store.watch();
    wait_for_room(app, id).await?;
    readmit::where_due(app, id).await?;
    let build = app.build(id.build)?;
    let (begun, change) = tokio::join!(begin(app, &build, id), Change::of(app, &build));
    let Some(stage) = begun? else { return Ok(()) };
    let run = match StageRun::open(app, build, change, &stage) {
        Ok(run) => Arc::new(run),
        Err(reason) => return Ok(give_up(app, id, reason).await?),
    };
    reopen(&run, &stage).await;
    let hands = tokio::select! {
        driven = drive(&run, &stage, wishes) => driven?,
        never = prove(app, id) => match never {},
    };
    hands.rest(&run).await;
    clear_away(app, id).await;
    Ok(())
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
            step.status = if step.status == Status::Running { Status::Error } else { Status::Skipped };
            step.reason = Some(reason.clone());
            step.finished_at = step.started_at.map(|_| at);
        }
        Ok(())
    };
    app.store.change_stage(id, app.plugins.notifier_names(), at, end).await?;
    clear_away(app, id).await;
    Ok(())
}

/// What it leaves is found by its labels within a minute (`workers`).
async fn clear_away(app: &App, id: StageId) {
    if let Err(error) = app.engine.destroy(id).await {
        tracing::warn!(stage = %id, %error, "a stage's containers, network or workspace could not be removed");
    }
}

/// Between two looks at a disk that is too full.
const ROOM_AGAIN: Duration = Duration::from_secs(15);

/// A stage that was in hand for this long is not what ends the server. Its time limit bounds how often that can be said of it.
const PROVEN_AFTER: Duration = Duration::from_secs(10);

/// Sees to it that a stage which was only in hand while the server died of something else is not given up for that.
async fn prove(app: &App, id: StageId) -> Infallible {
    sleep(PROVEN_AFTER).await;
    if let Err(error) = app.store.write(move |write| write.forgive(Queue::Run, &key_of_stage(id))).await {
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
    let Err(reason) = disk::room(&app.config) else { return Ok(()) };
    let at = now();
    let explain = move |stage: &mut Stage| {
        if stage.status == Status::Pending {
            stage.reason = Some(reason.clone());
        }
        Ok(())
    };
    app.store.change_stage(id, app.plugins.notifier_names(), at, explain).await?;
    Err(Trouble::Wait { until: at + ROOM_AGAIN })
}

/// A stage that is taken up gets its network back: a reboot, or an engine that was restarted, has stopped what held it. Only where
/// something of it is still there: a workspace that was removed must not come back empty.
async fn reopen(run: &StageRun, stage: &Stage) {
    let is_filled = stage.steps.iter().any(|step| step.number == StepNumber::CLONE && step.status == Status::Success);
    if !is_filled || !run.app.engine.inventory().await.is_ok_and(|known| known.contains(&run.id)) {
        return;
    }
    match run.app.engine.open(run.id).await {
        Ok(()) => run.opened.cancel(),
        Err(error) => {
            tracing::warn!(stage = %run.id, %error, "the stage's network could not be brought back; its steps will say so");
        }
    }
}

/// Marks the stage as running; none where it is over or waits for a person.
async fn begin(app: &App, build: &Build, id: StageId) -> Result<Option<Stage>, StoreError> {
    let at = now();
    let caused_by = build.event.sender.stable_id();
    let mark = move |stage: &mut Stage| {
        intervention::block_where_lapsed(stage, &caused_by, at);
        if stage.status == Status::Pending {
            stage.status = Status::Running;
            stage.reason = None;
            stage.started_at.get_or_insert(at);
        }
        Ok(())
    };
    let stage = app.store.change_stage(id, app.plugins.notifier_names(), at, mark).await?;
    if stage.status != Status::Running {
        // Looked at again in the transaction: a person may have released the stage since, and that row must stay.
        let leave = app.store.write(move |write| match write.stage(id)? {
            Some(stage) if matches!(stage.status, Status::Pending | Status::Running) => Ok(()),
            _ => write.dequeue(Queue::Run, &key_of_stage(id)),
        });
        leave.await?;
        return Ok(None);
    }
    Ok(Some(stage))
}

/// Moves steps until none moves any more, and with that the stage to its end.
async fn drive(run: &Arc<StageRun>, stage: &Stage, mut wishes: broadcast::Receiver<RunEvent>) -> Result<Hands, Trouble> {
    let mut hands = Hands::default();
    hands.follow(run, stage, Begin::Again);
    let left = run.time_left(stage);
    let deadline = sleep(left);
    tokio::pin!(deadline);
    let (mut stopped, mut ended) = (false, None);
    loop {
        let stage = run.advance(ended.take(), stopped).await?;
        if stage.status.is_over() {
            return Ok(hands);
        }
        hands.follow(run, &stage, Begin::Fresh);
        let stop = tokio::select! {
            Some(end) = hands.next_end() => {
                ended = Some(end?);
                None
            }
            reason = run.wish_to_stop(&mut wishes), if !stopped => Some(reason?),
            () = &mut deadline, if !stopped => Some(timeout_reason(left)),
            () = run.app.stopping.cancelled() => {
                // Waited for, so that nobody writes to the logs any more when the next process does. The containers run on.
                hands.let_go().await;
                return Err(Trouble::HandedOver);
            }
        };
        if let Some(reason) = stop {
            stopped = true;
            let stage = run.stop_all(&reason).await?;
            hands.follow(run, &stage, Begin::Fresh);
        }
    }
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
        let id = StageId { build: stage.build, stage: stage.number };
        let opened = CancellationToken::new();
        Ok(Self { app: Arc::clone(app), id, change, mask: secrets.mask()?, secrets, build, opened })
    }

    fn stage(&self) -> Result<Stage, StoreError> {
        self.app.store.read()?.stage(self.id)?.ok_or(StoreError::NotFound("stage"))
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

    async fn change_step(&self, number: StepNumber, change: impl Fn(&mut Step) + Send + 'static) -> Result<Stage, StoreError> {
        self.change(move |stage| stage.steps.iter_mut().filter(|step| step.number == number).for_each(&change)).await
    }

    fn time_left(&self, stage: &Stage) -> Duration {
        let limit = stage.pipeline.timeout.unwrap_or(self.app.config.limits.stage_timeout);
        let spent = stage.started_at.map_or(Duration::ZERO, |started: Timestamp| now().since(started));
        limit.saturating_sub(spent)
    }

    /// Writes down how a step ended and all that follows from it: whose turn it is, or that the stage is over. One change, because each is a turn of
    /// the disk that the next step waits for.
    async fn advance(self: &Arc<Self>, ended: Option<Ended>, stopped: bool) -> Result<Stage, StoreError> {
        let (run, at) = (Arc::clone(self), now());
        let advance = move |stage: &mut Stage| {
            if let Some(ended) = &ended {
                ended.note(stage);
            }
            if !stopped {
                make_moves(stage, &run.change.facts, at);
            }
            if !stage.steps.iter().any(|step| step.status == Status::Running) {
                conclude(stage);
            }
        };
        self.change(advance).await
    }

    /// Resolves when a person wants the stage to stop: the row says so.
    async fn wish_to_stop(&self, wishes: &mut broadcast::Receiver<RunEvent>) -> Result<Reason, StoreError> {
        loop {
            if let Some(request) = self.stage()?.cancel_requested {
                return Ok(Reason::new(graph::CANCELLED, format!("cancelled by {}", request.by)));
            }
            loop {
                match wishes.recv().await {
                    Ok(RunEvent::StageChanged { stage, .. }) if stage == self.id => break,
                    Ok(_) => {}
                    // Too many changes came meanwhile; one of them may have been about this stage.
                    Err(broadcast::error::RecvError::Lagged(_)) => break,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }

    /// Ends every step that is not over: those that run are to be stopped, those that wait never start.
    async fn stop_all(&self, reason: &Reason) -> Result<Stage, StoreError> {
        let (reason, at) = (reason.clone(), now());
        self.change(move |stage| {
            let moves = graph::cancel_all(&graph::nodes(stage), &reason);
            moves.iter().for_each(|one| note(stage, one, at));
            stage.reason = Some(reason.clone());
        })
        .await
    }
}

/// Writes down what the graph says. A move may make another one possible, so it is asked until nothing new comes.
fn make_moves(stage: &mut Stage, facts: &Facts, at: Timestamp) {
    loop {
        let moves = graph::next(&graph::nodes(stage), facts);
        let moves: Vec<Move> = moves.into_iter().filter(|one| is_new(stage, one)).collect();
        if moves.is_empty() {
            return;
        }
        moves.iter().for_each(|one| note(stage, one, at));
    }
}

/// All steps are over: so is the stage.
fn conclude(stage: &mut Stage) {
    stage.status = match graph::stage_status(&graph::nodes(stage)) {
        // Everything was over when the wish to stop it came.
        Status::Skipped if stage.cancel_requested.is_some() => Status::Killed,
        status => status,
    };
    if stage.reason.is_none() {
        stage.reason = stage.steps.iter().find(|step| step.status == stage.status).and_then(|step| step.reason.clone());
    }
}

/// Whether carrying the move out would change anything.
fn is_new(stage: &Stage, one: &Move) -> bool {
    let Some(step) = stage.steps.iter().find(|step| step.number == one.step()) else { return false };
    match one {
        Move::Start(..) | Move::Skip(..) => step.status == Status::Pending,
        Move::Cancel(_, reason) | Move::Wait(_, reason) => step.reason.as_ref() != Some(reason),
    }
}

/// Writes a move down. A step that runs is only marked: how it ends is told by whoever runs it.
fn note(stage: &mut Stage, one: &Move, at: Timestamp) {
    let Some(step) = stage.steps.iter_mut().find(|step| step.number == one.step()) else { return };
    match one {
        Move::Start(_, remarks) => {
            step.status = Status::Running;
            step.reason = None;
            step.remarks.clone_from(remarks);
            step.started_at = Some(at);
        }
        Move::Skip(_, reason) => {
            step.status = Status::Skipped;
            step.reason = Some(reason.clone());
        }
        Move::Cancel(_, reason) => {
            step.reason = Some(reason.clone());
            // One that runs is told to stop, and says itself how it ended.
            if step.status != Status::Running {
                step.status = Status::Killed;
            }
        }
        Move::Wait(_, reason) => step.reason = Some(reason.clone()),
    }
}
