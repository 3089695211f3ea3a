//! Readiness, metrics, and the server's own log.

use std::path::Path;
use std::sync::Arc;

use beespace::app::App;
use beespace::clock::now;
use beespace::config::Config;
use beespace::server;
use beespace::store::{Queue, Store, StoreError};
use beespace::worker::{Consumer, Heartbeats, WorkError, Worker};
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_tests::beespace::Beespace;
use beespace_tests::client::Client;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::guest_build;
use beespace_tests::process::{NO_ENV, Process};
use beespace_wasm::{Host, HostOptions, Kind, MaxCalls};
use reqwest::StatusCode;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

const DUMMY: &str = "[engine]\nkind = \"dummy\"\n";
const REPO: &str = "ada/hive";

/// The test holds this lock to block the clock of the stuck worker.
static CLOCK: Mutex<()> = Mutex::const_new(());

fn lock_clock() -> Timestamp {
    drop(tokio::task::block_in_place(|| CLOCK.blocking_lock()));
    now()
}

/// Has nothing to do: the queue is empty.
struct IdleConsumer;

impl Consumer for IdleConsumer {
    type Id = Vec<u8>;

    fn id_of_key(key: &[u8]) -> Option<Vec<u8>> {
        Some(key.to_vec())
    }

    async fn process(&self, _: Vec<u8>) -> Result<(), WorkError> {
        Ok(())
    }

    async fn dead_letter(&self, _: Vec<u8>, _: Reason) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A worker of a queue with this clock.
fn worker(store: &Store, beats: &Heartbeats, queue: Queue, now: fn() -> Timestamp) -> Worker<IdleConsumer> {
    let (store, consumer, heartbeat) = (store.clone(), Arc::new(IdleConsumer), beats.of(queue));
    Worker { store, queue, parallel: 1, parallel_per_key: 1, consumer, heartbeat, now }
}

/// A server without workers of its own, and a client with its admin token.
async fn without_workers(data: &Path) -> (Arc<App>, Client) {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[data]\ndir = \"{}\"\n[gogs]\nurl = \"http://127.0.0.1:9\"\ntoken = \
         \"none\"\n{DUMMY}",
        data.display()
    );
    let app = App::open(Config::read(&text, None, []).unwrap().config).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = server::router(&app).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let token = std::fs::read_to_string(app.config.data.admin_token_path()).unwrap();
    (app, Client::new(&url).with_token(token.trim()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_worker_is_named_until_its_next_heartbeat() {
    let gogs = FakeGogs::start().await.unwrap();
    let beespace = Beespace::start(&gogs, DUMMY).await.unwrap();
    let data = tempfile::tempdir().unwrap();
    let (app, client) = without_workers(data.path()).await;
    let response = client.get("/readyz").await.unwrap();
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        response.body.contains("[-] workers: delivery, prepare, run, notice, schedule: no heartbeat for a minute; restart"),
        "{}",
        response.body
    );

    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("beespace.redb")).unwrap();
    let stopping = CancellationToken::new();
    let _stop = stopping.clone().drop_guard();
    let guard = CLOCK.lock().await;
    for queue in [Queue::Delivery, Queue::Prepare, Queue::Notice, Queue::Schedule] {
        tokio::spawn(worker(&store, &app.heartbeats, queue, now).serve(stopping.clone()));
    }
    tokio::spawn(worker(&store, &app.heartbeats, Queue::Run, lock_clock).serve(stopping.clone()));
    let one = "[-] workers: run: no heartbeat for a minute; restart the server, which resumes the work in progress\n";
    let names_one = async || Ok(client.get("/readyz").await?.body.contains(one).then_some(()));
    beespace.wait_for("the stuck worker to be named", names_one).await.unwrap();

    drop(guard);
    let is_ready = async || {
        store.wake(Queue::Run);
        Ok(client.get("/readyz").await?.status.is_success().then_some(()))
    };
    beespace.wait_for("readiness", is_ready).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_include_queues_and_plugin_slots() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start(&gogs, &format!("{DUMMY}capacity = 1\n")).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    for branch in ["one", "two"] {
        let long = "steps:\n  - name: long\n    image: busybox\n    env: { SLEEP: 60s }\n";
        gogs.push(REPO, branch, &[(".beespace.yml", long)], "Wait").await.unwrap();
    }
    beespace.wait_for_build(REPO, 1, |build| build.status == Status::Running).await.unwrap();
    beespace.wait_for_build(REPO, 2, |build| build.status == Status::Pending).await.unwrap();
    let admin = beespace.admin().unwrap();
    let figures = admin.get("/metrics").await.unwrap().body;
    for line in [
        "beespace_queue_length{queue=\"run\"} 2\n",
        "beespace_queue_in_progress{queue=\"run\"} 1\n",
        "beespace_queue_in_progress{queue=\"notice\"} 0\n",
        "beespace_store_rows_read_total ",
        "beespace_plugin_call_slots{kind=\"policy\",state=\"used\"} 0\n",
        "beespace_plugin_call_slots{kind=\"step\",state=\"free\"} ",
    ] {
        assert!(figures.contains(line), "{line}\n{figures}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_call_takes_a_slot_and_releases_it() {
    let host = Host::new(HostOptions { max_calls: MaxCalls::each(2), ..HostOptions::default() }).unwrap();
    let endless = guest_build::load_policy(&host, guest_build::policy_guest(&[(";; evaluate", "(loop (br 0))")])).await.unwrap();
    assert_eq!((host.call_slots(Kind::Policy).used, host.call_slots(Kind::Policy).total), (0, 2));
    let call = tokio::spawn(async move { endless.evaluate(crate::wasm_hostile::request()).await });
    while host.call_slots(Kind::Policy).used == 0 && !call.is_finished() {
        tokio::task::yield_now().await;
    }
    assert_eq!(host.call_slots(Kind::Policy).used, 1);
    assert!(call.await.unwrap().result.is_err(), "its time is over");
    assert_eq!(host.call_slots(Kind::Policy).used, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_log_is_json_when_configured() {
    let gogs = FakeGogs::start().await.unwrap();
    let settings = "[engine]\nkind = \"dummy\"\n";
    let program = env!("CARGO_BIN_EXE_beespace-under-test");
    let server = Process::start(program, &gogs, settings, &[("BEESPACE_LOG_FORMAT", "json")]).await.unwrap();
    let log = server.log();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let ready = lines.iter().find(|line| line["message"] == "Beespace is ready").expect(&log);
    assert_eq!((&ready["level"], ready["timestamp"].is_string()), (&"INFO".into(), true), "{ready}");
    assert!(ready["public_url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{ready}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_log_has_no_colours_without_a_terminal() {
    let gogs = FakeGogs::start().await.unwrap();
    let program = env!("CARGO_BIN_EXE_beespace-under-test");
    let server = Process::start(program, &gogs, "[engine]\nkind = \"dummy\"\n", NO_ENV).await.unwrap();
    assert!(server.log().contains("INFO beespace::server: Beespace is ready"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_does_not_end_the_server_and_is_answered_with_advice() {
    let gogs = FakeGogs::start().await.unwrap();
    let program = env!("CARGO_BIN_EXE_beespace-under-test");
    let mut server = Process::start(program, &gogs, DUMMY, NO_ENV).await.unwrap();
    let id = rustix::process::Pid::from_raw(server.id().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    let advised = async || Ok(server.log().contains("SIGHUP: ignored; restart the server").then_some(()));
    server.wait_for("the advice", advised).await.unwrap();
    server.wait_until_ready().await.unwrap();
    assert!(!server.has_exited().unwrap());
}
