//! The writer of a log: a dedicated thread with a bounded queue.
//!
//! Why a thread and not an async task? Masking, compressing and writing all block. Why one per log? A slow disk write for one
//! step must not delay the log of another. There are as many threads as running steps.

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

/// The maximum amount of output in the queue, in bytes. When the queue is full, backpressure blocks the container: no output is
/// lost, and memory use is bounded.
const MAX_QUEUED_BYTES: u32 = 1024 * 1024;

/// The delay before new text is written to the file and reaches the followers. Output that arrives together is shown together.
const FLUSH_DELAY: Duration = Duration::from_millis(10);

/// The minimum interval between writes while a program keeps printing.
const FLUSH_INTERVAL: Duration = Duration::from_millis(75);

/// The maximum delay until text is synced to disk and survives a power failure.
const SYNC_DELAY: Duration = Duration::from_secs(2);

/// Writes one log. If it is dropped without [`finish`](Self::finish), a later writer can resume the log.
#[derive(Debug)]
pub struct LogWriter {
    commands: Sender<Command>,
    queue_permits: Arc<Semaphore>,
    /// The offsets of all origins when the log was opened.
    offsets: Vec<OriginOffset>,
    /// Why the thread stopped. The thread holds a clone, and its reference count shows whether this writer still exists.
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
        let offsets = last.as_ref().map(|last| files.offsets(last)).transpose()?.unwrap_or_default();
        let (sender, commands) = channel();
        let failure = Arc::new(OnceLock::new());
        lease.0.frames.send_replace(frames);
        let thread = LogWriterThread {
            splitter: LineSplitter::after(last.as_ref(), &offsets, secrets, limit),
            sink: FrameSink { files, frames, lease, failure: Arc::clone(&failure) },
            flushed_at: None,
            unsynced_since: None,
        };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || thread.run(&commands))
            .map_err(|source| LogError::Io { action: "opened", path, source })?;
        Ok(Self { commands: sender, queue_permits: Arc::new(Semaphore::new(MAX_QUEUED_BYTES as usize)), offsets, failure })
    }

    /// Writes output of a container or of the host. Waits while the queue is full.
    ///
    /// # Errors
    /// [`LogError::Stopped`] if an earlier write failed.
    pub async fn write(&self, origin: impl Into<Origin>, at: Timestamp, bytes: impl Into<Bytes>) -> Result<(), LogError> {
        let origin = origin.into();
        let mut rest: Bytes = bytes.into();
        while !rest.is_empty() {
            self.check()?;
            let bytes = rest.split_to(rest.len().min(MAX_QUEUED_BYTES as usize));
            let need = u32::try_from(bytes.len()).unwrap_or(MAX_QUEUED_BYTES);
            let permit = Arc::clone(&self.queue_permits).acquire_many_owned(need).await.map_err(|_| self.stopped())?;
            self.commands.send(Command::Write { origin, at, bytes, _permit: permit }).map_err(|_| self.stopped())?;
        }
        Ok(())
    }

    /// Writes one line of the host.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_host_line(&self, at: Timestamp, line: &str) -> Result<(), LogError> {
        self.write(Origin::HOST, at, format!("{line}\n")).await
    }

    /// The amount of a container's output that an earlier writer stored, in bytes before masking. After a restart, the engine
    /// skips exactly this amount.
    #[must_use]
    pub fn stored(&self, round: u16, container: u16) -> OutputOffsets {
        let of = |stream| {
            let origin = Origin::new(round, container, stream);
            self.offsets.iter().find(|offset| offset.origin == origin).map_or(0, |offset| offset.stored)
        };
        OutputOffsets { stdout: of(Stream::Stdout), stderr: of(Stream::Stderr) }
    }

    /// Waits until everything written so far can be read.
    ///
    /// # Errors
    /// [`LogError::Stopped`] if a write failed.
    pub async fn flush(&self) -> Result<(), LogError> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::Flush { done }).map_err(|_| self.stopped())?;
        wait.await.map_err(|_| self.stopped())
    }

    /// Call this when the containers so far have ended. On return, all of their output is synced to disk, including bytes that
    /// masking held back, and the engine's copy is no longer needed.
    ///
    /// # Errors
    /// [`LogError::Stopped`] if a write failed.
    pub async fn sync_containers(&self, at: Timestamp) -> Result<(), LogError> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::SyncContainers { at, done }).map_err(|_| self.stopped())?;
        wait.await.map_err(|_| self.stopped())
    }

    /// Ends the log. On return, everything can be read, including bytes that masking held back. The sync follows soon after:
    /// container output has [been synced](Self::sync_containers) before, and the next step need not wait for lines of the host.
    /// `incomplete` states what is missing, if anything is.
    ///
    /// # Errors
    /// [`LogError::Stopped`] if a write failed.
    pub async fn finish(self, at: Timestamp, incomplete: Option<String>) -> Result<LogEnd, LogError> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command::Finish { at, incomplete, done }).map_err(|_| self.stopped())?;
        wait.await.map_err(|_| self.stopped())
    }

    fn check(&self) -> Result<(), LogError> {
        if self.failure.get().is_some() { Err(self.stopped()) } else { Ok(()) }
    }

    fn stopped(&self) -> LogError {
        LogError::Stopped(self.failure.get().cloned().unwrap_or_else(|| "the writer thread has ended".to_owned()))
    }
}

