//! Costs do not grow with history: the rows that the store reads are counted, with little history and with five times as much.

use std::sync::Arc;
use std::time::Duration;

use beespace::app::App;
use beespace::clock::now;
use beespace::config::Config;
use beespace::server;
use beespace::store::build::BuildFilter;
use beespace::store::delivery::NewDelivery;
use beespace::store::queue::{DueTime, FairnessKey, QueuePosition};
use beespace::store::repository::Repository;
use beespace::store::{Queue, Store, StoreError};
use beespace::worker::{Consumer, Heartbeat, WorkError, Worker};
use beespace_core::build::Stage;
use beespace_core::ids::{DeliveryId, RepositoryId, StageId, StageNumber};
use beespace_core::reason::Reason;
use beespace_core::time::Timestamp;
use beespace_tests::client::Client;
use beespace_tests::seed_data::{self, SeededRepository};
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// More than one page of every list, except that of killed builds, whose number is constant.
const FEW_BUILDS: u64 = 200;
const MANY_BUILDS: u64 = 1_000;

const HERE: &str = "/api/v1/repositories/ada/r0/builds";

/// A server without workers, so that only the requests read rows.
pub struct World {
    pub app: Arc<App>,
    client: Client,
    /// The rows read before the server was ready.
    start: u64,
    pub folder: tempfile::TempDir,
}

impl World {
    pub async fn with(builds: u64) -> Self {
        Self::with_settings(builds, "").await
    }

    /// `extra` is added to the configuration.
    pub async fn with_settings(builds: u64, extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("beespace.redb")).unwrap();
        let mut pasts = Vec::new();
        for number in 1..=2 {
            let repository = repository(number);
            let known = repository.clone();
            store.change_repository(repository.id, move |_| Ok(known.clone())).await.unwrap();
            pasts.push(SeededRepository { repository, sha: "1".repeat(40) });
        }
        seed_data::write_builds(&store, &pasts, builds).await.unwrap();
        store.close().await;
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nopen = true\n[data]\ndir = \"{}\"\n[gogs]\nurl = \"http://127.0.0.1:9\"\ntoken \
             = \"none\"\n\
             [engine]\nkind = \"dummy\"\n{extra}",
            folder.path().display()
        );
        let app = App::open(Config::read(&text, None, []).unwrap().config).await.unwrap();
        app.store.resume_all_bindings(now()).await.unwrap();
        let start = app.store.rows_read();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = server::router(&app).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let token = std::fs::read_to_string(app.config.data.admin_token_path()).unwrap();
        Self { client: Client::new(&url).with_token(token.trim()), app, start, folder }
    }

    /// The rows read for one request.
    async fn rows_for(&self, path: &str) -> u64 {
        let before = self.app.store.rows_read();
        let answer = self.client.get(path).await.unwrap();
        assert!(answer.status.is_success(), "{path}: {}", answer.body);
        self.app.store.rows_read() - before
    }

    /// The cursor of the last page of the repository's builds.
    fn last_page(&self) -> String {
        let filter = BuildFilter { repository: Some(RepositoryId(1)), ..BuildFilter::default() };
        let ids = self.app.store.read().unwrap().build_ids(filter, usize::MAX).unwrap();
        format!("{HERE}?limit=20&after={}", ids[ids.len() - 21])
    }
}

fn repository(number: u64) -> Repository {
    crate::store::repository(RepositoryId(number), "ada", &format!("r{}", number - 1))
}

