//! Full disks: running steps pause, new work waits, the reason is shown, and everything continues when space is available.

use std::fs::File;

use beespace_tests::client::Client;
use beespace_tests::docker;
use beespace_tests::gogs::{Delivery, FakeGogs};
use beespace_tests::process::{Process, SmallDisk};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const PROGRAM: &str = env!("CARGO_BIN_EXE_beespace-under-test");
const REPO: &str = "ada/hive";
const BUILDS: &str = "/api/v1/repositories/ada/hive/builds";
const BUILD: &str = "/api/v1/repositories/ada/hive/builds/1";
/// The free space required to start a stage: less than the default, because the disks of these tests are small.
const SMALL_RESERVE: &[(&str, &str)] = &[("BEESPACE_LIMITS__FREE_DISK", "256KiB")];

/// A server on a small disk, and its Gogs.
struct World {
    gogs: FakeGogs,
    server: Process,
    admin: Client,
}

impl World {
    async fn new(disk: SmallDisk, extra: &str) -> Self {
        let gogs = FakeGogs::start().await.unwrap();
        gogs.create_repository(REPO).await.unwrap();
        let server = Process::start_on(Some(disk), PROGRAM, &gogs, extra, SMALL_RESERVE).await.unwrap();
        server.enable(REPO).await.unwrap();
        let admin = server.admin().unwrap();
        Self { gogs, server, admin }
    }

    async fn push(&self, steps: Value) {
        let pipeline = json!({ "steps": steps }).to_string();
        self.gogs.push(REPO, "main", &[(".beespace.yml", &pipeline)], "Fill cells").await.unwrap();
    }

    /// Waits until the first build meets a condition.
    async fn wait_for_build(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let look = async || {
            let builds = self.admin.get(BUILDS).await?.json()?;
            Ok(builds.as_array().and_then(|builds| builds.last().cloned()).filter(&wanted))
        };
        self.server.wait_for(what, look).await.unwrap()
    }

    async fn wait_for_page(&self, path: &str, text: &str) -> String {
        let look = async || Ok(Some(self.admin.get(path).await?.body).filter(|page| page.contains(text)));
        self.server.wait_for(&format!("{text:?} on {path}"), look).await.unwrap()
    }

    async fn is_not_ready(&self) {
        let response = self.admin.get("/readyz?verbose").await.unwrap();
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            response.body.contains("[-] disk: the disk of ") && response.body.contains(" has 0 MiB free"),
            "{}",
            response.body
        );
    }
}

fn is_finished(build: &Value) -> bool {
    build["finished_at"].is_string()
}

/// A step that prints this much incompressible data and finally its checksum.
async fn prints(bytes: u32) -> Value {
    let run = format!("head -c {bytes} /dev/urandom | base64 > all; cat all; echo sum $(sha256sum < all); rm all");
    json!([{ "name": "fill", "image": docker::test_image().await.unwrap(), "run": run }])
}

