//! The log of a step that runs. It may be finished already, and a full disk may keep it from being finished.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use beespace_core::build::Step;
use beespace_core::output::OutputOffsets;
use beespace_core::time::Timestamp;
use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::stage_run::StageRun;
use crate::clock::now;
use crate::log::{DISK_FULL_RETRY, LogEnd, LogError, LogReader, LogWriter, Origin};

/// How long a writer that was dropped may take to write its last frame.
const WRITER_HANDOVER: Duration = Duration::from_secs(10);
const OPEN_RETRY: Duration = Duration::from_millis(20);

/// How long a step that is cancelled waits for disk space to finish its log.
const FULL_DISK_GRACE: Duration = Duration::from_secs(5);

/// The log of a step that runs. When an earlier process finished the log but did not store the step's end, the log is
/// complete, and writing to it again has no effect.
#[derive(Debug)]
pub(super) struct StepLog {
    /// None when the log is finished or cannot be opened.
    writer: Option<LogWriter>,
    reader: LogReader,
    /// Cancelled when the step is cancelled, which then does not wait for a full disk.
    cancel: CancellationToken,
    /// Set when the log stays unfinished because of a full disk.
    is_abandoned: AtomicBool,
}

impl StepLog {
    pub(super) async fn open(run: &StageRun, step: &Step, cancel: &CancellationToken) -> Result<Self, LogError> {
        let (logs, id) = (&run.app.logs, run.step_id(step));
        let deadline = Instant::now() + WRITER_HANDOVER;
        let mut is_abandoned = false;
        let writer = loop {
            match logs.writer(id, run.mask.clone(), run.app.config.limits.log_bytes).await {
                Ok(writer) => break Some(writer),
                Err(LogError::Finished(_)) => break None,
                // An earlier attempt at the stage was dropped, and its writer still writes its last output.
                Err(LogError::Busy(_)) if Instant::now() < deadline => sleep(OPEN_RETRY).await,
                Err(full) if full.is_full() && cancel.is_cancelled() => {
                    is_abandoned = true;
                    break None;
                }
                Err(full) if full.is_full() => sleep(DISK_FULL_RETRY).await,
                Err(error) => return Err(error),
            }
        };
        Ok(Self { writer, reader: logs.reader(id), cancel: cancel.clone(), is_abandoned: AtomicBool::new(is_abandoned) })
    }

    /// How much of a container's output is on disk. A finished log has all of it.
    pub(super) fn stored(&self, round: u16, container: u16) -> OutputOffsets {
        match &self.writer {
            Some(writer) => writer.stored(round, container),
            None if self.is_abandoned() => OutputOffsets::default(),
            None => OutputOffsets::END,
        }
    }

    pub(super) async fn write(&self, origin: Origin, at: Timestamp, bytes: Bytes) -> Result<(), LogError> {
        match &self.writer {
            Some(writer) => self.unless_abandoned(writer.write(origin, at, bytes)).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Returns when all output so far is on disk. The containers that wrote it have ended.
    pub(super) async fn flush(&self) -> Result<(), LogError> {
        match &self.writer {
            Some(writer) => self.unless_abandoned(writer.sync_containers(now())).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Writes one line in the host's name.
    pub(super) async fn write_line(&self, line: &str) -> Result<(), LogError> {
        self.write(Origin::HOST, now(), format!("{line}\n").into()).await
    }

    /// Finishes the log. Returns why it is incomplete: the given reason, the log's size limit, or a full disk.
    pub(super) async fn finish(mut self, incomplete: Option<&str>) -> Result<Option<String>, LogError> {
        let incomplete = incomplete.map(str::to_owned);
        let end = match self.writer.take() {
            Some(writer) => self.unless_abandoned(writer.finish(now(), incomplete.clone())).await?.unwrap_or_default(),
            None => LogEnd::default(),
        };
        if self.is_abandoned() {
            return Ok(Some("the disk was full when the step was cancelled, so its last output was not kept".to_owned()));
        }
        let over_limit = || (end.dropped > 0).then(|| format!("{} bytes beyond the log's size limit were dropped", end.dropped));
        Ok(incomplete.or_else(over_limit))
    }

    /// Does work on the log, unless the step is cancelled and the disk stays full.
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
