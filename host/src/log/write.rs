//! The one who writes a log: a thread of its own, fed through a bounded queue.
//!
//! A thread and not a task, because masking, compressing and writing all block; and one for each log, so that a slow disk write of
//! one step does not delay another's. There are as many as there are steps running.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use beespace_core::ids::StepId;
use beespace_core::mask::Secrets;
use beespace_core::output::{OutputOffsets, Stream};
use beespace_core::time::Timestamp;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::file::Files;
use super::frame::{Header, flag};
use super::line_splitter::LineSplitter;
use super::origin::{Origin, OriginOffset};
use super::{DISK_FULL_RETRY, Feed, LogEnd, LogError};

/// Bytes that may wait for the thread. When it is full, the container waits: nothing is lost, and memory stays flat.
const MAX_QUEUED_BYTES: u32 = 1024 * 1024;

/// Text is in the file, and with followers, after this long at the latest: what comes in one go is shown in one go.
const FLUSH_DELAY: Duration = Duration::from_millis(10);

/// A program that goes on printing is shown this often.
const FLUSH_INTERVAL: Duration = Duration::from_millis(75);

/// And safe from a power cut after this long.
const SYNC_DELAY: Duration = Duration::from_secs(2);

/// Writes one log. Dropped without [`finish`](Self::finish), it leaves a log that a later writer goes on with.
#[derive(Debug)]
pub struct LogWriter {
    commands: Sender<Command>,
    queue_permits: Arc<Semaphore>,
    /// Where everyone stood when the log was opened.
    offsets: Vec<OriginOffset>,
    /// The thread's copy tells it whether this writer is still there.
    failure: Arc<OnceLock<String>>,
}

enum Command {
    Write { origin: Origin, at: Timestamp, bytes: Bytes, _permit: OwnedSemaphorePermit },
    Flush { done: oneshot::Sender<()> },
    SyncContainers { at: Timestamp, done: oneshot::Sender<()> },
    Finish { at: Timestamp, incomplete: Option<String>, done: oneshot::Sender<LogEnd> },
}

impl LogWriter {
    /// Blocks. Use [`LogStore::writer`](super::LogStore::writer).
    pub(super) fn open(step: StepId, path: PathBuf, feed: Arc<Feed>, secrets: &Secrets, limit: u64) -> Result<Self, LogError> {
        let lease = Lease::acquire(step, feed)?;
        let files = Files::create(&path)?;
        let (frames, last) = files.recover()?;
        if last.is_some_and(|last| last.has(flag::FINISHED)) {
            return Err(LogError::Finished(step));
        }
        let places = last.as_ref().map(|last| files.offsets(last)).transpose()?.unwrap_or_default();
        let (queue, orders) = channel();
        let trouble = Arc::new(OnceLock::new());
        lease.0.frames.send_replace(frames);
        let scribe = WriterThread {
            splitter: LineSplitter::after(last.as_ref(), &places, secrets, limit),
            sink: FrameSink { files, frames, lease, failure: Arc::clone(&trouble) },
            flushed_at: None,
            unsynced_since: None,
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || scribe.run(&orders)).map_err(|source| LogError::Io {
            action: "opened",
            path,
            source,
        })?;
        Ok(Self {
            commands: queue,
            queue_permits: Arc::new(Semaphore::new(MAX_QUEUED_BYTES as usize)),
            offsets: places,
            failure: trouble,
        })
    }

    /// Takes what a container, or the host, said at a time. Waits while the disk is behind.
    ///
    /// # Errors
    /// [`LogError::Stopped`] when an earlier write failed.
    pub async fn write(&self, source: impl Into<Origin>, at: Timestamp, bytes: impl Into<Bytes>) -> Result<(), LogError> {
        let source = source.into();
        let mut rest: Bytes = bytes.into();
        while !rest.is_empty() {
            self.check()?;
            let bytes = rest.split_to(rest.len().min(MAX_QUEUED_BYTES as usize));
            let need = u32::try_from(bytes.len()).unwrap_or(MAX_QUEUED_BYTES);
            let room = Arc::clone(&self.queue_permits).acquire_many_owned(need).await.map_err(|_| self.stopped())?;
            self.commands.send(Command::Write { origin: source, at, bytes, _permit: room }).map_err(|_| self.stopped())?;
        }
        Ok(())
    }

