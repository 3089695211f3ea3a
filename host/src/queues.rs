//! The four workers, one for each queue, and how each ends a row that cannot be saved.

use std::sync::Arc;
use std::time::Duration;

use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::{BuildId, DeliveryId};
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use crate::app::App;
use crate::clock::now;
use crate::store::Queue;
use crate::store::build::Builds as _;
use crate::store::build::stage_id_of_key;
use crate::store::delivery::DeliveryAction;
use crate::store::notice::OrderingKey;
use crate::worker::{Duties, Trouble, Worker};
use crate::{flow, notify, retention, run};

/// Builds prepared at once: mostly waiting for Gogs and git.
const PREPARED_AT_ONCE: usize = 8;

/// Starts all of them; they end when the server stops.
pub fn start(app: &Arc<App>) -> JoinSet<()> {
    let capacity = usize::from(app.config.engine.capacity.get());
    let mut workers = JoinSet::new();
    let sent_at_once = notify::send_slots(app.plugins.notifiers.len());
    for (queue, parallel, parallel_of_turn, duties) in [
        (Queue::Delivery, 1, 1, delivery_duties(app)),
        (Queue::Prepare, PREPARED_AT_ONCE, PREPARED_AT_ONCE, prepare_duties(app)),
        (Queue::Run, capacity, capacity, run_duties(app)),
        (Queue::Notice, sent_at_once, notify::SENT_AT_ONCE, notice_duties(app)),
    ] {
        let beat = app.heartbeats.of(queue);
        beat.look(now());
        let worker = Worker {
            store: app.store.clone(),
            queue,
            parallel,
            parallel_per_key: parallel_of_turn,
            duties,
            heartbeat: beat,
            now,
        };
        workers.spawn(worker.serve(app.stopping.clone()));
    }
    workers.spawn(collect_metrics(Arc::clone(app)));
    workers.spawn(clean_up_engine(Arc::clone(app)));
    workers.spawn(keep_engine_stocked(Arc::clone(app)));
    workers.spawn(notify::propagate_suspension(Arc::clone(app)));
    workers.spawn(retention::serve(Arc::clone(app)));
    workers
}

