//! Containers that have started and wait for their turn: nothing of theirs runs before it, and whatever happens to who started them, it runs once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use beespace::engine::Launch;
use beespace::engine::docker::{Docker, DockerOptions};
use beespace_core::exit::ExitCause;
use beespace_core::output::OutputOffsets;
use beespace_tests::docker;
use beespace_tests::dockerd::{Dockerd, Shutdown};
use bollard::models::ContainerStateStatusEnum as State;
use bollard::query_parameters::{InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine_bench::{EngineFixture, LONG, gather};

/// A bench on an engine, and whoever comes to its stage after the one before is gone.
struct World {
    api: bollard::Docker,
    host: String,
    instance: String,
    bench: EngineFixture,
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
        let bench = EngineFixture::on(Arc::new(engine), image).await;
        Self { api, host, instance, bench }
    }

    /// Another process of the same instance takes over. What the one before had in hand ends with it.
    fn replace_process(&mut self) {
        self.bench.engine = Arc::new(Docker::new(docker::options(&self.host, &self.instance)).unwrap());
    }

    /// The id of the container of a launch, and how it is.
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

    async fn wait_until(&self, launch: &Launch, wanted: State) {
        let began = Instant::now();
        while self.inspect(launch).await.1 != wanted {
            assert!(began.elapsed() < LONG, "it is {:?}", self.inspect(launch).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn prepare(&self, launch: &Launch) {
        self.bench.engine.prepare(launch).await.unwrap();
        assert_eq!(self.inspect(launch).await.1, State::RUNNING);
    }

    /// Its turn comes, and it does once what it is to do.
    async fn assert_runs_once(&self, launch: Launch) {
        let (exit, output) = self.bench.run(launch).await;
        assert!(exit.is_success(), "{exit:?}");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("once\n", ""));
        assert_eq!(self.bench.shell_output(90, "cat marks").await, "mark\n");
    }
}

/// Leaves a mark each time that it runs.
const RUN_ONCE_SCRIPT: &str = "echo mark >> marks; echo once";

#[tokio::test]
async fn nothing_of_a_script_runs_before_its_turn_and_nothing_is_started_anew_for_it() {
    let world = World::new().await;
    let launch = world.bench.launch(1, world.bench.shell_container(RUN_ONCE_SCRIPT));
    world.prepare(&launch).await;
    let id = world.inspect(&launch).await.0;
    // Its script came before; another container sees what it might have done.
    assert_eq!(world.bench.shell_output(2, "ls").await, "");
    world.assert_runs_once(launch.clone()).await;
    assert_eq!(world.inspect(&launch).await, (id, State::EXITED));
    world.bench.destroy().await;
}

#[tokio::test]
async fn the_wait_for_the_start_signal_does_not_count_as_run_time() {
    let mut world = World::new().await;
    let mut container = world.bench.shell_container(RUN_ONCE_SCRIPT);
    container.limits.timeout_seconds = Some(3);
    let launch = world.bench.launch(1, container);
    world.prepare(&launch).await;
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    let (exit, output) = world.bench.run(launch.clone()).await;
    assert!(exit.is_success() && output.stdout == "once\n" && exit.duration_ms < 3_000, "{exit:?}");
    // Who takes it up later says the same, but for the clocks of two processes.
    world.replace_process();
    let (again, said) = world.bench.adopt(launch, OutputOffsets::default()).await.unwrap();
    assert!(again.is_success() && said.stdout == "once\n" && again.duration_ms < 3_000, "{again:?}");
    world.bench.destroy().await;
}

#[tokio::test]
async fn a_script_finds_an_empty_input_and_nothing_of_the_wait() {
    let world = World::new().await;
    let launch = world.bench.launch(1, world.bench.shell_container("cat; set +x; env; trap; echo $0"));
    world.prepare(&launch).await;
    let (exit, output) = world.bench.run(launch).await;
    assert!(exit.is_success(), "{exit:?}");
    assert!(!output.stdout.contains("BEESPACE_START_SIGNAL") && !output.stdout.contains("trap"), "{}", output.stdout);
    assert!(output.stdout.ends_with("/.beespace/script-1\n"), "{}", output.stdout);
    world.bench.destroy().await;
}

#[tokio::test]
async fn one_whose_process_is_gone_ends_by_itself_and_its_turn_comes_once() {
    let mut world = World::new().await;
    let [first, second, third] = [1, 2, 3].map(|step| world.bench.launch(step, world.bench.shell_container(RUN_ONCE_SCRIPT)));
    for launch in [&first, &second, &third] {
        world.prepare(launch).await;
    }
    world.replace_process();
    for launch in [&first, &second, &third] {
        world.wait_until(launch, State::EXITED).await;
    }
    // The row says "runs", or "waits", and then it is prepared anew or not.
    let (exit, output) = world.bench.adopt(first, OutputOffsets::default()).await.unwrap();
    assert!(exit.is_success() && output.stdout == "once\n", "{exit:?}");
    world.prepare(&second).await;
    for launch in [second, third] {
        let (exit, output) = world.bench.run(launch).await;
        assert!(exit.is_success() && output.stdout == "once\n", "{exit:?}");
    }
    assert_eq!(world.bench.shell_output(90, "cat marks").await, "mark\n".repeat(3));
    world.bench.destroy().await;
}

#[tokio::test]
async fn one_that_still_waits_for_another_process_is_ended_before_it_begins_anew() {
    let mut world = World::new().await;
    let launch = world.bench.launch(1, world.bench.shell_container(RUN_ONCE_SCRIPT));
    world.prepare(&launch).await;
    let id = world.inspect(&launch).await.0;
    // A process whose line to the engine outlives it: its machine is gone, and no one has told the engine.
    let before = Arc::clone(&world.bench.engine);
    world.replace_process();
    let (exit, output) = world.bench.adopt(launch.clone(), OutputOffsets::default()).await.unwrap();
    assert!(exit.is_success() && output.stdout == "once\n", "{exit:?}");
    assert_ne!(world.inspect(&launch).await.0, id);
    assert_eq!(world.bench.shell_output(90, "cat marks").await, "mark\n");
    drop(before);
    world.bench.destroy().await;
}

#[tokio::test]
async fn one_whose_turn_has_come_is_taken_up_and_never_begun_again() {
    let mut world = World::new().await;
    let launch = world.bench.launch(1, world.bench.shell_container("echo mark >> marks; echo one; sleep 2; echo two"));
    world.prepare(&launch).await;
    let (sender, mut receiver) = mpsc::channel(8);
    {
        let run = world.bench.engine.run(launch.clone(), sender, CancellationToken::new());
        let said = tokio::select! {
            ended = run => panic!("{ended:?}"),
            said = receiver.recv() => said.unwrap(),
        };
        assert_eq!(said.bytes, "one\n");
    }
    world.replace_process();
    let (exit, output) = world.bench.adopt(launch, OutputOffsets { stdout: 4, stderr: 0 }).await.unwrap();
    assert!(exit.is_success(), "{exit:?}");
    assert_eq!(output.stdout, "two\n");
    assert_eq!(world.bench.shell_output(90, "cat marks").await, "mark\n");
    world.bench.destroy().await;
}

#[tokio::test]
async fn one_whose_first_word_the_engine_has_thrown_away_is_not_begun_again() {
    let mut world = World::new().await;
    let engine = |world: &World| {
        let options = DockerOptions { log_bytes: 1, ..docker::options(&world.host, &world.instance) };
        Arc::new(Docker::new(options).unwrap())
    };
    world.bench.engine = engine(&world);
    let script =
        "set +x; echo mark >> marks; i=0; while [ $i -lt 40000 ]; do echo cell $i; i=$((i + 1)); done; touch said; sleep 3";
    let launch = world.bench.launch(1, world.bench.shell_container(script));
    world.prepare(&launch).await;
    let (sender, mut receiver) = mpsc::channel(8);
    {
        let mut run = std::pin::pin!(world.bench.engine.run(launch.clone(), sender, CancellationToken::new()));
        let mut said = String::new();
        while !said.ends_with("cell 39999\n") {
            tokio::select! {
                ended = &mut run => panic!("{ended:?}"),
                piece = receiver.recv() => said.push_str(&String::from_utf8_lossy(&piece.unwrap().bytes)),
            }
        }
    }
    world.bench.engine = engine(&world);
    let (exit, output) = world.bench.adopt(launch, OutputOffsets::default()).await.unwrap();
    assert!(exit.is_success(), "{exit:?}");
    assert!(!output.stdout.contains("beespace: started") && output.stdout.lines().count() < 40_000, "the engine kept it all");
    assert_eq!(world.bench.shell_output(90, "cat marks").await, "mark\n");
    world.bench.destroy().await;
}

#[tokio::test]
async fn one_that_was_killed_before_another_process_makes_it_ready_begins() {
    let mut world = World::new().await;
    let launch = world.bench.launch(1, world.bench.shell_container(RUN_ONCE_SCRIPT));
    world.prepare(&launch).await;
    let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
    world.api.kill_container(&world.inspect(&launch).await.0, Some(options)).await.unwrap();
    world.replace_process();
    world.prepare(&launch).await;
    world.assert_runs_once(launch).await;
    world.bench.destroy().await;
}

#[tokio::test]
async fn what_steps_before_it_would_feel_is_not_started_ahead() {
    let world = World::new().await;
    let mut below = world.bench.shell_container("cat made");
    below.workdir = Some("/workspace/made".to_owned());
    let mut acts = world.bench.shell_container("echo on");
    acts.env.insert("LD_PRELOAD".to_owned(), "/workspace/x.so".to_owned());
    for (step, container) in [(1, below), (2, acts)] {
        let launch = world.bench.launch(step, container);
        world.bench.engine.prepare(&launch).await.unwrap();
        assert_eq!(world.inspect(&launch).await.1, State::CREATED);
    }
    assert_eq!(world.bench.shell_output(3, "mkdir made; echo made > made/made").await, "");
    let mut below = world.bench.shell_container("cat made");
    below.workdir = Some("/workspace/made".to_owned());
    let (exit, output) = world.bench.run(world.bench.launch(1, below)).await;
    assert!(exit.is_success() && output.stdout == "made\n", "{exit:?} {output:?}");
    world.bench.destroy().await;
}

#[tokio::test]
async fn one_that_ended_while_it_waited_or_is_not_what_is_wanted_any_more_is_made_anew() {
    let world = World::new().await;
    let launch = world.bench.launch(1, world.bench.shell_container(RUN_ONCE_SCRIPT));
    world.prepare(&launch).await;
    let (id, _) = world.inspect(&launch).await;
    let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
    world.api.kill_container(&id, Some(options)).await.unwrap();
    world.assert_runs_once(launch).await;

    let mut other = world.bench.launch(2, world.bench.shell_container("echo \"$WORD\""));
    world.prepare(&other).await;
    let id = world.inspect(&other).await.0;
    other.env.insert("WORD".to_owned(), "changed".to_owned());
    let (exit, output) = world.bench.run(other.clone()).await;
    assert!(exit.is_success() && output.stdout == "changed\n", "{exit:?} {output:?}");
    assert_ne!(world.inspect(&other).await.0, id);
    world.bench.destroy().await;
}

#[tokio::test]
async fn one_that_is_cancelled_while_it_waits_leaves_nothing() {
    let world = World::new().await;
    let launch = world.bench.launch(1, world.bench.shell_container(RUN_ONCE_SCRIPT));
    world.prepare(&launch).await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let (sender, receiver) = mpsc::channel(8);
    let exit = world.bench.engine.run(launch.clone(), sender, cancel).await.unwrap();
    assert_eq!((exit.cause, exit.code), (ExitCause::Cancelled, None));
    assert_eq!(gather(receiver).await.stdout, "");
    assert_eq!(world.bench.shell_output(2, "ls").await, "");
    let (gone, _) = world.bench.adopt(launch, OutputOffsets::default()).await.unwrap();
    assert_eq!(gone.cause, ExitCause::Lost);
    world.bench.destroy().await;
}

/// An engine that goes and comes back while containers wait: whether they went with it or not, their turn comes once.
async fn survives_engine_restart(live_restore: bool, how: Shutdown) {
    let mut engine = Dockerd::start(live_restore).await.unwrap();
    let image = docker::test_image_in(&engine.api().await.unwrap()).await.unwrap();
    let mut world = World::on(engine.api().await.unwrap(), engine.host(), image).await;
    let [first, second, third] = [1, 2, 3].map(|step| world.bench.launch(step, world.bench.shell_container(RUN_ONCE_SCRIPT)));
    for launch in [&first, &second, &third] {
        world.prepare(launch).await;
    }
    engine.shut_down(how).await.unwrap();
    engine.restart().await.unwrap();
    world.api = engine.api().await.unwrap();
    world.bench.engine.open(world.bench.stage).await.unwrap();
    // The process that prepared them knows that none has begun.
    let (exit, output) = world.bench.run(first).await;
    assert!(exit.is_success() && output.stdout == "once\n", "{exit:?}");
    let (exit, output) = world.bench.run(second).await;
    assert!(exit.is_success() && output.stdout == "once\n", "{exit:?}");
    // The next one may not know it, and then does not begin it.
    world.replace_process();
    let (exit, output) = world.bench.adopt(third, OutputOffsets::default()).await.unwrap();
    let begun = if exit.is_success() { "once\n" } else { "" };
    assert_eq!(output.stdout, begun, "{exit:?}");
    let marks = if exit.is_success() { 3 } else { 2 };
    assert_eq!(world.bench.shell_output(90, "cat marks").await, "mark\n".repeat(marks));
    world.bench.destroy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_stops_and_comes_back_finds_what_waits() {
    tokio::join!(survives_engine_restart(true, Shutdown::Graceful), survives_engine_restart(false, Shutdown::Graceful));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_and_comes_back_finds_what_waits() {
    tokio::join!(survives_engine_restart(true, Shutdown::Killed), survives_engine_restart(false, Shutdown::Killed));
}
