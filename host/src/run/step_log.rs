//! A step's log as its runner sees it: one that may be finished already, or that a full disk keeps from its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use beespace_core::build::Step;
use beespace_core::output::OutputOffsets;
use beespace_core::time::Timestamp;
use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::StageRun;
use crate::clock::now;
use crate::log::{DISK_FULL_RETRY, LogEnd, LogError, LogReader, LogWriter, Origin};

/// How long a writer that was let go of may take for its last frame.
const WRITER_HANDOVER: Duration = Duration::from_secs(10);
const OPEN_RETRY: Duration = Duration::from_millis(20);

/// How long a step that is to stop waits for room on the disk, that its log may have its end.
const FULL_DISK_GRACE: Duration = Duration::from_secs(5);

/// The log of a step in hand. Where a server ended after it finished the log and before it stored the step's end, the log is finished:
/// everything was said then, and saying it again says nothing.
#[derive(Debug)]
pub(super) struct StepLog {
    /// None where the log is finished, or cannot be opened.
    writer: Option<LogWriter>,
    reader: LogReader,
    /// The step is to stop: a full disk does not keep it.
    cancel: CancellationToken,
    /// Set once a full disk has made us leave the log without its end.
    is_abandoned: AtomicBool,
}

impl StepLog {
    pub(super) async fn open(run: &StageRun, step: &Step, cancel: &CancellationToken) -> Result<Self, LogError> {
        let (logs, id) = (&run.app.logs, run.step_id(step));
        let give_up = Instant::now() + WRITER_HANDOVER;
        let mut is_left = false;
        let writer = loop {
            match logs.writer(id, run.mask.clone(), run.app.config.limits.log_size).await {
                Ok(writer) => break Some(writer),
                Err(LogError::Finished(_)) => break None,
                // An earlier attempt at the stage was dropped, and its writer still writes what it took.
                Err(LogError::Busy(_)) if Instant::now() < give_up => sleep(OPEN_RETRY).await,
                Err(full) if full.is_full() && cancel.is_cancelled() => {
                    is_left = true;
                    break None;
                }
                Err(full) if full.is_full() => sleep(DISK_FULL_RETRY).await,
                Err(error) => return Err(error),
            }
        };
        Ok(Self { writer, reader: logs.reader(id), cancel: cancel.clone(), is_abandoned: AtomicBool::new(is_left) })
    }

    /// How much of a container's output an earlier process has put on disk: of a log that is finished, all there ever was.
    pub(super) fn stored(&self, round: u16, container: u16) -> OutputOffsets {
        match &self.writer {
            Some(writer) => writer.stored(round, container),
            None if self.is_abandoned() => OutputOffsets::default(),
            None => OutputOffsets::END,
        }
    }

    pub(super) async fn write(&self, source: Origin, at: Timestamp, bytes: Bytes) -> Result<(), LogError> {
        match &self.writer {
            Some(writer) => self.unless_abandoned(writer.write(source, at, bytes)).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// The containers that spoke so far have ended, and all that they said is on disk when this returns.
    pub(super) async fn flush(&self) -> Result<(), LogError> {
        match &self.writer {
            Some(writer) => self.unless_abandoned(writer.sync_containers(now())).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Says one line as the host.
    pub(super) async fn say(&self, line: &str) -> Result<(), LogError> {
        self.write(Origin::HOST, now(), format!("{line}\n").into()).await
    }

    /// Ends the log, and tells what is missing from it: what `lacks` says, or what the limit or a full disk has kept out.
    pub(super) async fn finish(mut self, lacks: Option<&str>) -> Result<Option<String>, LogError> {
        let lacks = lacks.map(str::to_owned);
        let end = match self.writer.take() {
            Some(writer) => self.unless_abandoned(writer.finish(now(), lacks.clone())).await?.unwrap_or_default(),
            None => LogEnd::default(),
        };
        if self.is_abandoned() {
            return Ok(Some("the disk was full when the step was stopped, and what it said last was not kept".to_owned()));
        }
        Ok(lacks.or_else(|| (end.dropped > 0).then(|| format!("{} bytes beyond the limit of the log were dropped", end.dropped))))
    }

    /// Does something to the log, unless the step is to stop and the disk stays full.
    async fn unless_abandoned<T>(&self, work: impl Future<Output = Result<T, LogError>>) -> Result<Option<T>, LogError> {
        if self.is_abandoned() {
            return Ok(None);
        }
        tokio::select! {
            biased;
            done = work => done.map(Some),
            () = self.full_disk_grace_over() => {
                self.is_abandoned.store(true, Ordering::Relaxed);
                Ok(None)
            }
        }
    }

    fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }

    async fn full_disk_grace_over(&self) {
        self.cancel.cancelled().await;
        loop {
            sleep(FULL_DISK_GRACE).await;
            if self.reader.is_disk_full() {
                return;
            }
        }
    }
}
