//! How often a build of five steps calls the engine and git.

use beespace_tests::docker;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::Process;
use beespace_tests::tcp_proxy::{TcpProxy, Upstream};

use crate::cost_budget::{PROGRAM, REPO, counting_git, five_steps, lines, wait_for, wait_for_success};

#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_five_steps_stays_within_its_budget_of_engine_and_git_calls() {
    docker::ensure_running().unwrap();
    let image = docker::test_image().await.unwrap();
    let proxy = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (path, calls) = counting_git(folder.path());
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let engine = format!("[engine]\nkind = \"docker\"\nhost = \"tcp://{}\"\n", proxy.address());
    let server = Process::start(PROGRAM, &gogs, &engine, &[("PATH", path)]).await.unwrap();
    server.enable(REPO).await.unwrap();
    let mut before = (0, 0);
    // The first build also creates the mirror and the pause image.
    for build in 1..=2 {
        before = (proxy.requests(), lines(&calls).len());
        gogs.push(REPO, "main", &[(".beespace.yml", &five_steps(&image, build))], "Change the hive").await.unwrap();
        let id = wait_for_success(&server, build).await["id"].as_str().unwrap().to_owned();
        wait_for("an engine without leftovers", async || docker::leftover_count(&id).await.unwrap() == 0).await;
    }
    let git = lines(&calls).split_off(before.1);
    let requests = proxy.requests() - before.0;
    println!("{requests} requests to the engine, {} calls of git: {git:?}", git.len());
    assert!(git.len() <= MAX_GIT_CALLS, "git was called {} times", git.len());
    assert!(requests <= MAX_REQUESTS, "the engine was asked {requests} times");
}

/// The budget of a build of five steps, including the cleanup.
const MAX_REQUESTS: usize = 90;

/// One of them finds out whether a branch or tag has the commit: without it, nobody could trust the code.
const MAX_GIT_CALLS: usize = 17;
