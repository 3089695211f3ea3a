//! An engine that goes away during a build and comes back: a container that kept running is followed without a gap, a container
//! that died is reported as lost, and nothing is left over.

use std::time::Duration;

use beespace_core::build::{Build, Step};
use beespace_core::exit::ExitCause;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::docker;
use beespace_tests::dockerd::{Dockerd, Shutdown};
use beespace_tests::gogs::FakeGogs;
use reqwest::StatusCode;
use serde_json::json;

const REPO: &str = "ada/hive";

/// How long an engine is away; `OUTAGE_SECONDS` makes it longer.
fn outage() -> Duration {
    let seconds = std::env::var("OUTAGE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// A server on an engine of its own.
struct World {
    gogs: FakeGogs,
    beespace: Beespace,
    engine: Dockerd,
    image: String,
}

impl World {
    async fn new(live_restore: bool) -> Self {
        let engine = Dockerd::start(live_restore).await.unwrap();
        let image = docker::test_image_in(&engine.api().await.unwrap()).await.unwrap();
        let gogs = FakeGogs::start().await.unwrap();
        gogs.create_repository(REPO).await.unwrap();
        let settings = format!("[engine]\nkind = \"docker\"\nhost = \"{}\"\n", engine.host());
        let beespace = Beespace::start(&gogs, &settings).await.unwrap();
        beespace.enable(REPO).await.unwrap();
        Self { gogs, beespace, engine, image }
    }

    /// A build whose step has printed something.
    async fn running(&self, script: &str) -> Build {
        let steps = json!({ "steps": [{ "name": "build", "image": self.image, "run": script }] }).to_string();
        self.gogs.push(REPO, "main", &[(".beespace.yml", &steps)], "Change the hive").await.unwrap();
        let number = u64::try_from(self.beespace.builds().unwrap().len()).unwrap().max(1);
        let look = async || {
            let Some(build) = self.beespace.build(REPO, number)? else { return Ok(None) };
            let log = self.beespace.log(&build, "build").await.unwrap_or_default();
            Ok(log.iter().any(|line| line.starts_with("cell ")).then_some(build))
        };
        self.beespace.wait_for("the step to print", look).await.unwrap()
    }

    /// The engine goes away for a while and comes back. Meanwhile the server is not ready and names the engine as the reason.
    async fn outage(&mut self, how: Shutdown, end: End) {
        self.engine.shut_down(how).await.unwrap();
        let admin = self.beespace.admin().unwrap();
        let response = admin.get("/readyz?verbose").await.unwrap();
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.body.contains("[-] engine: "), "{}", response.body);
        if end == End::DuringOutage {
            let workspace = self.engine.workspace().unwrap();
            std::fs::write(workspace.join("stop"), "").unwrap();
            let has_stopped = async || Ok(workspace.join("stopped").exists().then_some(()));
            self.beespace.wait_for("the script to stop", has_stopped).await.unwrap();
        }
        tokio::time::sleep(outage()).await;
        self.engine.restart().await.unwrap();
        let is_ready = async || Ok(admin.get("/readyz").await?.status.is_success().then_some(()));
        self.beespace.wait_for("the server to be ready", is_ready).await.unwrap();
    }

    /// The server is ready before it follows the container again, and it counts an exit shortly after an outage as unobserved.
    /// Sixty lines take six seconds.
    async fn wait_until_log_continues(&self) {
        let build = self.beespace.build(REPO, 1).unwrap().unwrap();
        let lines = async || self.beespace.log(&build, "build").await.unwrap_or_default().len();
        let before = lines().await;
        let continues = async || Ok((lines().await > before + 60).then_some(()));
        self.beespace.wait_for("the log to continue", continues).await.unwrap();
    }

    async fn assert_clean(&self) {
        crate::needs_docker::flow_docker::assert_clean(&self.beespace).await;
    }
}

/// Prints a line every tenth of a second until a file in its workspace stops it, and then fails.
const TICKING_SCRIPT: &str =
    "set +x; i=0; until [ -e stop ]; do i=$((i+1)); echo cell $i; sleep 0.1; done; touch stopped; exit 7";

/// When the script of a build ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With its engine.
    WithEngine,
    /// While its engine is away.
    DuringOutage,
    /// When its engine is back and the server is ready again.
    AfterOutage,
}

/// A build whose engine goes away and comes back while its step runs, and the step.
async fn build_across_outage(live_restore: bool, how: Shutdown, end: End) -> (World, Build, Step) {
    let mut world = World::new(live_restore).await;
    world.running(TICKING_SCRIPT).await;
    world.outage(how, end).await;
    if end == End::AfterOutage {
        world.wait_until_log_continues().await;
        std::fs::write(world.engine.workspace().unwrap().join("stop"), "").unwrap();
    }
    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    let step = world.beespace.step(&build, "build").unwrap();
    (world, build, step)
}

async fn container_keeps_running(how: Shutdown) {
    let (world, build, step) = build_across_outage(true, how, End::AfterOutage).await;
    let exit = step.exits.first().unwrap();
    assert_eq!((build.status, exit.cause, exit.code), (Status::Failure, ExitCause::Exited, Some(7)), "{:?}", build.reason);
    let log = world.beespace.log(&build, "build").await.unwrap();
    let seen: Vec<&String> = log.iter().filter(|line| line.starts_with("cell ")).collect();
    let expected: Vec<String> = (1..=seen.len()).map(|cell| format!("cell {cell}")).collect();
    assert_eq!(seen, expected.iter().collect::<Vec<_>>(), "each line once");
    assert_eq!((exit.output_incomplete, step.log_incomplete), (false, None));
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_survives_a_stopped_engine_loses_no_output() {
    container_keeps_running(Shutdown::Graceful).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_survives_a_killed_engine_loses_no_output() {
    container_keeps_running(Shutdown::Killed).await;
}

async fn container_dies_with_engine(how: Shutdown) {
    let (world, build, step) = build_across_outage(false, how, End::WithEngine).await;
    let reason = step.reason.as_ref().unwrap().to_string();
    assert_eq!((build.status, step.exits.first().unwrap().cause), (Status::Error, ExitCause::Lost), "{reason}");
    assert!(reason.contains("a restart of the engine") && reason.contains("restart the build"), "{reason}");
    let log = world.beespace.log(&build, "build").await.unwrap();
    assert!(log.iter().any(|line| line.starts_with("this log is incomplete: the engine was unreachable")), "{log:?}");
    assert!(step.log_incomplete.is_some_and(|lacks| lacks.contains("the engine was unreachable")));
    // The next build is not affected.
    world.running("echo cell 1").await;
    assert_eq!(world.beespace.wait_until_finished(REPO, 2).await.unwrap().status, Status::Success);
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_killed_by_a_stopping_engine_is_lost_and_not_a_failure() {
    container_dies_with_engine(Shutdown::Graceful).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_killed_with_its_engine_is_lost_and_not_a_failure() {
    container_dies_with_engine(Shutdown::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unobserved_exit_reports_its_code_and_a_possibly_incomplete_log() {
    let (world, build, step) = build_across_outage(true, Shutdown::Killed, End::DuringOutage).await;
    let exit = step.exits.first().unwrap();
    assert_eq!((build.status, exit.cause, exit.code), (Status::Failure, ExitCause::Exited, Some(7)), "{:?}", build.reason);
    assert!(step.log_incomplete.is_some_and(|lacks| lacks.contains("the engine was unreachable")));
    world.assert_clean().await;
}
