//! The writer thread. Changes that arrive during a commit share the next one (group commit). After a disk error, all queued
//! changes fail, and the thread closes the file and reopens it with backoff, because redb fails every later write on a failed
//! handle with the same error.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use beespace_core::change_event::ChangeEvent;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, oneshot, watch};

use super::backend::OffloadingBackend;
use super::tables::PROBE;
use super::transaction::{Counter, Write, unavailable};
use super::{Health, Queue, StoreError};
use crate::fail_point::{self, Side};

/// The maximum number of changes in one commit. It bounds the wait of the first one.
const MAX_GROUP: usize = 256;

/// The maximum size of the test write with which a failed file must prove that it accepts writes again.
const MAX_PROBE_BYTES: usize = 16 << 20;

/// The maximum delay between two attempts to reopen the file.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// redb's page cache. The default of 1 GiB would use most of a small server's memory.
const CACHE_BYTES: usize = 16 << 20;

type ChangeFn = Box<dyn FnMut(&Write<'_>) -> Result<(), StoreError> + Send>;

/// A change and the channel to its caller.
struct Request {
    /// Runs the change and keeps its result. An error states why the change must not be committed.
    run: ChangeFn,
    /// Returns the result to the caller: `Ok` after the commit, otherwise the error.
    reply: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

/// A request to the thread.
enum Message {
    Change(Request),
    /// Close the file and confirm.
    Close(oneshot::Sender<()>),
}

/// A message in the queue of the thread, with the slot that it occupies.
type QueuedMessage = (Message, Option<OwnedSemaphorePermit>);

#[derive(Clone)]
pub(super) struct Writer {
    messages: mpsc::Sender<QueuedMessage>,
    /// One full group can wait behind the one that is being committed. Later callers wait for a slot asynchronously, without
    /// blocking a thread.
    slots: Arc<Semaphore>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

pub(super) fn open_database(path: &Path) -> Result<redb::Database, StoreError> {
    let create = |file| {
        redb::Database::builder()
            .set_concurrency_mode(redb::ConcurrencyMode::SingleWriter)
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(file)
    };
    OffloadingBackend::open(path).and_then(create).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        error => StoreError::Unavailable(format!("{}: {error}", path.display())),
    })
}

/// The state that the thread shares with the store's handles.
pub(super) struct SharedStore {
    pub(super) path: PathBuf,
    pub(super) database: Arc<ArcSwapOption<redb::Database>>,
    pub(super) events: broadcast::Sender<ChangeEvent>,
    pub(super) wakes: Arc<[Notify; Queue::COUNT]>,
    pub(super) health: watch::Sender<Health>,
    pub(super) rows_read: Counter,
    pub(super) commits: Counter,
    pub(super) notifiers: Arc<ArcSwap<Vec<String>>>,
}

impl Writer {
    pub(super) fn start(shared: SharedStore) -> Result<Self, StoreError> {
        let (sender, messages) = mpsc::channel();
        let thread = StoreWriterThread { shared, messages, close_requests: Vec::new() };
        std::thread::Builder::new().name("store".to_owned()).spawn(move || thread.serve()).map_err(unavailable)?;
        Ok(Self { messages: sender, slots: Arc::new(Semaphore::new(MAX_GROUP)) })
    }

    pub(super) async fn run<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Write<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        self.send(Message::Change(request(change, move |outcome| drop(reply.send(outcome))))).await?;
        result.await.map_err(|_| closed())?
    }

    async fn send(&self, message: Message) -> Result<(), StoreError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(unavailable)?;
        self.messages.send((message, Some(slot))).map_err(|_| closed())
    }

    /// Closes the file and waits until it is closed.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.send(Message::Close(done)).await.is_ok() {
            // An error means that the thread has already ended and released the file.
            let _ = closed.await;
        }
    }

    pub(super) fn run_blocking<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Write<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, result) = mpsc::channel();
        let message = Message::Change(request(change, move |outcome| drop(reply.send(outcome))));
        self.messages.send((message, None)).map_err(|_| closed())?;
        result.recv().map_err(|_| closed())?
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