    /// Says one line as the host.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn say(&self, at: Timestamp, line: &str) -> Result<(), LogError> {
        self.write(Origin::HOST, at, format!("{line}\n")).await
    }

    /// How much of a container's output an earlier writer has put on disk, before masking. After a restart the engine skips exactly this.
    #[must_use]
    pub fn stored(&self, round: u16, container: u16) -> OutputOffsets {
        let of = |stream| {
            let source = Origin::new(round, container, stream);
            self.offsets.iter().find(|place| place.origin == source).map_or(0, |place| place.stored)
        };
        OutputOffsets { stdout: of(Stream::Stdout), stderr: of(Stream::Stderr) }
    }

    /// Everything taken so far can be read when this returns.
    ///
    /// # Errors
    /// [`LogError::Stopped`] when a write failed.
    pub async fn flush(&self) -> Result<(), LogError> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::Flush { done }).map_err(|_| self.stopped())?;
        wait.await.map_err(|_| self.stopped())
    }

    /// The containers that spoke so far have ended: all that they said, held-back bytes included, is on disk and synced when this returns. From then
    /// on nobody needs the engine's copy.
    ///
    /// # Errors
    /// [`LogError::Stopped`] when a write failed.
    pub async fn sync_containers(&self, at: Timestamp) -> Result<(), LogError> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::SyncContainers { at, done }).map_err(|_| self.stopped())?;
        wait.await.map_err(|_| self.stopped())
    }

    /// The streams are over: everything taken, held-back bytes included, can be read when this returns, and is synced soon after: what containers said
    /// is [settled](Self::settle) before, and what the host adds nobody's next step waits for. `output_incomplete` says what is missing, where something is.
    ///
    /// # Errors
    /// [`LogError::Stopped`] when a write failed.
    pub async fn finish(self, at: Timestamp, incomplete: Option<String>) -> Result<LogEnd, LogError> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::Finish { at, incomplete, done }).map_err(|_| self.stopped())?;
        wait.await.map_err(|_| self.stopped())
    }

    fn check(&self) -> Result<(), LogError> {
        if self.failure.get().is_some() { Err(self.stopped()) } else { Ok(()) }
    }

    fn stopped(&self) -> LogError {
        LogError::Stopped(self.failure.get().cloned().unwrap_or_else(|| "its thread is gone".to_owned()))
    }
}

/// The right to write, given back when dropped.
#[derive(Debug)]
struct Lease(Arc<Feed>);

impl Lease {
    fn acquire(step: StepId, feed: Arc<Feed>) -> Result<Self, LogError> {
        let mut is_written = feed.has_writer.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *is_written, true) {
            return Err(LogError::Busy(step));
        }
        drop(is_written);
        Ok(Self(feed))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.set_full(false);
        *self.0.has_writer.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

/// The thread's side.
struct WriterThread {
    splitter: LineSplitter,
    sink: FrameSink,
    /// When the last frame was written.
    flushed_at: Option<Instant>,
    unsynced_since: Option<Instant>,
}

impl WriterThread {
    fn run(mut self, orders: &Receiver<Command>) {
        if let Err(error) = self.serve(orders) {
            tracing::error!(%error, "a log stopped growing");
            let _ = self.sink.failure.set(error.to_string());
            // Orders that wait are dropped with the queue: who waits for an answer learns of the trouble.
        }
    }

