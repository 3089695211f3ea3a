//! One container, run to its end through outages of the engine.

use std::sync::Arc;

use beespace_core::exit::{Exit, ExitCause};
use beespace_core::output::{OutputOffsets, Stream};
use beespace_core::reason::Reason;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::container_slots::ContainerSlot;
use super::engine_retry::EngineRetry;
use super::stage_run::StageRun;
use crate::clock::now;
use crate::engine::{EngineError, ImageOutcome, Launch, Output};
use crate::log::Origin;

/// Chunks of output between the engine and the log.
pub(super) const OUTPUT_QUEUE: usize = 64;

/// Whether a step starts, or continues from where another process left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartMode {
    Fresh,
    Resume,
}

/// A chunk of output and the container that wrote it.
pub(super) type OutputChunk = (Origin, Output);

/// A container that runs in this process.
pub(super) struct ContainerRun {
    pub(super) run: Arc<StageRun>,
    pub(super) launch: Launch,
    pub(super) origin: OutputOrigin,
    /// How much of the container's output is in the log.
    pub(super) stored: OutputOffsets,
    pub(super) output: mpsc::Sender<OutputChunk>,
    pub(super) cancel: CancellationToken,
    /// Held until the container has exited.
    pub(super) slot: Option<ContainerSlot>,
}

/// The container that wrote a chunk of output: the round, and the container's index in the round's plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputOrigin {
    pub(super) round: u16,
    pub(super) container: u16,
}

impl ContainerRun {
    /// Runs the container, or re-attaches to it. While the engine is unreachable, the call is retried: the container may
    /// still run.
    ///
    /// # Errors
    /// The engine failed for good.
    pub(super) async fn until_exit(mut self, mode: StartMode) -> Result<Exit, Reason> {
        let mut result = match mode {
            StartMode::Fresh => self.start().await,
            StartMode::Resume => self.reattach().await,
        };
        let mut retry = EngineRetry::new();
        loop {
            match result {
                Ok(exit) => return Ok(exit),
                // The stage was open when its workspace was filled: since then the engine or its machine has been replaced.
                Err(EngineError::NotOpen(_)) => return Ok(Exit::lost_workspace(&self.launch.container)),
                Err(error) if retry.should_retry(&error, &self.cancel).await => result = self.reattach().await,
                Err(error) => return Err(error.reason()),
            }
        }
    }

    async fn start(&mut self) -> Result<Exit, EngineError> {
        if self.slot.is_none() {
            self.slot = self.wait_for_slot().await;
        }
        if self.slot.is_none() {
            let message = "the step was cancelled before a slot for its container was free";
            return Ok(Exit::not_started(&self.launch.container, ExitCause::Cancelled, message));
        }
        let (sender, receiver) = mpsc::channel(OUTPUT_QUEUE);
        let (run, launch, cancel) = (&self.run, &mut self.launch, &self.cancel);
        let started = async {
            let resolved = tokio::select! {
                biased;
                // The engine removes what was prefetched.
                () = cancel.cancelled() => ImageOutcome::Ready(()),
                resolved = run.images.resolve_or_pull(run, launch, &sender) => resolved?,
            };
            match resolved {
                ImageOutcome::Ready(()) => run.app.engine.run(launch.clone(), sender, cancel.clone()).await,
                ImageOutcome::Unusable(exit) => Ok(exit),
            }
        };
        let forwarded = forward_output(receiver, self.origin, &self.output, &mut self.stored);
        let (exit, ()) = tokio::join!(started, forwarded);
        exit
    }

    /// A slot, or none if the container is cancelled meanwhile. The step's log explains the wait.
    async fn wait_for_slot(&self) -> Option<ContainerSlot> {
        let slots = &self.run.container_slots;
        if let Some(slot) = slots.try_acquire() {
            return Some(slot);
        }
        let limits = &self.run.app.config.limits;
        let text = format!(
            "waiting for a free slot: at most {} containers of a stage, and {} in all, run at once\n",
            limits.stage_containers, limits.containers
        );
        let line = Output { stream: Stream::Host, at: now(), bytes: text.into() };
        let _ = self.output.send((Origin::HOST, line)).await;
        tokio::select! {
            slot = slots.acquire() => slot,
            () = self.cancel.cancelled() => None,
        }
    }

    /// Follows the container again. A container that does not exist, and without output in the log, was never created: the
    /// containers of a step are removed only after its exits are stored. So it is started now, under the engine's own rule
    /// that an attempt begins at most once. A container with output in the log did run and is lost: a second run could
    /// repeat its effects.
    async fn reattach(&mut self) -> Result<Exit, EngineError> {
        self.slot = self.slot.take().or_else(|| self.run.container_slots.try_acquire());
        let (sender, receiver) = mpsc::channel(OUTPUT_QUEUE);
        let adopted = self.run.app.engine.adopt(self.launch.clone(), self.stored, sender, self.cancel.clone());
        let forwarded = forward_output(receiver, self.origin, &self.output, &mut self.stored);
        let (exit, ()) = tokio::join!(adopted, forwarded);
        let exit = exit?;
        if exit.cause != ExitCause::Lost || self.stored != OutputOffsets::default() {
            return Ok(exit);
        }
        match self.start().await {
            // The whole stage is gone, with everything that ran in it.
            Err(EngineError::NotOpen(_)) => Ok(Exit::lost_workspace(&self.launch.container)),
            other => other,
        }
    }
}

/// Forwards output and counts it, so that forwarded output is not requested again.
async fn forward_output(
    mut from: mpsc::Receiver<Output>,
    origin: OutputOrigin,
    to: &mpsc::Sender<OutputChunk>,
    stored: &mut OutputOffsets,
) {
    while let Some(chunk) = from.recv().await {
        let length = chunk.bytes.len() as u64;
        match chunk.stream {
            Stream::Stdout => stored.stdout = stored.stdout.saturating_add(length),
            Stream::Stderr => stored.stderr = stored.stderr.saturating_add(length),
            Stream::Host => {}
        }
        // When the receiver is gone, the container continues without it.
        let _ = to.send((Origin::new(origin.round, origin.container, chunk.stream), chunk)).await;
    }
}
