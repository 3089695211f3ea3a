//! The server is killed in the middle of things, as by a power cut, and started again on what is there.

use std::time::{Duration, Instant};

use beespace::fail_point;
use beespace::store::Store;
use beespace_tests::crash_soak::{self, Campaign, kill};
use beespace_tests::docker;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::{NO_ENV, Process};
use serde_json::{Value, json};
use tokio::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_beespace-under-test");
const REPO: &str = "ada/hive";
const BUILDS: &str = "/api/v1/repositories/ada/hive/builds";
/// Only a failing test waits as long.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Each kill comes at another place of a build's way.
const KILLS: u64 = 8;
/// Lines of the counting step, 50 ms each.
const LINES: u64 = 12;

async fn builds(server: &Process) -> Vec<Value> {
    let Ok(answer) = server.admin().unwrap().get(&format!("{BUILDS}?limit=100")).await else { return Vec::new() };
    answer.json().unwrap_or_default().as_array().cloned().unwrap_or_default()
}

async fn wait_for(what: &str, fact: impl AsyncFn() -> bool) {
    let until = Instant::now() + WAIT_TIMEOUT;
    while !fact().await {
        assert!(Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_finished(build: &Value) -> bool {
    build["number"].is_u64() && !matches!(build["status"].as_str(), Some("pending" | "running" | "blocked"))
}

/// What of a build is left in the engine, of each kind.
async fn leftovers(build: &str) -> String {
    let mut left = String::new();
    for arguments in [["ps", "-aq"], ["network", "ls"], ["volume", "ls"]] {
        let filter = format!("label=beespace.build={build}");
        let output = Command::new("docker")
            .args(["--host", docker::HOST])
            .args(arguments)
            .args(if arguments[0] == "ps" { vec![] } else { vec!["-q"] })
            .args(["--filter", &filter])
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        left.push_str(&String::from_utf8(output.stdout).unwrap());
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_every_push_builds_exactly_once_and_nothing_is_left() {
    let image = docker::test_image().await.unwrap();
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let mut server = Process::start(PROGRAM, &gogs, "[engine]\nkind = \"docker\"\n", NO_ENV).await.unwrap();
    server.enable(REPO).await.unwrap();
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    for kill in 1..=KILLS {
        let count = format!("i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.05; done");
        let pipeline = json!({ "name": format!("p{kill}"), "steps": [{ "name": "count", "image": image, "run": count }] });
        gogs.push(REPO, "main", &[(".beespace.yml", &pipeline.to_string())], &format!("Push {kill}")).await.unwrap();
        gogs.wait_until_delivered().await.unwrap();
        // From right after the delivery to about the end of the build.
        let moment = (seed.wrapping_mul(2_654_435_761).wrapping_add(kill * 7919) % 200) + 200 * (kill - 1);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        server.kill().await.unwrap();
        server.restart(NO_ENV).unwrap();
        server.wait_until_ready().await.unwrap();
        // One kill a build: the fifth death in a row with the same row in hand would rightly end as a dead letter.
        let wanted = usize::try_from(kill).unwrap();
        wait_for("the end of the build", async || {
            let builds = builds(&server).await;
            builds.len() == wanted && builds.iter().all(is_finished)
        })
        .await;
    }
    let log = server.log();
    for build in builds(&server).await {
        let number = build["number"].as_u64().unwrap();
        let text = server.admin().unwrap().get(&format!("{BUILDS}/{number}/stages/1/steps/1/log")).await.unwrap().body;
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("line ")).collect();
        let expected: Vec<String> = (1..=LINES).map(|line| format!("line {line}")).collect();
        assert_eq!(build["status"], "success", "{build:#}\n{text}\n{log}");
        assert_eq!(lines, expected, "no line is lost, and none is there twice: {text}");
        let id = build["id"].as_str().unwrap().to_owned();
        wait_for("an engine without leftovers", async || leftovers(&id).await.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_let_go_of_yet_is_waited_for_and_one_in_use_is_named() {
    let gogs = FakeGogs::start().await.unwrap();
    let mut server = Process::start(PROGRAM, &gogs, "[engine]\nkind = \"dummy\"\n", NO_ENV).await.unwrap();
    server.kill().await.unwrap();
    let store = Store::open(&server.data().join("beespace.redb")).unwrap();
    server.restart(NO_ENV).unwrap();
    let until = Instant::now() + WAIT_TIMEOUT;
    while !server.has_exited().unwrap() {
        assert!(Instant::now() < until, "it waits for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What it said last may still be on its way.
    wait_for("it to name the file", async || server.log().contains("beespace.redb is in use by another process")).await;
    server.restart(NO_ENV).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    store.close().await;
    server.wait_until_ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_stage_is_gone_from_the_engine_says_that() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let mut server = Process::start(PROGRAM, &gogs, "[engine]\nkind = \"dummy\"\n", NO_ENV).await.unwrap();
    server.enable(REPO).await.unwrap();
    server.kill().await.unwrap();
    // The dummy engine goes with the server: after the first step, before the second.
    server.restart(&[(fail_point::VARIABLE, "before/engine/release 1")]).unwrap();
    server.wait_until_ready().await.unwrap();
    let pipeline = "steps:\n  - name: first\n    image: busybox\n  - name: second\n    image: busybox\n    env: { SLEEP: 60s }\n";
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], "Fill cells").await.unwrap();
    let until = Instant::now() + WAIT_TIMEOUT;
    while !server.was_killed().unwrap() {
        assert!(Instant::now() < until, "it does not die");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.restart(NO_ENV).unwrap();
    server.wait_until_ready().await.unwrap();
    wait_for("the end of the build", async || builds(&server).await.iter().any(is_finished)).await;
    let build = server.admin().unwrap().get(&format!("{BUILDS}/1")).await.unwrap().json().unwrap();
    let steps = &build["stages"][0]["steps"];
    assert_eq!(steps[1]["status"], "success", "{build:#}");
    assert_eq!((&steps[2]["status"], &steps[2]["reason"]["code"]), (&json!("error"), &json!("lost")), "{build:#}");
    let message = steps[2]["reason"]["message"].as_str().unwrap();
    assert!(message.contains("the engine has lost the stage's workspace"), "{message}");
}

/// Of the test below; `tests/soak` goes on for as long as one likes.
const DUMMY_KILLS: usize = 78;
const DOCKER_KILLS: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_fail_point_nothing_is_lost_nothing_done_twice_and_nothing_left() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let campaign = Campaign { program: PROGRAM.to_owned(), seed, kills: DUMMY_KILLS, docker_kills: DOCKER_KILLS };
    let summary = crash_soak::run(campaign).await.unwrap_or_else(|error| panic!("{error:#}"));
    println!("{}", serde_json::to_string(&summary).unwrap());
    assert!(summary.kills >= DUMMY_KILLS + DOCKER_KILLS, "{summary:#?}");
    let missed: Vec<String> = kill::fail_points().into_iter().filter(|point| !summary.at_points.contains_key(point)).collect();
    assert!(missed.is_empty(), "nobody died at {missed:?}: {summary:#?}");
    assert!(summary.logs_cut > 0 && summary.successful_builds > 0, "{summary:#?}");
    assert!(summary.has_killed_under_load(), "no server died with much in hand: {summary:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_ends_the_server_is_given_up_after_five_attempts() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let deadly = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", deadly.local_addr().unwrap());
    let notifier = crate::notify::webhook("deadly", &format!("{host}/hook"), &host);
    let settings = format!("[engine]\nkind = \"dummy\"\n{notifier}");
    let mut server = Process::start(PROGRAM, &gogs, &settings, NO_ENV).await.unwrap();
    server.set_secret("key", "a-key-for-the-receiver").await.unwrap();
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