    fn serve(&mut self, orders: &Receiver<Command>) -> Result<(), LogError> {
        let mut show_by = None;
        loop {
            let deadline = [show_by, self.unsynced_since.map(|since| since + SYNC_DELAY)].into_iter().flatten().min();
            let order = match deadline {
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => orders.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            };
            match order {
                Ok(Command::Write { origin: source, at, bytes, .. }) => self.push(source, at, &bytes)?,
                Ok(Command::Flush { done }) => {
                    self.write_frame()?;
                    let _ = done.send(());
                }
                Ok(Command::SyncContainers { at, done }) => {
                    self.splitter.end_containers(at);
                    self.write_frame()?;
                    self.sink.files.sync()?;
                    self.unsynced_since = None;
                    let _ = done.send(());
                }
                Ok(Command::Finish { at, incomplete, done }) => {
                    let end = self.finish(at, incomplete.as_deref())?;
                    let _ = done.send(end);
                    return self.sink.files.sync();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.write_frame()?;
                    return self.sink.files.sync();
                }
            }
            show_by = self.flush_and_sync_due(show_by)?;
        }
    }

    /// Writes and syncs what is due; returns by when the next text is to be shown.
    fn flush_and_sync_due(&mut self, show_by: Option<Instant>) -> Result<Option<Instant>, LogError> {
        let now = Instant::now();
        if show_by.is_some_and(|by| by <= now) {
            self.write_frame()?;
        }
        if self.unsynced_since.is_some_and(|since| since + SYNC_DELAY <= now) {
            self.write_frame()?;
            self.sink.files.sync()?;
            self.unsynced_since = None;
        }
        if self.splitter.is_dirty() {
            self.unsynced_since.get_or_insert(now);
        }
        // Dropped bytes alone are noted at the next sync: a frame for each moment of a flood would be a flood itself.
        let soon = now + FLUSH_DELAY;
        let next = self.flushed_at.map_or(soon, |shown| soon.max(shown + FLUSH_INTERVAL));
        Ok(self.splitter.has_text().then(|| show_by.filter(|by| *by > now).unwrap_or(next)))
    }

    fn push(&mut self, source: Origin, at: Timestamp, bytes: &[u8]) -> Result<(), LogError> {
        let Self { splitter: lines, sink: sheet, flushed_at: shown_at, unsynced_since } = self;
        lines.push(source, at, bytes, |lines| {
            let now = Instant::now();
            *shown_at = Some(now);
            unsynced_since.get_or_insert(now);
            sheet.append(lines)
        })
    }

    fn write_frame(&mut self) -> Result<(), LogError> {
        if !self.splitter.is_dirty() {
            return Ok(());
        }
        let now = Instant::now();
        self.flushed_at = Some(now);
        self.unsynced_since.get_or_insert(now);
        self.sink.append(&mut self.splitter)
    }

    fn finish(&mut self, at: Timestamp, incomplete: Option<&str>) -> Result<LogEnd, LogError> {
        self.splitter.finish(at, incomplete);
        self.sink.append(&mut self.splitter)?;
        Ok(self.sink.files.last()?.as_ref().map(end).unwrap_or_default())
    }
}

/// What the thread writes on.
struct FrameSink {
    files: Files,
    frames: u64,
    lease: Lease,
    failure: Arc<OnceLock<String>>,
}

impl FrameSink {
    /// Adds what the lines hold as a frame. On a full disk it waits for room as long as someone wants the log: containers that print wait with it.
    #[expect(clippy::disallowed_methods, reason = "a thread of its own, which has nothing else to do")]
    fn append(&mut self, lines: &mut LineSplitter) -> Result<(), LogError> {
        let (header, body) =
            lines.build_frame().map_err(|error| LogError::Stopped(format!("a frame cannot be packed: {error}")))?;
        loop {
            match self.files.append(self.frames, &header, &body) {
                Err(error) if error.is_full() && self.is_writer_alive() => {
                    if !self.lease.0.is_full() {
                        tracing::warn!(%error, "the disk is full: a log waits for room");
                    }
                    self.lease.0.set_full(true);
                    std::thread::sleep(DISK_FULL_RETRY);
                }
                other => break other?,
            }
        }
        self.frames += 1;
        self.lease.0.frames.send_replace(self.frames);
        self.lease.0.set_full(false);
        Ok(())
    }

    fn is_writer_alive(&self) -> bool {
        Arc::strong_count(&self.failure) > 1
    }
}

pub(super) fn end(header: &Header) -> LogEnd {
    LogEnd { is_incomplete: header.has(flag::INCOMPLETE), dropped: header.dropped }
}
