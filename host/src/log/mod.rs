//! Step logs: masked, stored in compressed frames, readable while they grow.
//!
//! Each attempt of a step has one file, `{build}/{stage}/{step}.{attempt}`. Only its [`LogWriter`] writes to it. The file is a
//! sequence of compressed frames of about 64 KiB. Each frame has checksums, line numbers, and the amount of each container's
//! output that it and the earlier frames cover ([`frame`]). Recovery of a truncated or damaged file ends at the last intact
//! frame. Beside the file is `….index`, the concatenated headers of its frames. With it a reader finds a line or a byte in a few
//! small reads. It can be rebuilt from the file at any time.
//!
//! A follower reads the file and is only notified *that* it grew, so a slow follower uses no memory and delays no one.

mod file;
mod follow;
mod frame;
mod frame_builder;
mod line_splitter;
mod origin;
mod read;
mod scan_slots;
mod write;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use beespace_core::ids::{BuildId, StepId};
use beespace_core::mask::Secrets;
use tokio::sync::watch;

pub use follow::{LogEvent, LogFragment};
pub use origin::Origin;
pub use read::{LogLine, LogPage, LogReader, Scan};
pub use write::LogWriter;

use scan_slots::ScanSlots;

/// The maximum length of a line in bytes. A longer line continues as a new one.
pub const MAX_LINE: usize = 64 * 1024;

/// The logs of this server.
#[derive(Debug, Clone)]
pub struct LogStore {
    dir: Arc<Path>,
    feeds: Arc<Mutex<HashMap<StepId, Weak<Feed>>>>,
    scans: ScanSlots,
}

/// Why an operation on a log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// An I/O error.
    #[error("the log {path} could not be {action}: {source}")]
    Io {
        /// `read`, `written`, `opened`, `removed`.
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// A frame in the middle of the file does not match its checksum.
    #[error("the log {path} is damaged: {detail}")]
    Damaged {
        path: PathBuf,
        /// Which frame is damaged.
        detail: String,
    },
    /// The log has ended and accepts no more output.
    #[error("the log of step {0} has already ended")]
    Finished(StepId),
    /// The log already has a writer. Two writers would mix their lines.
    #[error("the log of step {0} already has a writer")]
    Busy(StepId),
    /// So many scans wait already that this one was not begun.
    #[error("too many logs are searched at once")]
    TooManyScans,
    /// An earlier write failed, and the writer has stopped.
    #[error("writing the log has stopped: {0}")]
    Stopped(String),
}

/// The interval between attempts to write while the disk is full.
pub const DISK_FULL_RETRY: Duration = Duration::from_secs(1);

impl LogError {
    /// Whether the disk is full. The same operation succeeds when space is available again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// The text for a person who may read the log. It contains no paths.
    #[must_use]
    pub fn public(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::Stopped(_) => {
                "the log could not be read or written because of a disk error; the server's log has the cause"
            }
            Self::Damaged { .. } => "part of this log is damaged on disk; lines before the damage can still be read",
            Self::Finished(_) => "this log has ended",
            Self::Busy(_) => "this log already has a writer",
            Self::TooManyScans => "too many logs are searched at the moment",
        }
    }
}

/// How a log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogEnd {
    /// Whether output is missing. A host line in the log states what.
    pub is_incomplete: bool,
    /// Bytes of output that were dropped after the limit.
    pub dropped: u64,
}

/// The connection between the writer of one log and its followers. It lives as long as any of them.
#[derive(Debug)]
struct Feed {
    /// The number of frames in the file. Any change wakes the followers.
    frames: watch::Sender<u64>,
    /// Whether the writer waits because the disk is full.
    is_full: AtomicBool,
    /// Whether a writer exists. The lock is held while the files may change: by a writer to set the flag, by a reader to rebuild
    /// the index.
    has_writer: Mutex<bool>,
}

impl Feed {
    fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    fn set_full(&self, is_full: bool) {
        if self.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            self.frames.send_modify(|_| {});
        }
    }
}

impl LogStore {
    /// The logs under this directory (`logs` in the data directory). Directories are created on demand.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into().into(), feeds: Arc::default(), scans: ScanSlots::default() }
    }

    /// Opens the log of an attempt for writing. A log that an earlier process left unfinished continues at its last intact frame.
    ///
    /// Output is masked with `secrets`. After `limit` bytes of text, further output is counted but not stored.
    ///
    /// # Errors
    /// [`LogError::Finished`], [`LogError::Busy`], or an I/O error.
    pub async fn writer(&self, step: StepId, secrets: Secrets, limit: u64) -> Result<LogWriter, LogError> {
        let (path, feed) = (self.path(step), self.feed(step));
        blocking(move || LogWriter::open(step, path, feed, &secrets, limit)).await
    }

    /// Creates the files of a log in advance: on some file systems, creating a file takes longer than writing all the output of a
    /// short step.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn create_files(&self, step: StepId) -> Result<(), LogError> {
        let path = self.path(step);
        blocking(move || file::Files::create(&path).map(drop)).await
    }

    /// A reader for the log of an attempt, during and after the attempt. A log that does not exist yet is empty.
    #[must_use]
    pub fn reader(&self, step: StepId) -> LogReader {
        LogReader::new(self.path(step), self.feed(step), self.scans.clone())
    }

    /// Removes all logs of a finished build. Succeeds if there are none.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn remove(&self, build: BuildId) -> Result<(), LogError> {
        let path = self.dir.join(build.to_string());
        blocking(move || match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(LogError::Io { action: "removed", path, source }),
            _ => Ok(()),
        })
        .await
    }

    fn path(&self, step: StepId) -> PathBuf {
        let file = format!("{}.{}", step.step, step.attempt);
        self.dir.join(step.build.to_string()).join(step.stage.to_string()).join(file)
    }

    fn feed(&self, step: StepId) -> Arc<Feed> {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(&step).and_then(Weak::upgrade) {
            return feed;
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let feed =
            Arc::new(Feed { frames: watch::Sender::default(), is_full: AtomicBool::default(), has_writer: Mutex::new(false) });
        feeds.insert(step, Arc::downgrade(&feed));
        feed
    }
}

/// Runs file I/O on the blocking thread pool, away from the threads that serve requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, LogError> + Send + 'static) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(LogError::Stopped(error.to_string())),
    }
}
