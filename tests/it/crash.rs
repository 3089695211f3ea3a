//! A server that is killed, as by a power cut, and restarted on the same data.

use std::time::{Duration, Instant};

use beespace::fail_point;
use beespace::store::Store;
use beespace_tests::WAIT_TIMEOUT;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::{NO_ENV, Process};
use serde_json::{Value, json};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_beespace-under-test");

pub(crate) const REPO: &str = "ada/hive";

pub(crate) const BUILDS: &str = "/api/v1/repositories/ada/hive/builds";

pub(crate) async fn builds(server: &Process) -> Vec<Value> {
    let Ok(answer) = server.admin().unwrap().get(&format!("{BUILDS}?limit=100")).await else { return Vec::new() };
    answer.json().unwrap_or_default().as_array().cloned().unwrap_or_default()
}

pub(crate) async fn wait_for(what: &str, fact: impl AsyncFn() -> bool) {
    let until = Instant::now() + WAIT_TIMEOUT;
    while !fact().await {
        assert!(Instant::now() < until, "timed out while waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn is_finished(build: &Value) -> bool {
    build["number"].is_u64() && !matches!(build["status"].as_str(), Some("pending" | "running" | "blocked"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_store_is_waited_for_and_named_if_it_stays_locked() {
    let gogs = FakeGogs::start().await.unwrap();
    let mut server = Process::start(PROGRAM, &gogs, "[engine]\nkind = \"dummy\"\n", NO_ENV).await.unwrap();
    server.kill().await.unwrap();
    let store = Store::open(&server.data().join("beespace.redb")).unwrap();
    server.restart(NO_ENV).unwrap();
    let until = Instant::now() + WAIT_TIMEOUT;
    while !server.has_exited().unwrap() {
        assert!(Instant::now() < until, "the server does not exit");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The last log lines may arrive a moment later.
    wait_for("it to name the file", async || server.log().contains("beespace.redb is in use by another process")).await;
    server.restart(NO_ENV).unwrap();
    wait_for("the second start to wait", async || server.log().matches("waiting for the store").count() == 2).await;
    store.close().await;
    server.wait_until_ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_stage_is_gone_from_the_engine_reports_it() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let mut server = Process::start(PROGRAM, &gogs, "[engine]\nkind = \"dummy\"\n", NO_ENV).await.unwrap();
    server.enable(REPO).await.unwrap();
    server.kill().await.unwrap();
    // The dummy engine ends with the server: after the first step, before the second.
    server.restart(&[(fail_point::VARIABLE, "before/engine/release 1")]).unwrap();
    server.wait_until_ready().await.unwrap();
    let pipeline = "steps:\n  - name: first\n    image: busybox\n  - name: second\n    image: busybox\n    env: { SLEEP: 60s }\n";
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], "Fill cells").await.unwrap();
    let until = Instant::now() + WAIT_TIMEOUT;
    while !server.was_killed().unwrap() {
        assert!(Instant::now() < until, "the server is not killed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.restart(NO_ENV).unwrap();
    server.wait_until_ready().await.unwrap();
    wait_for("the end of the build", async || builds(&server).await.iter().any(is_finished)).await;
    let build = server.admin().unwrap().get(&format!("{BUILDS}/1")).await.unwrap().json().unwrap();
    let steps = &build["stages"][0]["steps"];
    assert_eq!(steps[1]["status"], "success", "{build:#}");
    assert_eq!((&steps[2]["status"], &steps[2]["reason"]["code"]), (&json!("error"), &json!("container-lost")), "{build:#}");
    let message = steps[2]["reason"]["message"].as_str().unwrap();
    assert!(message.contains("the engine has lost the stage's workspace"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_crashes_the_server_becomes_a_dead_letter_after_five_attempts() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let deadly = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", deadly.local_addr().unwrap());
    let notifier = crate::notify::webhook("deadly", &format!("{host}/hook"), &host);
    let settings = format!("[engine]\nkind = \"dummy\"\n{notifier}");
    let mut server = Process::start(PROGRAM, &gogs, &settings, NO_ENV).await.unwrap();
    server.set_plugin_secret("key", "a-key-for-the-receiver").await.unwrap();
    server.enable(REPO).await.unwrap();
    let pipeline = "steps:\n  - name: build\n    image: busybox\n";
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], "Fill cells").await.unwrap();
    for attempt in 1..=5 {
        let arrives = tokio::time::timeout(WAIT_TIMEOUT, deadly.accept());
        let connection = arrives.await.unwrap_or_else(|_| panic!("attempt {attempt} never came")).unwrap();
        server.kill().await.unwrap();
        drop(connection);
        server.restart(NO_ENV).unwrap();
        server.wait_until_ready().await.unwrap();
    }
    wait_for("the end of the notice", async || {
        let Ok(answer) = server.admin().unwrap().get("/api/v1/notices").await else { return false };
        let notice = answer.json().unwrap_or_default()[0].clone();
        notice["state"] == "dead_letter" && notice["attempts"] == 5
    })
    .await;
}