async fn on_small_logs() -> World {
    docker::ensure_running().unwrap();
    World::new(SmallDisk { at: "data/logs", size: "1m" }, "[engine]\nkind = \"docker\"\n").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_waits_for_space_and_is_complete_afterwards() {
    let world = on_small_logs().await;
    world.push(prints(3_000_000).await).await;
    let page = world.wait_for_page("/ada/hive/1/1/1", "the disk of the logs is full").await;
    assert!(page.contains("continues by itself"), "{page}");
    world.is_not_ready().await;
    assert_eq!(world.admin.get(BUILD).await.unwrap().json().unwrap()["status"], "running");

    world.server.resize_disk("64m").await.unwrap();
    let build = world.wait_for_build("the end of the build", is_finished).await;
    assert_eq!(build["status"], "success", "{build:#}");
    let log = world.admin.get(&format!("{BUILD}/stages/1/steps/1/log")).await.unwrap().body;
    let printed: String = log.lines().filter(|line| !line.starts_with("+ ")).map(|line| format!("{line}\n")).collect();
    let (all, sum) = printed.split_once("sum ").unwrap();
    assert!(all.len() > 4_000_000 && sum.starts_with(&hex::encode(Sha256::digest(all))), "{} bytes, {sum}", all.len());
    assert!(!world.wait_for_page("/ada/hive/1/1/1", "Succeeded").await.contains("disk of the logs"));
    assert_eq!(world.admin.get("/readyz").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_step_does_not_wait_for_disk_space() {
    let world = on_small_logs().await;
    world.push(prints(8_000_000).await).await;
    world.wait_for_page("/ada/hive/1/1/1", "the disk of the logs is full").await;
    let asked = world.admin.post(&format!("{BUILD}/cancel"), &json!({})).await.unwrap();
    assert!(asked.status.is_success(), "{asked:?}");
    let build = world.wait_for_build("the end of the build", is_finished).await;
    assert_eq!(build["status"], "killed", "{build:#}");
    let id = build["id"].as_str().unwrap();
    let is_clean = async || Ok((docker::leftover_count(id).await? == 0).then_some(()));
    world.server.wait_for("an engine without leftovers", is_clean).await.unwrap();
    world.wait_for_page("/ada/hive/1/1/1", "The log is incomplete: the disk was full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_on_a_full_disk_waits_for_space() {
    let world = World::new(SmallDisk { at: "data", size: "8m" }, "[engine]\nkind = \"dummy\"\n").await;
    let mut bulk = vec![0; 12_000_000];
    getrandom::fill(&mut bulk).unwrap();
    let steps = json!({ "steps": [{ "name": "build", "image": "busybox" }] }).to_string();
    let files = [(".beespace.yml", &*steps), ("bulk", &hex::encode(bulk))];
    world.gogs.push(REPO, "main", &files, "Bring a lot").await.unwrap();
    let waiting =
        world.wait_for_build("the build to say what it waits for", |build| build["reason"]["code"] == "disk-full").await;
    assert_eq!(waiting["status"], "pending", "{waiting:#}");
    world.wait_for_page(waiting["href"].as_str().unwrap(), "free disk space under").await;

    world.server.resize_disk("256m").await.unwrap();
    let build = world.wait_for_build("the end of the build", is_finished).await;
    assert_eq!(build["status"], "success", "{build:#}");
}

/// Pushes files whose checkout is larger than the disk, waits for the clone's log, gives the disk more space, and waits for the
/// end of the build.
async fn waits_for_a_checkout(files: &[(&str, &str)], logged: &str) {
    let world = World::new(SmallDisk { at: "data", size: "24m" }, "[engine]\nkind = \"dummy\"\n").await;
    let steps = json!({ "steps": [{ "name": "build", "image": "busybox" }] }).to_string();
    let files: Vec<_> = files.iter().copied().chain([(".beespace.yml", &*steps)]).collect();
    world.gogs.push(REPO, "main", &files, "Little to fetch, much to check out").await.unwrap();
    world.wait_for_page("/api/v1/repositories/ada/hive/builds/1/stages/1/steps/0/log", logged).await;
    assert_eq!(world.admin.get(BUILD).await.unwrap().json().unwrap()["status"], "running");

    world.server.resize_disk("512m").await.unwrap();
    let build = world.wait_for_build("the end of the build", is_finished).await;
    assert_eq!(build["status"], "success", "{build:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_without_room_is_not_begun_and_waits_for_space() {
    let letters = "a".repeat(64 << 20);
    waits_for_a_checkout(&[("letters", &letters)], "the checkout does not fit on the disk of ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_that_fills_the_disk_is_stopped_and_waits_for_space() {
    // Git replaces each `$Id$` by ten times as many bytes.
    let text = "$Id$\n".repeat(1 << 20);
    waits_for_a_checkout(&[("text", &text), (".gitattributes", "text ident\n")], "the disk is full: ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_writes_until_space_is_available() {
    let world = World::new(SmallDisk { at: "data", size: "16m" }, "[engine]\nkind = \"dummy\"\n").await;
    let used = walk(&world.server.data());
    // Not a page more than the data that exists already.
    world.server.resize_disk(&format!("{}k", used.div_ceil(4096) * 4)).await.unwrap();
    let mut pushed = 0;
    let refused = loop {
        pushed += 1;
        world.push(json!([{ "name": "build", "image": "busybox", "env": { "OUTPUT": "cells ".repeat(pushed * 50) } }])).await;
        let deliveries = world.gogs.wait_until_delivered().await.unwrap();
        let refused: Vec<Delivery> = deliveries.into_iter().filter(|delivery| delivery.status() != Some(202)).collect();
        if !refused.is_empty() {
            break refused;
        }
        assert!(pushed < 200, "a full disk accepts everything");
    };
    assert!(refused.iter().all(|delivery| delivery.status() == Some(503)), "{refused:?}");
    world.is_not_ready().await;
    world.wait_for_page("/", "disk is full; work continues by itself").await;

    world.server.resize_disk("256m").await.unwrap();
    let is_ready = async || Ok(world.admin.get("/readyz").await?.status.is_success().then_some(()));
    world.server.wait_for("the server to be ready", is_ready).await.unwrap();
    for delivery in &refused {
        world.gogs.redeliver(&delivery.uuid).unwrap();
    }
    let builds = "/api/v1/repositories/ada/hive/builds?limit=1000";
    let all_over = async || {
        let builds = world.admin.get(builds).await?.json()?;
        let builds: Vec<Value> = builds.as_array().cloned().unwrap_or_default();
        Ok((builds.len() == pushed && builds.iter().all(is_finished)).then_some(builds))
    };
    let builds = world.server.wait_for("the end of all builds", all_over).await.unwrap();
    let ended = |status: &str| builds.iter().filter(|build| build["status"] == status).count();
    // A branch that moved on while the disk was full is built at its new commit.
    assert_eq!(ended("success") + ended("skipped"), pushed, "{builds:#?}");
    assert_eq!(builds.first().unwrap()["status"], "success", "{builds:#?}");
    assert!(!world.admin.get("/").await.unwrap().body.contains("low on disk space"));

    let is_taken = |all: &[Delivery]| all.iter().all(|delivery| delivery.status() == Some(202));
    let taken = world.gogs.wait_for_deliveries("every delivery to be taken", is_taken).await.unwrap();
    assert!(taken.len() >= pushed, "{} deliveries of {pushed} pushes", taken.len());
    // The disk disappears with the server; an open file on it stays readable.
    let mut store = File::open(world.server.data().join("beespace.redb")).unwrap();
    let folder = world.server.stop().await.unwrap();
    let copy = folder.path().join("copy.redb");
    std::io::copy(&mut store, &mut File::create(&copy).unwrap()).unwrap();
    crate::store_full::is_whole_with(&copy, &taken);
}

/// The disk usage of a folder in bytes.
fn walk(folder: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { entry.metadata().unwrap().blocks() * 512 }).sum()
}