/// The exclusive right to write, released on drop.
#[derive(Debug)]
struct Lease(Arc<Feed>);

impl Lease {
    fn acquire(step: StepId, feed: Arc<Feed>) -> Result<Self, LogError> {
        let mut has_writer = feed.has_writer.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *has_writer, true) {
            return Err(LogError::Busy(step));
        }
        drop(has_writer);
        Ok(Self(feed))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.set_full(false);
        *self.0.has_writer.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

/// The state of the thread.
struct LogWriterThread {
    splitter: LineSplitter,
    sink: FrameSink,
    /// The time when the last frame was written.
    flushed_at: Option<Instant>,
    unsynced_since: Option<Instant>,
}

impl LogWriterThread {
    fn run(mut self, commands: &Receiver<Command>) {
        if let Err(error) = self.serve(commands) {
            tracing::error!(%error, "writing a step log failed; the log ends here");
            let _ = self.sink.failure.set(error.to_string());
            // Queued commands are dropped with the queue, so their callers receive the failure.
        }
    }

    fn serve(&mut self, commands: &Receiver<Command>) -> Result<(), LogError> {
        let mut flush_by = None;
        loop {
            let deadline = [flush_by, self.unsynced_since.map(|since| since + SYNC_DELAY)].into_iter().flatten().min();
            let command = match deadline {
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => commands.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            };
            match command {
                Ok(Command::Write { origin, at, bytes, .. }) => self.push(origin, at, &bytes)?,
                Ok(Command::Flush { done }) => {
                    self.write_frame()?;
                    let _ = done.send(());
                }
                Ok(Command::SyncContainers { at, done }) => {
                    self.end_containers(at)?;
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
            flush_by = self.flush_and_sync_due(flush_by)?;
        }
    }

    /// Writes and syncs what is due. Returns the deadline of the next write.
    fn flush_and_sync_due(&mut self, flush_by: Option<Instant>) -> Result<Option<Instant>, LogError> {
        let now = Instant::now();
        if flush_by.is_some_and(|by| by <= now) {
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
        // A count of dropped bytes alone is written with the next sync. Otherwise a flood of output would cause a flood of
        // frames.
        let soon = now + FLUSH_DELAY;
        let next = self.flushed_at.map_or(soon, |flushed| soon.max(flushed + FLUSH_INTERVAL));
        Ok(self.splitter.has_text().then(|| flush_by.filter(|by| *by > now).unwrap_or(next)))
    }

    fn push(&mut self, origin: Origin, at: Timestamp, bytes: &[u8]) -> Result<(), LogError> {
        let Self { splitter, sink, flushed_at, unsynced_since } = self;
        splitter.push(origin, at, bytes, |splitter| {
            let now = Instant::now();
            *flushed_at = Some(now);
            unsynced_since.get_or_insert(now);
            sink.append(splitter)
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

    fn end_containers(&mut self, at: Timestamp) -> Result<(), LogError> {
        let Self { splitter, sink, .. } = self;
        splitter.end_containers(at, |splitter| sink.append(splitter))
    }

    fn finish(&mut self, at: Timestamp, incomplete: Option<&str>) -> Result<LogEnd, LogError> {
        self.end_containers(at)?;
        self.splitter.finish(at, incomplete);
        self.sink.append(&mut self.splitter)?;
        Ok(self.sink.files.last()?.as_ref().map(end).unwrap_or_default())
    }
}

/// Where the thread writes its frames.
struct FrameSink {
    files: Files,
    frames: u64,
    lease: Lease,
    failure: Arc<OnceLock<String>>,
}

impl FrameSink {
    /// Appends the splitter's text as a frame. While the disk is full and the writer exists, it waits and retries; backpressure
    /// then blocks the containers.
    #[expect(clippy::disallowed_methods, reason = "a dedicated thread may block")]
    fn append(&mut self, splitter: &mut LineSplitter) -> Result<(), LogError> {
        let (header, body) =
            splitter.build_frame().map_err(|error| LogError::Stopped(format!("could not compress a frame: {error}")))?;
        loop {
            match self.files.append(self.frames, &header, &body) {
                Err(error) if error.is_full() && self.is_writer_alive() => {
                    if !self.lease.0.is_full() {
                        tracing::warn!(%error, "the disk is full; the log is paused until space is available");
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
