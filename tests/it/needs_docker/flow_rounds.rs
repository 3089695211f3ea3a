//! Step types that run containers in rounds.

use std::path::Path;

use beespace_core::status::Status;
use serde_json::{Value, json};

use crate::needs_docker::flow_docker::{World, assert_clean};

const REPO: &str = "ada/hive";

/// A server that offers the step type `rounds`.
async fn world(extra: &str) -> World {
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests/rounds.wasm");
    World::new(&format!("[[step]]\nname = \"rounds\"\nplugin = {:?}\n{extra}", plugin.canonicalize().unwrap())).await
}

/// A pipeline of one such step.
fn pipeline(with: &Value) -> Value {
    json!({ "steps": [{ "name": "work", "uses": "rounds", "with": with }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_run_one_after_the_other_into_one_log() {
    let world = world("").await;
    let rounds = json!([["echo one > made; echo first"], ["cat made; echo second"], ["echo third"]]);
    let build = world.build(pipeline(&json!({ "images": [world.image], "rounds": rounds }))).await;
    let log = world.log(&build, "work").await;
    assert_eq!(build.status, Status::Success, "{log:#?} {build:#?}");
    assert_eq!(log, ["first", "one", "second", "third"]);
    assert_eq!(world.step(&build, "work").round.unwrap().number, 2);
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_baseline_policy_checks_every_round_of_a_step_type() {
    let world = world("").await;
    let at = |mounts: Value| json!({ "images": [world.image], "rounds": [["echo first"], ["echo second"]], "mounts": mounts });
    let first = world.build(pipeline(&at(json!(["/etc"])))).await;
    assert_eq!((first.status, world.log(&first, "work").await), (Status::Declined, Vec::new()), "nothing ran");
    let reason = first.reason.unwrap().to_string();
    assert!(reason.contains("baseline policy") && reason.contains("/etc"), "{reason}");

    world.push(pipeline(&at(json!(["/workspace", "/etc"])))).await;
    let second = world.beespace.wait_until_finished(REPO, 2).await.unwrap();
    let log = world.log(&second, "work").await;
    assert_eq!(second.status, Status::Declined, "{log:#?}");
    assert!(log.first().is_some_and(|line| line == "first") && !log.contains(&"second".to_owned()), "{log:#?}");
    let reason = world.step(&second, "work").reason.unwrap().to_string();
    assert!(reason.contains("the next plan") && reason.contains("/etc"), "{reason}");
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_a_round_repeats_no_line_of_any_container_and_no_round() {
    let world = world("").await;
    let count = |name: &str| format!("for n in 1 2 3 4 5 6 7 8; do echo {name} $n; sleep 0.3; done");
    let rounds = json!([["echo x >> begun"], [count("a"), count("b")], ["cat begun"]]);
    world.push(pipeline(&json!({ "images": [world.image], "rounds": rounds }))).await;
    let build = world.running("work").await;
    let World { gogs, mut beespace, .. } = world;
    for (container, line) in [("a", 2), ("b", 5)] {
        let seen = async || {
            let log = beespace.log(&build, "work").await?;
            Ok(log.contains(&format!("{container} {line}")).then_some(()))
        };
        beespace.wait_for("the next lines", seen).await.unwrap();
        beespace = beespace.restart().await.unwrap();
    }
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let log = beespace.log(&build, "work").await.unwrap();
    assert_eq!(build.status, Status::Success, "{log:#?}");
    for container in ["a", "b"] {
        let lines: Vec<&String> = log.iter().filter(|line| line.starts_with(&format!("{container} "))).collect();
        assert_eq!(lines, (1..=8).map(|n| format!("{container} {n}")).collect::<Vec<_>>().iter().collect::<Vec<_>>(), "{log:#?}");
    }
    assert_eq!(log.iter().filter(|line| *line == "x").count(), 1, "the first round ran once: {log:#?}");
    assert_clean(&beespace).await;
    drop(gogs);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_check_later_rounds_like_the_first() {
    let image = beespace_tests::docker::test_image().await.unwrap();
    let allowed = image.split(':').next().unwrap();
    let policy = format!(
        "[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\nsettings = \
         {{ repositories = [\"docker.io/library/{allowed}\"] }}\n"
    );
    let world = world(&policy).await;
    let rounds = json!([["echo first"], ["echo second"]]);
    let build = world.build(pipeline(&json!({ "images": [image, "localhost:1/not/allowed:1"], "rounds": rounds }))).await;
    let step = world.step(&build, "work");
    assert_eq!((build.status, step.status), (Status::Declined, Status::Declined), "{step:#?}");
    let reason = step.reason.unwrap().to_string();
    assert!(
        reason.contains("policies deny the next plan of step \"work\"") && reason.contains("localhost:1/not/allowed"),
        "{reason}"
    );
    let log = world.log(&build, "work").await;
    assert!(log.iter().any(|line| line == "first") && !log.iter().any(|line| line == "second"), "{log:#?}");
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_step_may_clean_up_and_stays_stopped() {
    let world = world("").await;
    let with = json!({ "images": [world.image], "rounds": [["echo on; sleep 60"]], "clean": "echo cleaned" });
    world.push(pipeline(&with)).await;
    let build = world.running("work").await;
    let on = async || Ok(world.beespace.log(&build, "work").await?.iter().any(|line| line == "on").then_some(()));
    world.beespace.wait_for("the container's first line", on).await.unwrap();
    world.cancel(&build).await;
    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    let log = world.log(&build, "work").await;
    assert_eq!((build.status, world.step(&build, "work").status), (Status::Killed, Status::Killed), "{log:#?}");
    assert!(log.iter().any(|line| line == "cleaned"), "{log:#?}");
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_env_of_the_pipeline_file_applies_to_every_round() {
    let world = world("").await;
    let with = json!({ "images": [world.image], "rounds": [["echo $HIVE $BEES"], ["echo $HIVE $BEES"]] });
    let step = json!({ "name": "work", "uses": "rounds", "with": with, "env": { "BEES": "many" } });
    let build = world.build(json!({ "env": { "HIVE": "old", "BEES": "few" }, "steps": [step] })).await;
    assert_eq!(world.log(&build, "work").await, ["old many", "old many"], "{build:#?}");
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeout_of_a_step_applies_to_the_rounds_of_its_type() {
    let world = world("").await;
    let with = json!({ "images": [world.image], "rounds": [["sleep 60"]] });
    let build = world.build(json!({ "steps": [{ "name": "work", "uses": "rounds", "with": with, "timeout": "1s" }] })).await;
    let step = world.step(&build, "work");
    assert_eq!(step.exits[0].cause, beespace_core::exit::ExitCause::TimedOut, "{step:#?}");
    world.assert_clean().await;
}