fn reopening() -> StoreError {
    StoreError::Unavailable("the store is being reopened".to_owned())
}

/// Combines a change, its result and the reply into a request, so that the thread handles changes of every result type alike.
fn request<T, F, A>(change: F, reply: A) -> Request
where
    T: Send + 'static,
    F: Fn(&Write<'_>) -> Result<T, StoreError> + Send + 'static,
    A: FnOnce(Result<T, StoreError>) + Send + 'static,
{
    let result = Arc::new(std::sync::Mutex::new(None));
    let stored = Arc::clone(&result);
    let run = move |write: &Write<'_>| {
        // A panic in one change must not end the thread and with it the server.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| change(write)));
        let outcome = outcome.unwrap_or_else(|_| Err(StoreError::Conflict("the change panicked".to_owned())));
        let committable = outcome.as_ref().map(drop).map_err(StoreError::clone);
        *stored.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(outcome);
        committable
    };
    let send_reply = move |committed: Result<(), StoreError>| {
        let outcome = result.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take().unwrap_or_else(|| Err(closed()));
        reply(committed.and(outcome));
    };
    Request { run: Box::new(run), reply: Box::new(send_reply) }
}

struct StoreWriterThread {
    shared: SharedStore,
    messages: mpsc::Receiver<QueuedMessage>,
    /// Callers that wait until the file is closed. The first one ends the thread.
    close_requests: Vec<oneshot::Sender<()>>,
}

impl StoreWriterThread {
    fn serve(mut self) {
        while self.close_requests.is_empty() {
            let Ok(first) = self.messages.recv() else { break };
            let group = self.collect_group(first);
            self.commit(group);
        }
        self.close_database();
        let close_requests = std::mem::take(&mut self.close_requests);
        // Dropping the receiver makes later requests fail instead of waiting for a reply.
        drop(self);
        for done in close_requests {
            // An error means that the caller no longer waits.
            let _ = done.send(());
        }
    }

    /// Collects the first change and the ones queued behind it into a group.
    fn collect_group(&mut self, first: QueuedMessage) -> Vec<Request> {
        let mut group = Vec::new();
        for (message, slot) in std::iter::once(first).chain(self.messages.try_iter().take(MAX_GROUP - 1)) {
            drop(slot);
            match message {
                Message::Change(request) => group.push(request),
                Message::Close(done) => self.close_requests.push(done),
            }
        }
        group
    }

    /// Commits the group as a whole. If one of its changes fails, commits every change separately, so that no change is affected
    /// by another.
    fn commit(&mut self, mut group: Vec<Request>) {
        if group.is_empty() {
            return;
        }
        match self.commit_once(&mut group) {
            Ok(true) => group.into_iter().for_each(|request| (request.reply)(Ok(()))),
            Ok(false) if group.len() > 1 => group.into_iter().for_each(|request| self.commit(vec![request])),
            Ok(false) => group.into_iter().for_each(|request| (request.reply)(Ok(()))),
            Err(FailedCommit { error, bytes }) => {
                group.into_iter().for_each(|request| (request.reply)(Err(error.clone())));
                self.reopen(error, bytes);
            }
        }
    }

    /// Returns whether every change of the group succeeded. If not, nothing is committed.
    fn commit_once(&self, group: &mut [Request]) -> Result<bool, FailedCommit> {
        let database = self.shared.database.load_full().ok_or_else(|| FailedCommit { error: reopening(), bytes: 0 })?;
        let mut transaction = begin_write(&database).map_err(|error| FailedCommit { error, bytes: 0 })?;
        let write = Write::new(&transaction, &self.shared.rows_read, self.shared.notifiers.load_full());
        let refused = group.iter_mut().try_for_each(|request| (request.run)(&write));
        let (events, woken, bytes) = (write.events.take(), write.woken.get(), write.bytes.get());
        let has_changed = write.has_changed.get();
        let failed = |error: redb::Error| FailedCommit { error: unavailable(error), bytes };
        if let Err(error) = refused {
            transaction.abort().map_err(|error| failed(error.into()))?;
            // An error of one change is its own. A file that cannot grow concerns every change.
            return if matches!(error, StoreError::Unavailable(_)) { Err(FailedCommit { error, bytes }) } else { Ok(false) };
        }
        if !has_changed {
            // A repeated delivery changes nothing and must not cost a disk write: a client can send thousands of them.
            return transaction.abort().map(|()| true).map_err(|error| failed(error.into()));
        }
        transaction.set_quick_repair(true);
        fail_points(Side::Before, woken);
        transaction.commit().map_err(|error| failed(error.into()))?;
        self.shared.commits.add_one();
        fail_points(Side::After, woken);
        for event in events {
            // An error means that there are no subscribers.
            let _ = self.shared.events.send(event);
        }
        for (notify, _) in self.shared.wakes.iter().zip(woken).filter(|(_, woken)| *woken) {
            notify.notify_one();
        }
        Ok(true)
    }

