//! The host's own step: the sources, from the mirror into the stage's workspace.

use beespace_core::build::Step;
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::container::Begin;
use super::engine_retry::EngineRetry;
use super::step_log::StepLog;
use super::{DISK_RECHECK, StageRun, prefetch};
use crate::engine::{EngineError, Launch};
use crate::source::SourceError;

/// Makes the stage's room and fills it. Done again after a crash it begins anew: nothing of the user has run before it is through.
pub(super) async fn fill(
    run: &StageRun,
    step: &Step,
    begin: Begin,
    cancel: &CancellationToken,
) -> anyhow::Result<(Status, Option<Reason>)> {
    let log = StepLog::open(run, step, cancel).await?;
    let filled = tokio::select! {
        filled = fill_with_retries(run, &log, begin, cancel) => Some(filled),
        () = cancel.cancelled() => None,
    };
    match &filled {
        Some(Ok(())) => {}
        Some(Err(reason)) => log.say(&reason.to_string()).await?,
        None => log.say("It was stopped before the sources were in place.").await?,
    }
    log.finish(None).await?;
    Ok(match filled {
        Some(Ok(())) => (Status::Success, None),
        Some(Err(reason)) => (Status::Error, Some(reason)),
        None => (Status::Killed, Some(Reason::new("cancelled", "it was stopped"))),
    })
}

/// What is in the way of the sources.
#[derive(Debug, thiserror::Error)]
enum Hindrance {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("{0}")]
    Other(Reason),
}

/// Tries until the sources are in place, or trying again helps no more.
async fn fill_with_retries(run: &StageRun, log: &StepLog, mut begin: Begin, cancel: &CancellationToken) -> Result<(), Reason> {
    let mut patience = EngineRetry::new();
    loop {
        let trouble = match try_fill(run, log, begin).await {
            Ok(()) => return Ok(()),
            Err(Hindrance::Engine(trouble)) => trouble,
            Err(Hindrance::Source(full @ SourceError::DiskFull(_))) => {
                say(log, &format!("{}; trying again", full.reason())).await?;
                sleep(DISK_RECHECK).await;
                begin = Begin::Again;
                continue;
            }
            Err(Hindrance::Source(error)) => return Err(error.reason()),
            Err(Hindrance::Other(reason)) => return Err(reason),
        };
        if trouble.is_transient() {
            say(log, &format!("{trouble}; trying again")).await?;
        }
        if !patience.should_retry(&trouble, cancel).await {
            return Err(trouble.reason());
        }
        begin = Begin::Again;
    }
}

async fn try_fill(run: &StageRun, log: &StepLog, begin: Begin) -> Result<(), Hindrance> {
    let engine = &run.app.engine;
    let stage = run.stage().map_err(|error| Hindrance::Other(Reason::new("store", error.to_string())))?;
    let build = &run.build;
    let tell = async |line: &str| say(log, line).await.map_err(Hindrance::Other);
    let open = async {
        // What is half made would come to be in a room that is gone.
        let _alone = run.stands.write().await;
        if begin == Begin::Again {
            engine.destroy(run.id).await?;
        }
        engine.open(run.id).await?;
        run.opened.cancel();
        Ok::<(), Hindrance>(())
    };
    // What their containers read from files comes with the sources.
    let launches: Vec<Launch> =
        stage.steps.iter().filter_map(|step| prefetch::launches(run, &stage, step).ok()).flatten().collect();
    let options = &stage.pipeline.clone;
    if !options.enabled {
        open.await?;
        engine.fill(run.id, None, &launches).await?;
        return tell("The pipeline wants no clone: the workspace is empty.").await;
    }
    let sha = build.head.as_ref().map_or_else(|| build.event.sha(), |head| &head.sha);
    let depth = if options.depth == 0 { "whole history".to_owned() } else { format!("history of {} commits", options.depth) };
    tell(&format!("Cloning {} at {} ({}, {depth})", build.event.repository.name, sha.short(), build.event.git_ref())).await?;
    let checkout = async { Ok(crate::resolve::checkout(&run.app, build, sha, options.depth).await?) };
    let ((), checkout) = tokio::try_join!(open, checkout)?;
    engine.fill(run.id, Some(checkout.path()), &launches).await?;
    tell("The sources are in place.").await
}

async fn say(log: &StepLog, line: &str) -> Result<(), Reason> {
    log.say(line).await.map_err(|error| Reason::new("log", error.to_string()))
}
