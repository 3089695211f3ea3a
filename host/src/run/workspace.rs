//! The clone step: the sources, from the mirror into the stage's workspace.

use std::num::NonZeroU32;

use beespace_core::build::{Build, Merge, Step};
use beespace_core::pipeline::PullRequestCheckout;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::container::StartMode;
use super::engine_retry::EngineRetry;
use super::prefetch;
use super::source_retry::{SourceRetry, final_reason};
use super::stage_run::StageRun;
use super::step_log::StepLog;
use crate::engine::{EngineError, Launch};
use crate::source::{Checkout, CheckoutRequest, LeftOut, SourceError};

/// Opens the stage in the engine and fills its workspace. After a crash the stage is opened anew: no user code runs before
/// this step has succeeded.
///
/// # Errors
/// The log's.
pub(super) async fn fill(
    run: &StageRun,
    step: &Step,
    mode: StartMode,
    cancel: &CancellationToken,
) -> anyhow::Result<(Status, Option<Reason>)> {
    let log = StepLog::open(run, step, cancel).await?;
    let filled = tokio::select! {
        filled = fill_with_retries(run, &log, mode, cancel) => Some(filled),
        () = cancel.cancelled() => None,
    };
    match &filled {
        Some(Ok(())) => {}
        Some(Err(reason)) => log.write_line(&reason.to_string()).await?,
        None => log.write_line("Cancelled before the sources were in place.").await?,
    }
    log.finish(None).await?;
    Ok(match filled {
        Some(Ok(())) => (Status::Success, None),
        Some(Err(reason)) => (Status::Error, Some(reason)),
        None => (Status::Killed, Some(Reason::new(ReasonCode::Cancelled, "the step was cancelled"))),
    })
}

/// Why an attempt to fill the workspace failed.
#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("{0}")]
    Other(Reason),
}

/// Retries until the sources are in place or another attempt would not help.
async fn fill_with_retries(run: &StageRun, log: &StepLog, mut mode: StartMode, cancel: &CancellationToken) -> Result<(), Reason> {
    let (mut engine_retry, mut source_retry) = (EngineRetry::new(), SourceRetry::default());
    let mut last_line = String::new();
    loop {
        match try_fill(run, log, mode).await {
            Ok(()) => return Ok(()),
            Err(FillError::Engine(error)) => {
                if error.is_transient() {
                    write_line(log, &format!("{error}; retrying")).await?;
                }
                if !engine_retry.should_retry(&error, cancel).await {
                    return Err(error.reason());
                }
            }
            Err(FillError::Source(error)) => {
                let Some(delay) = source_retry.next_delay(&error, Instant::now()) else { return Err(final_reason(&error)) };
                tracing::warn!(stage = %run.id, %error, "a checkout failed; retrying");
                let line = format!("{}; retrying", error.reason());
                // A disk that stays full is not reported again and again.
                if line != last_line {
                    write_line(log, &line).await?;
                    last_line = line;
                }
                sleep(delay).await;
            }
            Err(FillError::Other(reason)) => return Err(reason),
        }
        mode = StartMode::Resume;
    }
}

async fn try_fill(run: &StageRun, log: &StepLog, mode: StartMode) -> Result<(), FillError> {
    let engine = &run.app.engine;
    let stage = run.stage().map_err(|error| FillError::Other(Reason::new(ReasonCode::StoreUnavailable, error.to_string())))?;
    let report = async |line: &str| write_line(log, line).await.map_err(FillError::Other);
    let open = async {
        // Waits for prefetches: a container that is being prepared would otherwise appear in a stage that is destroyed.
        let _exclusive = run.reopen_lock.write().await;
        if mode == StartMode::Resume {
            engine.destroy(run.id).await?;
        }
        engine.open(run.id).await?;
        run.opened.cancel();
        Ok::<(), FillError>(())
    };
    // The files that the containers of the first launches read are uploaded together with the sources.
    let steps = stage.steps.iter();
    let launches: Vec<Launch> = steps.filter_map(|step| prefetch::first_launches(run, &stage, step).ok()).flatten().collect();
    let options = &stage.pipeline.clone;
    if !options.enabled {
        open.await?;
        engine.fill(run.id, None, &launches).await?;
        return report("The pipeline disables the clone: the workspace is empty.").await;
    }
    let depth = NonZeroU32::new(options.depth);
    let merge = match options.pull_request {
        PullRequestCheckout::Head => None,
        PullRequestCheckout::Merge if run.build.event.pull_request().is_none() => None,
        // A policy may have changed the pipeline after the merge would have been made.
        PullRequestCheckout::Merge => Some(run.build.merge.as_ref().ok_or_else(no_merge)?),
    };
    report(&announcement(&run.build, merge, depth)).await?;
    let ((), (checkout, left_out)) = tokio::try_join!(open, checkout(run, merge, depth))?;
    engine.fill(run.id, Some(checkout.path()), &launches).await?;
    for line in left_out.lines() {
        report(&line).await?;
    }
    report("The sources are in place.").await
}

fn no_merge() -> SourceError {
    SourceError::Internal("the pull request was not merged into its target".to_owned())
}

/// The line in the log about the sources that are cloned.
fn announcement(build: &Build, merge: Option<&Merge>, depth: Option<NonZeroU32>) -> String {
    let tags = if build.event.tag().is_some() { "its tag" } else { "no tags" };
    let history = match depth.map(NonZeroU32::get) {
        None => "full history with all tags".to_owned(),
        Some(1) => format!("history of 1 commit, {tags}"),
        Some(depth) => format!("history of at most {depth} commits, {tags}"),
    };
    let merged =
        merge.map_or_else(String::new, |merge| format!(" merged into {} as {}", merge.target.short(), merge.commit.short()));
    let (name, git_ref) = (&build.event.repository.name, build.event.git_ref());
    format!("Cloning {name} at {}{merged} ({git_ref}, {history})", build.short_sha())
}

async fn checkout(run: &StageRun, merge: Option<&Merge>, depth: Option<NonZeroU32>) -> Result<(Checkout, LeftOut), FillError> {
    let (build, origin) = (&run.build, run.app.clone_url(&run.build));
    // A pull request is compared with its target, so that branch is the one that its checkout has.
    let target = build.event.pull_request().map(|pull| &pull.target_branch);
    let default_branch = target.unwrap_or(&build.event.repository.default_branch);
    let before = if target.is_some() { build.base() } else { build.before() };
    let head = build.sha().ok_or_else(|| SourceError::Internal("the commit of the build is unknown".to_owned()))?;
    let request = CheckoutRequest {
        sha: merge.map_or(head, |merge| &merge.commit),
        branch: build.event.branch(),
        tag: build.event.tag(),
        default_branch,
        // The base is pinned. If it is another commit, the one before was no longer in the mirror.
        before: before.filter(|before| build.base() == Some(*before)),
        depth,
        origin: &origin,
    };
    let mirror = run.app.mirrors.of(build.event.repository.id);
    let checkout = mirror.checkout(request, &run.app.scratch()).await?;
    Ok((checkout, mirror.left_out(request.sha).await?))
}

async fn write_line(log: &StepLog, line: &str) -> Result<(), Reason> {
    log.write_line(line).await.map_err(|error| Reason::new(ReasonCode::LogFailed, error.to_string()))
}
