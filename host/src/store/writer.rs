//! The one writing thread. Changes that arrive while a commit is being made durable share the next one (group commit). When the
//! disk says no, everybody is told, the file is closed and opened again with growing pauses: redb answers every later write on a
//! failed handle with the same error.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use beespace_core::run_event::RunEvent;
use tokio::sync::{Notify, broadcast, oneshot, watch};

use super::transaction::{Write, unavailable};
use super::{Health, Queue, StoreError};

/// Changes in one commit at most: bounds how long the first of them waits.
const GROUP: usize = 256;

/// Pages that redb keeps in memory. Its default of 1 GiB would be most of a small server.
const CACHE_BYTES: usize = 16 << 20;

type Job = Box<dyn FnMut(&Write<'_>) -> bool + Send>;

/// A change and the way back to who asked for it.
struct Request {
    /// Runs the change, keeps its result, says whether it may be committed.
    run: Job,
    /// Tells the caller: `Ok` after the commit, the reason where it failed.
    answer: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

#[derive(Clone)]
pub(super) struct Writer(mpsc::SyncSender<Request>);

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

pub(super) fn open_database(path: &Path) -> Result<redb::Database, StoreError> {
    redb::Database::builder()
        .set_concurrency_mode(redb::ConcurrencyMode::SingleWriter)
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .map_err(|error| StoreError::Unavailable(format!("{}: {error}", path.display())))
}

impl Writer {
    pub(super) fn start(
        path: PathBuf,
        database: Arc<ArcSwapOption<redb::Database>>,
        events: broadcast::Sender<RunEvent>,
        wakes: Arc<[Notify; Queue::COUNT]>,
        health: watch::Sender<Health>,
    ) -> Result<Self, StoreError> {
        let (sender, requests) = mpsc::sync_channel(GROUP);
        let thread = Thread { path, database, events, wakes, health };
        std::thread::Builder::new().name("store".to_owned()).spawn(move || thread.serve(&requests)).map_err(unavailable)?;
        Ok(Self(sender))
    }

    pub(super) async fn run<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Write<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let request = request(change, move |outcome| drop(reply.send(outcome)));
        let sender = self.0.clone();
        // A full channel is back-pressure; waiting for it must not hold up other tasks.
        if let Err(mpsc::TrySendError::Full(request)) = sender.try_send(request) {
            let sent = tokio::task::spawn_blocking(move || sender.send(request)).await;
            sent.map_err(unavailable)?.map_err(|_| closed())?;
        }
        result.await.map_err(|_| closed())?
    }

    pub(super) fn run_blocking<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Write<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, result) = mpsc::channel();
        self.0.send(request(change, move |outcome| drop(reply.send(outcome)))).map_err(|_| closed())?;
        result.recv().map_err(|_| closed())?
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the writing thread has ended".to_owned())
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
        let good = outcome.is_ok();
        *result.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(outcome);
        good
    };
    let answer = move |committed: Result<(), StoreError>| {
        let outcome = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take().unwrap_or_else(|| Err(closed()));
        answer(committed.and(outcome));
    };
    Request { run: Box::new(run), answer: Box::new(answer) }
}

struct Thread {
    path: PathBuf,
    database: Arc<ArcSwapOption<redb::Database>>,
    events: broadcast::Sender<RunEvent>,
    wakes: Arc<[Notify; Queue::COUNT]>,
    health: watch::Sender<Health>,
}

impl Thread {
    fn serve(self, requests: &mpsc::Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut group = vec![first];
            group.extend(requests.try_iter().take(GROUP - 1));
            self.commit(group);
        }
    }

    /// One commit for the whole group; where a change of it fails, one commit each, so that no change suffers from another.
    fn commit(&self, mut group: Vec<Request>) {
        match self.commit_once(&mut group) {
            Ok(true) => group.into_iter().for_each(|request| (request.answer)(Ok(()))),
            Ok(false) if group.len() > 1 => group.into_iter().for_each(|request| self.commit(vec![request])),
            Ok(false) => group.into_iter().for_each(|request| (request.answer)(Ok(()))),
            Err(error) => {
                group.into_iter().for_each(|request| (request.answer)(Err(error.clone())));
                self.reopen(&error);
            }
        }
    }

    /// Says whether every change of the group agreed to be committed.
    fn commit_once(&self, group: &mut [Request]) -> Result<bool, StoreError> {
        let database = self.database.load_full().ok_or_else(|| StoreError::Unavailable("it is being reopened".to_owned()))?;
        let mut transaction = database.begin_write().map_err(unavailable)?;
        transaction.set_quick_repair(true);
        let write = Write::new(&transaction);
        let good = group.iter_mut().all(|request| (request.run)(&write));
        let (events, woken) = (write.events.take(), write.woken.get());
        if !good {
            transaction.abort().map_err(unavailable)?;
            return Ok(false);
        }
        transaction.commit().map_err(unavailable)?;
        for event in events {
            // An error says that nobody watches.
            let _ = self.events.send(event);
        }
        for (notify, _) in self.wakes.iter().zip(woken).filter(|(_, woken)| *woken) {
            notify.notify_one();
        }
        Ok(true)
    }

    fn reopen(&self, error: &StoreError) {
        tracing::error!(%error, "the store failed; deliveries are refused until it is open again");
        self.database.store(None);
        let mut pause = Duration::from_millis(100);
        for attempts in 1.. {
            self.health.send_replace(Health::Failing { reason: error.to_string(), attempts });
            match open_database(&self.path) {
                Ok(database) => {
                    self.database.store(Some(Arc::new(database)));
                    self.health.send_replace(Health::Open);
                    self.wakes.iter().for_each(Notify::notify_one);
                    tracing::info!(attempts, "the store is open again");
                    return;
                }
                Err(error) => tracing::warn!(%error, attempts, "the store cannot be opened yet"),
            }
            pause_thread(pause);
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do while the file cannot be opened")]
fn pause_thread(pause: Duration) {
    std::thread::sleep(pause);
}
