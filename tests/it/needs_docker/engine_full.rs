//! A container that fills the disk of its engine: its program fails, and the space is available again afterwards.

use beespace_core::exit::ExitCause;
use beespace_core::status::Status;
use beespace_tests::docker;
use beespace_tests::dockerd::Dockerd;
use serde_json::{Value, json};

use crate::needs_docker::flow_docker::World;

const REPO: &str = "ada/hive";

/// The size of the engine's disk, which also holds the images.
const DISK: &str = "256m";
/// MiB that fit only if nothing remains of the container that filled the disk.
const MAX_STEPS: u32 = 192;

fn one_step(run: &str) -> Value {
    json!({ "steps": [{ "name": "fill", "run": run }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_fills_the_engines_disk_fails_and_frees_the_space() {
    let engine = Dockerd::start_on(DISK).await.unwrap();
    let image = docker::test_image_in(&engine.api().await.unwrap()).await.unwrap();
    let world = World::with(image, &format!("host = \"{}\"\n", engine.host())).await;
    // In the container's own file system, and in the workspace.
    for (number, file) in [(1, "/big"), (2, "big")] {
        world.push(one_step(&format!("dd if=/dev/zero of={file} bs=1M || exit 7"))).await;
        let build = world.beespace.wait_until_finished(REPO, number).await.unwrap();
        let (step, log) = (world.step(&build, "fill"), world.log(&build, "fill").await);
        let ends: Vec<_> = step.exits.iter().map(|exit| (exit.cause, exit.code)).collect();
        assert_eq!((build.status, ends), (Status::Failure, vec![(ExitCause::Exited, Some(7))]), "{:?} {log:#?}", step.reason);
        assert!(log.iter().any(|line| line.ends_with("No space left on device")), "{log:#?}");
        world.assert_clean().await;
    }
    world.push(one_step(&format!("dd if=/dev/zero of=big bs=1M count={MAX_STEPS}"))).await;
    let build = world.beespace.wait_until_finished(REPO, 3).await.unwrap();
    let log = world.log(&build, "fill").await;
    assert_eq!(build.status, Status::Success, "{:?} {log:#?}", build.reason);
}
