//! The life of a plan's container after its creation: started, supervised, found again after a restart, and removed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use beespace_core::exit::{Exit, ExitCause};
use beespace_core::ids::{StageId, StepId};
use beespace_core::output::OutputOffsets;
use tokio::sync::{AcquireError, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::containers::Containers;
use super::deferred_start::{DeferredStart, never_started, start_marker_at, started_at};
use super::files::Files;
use super::forward_output::{live_output, stored_output};
use super::names::Names;
use super::precreated::Precreated;
use super::step_creation::{CreateOutcome, ReadyContainer, StartedContainer, StepCreation};
use super::supervise::{Supervised, start_error};
use crate::clock::now;
use crate::engine::EngineError;
use crate::engine::container_io::{Launch, OutputSender, write_host_line};

/// A wait for a start permit that is shorter than this is not reported.
const REPORT_WAIT_AFTER: Duration = Duration::from_secs(1);

/// Attempts to create a container that the engine stopped before its script began.
const MAX_ATTEMPTS: usize = 3;

/// Runs the containers of steps.
#[derive(Debug)]
pub(super) struct StepContainers {
    pub(super) names: Names,
    pub(super) containers: Containers,
    pub(super) files: Files,
    pub(super) creation: StepCreation,
    pub(super) precreated: Arc<Precreated>,
}

/// One call of `run` or `adopt`.
pub(super) struct RunCall<'a> {
    pub(super) launch: &'a Launch,
    pub(super) output: &'a OutputSender,
    pub(super) cancel: &'a CancellationToken,
}

impl StepContainers {
    /// [`Engine::run`](crate::engine::Engine::run)
    pub(super) async fn run(&self, call: &RunCall<'_>) -> Result<Exit, EngineError> {
        let name = self.creation.container_name(call.launch)?;
        for _ in 0..MAX_ATTEMPTS {
            let outcome = tokio::select! {
                biased;
                () = call.cancel.cancelled() => CreateOutcome::Refused(cancelled(call.launch)),
                outcome = self.creation.create_or_reuse(call.launch, &name, call.output) => outcome?,
            };
            match outcome {
                CreateOutcome::AlreadyStarted(started) => {
                    return self.reattach(call, &name, started, OutputOffsets::default()).await;
                }
                CreateOutcome::Refused(exit) => {
                    self.containers.remove(&name).await?;
                    return Ok(exit);
                }
                CreateOutcome::Ready(ready) => {
                    let is_deferred = ready.is_deferred;
                    let exit = self.start_and_supervise(call, &name, ready).await?;
                    if !is_deferred || !never_started(&self.containers, &name, &exit).await? {
                        return Ok(exit);
                    }
                    // An engine that was stopped has ended the container in the moment before the start signal.
                    self.containers.remove(&name).await?;
                }
            }
        }
        Ok(Exit::lost_before_start(&call.launch.container))
    }

    /// [`Engine::adopt`](crate::engine::Engine::adopt)
    pub(super) async fn adopt(&self, call: &RunCall<'_>, stored: OutputOffsets) -> Result<Exit, EngineError> {
        let name = self.creation.container_name(call.launch)?;
        let Some(inspect) = self.containers.inspect(&name).await? else { return Ok(Exit::lost(&call.launch.container)) };
        // A waiting shell may have printed warnings, but only to stderr.
        let started_at = if stored.stdout == 0 {
            started_at(&self.containers, &name, &inspect).await?
        } else {
            let marker = if inspect.is_deferred { start_marker_at(&self.containers, &name).await? } else { None };
            Some(marker.unwrap_or_else(|| inspect.started_at()))
        };
        match started_at {
            Some(started_at) => self.reattach(call, &name, StartedContainer { inspect, started_at }, stored).await,
            None => {
                // Removed at once: later, no process could detect that the container was stopped before its start signal.
                self.containers.remove(&name).await?;
                self.run(call).await
            }
        }
    }

    /// Removes the containers of a step and the volumes with their files.
    pub(super) async fn release(&self, step: StepId) -> Result<(), EngineError> {
        let labels = self.names.step_labels(step);
        self.precreated.forget(|of| of == step);
        self.containers.remove_all(&labels).await?;
        self.files.remove_volumes(&labels, None).await
    }

    /// Removes the containers of a stage.
    pub(super) async fn remove_stage(&self, stage: StageId) -> Result<(), EngineError> {
        self.containers.remove_all(&self.names.stage_labels(stage)).await
    }

    /// Starts the container unless it was started early, lets its program begin, and supervises it.
    async fn start_and_supervise(&self, call: &RunCall<'_>, name: &str, ready: ReadyContainer) -> Result<Exit, EngineError> {
        let (launch, is_deferred) = (call.launch, ready.is_deferred);
        let start = match ready.start {
            Some(start) => start,
            None => {
                let mut start = DeferredStart::attach(&self.containers, name, is_deferred).await?;
                let permit = tokio::select! {
                    biased;
                    () = call.cancel.cancelled() => return Ok(cancelled(launch)),
                    permit = self.start_permit(call.output) => permit,
                };
                let started = start.start(&self.containers, name).await;
                drop(permit);
                match started {
                    Ok(()) => start,
                    Err(EngineError::Refused { message, .. }) => {
                        return Ok(Exit::not_started(&launch.container, ExitCause::StartFailed, start_error(&message)));
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        if is_deferred && call.cancel.is_cancelled() {
            drop(start);
            self.containers.remove(name).await?;
            return Ok(cancelled(launch));
        }
        let supervised = Supervised {
            containers: &self.containers,
            name,
            container: &launch.container,
            started_at: now(),
            timeout: launch.timeout(),
            pids: self.creation.pids(launch),
            is_deferred,
            waited: start.waited(),
            had_exited: false,
        };
        let source = live_output(is_deferred, start.send_start_signal().await);
        supervised.until_exit(source, OutputOffsets::default(), call.output, call.cancel).await
    }

    /// A permit to start a container. If there is none soon, the step's log states what the container waits for.
    async fn start_permit(&self, output: &OutputSender) -> Result<SemaphorePermit<'_>, AcquireError> {
        let mut permit = pin!(self.containers.start_permit());
        if let Ok(permit) = timeout(REPORT_WAIT_AFTER, &mut permit).await {
            return permit;
        }
        let limit = self.containers.max_concurrent_starts();
        write_host_line(output, format!("waiting to start: the engine is already starting {limit} containers, the limit")).await;
        permit.await
    }

    /// Supervises a container whose program has begun earlier, with the engine's own copy of its output.
    async fn reattach(
        &self,
        call: &RunCall<'_>,
        name: &str,
        started: StartedContainer,
        stored: OutputOffsets,
    ) -> Result<Exit, EngineError> {
        let StartedContainer { inspect, started_at } = started;
        let supervised = Supervised {
            containers: &self.containers,
            name,
            container: &call.launch.container,
            started_at,
            timeout: call.launch.timeout(),
            pids: self.creation.pids(call.launch),
            is_deferred: inspect.is_deferred,
            waited: started_at.since(inspect.started_at()),
            had_exited: !inspect.is_running(),
        };
        let source = stored_output(&self.containers, name, inspect.is_deferred, stored).await?;
        supervised.until_exit(source, stored, call.output, call.cancel).await
    }
}

fn cancelled(launch: &Launch) -> Exit {
    Exit::not_started(&launch.container, ExitCause::Cancelled, "the container was cancelled before it started")
}
