//! One container to its end, whatever becomes of the engine meanwhile.

use std::sync::Arc;

use beespace_core::exit::{Exit, ExitCause};
use beespace_core::output::{OutputOffsets, Stream};
use beespace_core::reason::Reason;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::StageRun;
use super::engine_retry::EngineRetry;
use crate::engine::{EngineError, Launch, Output};
use crate::log::Origin;

/// Pieces of output on their way from the engine to the log.
pub(super) const OUTPUT_QUEUE: usize = 64;

/// Whether a step starts, or is taken up where another process left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    Fresh,
    Again,
}

/// A piece of output, and who said it.
pub(super) type OutputChunk = (Origin, Output);

/// A container that is being brought to its end.
pub(super) struct ContainerRun {
    pub(super) run: Arc<StageRun>,
    pub(super) launch: Launch,
    pub(super) speaker: OutputOrigin,
    /// How much of its output the log has.
    pub(super) stored: OutputOffsets,
    pub(super) output: mpsc::Sender<OutputChunk>,
    pub(super) cancel: CancellationToken,
}

/// Whose output it is: the round, and the container's place in the round's plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputOrigin {
    pub(super) round: u16,
    pub(super) container: u16,
}

impl ContainerRun {
    /// Runs it, or takes it up. While the engine does not answer, it is asked again: the container may well run on.
    pub(super) async fn until_exit(mut self, begin: Begin) -> Result<Exit, Reason> {
        let mut answer = match begin {
            Begin::Fresh => self.start().await,
            Begin::Again => self.reattach().await,
        };
        let mut patience = EngineRetry::new();
        loop {
            match answer {
                Ok(exit) => return Ok(exit),
                // It was open when the sources were put there: since then the engine, or its machine, has gone.
                Err(EngineError::NotOpen(_)) => return Ok(Exit::lost_workspace(&self.launch.container)),
                Err(trouble) if patience.should_retry(&trouble, &self.cancel).await => answer = self.reattach().await,
                Err(trouble) => return Err(trouble.reason()),
            }
        }
    }

    async fn start(&mut self) -> Result<Exit, EngineError> {
        let (sender, receiver) = mpsc::channel(OUTPUT_QUEUE);
        let started = self.run.app.engine.run(self.launch.clone(), sender, self.cancel.clone());
        let (exit, ()) = tokio::join!(started, carry(receiver, (self.speaker, &self.output), &mut self.stored));
        exit
    }

    /// Asks what became of it. One that is not there and of which the log has not a byte was never made: nobody removes a container of a step
    /// whose exits are not stored, so its turn is now. The engine's own rule (what it does begins at most once an attempt) holds for that call, too. With output
    /// in the log it did run, and is lost: running it again could do twice what is to be done once.
    async fn reattach(&mut self) -> Result<Exit, EngineError> {
        let (sender, receiver) = mpsc::channel(OUTPUT_QUEUE);
        let adopted = self.run.app.engine.adopt(self.launch.clone(), self.stored, sender, self.cancel.clone());
        let (exit, ()) = tokio::join!(adopted, carry(receiver, (self.speaker, &self.output), &mut self.stored));
        let exit = exit?;
        if exit.cause != ExitCause::Lost || self.stored != OutputOffsets::default() {
            return Ok(exit);
        }
        match self.start().await {
            // The whole stage is gone, and whatever ran in it.
            Err(EngineError::NotOpen(_)) => Ok(Exit::lost_workspace(&self.launch.container)),
            other => other,
        }
    }
}

/// Hands output on and counts it: what was handed on is not asked for again.
async fn carry(
    mut from: mpsc::Receiver<Output>,
    (speaker, to): (OutputOrigin, &mpsc::Sender<OutputChunk>),
    stored: &mut OutputOffsets,
) {
    while let Some(piece) = from.recv().await {
        let length = piece.bytes.len() as u64;
        match piece.stream {
            Stream::Stdout => stored.stdout = stored.stdout.saturating_add(length),
            Stream::Stderr => stored.stderr = stored.stderr.saturating_add(length),
            Stream::Host => {}
        }
        // A reader who is gone has its reasons; the container goes on.
        let _ = to.send((Origin::new(speaker.round, speaker.container, piece.stream), piece)).await;
    }
}
