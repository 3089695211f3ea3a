//! What a build costs, in things that can be counted: they are the same on every machine, and each was a measured part of how long a push takes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::docker;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::{NO_ENV, Process};
use beespace_tests::tcp_proxy::{TcpProxy, Upstream};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_beespace-under-test");
const REPO: &str = "ada/hive";
/// Only a failing test waits as long.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Five steps, one after the other, that do nothing.
fn five_steps(image: &str, build: usize) -> String {
    let step = |number: usize| {
        let needs: Vec<String> = (1..number).last().map(|before| format!("s{before}")).into_iter().collect();
        json!({ "name": format!("s{number}"), "image": image, "run": "true", "needs": needs })
    };
    json!({ "name": format!("p{build}"), "steps": (1..=5).map(step).collect::<Vec<Value>>() }).to_string()
}

async fn wait_for(what: &str, fact: impl AsyncFn() -> bool) {
    let until = Instant::now() + WAIT_TIMEOUT;
    while !fact().await {
        assert!(Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A build that has ended well.
async fn wait_for_success(server: &Process, build: usize) -> Value {
    let path = format!("/api/v1/repositories/{REPO}/builds/{build}");
    let look = async || server.admin().unwrap().get(&path).await.ok()?.json().ok();
    wait_for("the end of the build", async || look().await.is_some_and(|build| build["status"] == "success")).await;
    look().await.unwrap()
}

/// A folder for `PATH` whose `git` notes each of its calls and goes on as the machine's.
fn counting_git(folder: &Path) -> (String, PathBuf) {
    let (program, calls) = (folder.join("git"), folder.join("calls"));
    let path = std::env::var("PATH").unwrap();
    let script = format!("#!/bin/sh\necho \"$1\" >> {}\nPATH={path} exec git \"$@\"\n", calls.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (format!("{}:{path}", folder.display()), calls)
}

/// The server as a program that notes each of some calls of the system, those of the programs it runs included.
fn counting_calls(folder: &Path, calls: &str) -> (String, PathBuf) {
    let (program, noted) = (folder.join("beespace"), folder.join("noted"));
    // Two cores, so that as many things happen beside each other everywhere.
    let note = format!(
        "taskset --cpu-list 0,1 strace -D -f --seccomp-bpf -qq -z -e signal=none -e trace={calls} -o {}",
        noted.display()
    );
    std::fs::write(&program, format!("#!/bin/sh\nexec {note} {PROGRAM} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (program.display().to_string(), noted)
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_five_steps_asks_the_engine_and_git_only_so_often() {
    docker::ensure_running().unwrap();
    let image = docker::test_image().await.unwrap();
    let line = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (path, calls) = counting_git(folder.path());
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let engine = format!("[engine]\nkind = \"docker\"\nhost = \"tcp://{}\"\n", line.address());
    let server = Process::start(PROGRAM, &gogs, &engine, &[("PATH", path)]).await.unwrap();
    server.enable(REPO).await.unwrap();
    let mut before = (0, 0);
    // The first one also makes what lasts: the mirror, the image of the gate.
    for build in 1..=2 {
        before = (line.requests(), lines(&calls).len());
        gogs.push(REPO, "main", &[(".beespace.yml", &five_steps(&image, build))], "Change the hive").await.unwrap();
        let id = wait_for_success(&server, build).await["id"].as_str().unwrap().to_owned();
        wait_for("an engine without leftovers", async || docker::leftover_count(&id).await.unwrap() == 0).await;
    }
    let git = lines(&calls).split_off(before.1);
    let requests = line.requests() - before.0;
    println!("{requests} requests to the engine, {} calls of git: {git:?}", git.len());
    assert!(git.len() <= MAX_GIT_CALLS, "git was called {} times", git.len());
    assert!(requests <= MAX_REQUESTS, "the engine was asked {requests} times");
}

/// A step type lists page by page, and once for each of its rules; two steps ask for the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_listed_once_however_much_of_it_a_step_type_wants_to_see() {
    let folder = tempfile::tempdir().unwrap();
    let (path, calls) = counting_git(folder.path());
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target/plugins/step-check.wasm");
    let settings = format!("[engine]\nkind = \"dummy\"\n[[step]]\nname = \"check\"\nplugin = {plugin:?}\n");
    let server = Process::start(PROGRAM, &gogs, &settings, &[("PATH", path)]).await.unwrap();
    server.enable(REPO).await.unwrap();
    let files: Vec<(String, &str)> = (0..2_500).map(|number| (format!("cells/{number}"), "")).collect();
    let mut files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let step = |name| json!({ "name": name, "uses": "check", "with": { "require": ["cells/*", "cells/1*", ".beespace.yml"] } });
    let file = json!({ "steps": [step("files"), step("again")] }).to_string();
    files.push((".beespace.yml", &file));
    gogs.push(REPO, "main", &files, "Fill the hive").await.unwrap();
    wait_for_success(&server, 1).await;
    let git = lines(&calls);
    // The pipeline file is looked for, too.
    assert_eq!(git.iter().filter(|call| *call == "ls-tree").count(), 2, "{git:?}");
}

/// Of a build of five steps, with what is removed after it.
const MAX_REQUESTS: usize = 90;
const MAX_GIT_CALLS: usize = 15;

/// Changes of the store, each of which waits for the disk: the delivery, its event, its preparation and its run taken up and settled, the sources,
/// and of each step its end with the next one's start.
const MAX_COMMITS: u64 = 18;

#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_five_steps_takes_only_so_many_turns_of_the_disk() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start(&gogs, "[engine]\nkind = \"dummy\"\n").await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let before = beespace.app.store.commits();
    gogs.push(REPO, "main", &[(".beespace.yml", &five_steps("busybox", 1))], "Change the hive").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{build:#?}");
    let commits = beespace.app.store.commits() - before;
    println!("{commits} commits");
    assert!(commits <= MAX_COMMITS, "{commits} commits");
}

/// What the system is asked to bring to the disk: twice for each change of the store, whose file needs no repair after a crash for it; and of each log what
/// the container said, the name of the file, and the end, which nobody waits for. Git brings nothing there for a fetch of a few objects.
const MAX_SYNCS: usize = 2 * MAX_COMMITS as usize + 3 * 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_five_steps_asks_the_system_to_bring_only_so_much_to_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (program, syncs) = counting_calls(folder.path(), "fsync,fdatasync,sync_file_range,syncfs,sync");
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let server = Process::start(&program, &gogs, "[engine]\nkind = \"dummy\"\n", NO_ENV).await.unwrap();
    server.enable(REPO).await.unwrap();
    let before = lines(&syncs).len();
    assert!(before > 0, "nothing is noted");
    gogs.push(REPO, "main", &[(".beespace.yml", &five_steps("busybox", 1))], "Change the hive").await.unwrap();
    wait_for_success(&server, 1).await;
    let syncs = lines(&syncs).split_off(before);
    println!("{} syncs", syncs.len());
    assert!(syncs.len() <= MAX_SYNCS, "{} syncs: {syncs:#?}", syncs.len());
}

/// Pieces of memory that are mapped to their places while many policies are asked about many steps: what starts each git, and less than one for
/// every second word of a policy.
const MAX_MAPPINGS: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_policies_find_their_memory_where_their_last_calls_left_it() {
    const POLICIES: usize = 20;
    const STEPS: usize = 50;
    let folder = tempfile::tempdir().unwrap();
    let (program, mappings) = counting_calls(folder.path(), "mmap");
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target/plugins/policy-images.wasm");
    let policy = |number| {
        format!("[[policy]]\nname = \"p{number}\"\nplugin = {plugin:?}\nsettings = {{ forbidden_tags = [\"never\"] }}\n")
    };
    let settings = "[engine]\nkind = \"dummy\"\n".to_owned() + &(1..=POLICIES).map(policy).collect::<String>();
    let server = Process::start(&program, &gogs, &settings, NO_ENV).await.unwrap();
    server.enable(REPO).await.unwrap();
    let fixed = || lines(&mappings).iter().filter(|line| line.contains("MAP_FIXED")).count();
    let mut before = 0;
    for build in 1..=3 {
        before = fixed();
        let step = |number| json!({ "name": format!("s{number}"), "image": "busybox", "run": "true" });
        let file = json!({ "name": format!("p{build}"), "steps": (1..=STEPS).map(step).collect::<Vec<Value>>() });
        gogs.push(REPO, "main", &[(".beespace.yml", &file.to_string())], "Change the hive").await.unwrap();
        wait_for_success(&server, build).await;
    }
    assert!(before > 0, "nothing is noted");
    let mapped = fixed() - before;
    println!("{mapped} mappings for {} words of policies", POLICIES * (STEPS + 1));
    assert!(mapped <= MAX_MAPPINGS, "{mapped} mappings");
}
