//! A step's log as its runner sees it: one that may be finished already.

use std::time::Duration;

use beespace_core::build::Step;
use beespace_core::outcome::Stored;
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::StageRun;
use crate::clock::now;
use crate::log::{LogEnd, LogError, LogWriter, Source};

/// How long a writer that was let go of may take for its last frame.
const HANDOVER: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(20);

/// The log of a step in hand. Where a server ended after it finished the log and before it stored the step's end, the log is finished:
/// everything was said then, and saying it again says nothing.
#[derive(Debug)]
pub(super) struct Journal(Option<LogWriter>);

impl Journal {
    pub(super) async fn open(run: &StageRun, step: &Step) -> Result<Self, LogError> {
        let give_up = Instant::now() + HANDOVER;
        loop {
            match run.app.logs.writer(run.step_id(step), run.mask.clone(), run.app.config.limits.log_bytes).await {
                Ok(writer) => return Ok(Self(Some(writer))),
                Err(LogError::Finished(_)) => return Ok(Self(None)),
                // An earlier attempt at the stage was dropped, and its writer still writes what it took.
                Err(LogError::Busy(_)) if Instant::now() < give_up => sleep(RETRY).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether everything was said before.
    pub(super) fn is_finished(&self) -> bool {
        self.0.is_none()
    }

    /// How much of a container's output an earlier process has put on disk.
    pub(super) fn stored(&self, round: u16, container: u16) -> Stored {
        self.0.as_ref().map(|writer| writer.stored(round, container)).unwrap_or_default()
    }

    pub(super) async fn write(&self, source: Source, at: beespace_core::time::Timestamp, bytes: Bytes) -> Result<(), LogError> {
        match &self.0 {
            Some(writer) => writer.write(source, at, bytes).await,
            None => Ok(()),
        }
    }

    /// The containers that spoke so far have ended, and all that they said is on disk when this returns.
    pub(super) async fn settle(&self) -> Result<(), LogError> {
        match &self.0 {
            Some(writer) => writer.settle(now()).await,
            None => Ok(()),
        }
    }

    /// Says one line as the host.
    pub(super) async fn say(&self, line: &str) -> Result<(), LogError> {
        self.write(Source::HOST, now(), format!("{line}\n").into()).await
    }

    /// What is missing from the log in the end; nothing is said of one that was finished before.
    pub(super) async fn finish(self) -> Result<Option<LogEnd>, LogError> {
        match self.0 {
            Some(writer) => writer.finish(now(), None).await.map(Some),
            None => Ok(None),
        }
    }
}
