//! The one writing thread. Changes that arrive while a commit is being made durable share the next one (group commit). When the
//! disk says no, everybody is told, the file is closed and opened again with growing pauses: redb answers every later write on a
//! failed handle with the same error.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use beespace_core::change_event::ChangeEvent;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, oneshot, watch};

use super::backend::OffloadingBackend;
use super::tables::PROBE;
use super::transaction::{Counter, Write, unavailable};
use super::{Health, Queue, StoreError};
use crate::fail_point::{self, Side};

/// Changes in one commit at most: bounds how long the first of them waits.
const MAX_GROUP: usize = 256;

/// Bytes that a file which failed must take again before it counts as open, at most.
const MAX_PROBE_BYTES: usize = 16 << 20;

/// The longest pause between two attempts to open the file again.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Pages that redb keeps in memory. Its default of 1 GiB would be most of a small server.
const CACHE_BYTES: usize = 16 << 20;

type ChangeFn = Box<dyn FnMut(&Write<'_>) -> Result<(), StoreError> + Send>;

/// A change and the way back to who asked for it.
struct Request {
    /// Runs the change and keeps its result; an error says why it may not be committed.
    run: ChangeFn,
    /// Tells the caller: `Ok` after the commit, the reason where it failed.
    reply: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

/// What the thread is asked.
enum Message {
    Change(Request),
    /// Let go of the file, and say so.
    Close(oneshot::Sender<()>),
}

/// A message that waits for the thread, and the place that it takes meanwhile.
type QueuedMessage = (Message, Option<OwnedSemaphorePermit>);

#[derive(Clone)]
pub(super) struct Writer {
    messages: mpsc::Sender<QueuedMessage>,
    /// A full commit may wait behind the one that is being written; who comes later waits for a place, as a task and not as a thread.
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

/// What the thread works with.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) database: Arc<ArcSwapOption<redb::Database>>,
    pub(super) events: broadcast::Sender<ChangeEvent>,
    pub(super) wakes: Arc<[Notify; Queue::COUNT]>,
    pub(super) health: watch::Sender<Health>,
    pub(super) rows_read: Counter,
    pub(super) commits: Counter,
}

impl Writer {
    pub(super) fn start(parts: Shared) -> Result<Self, StoreError> {
        let (sender, messages) = mpsc::channel();
        let thread = WriterThread { shared: parts, messages, close_requests: Vec::new() };
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
        let place = Arc::clone(&self.slots).acquire_owned().await.map_err(unavailable)?;
        self.messages.send((message, Some(place))).map_err(|_| closed())
    }

    /// Returns when the file is closed.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.send(Message::Close(done)).await.is_ok() {
            // An error says that the thread has ended already, and with it its hold on the file.
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
    StoreError::Unavailable("it is closed".to_owned())
}

fn reopening() -> StoreError {
    StoreError::Unavailable("it is being reopened".to_owned())
}

/// Ties a change, its result and the answer together, so that the thread handles changes of every type alike.
fn request<T, F, A>(change: F, answer: A) -> Request
where
    T: Send + 'static,
    F: Fn(&Write<'_>) -> Result<T, StoreError> + Send + 'static,
    A: FnOnce(Result<T, StoreError>) + Send + 'static,
{
    let kept = Arc::new(std::sync::Mutex::new(None));
    let result = Arc::clone(&kept);
    let run = move |write: &Write<'_>| {
        // A panic in one change must not take the thread, and with it the server, along.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| change(write)));
        let outcome = outcome.unwrap_or_else(|_| Err(StoreError::Conflict("the change panicked".to_owned())));
        let refused = outcome.as_ref().map(drop).map_err(StoreError::clone);
        *result.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(outcome);
        refused
    };
    let answer = move |committed: Result<(), StoreError>| {
        let outcome = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take().unwrap_or_else(|| Err(closed()));
        answer(committed.and(outcome));
    };
    Request { run: Box::new(run), reply: Box::new(answer) }
}

struct WriterThread {
    shared: Shared,
    messages: mpsc::Receiver<QueuedMessage>,
    /// Whoever waits for the file to be closed; the thread ends when somebody does.
    close_requests: Vec<oneshot::Sender<()>>,
}

impl WriterThread {
    fn serve(mut self) {
        while self.close_requests.is_empty() {
            let Ok(first) = self.messages.recv() else { break };
            let group = self.collect_group(first);
            self.commit(group);
        }
        self.close_database();
        let closing = std::mem::take(&mut self.close_requests);
        // From here on nobody is taken in who would not be answered.
        drop(self);
        for done in closing {
            // An error says that nobody waits any more.
            let _ = done.send(());
        }
    }

    /// The change that came first and those that wait behind it.
    fn collect_group(&mut self, first: QueuedMessage) -> Vec<Request> {
        let mut group = Vec::new();
        for (message, place) in std::iter::once(first).chain(self.messages.try_iter().take(MAX_GROUP - 1)) {
            drop(place);
            match message {
                Message::Change(request) => group.push(request),
                Message::Close(done) => self.close_requests.push(done),
            }
        }
        group
    }

    /// One commit for the whole group; where a change of it fails, one commit each, so that no change suffers from another.
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

    /// Says whether every change of the group agreed to be committed.
    fn commit_once(&self, group: &mut [Request]) -> Result<bool, FailedCommit> {
        let database = self.shared.database.load_full().ok_or_else(|| FailedCommit { error: reopening(), bytes: 0 })?;
        let mut transaction = begin_write(&database).map_err(|error| FailedCommit { error, bytes: 0 })?;
        let write = Write::new(&transaction, &self.shared.rows_read);
        let refused = group.iter_mut().try_for_each(|request| (request.run)(&write));
        let (events, woken, bytes) = (write.events.take(), write.woken.get(), write.bytes.get());
        let has_changed = write.has_changed.get();
        let failed = |error: redb::Error| FailedCommit { error: unavailable(error), bytes };
        if let Err(error) = refused {
            transaction.abort().map_err(|error| failed(error.into()))?;
            // A change may refuse itself; a file that cannot grow is the file's trouble, and everybody's.
            return if matches!(error, StoreError::Unavailable(_)) { Err(FailedCommit { error, bytes }) } else { Ok(false) };
        }
        if !has_changed {
            // Whoever sends the same a thousand times costs no turn of the disk.
            return transaction.abort().map(|()| true).map_err(|error| failed(error.into()));
        }
        transaction.set_quick_repair(true);
        fail_points(Side::Before, woken);
        transaction.commit().map_err(|error| failed(error.into()))?;
        self.shared.commits.add_one();
        fail_points(Side::After, woken);
        for event in events {
            // An error says that nobody watches.
            let _ = self.shared.events.send(event);
        }
        for (notify, _) in self.shared.wakes.iter().zip(woken).filter(|(_, woken)| *woken) {
            notify.notify_one();
        }
        Ok(true)
    }

    /// Opens the file again, with growing pauses, until it takes `bytes` as it did not before. What is asked meanwhile is refused.
    fn reopen(&mut self, mut error: StoreError, bytes: usize) {
        tracing::error!(%error, "the store failed; deliveries are refused until it is open again");
        let mut pause = Duration::from_millis(100);
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
            tracing::warn!(%error, attempts, "the store cannot be used yet");
            self.reject_requests_for(pause);
            if !self.close_requests.is_empty() {
                return;
            }
            pause = (pause * 2).min(MAX_BACKOFF);
        }
    }

    /// Answers whoever asks with a no, for as long as `pause` or until the file is to be closed.
    fn reject_requests_for(&mut self, pause: Duration) {
        let end = Instant::now() + pause;
        while self.close_requests.is_empty() {
            let Ok(message) = self.messages.recv_timeout(end.saturating_duration_since(Instant::now())) else { return };
            let group = self.collect_group(message);
            group.into_iter().for_each(|request| (request.reply)(Err(reopening())));
        }
    }

    /// Closes the file. Whoever begins to read at this moment holds it a moment longer.
    fn close_database(&self) {
        let mut held = self.shared.database.swap(None);
        while let Some(database) = held {
            held = Arc::try_unwrap(database).map(drop).err();
            std::thread::yield_now();
        }
    }
}

/// A commit has one of its own, and one for each queue that it fills: those are the bars of the way of a push.
fn fail_points(side: Side, woken: [bool; Queue::COUNT]) {
    fail_point::pass(side, "store", "commit");
    for (queue, _) in Queue::ALL.iter().zip(woken).filter(|(_, woken)| *woken) {
        fail_point::pass(side, "store", queue.as_str());
    }
}

/// A commit that the disk did not take.
struct FailedCommit {
    error: StoreError,
    /// How much it wrote.
    bytes: usize,
}

fn begin_write(database: &redb::Database) -> Result<redb::WriteTransaction, StoreError> {
    database.begin_write().map_err(unavailable)
}

/// Whether the file takes `bytes`. Opening one needs no room: without this a full disk would look well after every failure.
fn probe_writable(database: &redb::Database, bytes: usize) -> Result<(), StoreError> {
    let ballast = vec![0; bytes.min(MAX_PROBE_BYTES)];
    for is_full in [true, false] {
        let mut transaction = begin_write(database)?;
        transaction.set_quick_repair(true);
        let write = Write::new(&transaction, &Counter::default());
        if is_full {
            write.put_bytes(PROBE, &[], &ballast)?
        } else {
            write.remove(PROBE, &[]).map(drop)?
        }
        transaction.commit().map_err(unavailable)?;
    }
    Ok(())
}
