//! What steps print, kept and shown: masked, framed, compressed, followed while it grows.
//!
//! One file for each attempt at a step, `{build}/{stage}/{step}.{attempt}`, written by nobody but its [`LogWriter`]: frames of
//! about 64 KiB, compressed, each with checksums, numbers of lines and how much of each container's output it accounts for
//! ([`frame`]). A file that was cut anywhere opens at its last good frame. Beside it lies `….index`, the headers of the frames in
//! a row: it can be made again from the file at any time, and lets a reader find a line or a byte with a few small reads.
//!
//! Followers read the file and are only told *that* it grew: one that is slow holds nothing in memory and delays nobody.

mod file;
mod follow;
mod frame;
mod frame_builder;
mod line_splitter;
mod origin;
mod read;
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
pub use read::{LogLine, LogPage, LogReader};
pub use write::LogWriter;

/// A line longer than this goes on as another one.
pub const MAX_LINE: usize = 64 * 1024;

/// All logs of this server.
#[derive(Debug, Clone)]
pub struct LogStore {
    dir: Arc<Path>,
    feeds: Arc<Mutex<HashMap<StepId, Weak<Feed>>>>,
}

/// What went wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refused.
    #[error("the log {path} cannot be {action}: {source}")]
    Io {
        /// `read`, `written`, `require_open`, `removed`.
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// Bytes in the middle of a file are not what was written.
    #[error("the log {path} is damaged: {detail}")]
    Damaged {
        path: PathBuf,
        /// Where, and what does not fit.
        detail: String,
    },
    /// A log that has its end takes no more.
    #[error("the log of step {0} is finished already")]
    Finished(StepId),
    /// Two writers would mix their lines.
    #[error("the log of step {0} is being written already")]
    Busy(StepId),
    /// An earlier write failed; the log ends there.
    #[error("the log stopped growing: {0}")]
    Stopped(String),
}

/// Between two looks whether a full disk has room again.
pub const DISK_FULL_RETRY: Duration = Duration::from_secs(1);

impl LogError {
    /// There is no room for it: with room, the same goes well.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// What a person who may read the log may also know: no paths.
    #[must_use]
    pub fn public(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::Stopped(_) => {
                "The disk refused while the log was read or written. The server's own log says why."
            }
            Self::Damaged { .. } => "Part of this log is damaged on disk. Lines before the damage can still be read.",
            Self::Finished(_) => "This log is finished.",
            Self::Busy(_) => "This log is being written already.",
        }
    }
}

/// How a log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogEnd {
    /// Something is missing; a line of the host in the log says what.
    pub is_incomplete: bool,
    /// Bytes that came after the limit.
    pub dropped: u64,
}

/// The tie between the writer of one log and those who follow it. It lives as long as any of them.
#[derive(Debug)]
struct Feed {
    /// Frames on disk: any change means "look again".
    frames: watch::Sender<u64>,
    /// The disk is full, and the writer waits.
    is_full: AtomicBool,
    /// Held while somebody may change the files: by the writer for its whole life, by a reader that makes the index anew.
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
    /// Logs under this directory (`logs` in the data directory). Directories are made as logs need them.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into().into(), feeds: Arc::default() }
    }

    /// Opens the log of an attempt for writing; one that a server left unfinished goes on where it stood.
    ///
    /// What is written is masked with `secrets`. After `limit` bytes of text the rest is counted, not kept.
    ///
    /// # Errors
    /// [`LogError::Finished`], [`LogError::Busy`], or the disk's.
    pub async fn writer(&self, step: StepId, secrets: Secrets, limit: u64) -> Result<LogWriter, LogError> {
        let (path, feed) = (self.path(step), self.feed(step));
        blocking(move || LogWriter::open(step, path, feed, &secrets, limit)).await
    }

    /// Makes the files of a log whose step comes soon: a file system may take longer for a name than for all that a short step prints.
    ///
    /// # Errors
    /// The disk's.
    pub async fn create_files(&self, step: StepId) -> Result<(), LogError> {
        let path = self.path(step);
        blocking(move || file::Files::create(&path).map(drop)).await
    }

    /// The log of an attempt, to be read while it grows and after. One that has not begun is empty.
    #[must_use]
    pub fn reader(&self, step: StepId) -> LogReader {
        LogReader::new(self.path(step), self.feed(step))
    }

    /// Removes all logs of a build that is over. Where there are none, nothing is to be done.
    ///
    /// # Errors
    /// The disk's.
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

/// Files are read and written off the threads that serve requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, LogError> + Send + 'static) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(trouble) => Err(LogError::Stopped(trouble.to_string())),
    }
}
