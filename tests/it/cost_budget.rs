//! The cost of a build in things that can be counted, because counts are the same on every machine. Each was once measured as a
//! part of the time from a push to its first step.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use beespace_core::status::Status;
use beespace_tests::WAIT_TIMEOUT;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::Process;
use serde_json::{Value, json};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_beespace-under-test");

pub(crate) const REPO: &str = "ada/hive";

/// Five consecutive steps that do nothing.
pub(crate) fn five_steps(image: &str, build: usize) -> String {
    let step = |number: usize| {
        let needs: Vec<String> = (1..number).last().map(|before| format!("s{before}")).into_iter().collect();
        json!({ "name": format!("s{number}"), "image": image, "run": "true", "needs": needs })
    };
    json!({ "name": format!("p{build}"), "steps": (1..=5).map(step).collect::<Vec<Value>>() }).to_string()
}

pub(crate) async fn wait_for(what: &str, fact: impl AsyncFn() -> bool) {
    let until = Instant::now() + WAIT_TIMEOUT;
    while !fact().await {
        assert!(Instant::now() < until, "timed out while waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a build has succeeded.
pub(crate) async fn wait_for_success(server: &Process, build: usize) -> Value {
    let path = format!("/api/v1/repositories/{REPO}/builds/{build}");
    let look = async || server.admin().unwrap().get(&path).await.ok()?.json().ok();
    wait_for("the end of the build", async || look().await.is_some_and(|build| build["status"] == "success")).await;
    look().await.unwrap()
}

/// A directory for `PATH` with a `git` that records each call and then runs the real git.
pub(crate) fn counting_git(folder: &Path) -> (String, PathBuf) {
    let (program, calls) = (folder.join("git"), folder.join("calls"));
    let path = std::env::var("PATH").unwrap();
    let script = format!("#!/bin/sh\necho \"$1\" >> {}\nPATH={path} exec git \"$@\"\n", calls.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (format!("{}:{path}", folder.display()), calls)
}

pub(crate) fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The step type lists the files page by page, and once for each of its rules; two steps do so.
#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_commit_are_listed_once_per_stage() {
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
    // One more call looks for the pipeline file, and one counts the files before the checkout.
    assert_eq!(git.iter().filter(|call| *call == "ls-tree").count(), 3, "{git:?}");
}

/// Store commits, each of which waits for the disk: the delivery, the start and the end of its event, preparation and run, the
/// sources, and the end of each step together with the start of the next.
pub(crate) const MAX_COMMITS: u64 = 18;

#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_five_steps_stays_within_its_budget_of_store_commits() {
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
