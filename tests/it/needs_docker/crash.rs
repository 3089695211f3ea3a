//! A server with running containers is killed and restarted: at random moments, at every fail point, and in bursts of pushes.

use std::time::Duration;

use beespace_tests::crash_soak::{self, Campaign, kill};
use beespace_tests::docker;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::{NO_ENV, Process};
use serde_json::json;
use tokio::process::Command;

use crate::crash::{BUILDS, PROGRAM, REPO, builds, is_finished, wait_for};

/// The number of kills, each at a different point of a build.
const KILLS: u64 = 8;

/// The lines of the counting step, one every 50 ms.
const LINES: u64 = 12;

/// The ids of a build's remaining containers, networks and volumes.
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
async fn a_server_killed_at_random_builds_every_push_once_and_leaves_nothing() {
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
        // From the delivery to about the end of the build.
        let moment = (seed.wrapping_mul(2_654_435_761).wrapping_add(kill * 7919) % 200) + 200 * (kill - 1);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        server.kill().await.unwrap();
        server.restart(NO_ENV).unwrap();
        server.wait_until_ready().await.unwrap();
        // One kill per build: after the fifth crash with the same row the row rightly becomes a dead letter.
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

/// The number of kills of the test below; `tests/soak` runs more.
const DUMMY_KILLS: usize = 78;

const DOCKER_KILLS: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_at_every_fail_point_loses_repeats_and_leaves_nothing() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let campaign = Campaign { program: PROGRAM.to_owned(), seed, kills: DUMMY_KILLS, docker_kills: DOCKER_KILLS };
    let summary = crash_soak::run(campaign).await.unwrap_or_else(|error| panic!("{error:#}"));
    println!("{}", serde_json::to_string(&summary).unwrap());
    assert!(summary.kills >= DUMMY_KILLS + DOCKER_KILLS, "{summary:#?}");
    let missed: Vec<String> = kill::fail_points().into_iter().filter(|point| !summary.at_points.contains_key(point)).collect();
    assert!(missed.is_empty(), "no server was killed at {missed:?}: {summary:#?}");
    assert!(summary.logs_cut > 0 && summary.successful_builds > 0, "{summary:#?}");
    assert!(summary.has_killed_under_load(), "no server was killed under load: {summary:#?}");
}
