//! Everything that must survive: one redb file. The store is the queue: no work exists only in memory.
//!
//! | file | holds |
//! |---|---|
//! | [`row`] | how a value becomes a row: a version byte and MessagePack with named fields |
//! | [`tables`] | the tables and their keys |
//! | [`transaction`] | reading and writing rows, one type for each |
//! | [`file`](mod@file) | the file, read so that no task waits for the disk but the one that reads |
//! | [`writer`] | the one writing thread: group commit, and what happens when the disk says no |
//! | [`queue`] | rows that wait for a worker, their attempts, their dead letters |
//! | the rest | one file per family |
//!
//! A transaction that changes state writes, in the same commit, the queue rows that the change causes: `kill -9` at any
//! point loses nothing and repeats nothing.

mod backend;
pub mod build;
pub mod decision;
pub mod delivery;
pub mod instance;
pub mod kv;
pub mod lookup;
pub mod outbox;
pub mod queue;
pub mod repository;
pub mod retention;
pub mod row;
pub mod secret;
pub mod session;
pub mod stage;
pub mod suspended;
pub mod tables;
pub mod transaction;
pub mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use beespace_core::change_event::ChangeEvent;
use tokio::sync::{Notify, broadcast, watch};

pub use queue::{Queue, QueueEntry};
use transaction::Counter;
pub use transaction::{Read, Write};

/// How many changes a slow watcher may lag behind before it has to read the rows again.
const WATCHER_LAG: usize = 4096;

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be used now: disk full, I/O error, being reopened.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Another process has the file open.
    #[error("{} is used by another process: a server that runs there already?", .0.display())]
    InUse(PathBuf),
    /// A row cannot be read: written by a newer version, or damaged.
    #[error("a row of `{table}` cannot be read: {detail}")]
    Row { table: &'static str, detail: String },
    /// Something that should be there is not.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The change does not fit what stands there now.
    #[error("{0}")]
    Conflict(String),
}

/// How the store does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Open,
    /// Being reopened; the reason and how often it was tried.
    Failing {
        reason: String,
        attempts: u32,
    },
}

/// A handle on the store; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    database: Arc<ArcSwapOption<redb::Database>>,
    writer: writer::Writer,
    events: broadcast::Sender<ChangeEvent>,
    wakes: Arc<[Notify; Queue::COUNT]>,
    health: watch::Receiver<Health>,
    rows_read: Counter,
    commits: Counter,
}

impl Store {
    /// Opens the file, or makes it, and starts the writing thread.
    ///
    /// # Errors
    /// [`StoreError::InUse`], or [`StoreError::Unavailable`] where the file cannot be opened (no permission, damaged).
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path: PathBuf = path.to_owned();
        let database = Arc::new(ArcSwapOption::from_pointee(writer::open_database(&path)?));
        let (events, _) = broadcast::channel(WATCHER_LAG);
        let (health_sender, health) = watch::channel(Health::Open);
        let wakes: Arc<[Notify; Queue::COUNT]> = Arc::new(std::array::from_fn(|_| Notify::new()));
        let (rows_read, commits) = (Counter::default(), Counter::default());
        let parts = writer::Shared {
            path,
            database: Arc::clone(&database),
            events: events.clone(),
            wakes: Arc::clone(&wakes),
            health: health_sender,
            rows_read: rows_read.clone(),
            commits: commits.clone(),
        };
        let store = Self { database, writer: writer::Writer::start(parts)?, events, wakes, health, rows_read, commits };
        store.writer.run_blocking(|write| write.create_tables())?;
        Ok(store)
    }

    /// Sees everything that was committed before the call, and nothing after it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while the store is being reopened.
    pub fn read(&self) -> Result<Read, StoreError> {
        let guard = self.database.load();
        let database = guard.as_ref().ok_or_else(|| StoreError::Unavailable("it is closed, or being reopened".to_owned()))?;
        Read::begin(database, &self.rows_read)
    }

    /// How many rows have been read since the file was opened, to look at them or to change them.
    #[must_use]
    pub fn rows_read(&self) -> u64 {
        self.rows_read.get()
    }

    /// How many changes have been made durable since the file was opened: each is a turn of the disk.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.get()
    }

    /// Runs `change` in the writing thread, in one durable transaction with whatever else waits there. An error undoes all that
    /// `change` wrote. `change` may run again after another change of its group failed, so it must not have effects of its own.
    ///
    /// # Errors
    /// What `change` returns, or [`StoreError::Unavailable`] where the commit fails.
    pub async fn write<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Write<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer.run(change).await
    }

    /// Closes the file; returns when another process may open it. What is asked of any clone afterwards is refused.
    pub async fn close(&self) {
        self.writer.close().await;
    }

    /// All changes from now on.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<ChangeEvent> {
        self.events.subscribe()
    }

    /// Resolves when a row may have joined `queue`; never misses one that joined after the last call.
    pub async fn wait_for_work(&self, queue: Queue) {
        if let Some(notify) = self.wakes.get(queue as usize) {
            notify.notified().await;
        }
    }

    /// For a worker that finished something by hand and wants its queue looked at.
    pub fn wake(&self, queue: Queue) {
        if let Some(notify) = self.wakes.get(queue as usize) {
            notify.notify_one();
        }
    }

    #[must_use]
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }
}