/// Turns what happened into figures.
async fn collect_metrics(app: Arc<App>) {
    let mut events = app.store.watch();
    loop {
        let event = tokio::select! {
            () = app.stopping.cancelled() => return,
            event = events.recv() => event,
        };
        match event {
            Ok(event) => count(&app, event),
            // Figures may miss what came faster than they were counted; rows miss nothing.
            Err(broadcast::error::RecvError::Lagged(missed)) => tracing::warn!(missed, "changes were not counted"),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn count(app: &App, event: ChangeEvent) {
    let took = |from: Option<Timestamp>, to: Option<Timestamp>| from.zip(to).map(|(from, to)| to.since(from));
    match event {
        ChangeEvent::BuildFinished { build, .. } => {
            if let Ok(build) = app.build(build) {
                let took = took(build.started_at, build.finished_at).unwrap_or_default();
                app.metrics.build_ended(build.event.kind(), build.status, took);
            }
        }
        ChangeEvent::StepChanged { step, status, .. } if status.is_over() => {
            let stage = app.store.read().and_then(|read| read.stage(step.stage_id()));
            let steps = stage.ok().flatten().map(|stage| stage.steps).unwrap_or_default();
            let step = steps.iter().find(|one| one.number == step.step);
            if let Some(took) = step.and_then(|step| took(step.started_at, step.finished_at)) {
                app.metrics.step_ended(took);
            }
        }
        _ => {}
    }
}

fn uuid(key: &[u8]) -> uuid::Uuid {
    uuid::Uuid::from_slice(key).unwrap_or_default()
}

fn unreadable_key() -> Trouble {
    Trouble::Failed(anyhow::anyhow!("the queue's key cannot be read"))
}

/// Ties a function of the app to the shape that a worker wants.
macro_rules! duty {
    ($app:expr, |$held:ident, $($arg:ident),+| $body:expr) => {{
        let $held = Arc::clone($app);
        Box::new(move |$($arg),+| {
            let $held = Arc::clone(&$held);
            Box::pin(async move { $body })
        })
    }};
}

fn delivery_duties(app: &Arc<App>) -> Duties {
    Duties {
        work: duty!(app, |app, key| flow::process_delivery(&app, DeliveryId(uuid(&key))).await),
        bury: duty!(app, |app, key, reason| {
            let bury = move |_: Option<&beespace_core::trigger::LastSeenRef>| DeliveryAction::DeadLetter(reason.clone());
            app.store.finish_delivery(DeliveryId(uuid(&key)), None, now(), bury).await
        }),
    }
}

fn prepare_duties(app: &Arc<App>) -> Duties {
    Duties {
        work: duty!(app, |app, key| flow::prepare_build(&app, BuildId(uuid(&key))).await),
        bury: duty!(app, |app, key, reason| {
            app.store.end_unprepared(BuildId(uuid(&key)), Status::Error, reason, now()).await
        }),
    }
}

fn run_duties(app: &Arc<App>) -> Duties {
    Duties {
        work: duty!(app, |app, key| {
            let id = stage_id_of_key(&key).ok_or_else(unreadable_key)?;
            flow::run_stage(&app, id).await
        }),
        bury: duty!(app, |app, key, reason| match stage_id_of_key(&key) {
            Some(id) => run::give_up(&app, id, reason).await,
            None => app.store.write(move |write| write.dequeue(Queue::Run, &key)).await,
        }),
    }
}

fn notice_duties(app: &Arc<App>) -> Duties {
    Duties {
        work: duty!(app, |app, key| match OrderingKey::of_key(&key) {
            Some(thread) => flow::send_notice(&app, thread).await,
            None => Err(unreadable_key()),
        }),
        bury: duty!(app, |app, key, reason| match OrderingKey::of_key(&key) {
            Some(thread) => notify::give_up(&app, thread, reason).await,
            None => app.store.write(move |write| write.dequeue(Queue::Notice, &key)).await,
        }),
    }
}

/// Between two looks at what is left over in the engine. The first one after a stage's end leaves it to whoever ran it; with the second all is gone
/// within a minute.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(25);

/// Removes what nobody will take up again: what a process before this one left, and what could not be removed when its stage ended.
async fn clean_up_engine(app: Arc<App>) {
    // Nothing of this process has ended before it began.
    let mut ended_before = now();
    loop {
        if let Err(error) = remove_orphans(&app, ended_before).await {
            tracing::warn!(%error, "what is left over in the engine cannot be looked up");
        }
        // A stage that ends from now on is removed by whoever ran it; the next look is about what that one left.
        ended_before = now();
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(CLEANUP_INTERVAL) => {}
        }
    }
}

/// Keeps the engine ready for the stages to come: anew after each stage that has ended. A server that stops leaves nothing of it behind.
async fn keep_engine_stocked(app: Arc<App>) {
    let stages = usize::from(app.config.engine.prewarmed_networks);
    let mut events = app.store.watch();
    loop {
        stock(&app, stages).await;
        tokio::select! {
            () = app.stopping.cancelled() => return stock(&app, 0).await,
            () = end_of_a_stage(&mut events) => {}
            () = tokio::time::sleep(CLEANUP_INTERVAL) => {}
        }
    }
}

async fn stock(app: &App, stages: usize) {
    if let Err(error) = app.engine.maintain(stages).await {
        tracing::warn!(%error, "the engine could not be made ready for the stages to come");
    }
}

async fn end_of_a_stage(events: &mut broadcast::Receiver<ChangeEvent>) {
    loop {
        match events.recv().await {
            Ok(ChangeEvent::StageChanged { status, .. }) if status.is_over() => return,
            Ok(_) => {}
            // One of those that were missed may have been it.
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

async fn remove_orphans(app: &App, ended_before: Timestamp) -> anyhow::Result<()> {
    for id in app.engine.inventory().await? {
        let stage = app.store.read()?.stage(id)?;
        if stage.is_some_and(|stage| stage.finished_at.is_none_or(|at| at >= ended_before)) {
            continue;
        }
        tracing::info!(stage = %id, "removing what an earlier run left behind");
        if let Err(error) = app.engine.destroy(id).await {
            tracing::warn!(stage = %id, %error, "it could not be removed");
        }
    }
    Ok(())
}