pub fn delivery() -> NewDelivery {
    NewDelivery {
        id: DeliveryId(uuid::Uuid::now_v7()),
        repository: RepositoryId(1),
        forge_id: "fresh".to_owned(),
        event: "push".to_owned(),
        body: b"{}".to_vec(),
        received_at: now(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_startup_read_no_more_rows_with_a_longer_history() {
    let (few, many) = tokio::join!(World::with(FEW_BUILDS), World::with(MANY_BUILDS));
    assert_eq!(few.start, many.start, "rows read for a start");
    for path in [
        "/",
        "/?status=failure",
        "/ada",
        "/ada/r0",
        "/ada/r0?status=killed",
        "/ada/r0/60",
        "/ada/r0/60/1/2",
        "/-/deliveries",
        "/-/notices",
        "/api/v1/builds",
        "/api/v1/builds?status=failure",
        "/api/v1/builds?status=blocked",
        HERE,
        &format!("{HERE}?status=killed"),
        &format!("{HERE}/60"),
        &format!("{HERE}/60/decisions"),
        "/api/v1/deliveries",
        "/api/v1/notices",
        "/api/v1/notices?status=dead_letter",
        "/metrics",
        "/version",
    ] {
        let (rows, rows_of_many) = (few.rows_for(path).await, many.rows_for(path).await);
        assert_eq!(rows, rows_of_many, "rows read for {path}");
        assert!(rows < 400, "{rows} rows for {path}");
    }
    assert_eq!(few.rows_for(&few.last_page()).await, many.rows_for(&many.last_page()).await, "the last page");

    let mut changes = Vec::new();
    for world in [few, many] {
        let before = world.app.store.rows_read();
        let answer = world.client.post(&format!("{HERE}/60/restart"), &Value::Null).await.unwrap();
        assert!(answer.status.is_success(), "{}", answer.body);
        let restarted = world.app.store.rows_read();
        world.app.store.accept_delivery(delivery()).await.unwrap();
        changes.push((restarted - before, world.app.store.rows_read() - restarted));
        drop(world.folder);
    }
    assert_eq!(changes[0], changes[1], "rows read for a restart and for a delivery");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_subscriber_reads_no_rows_on_a_change() {
    let world = World::with(2).await;
    let build = world.app.store.read().unwrap().build_by_number(RepositoryId(1), 1).unwrap().unwrap().id;
    let mut costs = Vec::new();
    let mut watchers = Vec::new();
    for count in [1, 16] {
        while watchers.len() < count {
            let stream = world.client.request(Method::GET, "/api/v1/events?repository=ada/r0").send().await.unwrap();
            watchers.push(stream.bytes_stream());
        }
        let before = world.app.store.rows_read();
        let reason = Reason::from_rule("told", format!("to {count}"));
        let change = move |stage: &mut Stage| {
            stage.steps[0].reason = Some(reason.clone());
            Ok(())
        };
        world.app.store.change_stage(StageId { build, stage: StageNumber(1) }, now(), change).await.unwrap();
        for watcher in &mut watchers {
            let event = watcher.next().await.unwrap().unwrap();
            assert!(String::from_utf8_lossy(&event).contains("step_changed"), "{event:?}");
        }
        costs.push(world.app.store.rows_read() - before);
    }
    assert_eq!(costs[0], costs[1]);
}

/// Takes every row out of the queue.
struct DequeueConsumer(Store);

impl Consumer for DequeueConsumer {
    type Id = Vec<u8>;

    fn id_of_key(key: &[u8]) -> Option<Vec<u8>> {
        Some(key.to_vec())
    }

    async fn process(&self, key: Vec<u8>) -> Result<(), WorkError> {
        Ok(self.0.write(move |write| write.dequeue(Queue::Run, &key)).await?)
    }

    async fn dead_letter(&self, _: Vec<u8>, _: Reason) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_is_processed_with_few_row_reads_per_entry() {
    const ROWS: u64 = 400;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("beespace.redb")).unwrap();
    let fill = |write: &beespace::store::Write<'_>| {
        (0..ROWS).try_for_each(|number| {
            let key = FairnessKey::of_repository(RepositoryId(number % 3));
            write.enqueue(Queue::Run, &number.to_be_bytes(), key, DueTime::now(Timestamp(number)))
        })
    };
    store.write(fill).await.unwrap();
    assert_eq!(store.read().unwrap().queue_length(Queue::Run).unwrap(), ROWS);
    let before = store.rows_read();

    let stopping = CancellationToken::new();
    let worker = Worker {
        store: store.clone(),
        queue: Queue::Run,
        parallel: 4,
        parallel_per_key: 4,
        consumer: Arc::new(DequeueConsumer(store.clone())),
        heartbeat: Arc::new(Heartbeat::default()),
        now,
    };
    let served = tokio::spawn(worker.serve(stopping.clone()));
    let is_empty = async {
        while store.read().unwrap().queue_length(Queue::Run).unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(beespace_tests::WAIT_TIMEOUT, is_empty).await.unwrap();
    stopping.cancel();
    served.await.unwrap();
    let rows = store.rows_read() - before;
    assert!(rows < 50 * ROWS, "{rows} rows were read to work off {ROWS}: each look walks the queue");
}

/// Queued at the time 0 for a later time.
fn due_at(at: u64) -> DueTime {
    DueTime::at(Timestamp(at), Timestamp(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_delays_no_row() {
    const HOUR: u64 = 3_600_000;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("beespace.redb")).unwrap();
    let (one, other) = (FairnessKey::of_repository(RepositoryId(1)), FairnessKey::of_repository(RepositoryId(2)));
    let ahead = Timestamp(10 * HOUR);
    let now = Timestamp(8 * HOUR);
    store
        .write(move |write| {
            // Queued while the clock was two hours ahead.
            write.enqueue(Queue::Run, b"at once", one, DueTime::now(ahead))?;
            write.enqueue(Queue::Run, b"retried", one, DueTime::at(ahead + Duration::from_secs(60), ahead))?;
            write.enqueue(Queue::Run, b"hidden", other, DueTime::now(ahead))?;
            // Queued with the right clock: these rows wait, although the rows behind them are due.
            write.enqueue(Queue::Run, b"backoff", other, DueTime::at(now + Duration::from_secs(60), now))?;
            write.enqueue(Queue::Run, b"backoff too", other, DueTime::at(now + Duration::from_secs(90), now))
        })
        .await
        .unwrap();
    let read = store.read().unwrap();
    let mut taken = Vec::<Vec<u8>>::new();
    loop {
        let due = read.due(Queue::Run, now, |id| taken.iter().any(|one| one == id)).unwrap();
        let Some(first) = due.ready.into_iter().next() else { break };
        taken.push(first.id);
    }
    assert_eq!(taken, [b"at once".to_vec(), b"retried".to_vec(), b"hidden".to_vec()]);
    let due = read.due(Queue::Run, now + Duration::from_secs(60), |id| taken.iter().any(|one| one == id)).unwrap();
    assert_eq!(due.ready.into_iter().map(|row| row.id).collect::<Vec<_>>(), [b"backoff".to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_due_rows_are_the_first_free_rows_of_each_fairness_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("beespace.redb")).unwrap();
    let (one, other) = (FairnessKey::of_repository(RepositoryId(1)), FairnessKey::of_repository(RepositoryId(2)));
    let rows = [(b"a", one, 5), (b"b", one, 3), (b"c", one, 40), (b"d", other, 30), (b"e", other, 20)];
    store
        .write(move |write| {
            rows.iter().try_for_each(|(id, key, at)| write.enqueue(Queue::Run, *id, *key, due_at(*at)))?;
            // Rows of another queue do not matter.
            write.enqueue(Queue::Prepare, b"x", one, due_at(1))
        })
        .await
        .unwrap();
    let place = |id: &[u8], key, at| QueuePosition { fairness_key: key, due: due_at(at), id: id.to_vec() };
    let read = store.read().unwrap();
    let due = |at, taken: &[&[u8]]| {
        let due = read.due(Queue::Run, Timestamp(at), |id| taken.contains(&id)).unwrap();
        (due.ready, due.next_due_at.map(|at| at.0))
    };
    assert_eq!(due(2, &[]), (vec![], Some(3)));
    assert_eq!(due(10, &[]), (vec![place(b"b", one, 3)], Some(20)));
    assert_eq!(due(20, &[b"b"]), (vec![place(b"a", one, 5), place(b"e", other, 20)], Some(30)));
    assert_eq!(due(50, &[b"b", b"a", b"c", b"d", b"e"]), (vec![], None));
    let next = |place: &QueuePosition, at| read.due_after(Queue::Run, place, Timestamp(at), |_| false).unwrap();
    assert_eq!(next(&place(b"b", one, 3), 10), Some(place(b"a", one, 5)));
    assert_eq!(next(&place(b"a", one, 5), 10), None, "the next one is not due");
    drop(read);

    store.reschedule(Queue::Run, b"b".to_vec(), due_at(60), None, true).await.unwrap();
    store.write(|write| write.dequeue(Queue::Run, b"a")).await.unwrap();
    let read = store.read().unwrap();
    let due = read.due(Queue::Run, Timestamp(50), |_| false).unwrap();
    assert_eq!(due.ready, [place(b"c", one, 40), place(b"e", other, 20)]);
    assert_eq!(due.next_due_at, Some(Timestamp(60)));
}
