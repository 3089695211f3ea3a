//! The durable state of the server, in one redb file. The store is the queue: no work exists only in memory.
//!
//! | file | content |
//! |---|---|
//! | [`row`] | the encoding of a row: a version byte, then MessagePack with named fields |
//! | [`tables`] | the tables and their keys |
//! | [`transaction`] | read and write transactions |
//! | [`backend`] | access to the file; a slow disk delays only the task that reads |
//! | [`writer`] | the single writer thread: group commit, and recovery after a disk error |
//! | [`watch`](mod@watch) | waiting for changes of rows |
//! | [`queue`] | the queues of the workers: order, attempts, retry |
//! | [`instance`] | the instance's id, its key, and the format of the store |
//! | [`notice`], [`suspended`], [`outbox`] | notices in the order of delivery, suspended notifiers, attempts to send |
//! | [`build`], [`build_lifecycle`], [`stage`] | rows of builds and stages; the transitions of both |
//! | [`release`] | stages that wait for others |
//! | the others | one file per family of tables |
//!
//! A transaction that changes state also writes the queue rows that the change causes. A `kill -9` at any point therefore loses
//! nothing and repeats nothing.

mod backend;
pub mod build;
pub mod build_lifecycle;
pub mod decision;
pub mod delivery;
mod delivery_outcome;
pub mod instance;
pub mod kv;
pub mod lookup;
pub mod notice;
pub mod outbox;
pub mod pull_request;
pub mod queue;
mod queue_name;
mod release;
pub mod repository;
pub mod retention;
pub mod row;
pub mod schedule;
pub mod secret;
pub mod session;
pub mod stage;
pub mod status_filter;
pub mod suspended;
pub mod tables;
pub mod transaction;
pub mod watch;
pub mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use beespace_core::change_event::ChangeEvent;
use tokio::sync::{Notify, broadcast};

pub use queue::QueueEntry;
pub use queue_name::Queue;
use transaction::Counter;
pub use transaction::{Read, Write};

/// The number of change events buffered for a slow subscriber. A subscriber that falls further behind must read the rows again.
const EVENT_BUFFER: usize = 4096;

/// Why an operation on the store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be used at present: the disk is full, an I/O error occurred, or the store is being reopened.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Another process has the file open.
    #[error("{} is in use by another process; is another server running on this data directory?", .0.display())]
    InUse(PathBuf),
    /// A row cannot be decoded: a newer version wrote it, or it is damaged.
    #[error("a row of `{table}` cannot be read: {detail}")]
    Row { table: &'static str, detail: String },
    /// Another version wrote the store, and this version cannot read it.
    #[error("{0}")]
    Format(&'static str),
    /// The object does not exist.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The change conflicts with the current state.
    #[error("{0}")]
    Conflict(String),
}

/// Whether the store can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Open,
    /// The store is being reopened: the last error, and the number of attempts so far.
    Failing {
        reason: String,
        attempts: u32,
    },
}

/// A handle to the store. Clones share the same store.
#[derive(Debug, Clone)]
pub struct Store {
    database: Arc<ArcSwapOption<redb::Database>>,
    writer: writer::Writer,
    events: broadcast::Sender<ChangeEvent>,
    wakes: Arc<[Notify; Queue::COUNT]>,
    health: tokio::sync::watch::Receiver<Health>,
    rows_read: Counter,
    commits: Counter,
    notifiers: Arc<ArcSwap<Vec<String>>>,
}

impl Store {
    /// Opens or creates the file and starts the writer thread.
    ///
    /// # Errors
    /// [`StoreError::InUse`]; [`StoreError::Format`] if another version wrote the store; [`StoreError::Unavailable`] if the file
    /// cannot be opened (no permission, damaged).
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path: PathBuf = path.to_owned();
        let database = Arc::new(ArcSwapOption::from_pointee(writer::open_database(&path)?));
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        let (health_sender, health) = tokio::sync::watch::channel(Health::Open);
        let wakes: Arc<[Notify; Queue::COUNT]> = Arc::new(std::array::from_fn(|_| Notify::new()));
        let (rows_read, commits) = (Counter::default(), Counter::default());
        let notifiers = Arc::<ArcSwap<Vec<String>>>::default();
        let shared = writer::SharedStore {
            path,
            database: Arc::clone(&database),
            events: events.clone(),
            wakes: Arc::clone(&wakes),
            health: health_sender,
            rows_read: rows_read.clone(),
            commits: commits.clone(),
            notifiers: Arc::clone(&notifiers),
        };
        let store =
            Self { database, writer: writer::Writer::start(shared)?, events, wakes, health, rows_read, commits, notifiers };
        store.writer.run_blocking(|write| write.check_format().and_then(|()| write.create_tables()))?;
        Ok(store)
    }

    /// Sets the names of the notifier bindings. Every notice is added to the outbox once for each of them. The server calls this
    /// when it is composed; before that, there are none.
    pub fn set_notifiers(&self, names: impl IntoIterator<Item = impl Into<String>>) {
        self.notifiers.store(Arc::new(names.into_iter().map(Into::into).collect()));
    }

    /// The names of the notifier bindings.
    #[must_use]
    pub fn notifiers(&self) -> Arc<Vec<String>> {
        self.notifiers.load_full()
    }

    /// Begins a read transaction: a consistent view of everything committed before the call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while the store is being reopened.
    pub fn read(&self) -> Result<Read, StoreError> {
        let guard = self.database.load();
        let database =
            guard.as_ref().ok_or_else(|| StoreError::Unavailable("the store is closed, or being reopened".to_owned()))?;
        Read::begin(database, &self.rows_read)
    }

    /// The number of rows read since the file was opened, by read and write transactions.
    #[must_use]
    pub fn rows_read(&self) -> u64 {
        self.rows_read.get()
    }

    /// The number of commits since the file was opened. Each one waits for a disk sync.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.get()
    }

    /// Runs `change` on the writer thread, in one durable transaction together with the other changes that are queued there. An
    /// error undoes everything that `change` wrote. If another change of the same group fails, `change` runs a second time, so it
    /// must have no side effects and draw no random values.
    ///
    /// # Errors
    /// The error of `change`, or [`StoreError::Unavailable`] if the commit fails.
    pub async fn write<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Write<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer.run(change).await
    }

    /// Closes the file. On return, another process can open it. Later calls on any clone fail.
    pub async fn close(&self) {
        self.writer.close().await;
    }

    /// Subscribes to all changes from now on.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<ChangeEvent> {
        self.events.subscribe()
    }

    /// Resolves when a row may have been added to `queue`. A row added since the last call is never missed.
    pub async fn wait_for_work(&self, queue: Queue) {
        if let Some(notify) = self.wakes.get(queue as usize) {
            notify.notified().await;
        }
    }

    /// Makes the worker of `queue` check its queue again.
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