    /// Reopens the file with backoff until it accepts a write of `bytes`, which failed before. Requests fail meanwhile.
    fn reopen(&mut self, mut error: StoreError, bytes: usize) {
        tracing::error!(%error, "the store failed; deliveries are rejected until the store is open again");
        let mut backoff = Duration::from_millis(100);
        for attempts in 1.. {
            self.shared.health.send_replace(Health::Failing { reason: error.to_string(), attempts });
            self.close_database();
            error =
                match open_database(&self.shared.path).and_then(|database| probe_writable(&database, bytes).map(|()| database)) {
                    Ok(database) => {
                        self.shared.database.store(Some(Arc::new(database)));
                        self.shared.health.send_replace(Health::Open);
                        self.shared.wakes.iter().for_each(Notify::notify_one);
                        tracing::info!(attempts, "the store is open again");
                        return;
                    }
                    Err(error) => error,
                };
            tracing::warn!(%error, attempts, "the store is still unavailable");
            self.reject_requests_for(backoff);
            if !self.close_requests.is_empty() {
                return;
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// Rejects requests for `duration`, or until a request to close the file arrives.
    fn reject_requests_for(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while self.close_requests.is_empty() {
            let Ok(message) = self.messages.recv_timeout(end.saturating_duration_since(Instant::now())) else { return };
            let group = self.collect_group(message);
            group.into_iter().for_each(|request| (request.reply)(Err(reopening())));
        }
    }

    /// Closes the file. A read transaction that begins at this moment briefly delays it.
    fn close_database(&self) {
        let mut open = self.shared.database.swap(None);
        while let Some(database) = open {
            open = Arc::try_unwrap(database).map(drop).err();
            std::thread::yield_now();
        }
    }
}

/// Every commit passes the fail point `commit` and one for each queue that it fills. These are the `│stored│` bars in the diagram
/// of a push.
fn fail_points(side: Side, woken: [bool; Queue::COUNT]) {
    fail_point::pass(side, "store", "commit");
    for (queue, _) in Queue::ALL.iter().zip(woken).filter(|(_, woken)| *woken) {
        fail_point::pass(side, "store", queue.as_str());
    }
}

/// A commit that failed because of the disk.
struct FailedCommit {
    error: StoreError,
    /// The size of the values that it wrote.
    bytes: usize,
}

fn begin_write(database: &redb::Database) -> Result<redb::WriteTransaction, StoreError> {
    database.begin_write().map_err(unavailable)
}

/// Checks that the file accepts a write of `bytes`. Opening a file needs no disk space, so without this check a full disk would
/// look healthy after every failure.
fn probe_writable(database: &redb::Database, bytes: usize) -> Result<(), StoreError> {
    let ballast = vec![0; bytes.min(MAX_PROBE_BYTES)];
    for is_full in [true, false] {
        let mut transaction = begin_write(database)?;
        transaction.set_quick_repair(true);
        let write = Write::new(&transaction, &Counter::default(), Arc::default());
        if is_full {
            write.put_bytes(PROBE, &[], &ballast)?
        } else {
            write.remove(PROBE, &[]).map(drop)?
        }
        transaction.commit().map_err(unavailable)?;
    }
    Ok(())
}
