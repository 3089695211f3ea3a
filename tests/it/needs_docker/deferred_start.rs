//! Containers that are started early and wait for their start signal: nothing of their script runs before it, and each runs once,
//! whatever happens to the server that started it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use beespace::engine::Launch;
use beespace::engine::docker::{Docker, DockerOptions};
use beespace_core::exit::ExitCause;
use beespace_core::output::OutputOffsets;
use beespace_tests::WAIT_TIMEOUT;
use beespace_tests::docker;
use beespace_tests::dockerd::{Dockerd, Shutdown};
use beespace_tests::engine_fixture::{EngineFixture, collect_output};
use bollard::models::ContainerStateStatusEnum as State;
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// An engine fixture whose server process can be replaced.
struct World {
    api: bollard::Docker,
    host: String,
    instance: String,
    fixture: EngineFixture,
}

impl World {
    async fn new() -> Self {
        docker::ensure_running().unwrap();
        let image = docker::test_image().await.unwrap();
        Self::on(docker::api().await.unwrap(), docker::HOST.to_owned(), image).await
    }

    async fn on(api: bollard::Docker, host: String, image: String) -> Self {
        let instance = docker::instance();
        let engine = Docker::new(docker::options(&host, &instance)).unwrap();
        let fixture = EngineFixture::on(Arc::new(engine), image).await;
        Self { api, host, instance, fixture }
    }

    /// Another process of the same instance takes over; the unfinished work of the old process ends.
    fn replace_process(&mut self) {
        self.fixture.engine = Arc::new(Docker::new(docker::options(&self.host, &self.instance)).unwrap());
    }

    /// The id and the state of the container of a launch.
    async fn inspect(&self, launch: &Launch) -> (String, State) {
        let label = format!("beespace.step={}", launch.step);
        let filters = [("label".to_owned(), vec![label])].into();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.api.list_containers(Some(options)).await.unwrap();
        let [container] = found.as_slice() else { panic!("{found:#?}") };
        let id = container.id.clone().unwrap();
        let state = self.api.inspect_container(&id, None::<InspectContainerOptions>).await.unwrap().state.unwrap();
        (id, state.status.unwrap())
    }

    /// Waits until a container has printed something to both streams.
    async fn wait_for_output(&self, id: &str) {
        let options = || LogsOptionsBuilder::new().stdout(true).stderr(true).build();
        let began = Instant::now();
        while self.api.logs(id, Some(options())).count().await < 2 {
            assert!(began.elapsed() < WAIT_TIMEOUT, "no output");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_until(&self, launch: &Launch, wanted: State) {
        let began = Instant::now();
        while self.inspect(launch).await.1 != wanted {
            assert!(began.elapsed() < WAIT_TIMEOUT, "it is {:?}", self.inspect(launch).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn prepare(&self, launch: &Launch) {
        self.fixture.engine.prepare(launch).await.unwrap();
        assert_eq!(self.inspect(launch).await.1, State::RUNNING);
    }

    /// Gives the start signal and checks that the script runs once.
    async fn assert_runs_once(&self, launch: Launch) {
        let (exit, output) = self.fixture.run(launch).await;
        assert!(exit.is_success(), "{exit:?}");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("once\n", ""));
        assert_eq!(self.fixture.shell_output(90, "cat marks").await, "mark\n");
    }
}

/// Leaves a mark each time it runs.
const RUN_ONCE_SCRIPT: &str = "echo mark >> marks; echo once";

#[tokio::test]
async fn a_prepared_script_runs_nothing_before_its_start_signal_and_keeps_its_container() {
    let world = World::new().await;
    let launch = world.fixture.launch(1, world.fixture.shell_container(RUN_ONCE_SCRIPT));
    world.prepare(&launch).await;
    let id = world.inspect(&launch).await.0;
    // The script is in the container already; another container would see its effects.
    assert_eq!(world.fixture.shell_output(2, "ls").await, "");
    world.assert_runs_once(launch.clone()).await;
    assert_eq!(world.inspect(&launch).await, (id, State::EXITED));
    world.fixture.destroy().await;
}

#[tokio::test]
async fn the_time_before_the_start_signal_does_not_count() {
    let mut world = World::new().await;
    let mut container = world.fixture.shell_container(RUN_ONCE_SCRIPT);
    container.limits.timeout_seconds = Some(10);
    let launch = world.fixture.launch(1, container);
    world.prepare(&launch).await;
    // The container is older than its timeout when it starts.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let began = Instant::now();
    let (exit, output) = world.fixture.run(launch.clone()).await;
    let most = u64::try_from(began.elapsed().as_millis()).unwrap();
    assert!(exit.is_success() && output.stdout == "once\n" && exit.duration_ms <= most, "{exit:?}, at most {most} ms");
    // A process that adopts it later reports the same, apart from the difference of clocks.
    world.replace_process();
    let (again, repeated) = world.fixture.adopt(launch, OutputOffsets::default()).await.unwrap();
    assert!(again.is_success() && repeated.stdout == "once\n" && again.duration_ms < most + 10_000, "{again:?}");
    world.fixture.destroy().await;
}

#[tokio::test]
async fn a_script_has_empty_stdin_and_no_trace_of_the_start_gate() {
    let world = World::new().await;
    let launch = world.fixture.launch(1, world.fixture.shell_container("cat; set +x; env; trap; echo $0"));
    world.prepare(&launch).await;
    let (exit, output) = world.fixture.run(launch).await;
    assert!(exit.is_success(), "{exit:?}");
    assert!(!output.stdout.contains("BEESPACE_START_SIGNAL") && !output.stdout.contains("trap"), "{}", output.stdout);
    assert!(output.stdout.ends_with("/.beespace/script-1\n"), "{}", output.stdout);
    world.fixture.destroy().await;
}

#[tokio::test]
async fn a_waiting_container_exits_when_its_server_is_gone_and_still_runs_once() {
    let mut world = World::new().await;
    let [first, second, third] = [1, 2, 3].map(|step| world.fixture.launch(step, world.fixture.shell_container(RUN_ONCE_SCRIPT)));
    for launch in [&first, &second, &third] {
        world.prepare(launch).await;
    }
    world.replace_process();
    for launch in [&first, &second, &third] {
        world.wait_until(launch, State::EXITED).await;
    }
    // The stored row is "running" or "waiting"; depending on it, the container is prepared again or not.
    let (exit, output) = world.fixture.adopt(first, OutputOffsets::default()).await.unwrap();
    assert!(exit.is_success() && output.stdout == "once\n", "{exit:?}");
    world.prepare(&second).await;
    for launch in [second, third] {
        let (exit, output) = world.fixture.run(launch).await;
        assert!(exit.is_success() && output.stdout == "once\n", "{exit:?}");
    }
    assert_eq!(world.fixture.shell_output(90, "cat marks").await, "mark\n".repeat(3));
    world.fixture.destroy().await;
}

#[tokio::test]
async fn a_shell_that_prints_before_its_start_signal_keeps_its_container_and_runs_once() {
    let image = docker::image_with(docker::noisy_shell_layer().unwrap(), &[]).await.unwrap();
    let mut world = World::on(docker::api().await.unwrap(), docker::HOST.to_owned(), image).await;
    let [first, second, third, fourth] =
        [1, 2, 3, 4].map(|step| world.fixture.launch(step, world.fixture.shell_container(RUN_ONCE_SCRIPT)));
    for launch in [&first, &second, &third, &fourth] {
        world.prepare(launch).await;
    }
    let id = world.inspect(&first).await.0;
    world.wait_for_output(&id).await;
    let (exit, output) = world.fixture.run(first.clone()).await;
    assert!(exit.is_success() && output.stdout.ends_with("once\n"), "{exit:?} {output:?}");
    assert!(!output.stdout.contains("beespace: started"), "{output:?}");
    assert_eq!(world.inspect(&first).await.0, id, "the prepared container is used");
    for launch in [&second, &third, &fourth] {
        world.wait_for_output(&world.inspect(launch).await.0).await;
    }
    world.replace_process();
    for launch in [&second, &third, &fourth] {
        world.wait_until(launch, State::EXITED).await;
    }
    // The warning of the shell may have been stored before the server ended.
    for (launch, stderr) in [(second, 0), (third, 8)] {
        let (exit, output) = world.fixture.adopt(launch, OutputOffsets { stdout: 0, stderr }).await.unwrap();
        assert!(exit.is_success() && output.stdout.ends_with("once\n"), "{exit:?} {output:?}");
    }
    world.prepare(&fourth).await;
    let (exit, output) = world.fixture.run(fourth).await;
    assert!(exit.is_success() && output.stdout.ends_with("once\n"), "{exit:?} {output:?}");
    assert!(world.fixture.shell_output(90, "cat marks").await.ends_with(&"mark\n".repeat(4)));
    world.fixture.destroy().await;
}

#[tokio::test]
async fn a_container_that_waits_for_an_earlier_server_is_ended_before_it_starts_again() {
    let mut world = World::new().await;
    let launch = world.fixture.launch(1, world.fixture.shell_container(RUN_ONCE_SCRIPT));
    world.prepare(&launch).await;
    let id = world.inspect(&launch).await.0;
    // A process whose connection outlives it: its machine died without closing the connection.
    let before = Arc::clone(&world.fixture.engine);
    world.replace_process();
    let (exit, output) = world.fixture.adopt(launch.clone(), OutputOffsets::default()).await.unwrap();
    assert!(exit.is_success() && output.stdout == "once\n", "{exit:?}");
    assert_ne!(world.inspect(&launch).await.0, id);
    assert_eq!(world.fixture.shell_output(90, "cat marks").await, "mark\n");
    drop(before);
    world.fixture.destroy().await;
}

#[tokio::test]
async fn a_started_container_is_adopted_and_never_started_again() {
    let mut world = World::new().await;
    let launch = world.fixture.launch(1, world.fixture.shell_container("echo mark >> marks; echo one; sleep 2; echo two"));
    world.prepare(&launch).await;
    let (sender, mut receiver) = mpsc::channel(8);
    {
        let run = world.fixture.engine.run(launch.clone(), sender, CancellationToken::new());
        let piece = tokio::select! {
            ended = run => panic!("{ended:?}"),
            piece = receiver.recv() => piece.unwrap(),
        };
        assert_eq!(piece.bytes, "one\n");
    }
    world.replace_process();
    let (exit, output) = world.fixture.adopt(launch, OutputOffsets { stdout: 4, stderr: 0 }).await.unwrap();
    assert!(exit.is_success(), "{exit:?}");
    assert_eq!(output.stdout, "two\n");
    assert_eq!(world.fixture.shell_output(90, "cat marks").await, "mark\n");
    world.fixture.destroy().await;
}

#[tokio::test]
async fn a_started_container_whose_log_was_discarded_is_not_started_again() {
    let mut world = World::new().await;
    let engine = |world: &World| {
        let options = DockerOptions { log_bytes: 1, ..docker::options(&world.host, &world.instance) };
        Arc::new(Docker::new(options).unwrap())
    };
    world.fixture.engine = engine(&world);
    let script =
        "set +x; echo mark >> marks; i=0; while [ $i -lt 40000 ]; do echo cell $i; i=$((i + 1)); done; touch printed; sleep 3";
    let launch = world.fixture.launch(1, world.fixture.shell_container(script));
    world.prepare(&launch).await;
    let (sender, mut receiver) = mpsc::channel(8);
    {
        let mut run = std::pin::pin!(world.fixture.engine.run(launch.clone(), sender, CancellationToken::new()));
        let mut printed = String::new();
        while !printed.ends_with("cell 39999\n") {
            tokio::select! {
                ended = &mut run => panic!("{ended:?}"),
                piece = receiver.recv() => printed.push_str(&String::from_utf8_lossy(&piece.unwrap().bytes)),
            }
        }
    }
    world.fixture.engine = engine(&world);
    let (exit, output) = world.fixture.adopt(launch, OutputOffsets::default()).await.unwrap();
    assert!(exit.is_success(), "{exit:?}");
    assert!(!output.stdout.contains("beespace: started") && output.stdout.lines().count() < 40_000, "the engine kept it all");
    assert_eq!(world.fixture.shell_output(90, "cat marks").await, "mark\n");
    world.fixture.destroy().await;
}

#[tokio::test]
async fn a_prepared_container_that_was_killed_is_prepared_again_and_runs() {
    let mut world = World::new().await;
    let launch = world.fixture.launch(1, world.fixture.shell_container(RUN_ONCE_SCRIPT));
    world.prepare(&launch).await;
    let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
    world.api.kill_container(&world.inspect(&launch).await.0, Some(options)).await.unwrap();
    world.replace_process();
    world.prepare(&launch).await;
    world.assert_runs_once(launch).await;
    world.fixture.destroy().await;
}

#[tokio::test]
async fn a_container_that_would_affect_earlier_steps_is_not_started_early() {
    let world = World::new().await;
    let mut below = world.fixture.shell_container("cat made");
    below.workdir = Some("/workspace/made".to_owned());
    let mut acts = world.fixture.shell_container("echo on");
    acts.env.insert("LD_PRELOAD".to_owned(), "/workspace/x.so".to_owned());
    for (step, container) in [(1, below), (2, acts)] {
        let launch = world.fixture.launch(step, container);
        world.fixture.engine.prepare(&launch).await.unwrap();
        assert_eq!(world.inspect(&launch).await.1, State::CREATED);
    }
    assert_eq!(world.fixture.shell_output(3, "mkdir made; echo made > made/made").await, "");
    let mut below = world.fixture.shell_container("cat made");
    below.workdir = Some("/workspace/made".to_owned());
    let (exit, output) = world.fixture.run(world.fixture.launch(1, below)).await;
    assert!(exit.is_success() && output.stdout == "made\n", "{exit:?} {output:?}");
    world.fixture.destroy().await;
}

#[tokio::test]
async fn an_exited_or_outdated_prepared_container_is_recreated() {
    let world = World::new().await;
    let launch = world.fixture.launch(1, world.fixture.shell_container(RUN_ONCE_SCRIPT));
    world.prepare(&launch).await;
    let (id, _) = world.inspect(&launch).await;
    let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
    world.api.kill_container(&id, Some(options)).await.unwrap();
    world.assert_runs_once(launch).await;

    let mut other = world.fixture.launch(2, world.fixture.shell_container("echo \"$WORD\""));
    world.prepare(&other).await;
    let id = world.inspect(&other).await.0;
    other.env.insert("WORD".to_owned(), "changed".to_owned());
    let (exit, output) = world.fixture.run(other.clone()).await;
    assert!(exit.is_success() && output.stdout == "changed\n", "{exit:?} {output:?}");
    assert_ne!(world.inspect(&other).await.0, id);
    world.fixture.destroy().await;
}

#[tokio::test]
async fn a_container_cancelled_before_its_start_leaves_nothing() {
    let world = World::new().await;
    let launch = world.fixture.launch(1, world.fixture.shell_container(RUN_ONCE_SCRIPT));
    world.prepare(&launch).await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let (sender, receiver) = mpsc::channel(8);
    let exit = world.fixture.engine.run(launch.clone(), sender, cancel).await.unwrap();
    assert_eq!((exit.cause, exit.code), (ExitCause::Cancelled, None));
    assert_eq!(collect_output(receiver).await.stdout, "");
    assert_eq!(world.fixture.shell_output(2, "ls").await, "");
    let (gone, _) = world.fixture.adopt(launch, OutputOffsets::default()).await.unwrap();
    assert_eq!(gone.cause, ExitCause::Lost);
    world.fixture.destroy().await;
}

/// An engine that restarts while containers wait: whether they survive or not, each runs once.
async fn survives_engine_restart(live_restore: bool, how: Shutdown) {
    let mut engine = Dockerd::start(live_restore).await.unwrap();
    let image = docker::test_image_in(&engine.api().await.unwrap()).await.unwrap();
    let mut world = World::on(engine.api().await.unwrap(), engine.host(), image).await;
    let [first, second, third] = [1, 2, 3].map(|step| world.fixture.launch(step, world.fixture.shell_container(RUN_ONCE_SCRIPT)));
    for launch in [&first, &second, &third] {
        world.prepare(launch).await;
    }
    engine.shut_down(how).await.unwrap();
    engine.restart().await.unwrap();
    world.api = engine.api().await.unwrap();
    world.fixture.engine.open(world.fixture.stage).await.unwrap();
    // The process that prepared them knows that none has started.
    let (exit, output) = world.fixture.run(first).await;
    assert!(exit.is_success() && output.stdout == "once\n", "{exit:?}");
    let (exit, output) = world.fixture.run(second).await;
    assert!(exit.is_success() && output.stdout == "once\n", "{exit:?}");
    // The next process may not know it, and then it does not start the container.
    world.replace_process();
    let (exit, output) = world.fixture.adopt(third, OutputOffsets::default()).await.unwrap();
    let begun = if exit.is_success() { "once\n" } else { "" };
    assert_eq!(output.stdout, begun, "{exit:?}");
    let marks = if exit.is_success() { 3 } else { 2 };
    assert_eq!(world.fixture.shell_output(90, "cat marks").await, "mark\n".repeat(marks));
    world.fixture.destroy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_container_survives_a_stopped_engine() {
    tokio::join!(survives_engine_restart(true, Shutdown::Graceful), survives_engine_restart(false, Shutdown::Graceful));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_container_survives_a_killed_engine() {
    tokio::join!(survives_engine_restart(true, Shutdown::Killed), survives_engine_restart(false, Shutdown::Killed));
}
