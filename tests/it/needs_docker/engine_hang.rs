//! An engine that hangs: every call times out, and every error names a remedy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use beespace::engine::docker::{Docker, DockerOptions, Timeouts};
use beespace::engine::{Engine, EngineError, Launch, Output};
use beespace_core::exit::{Exit, ExitCause};
use beespace_core::output::{OutputOffsets, Stream};
use beespace_core::status::Status;
use beespace_tests::WAIT_TIMEOUT;
use beespace_tests::beespace::Beespace;
use beespace_tests::docker;
use beespace_tests::engine_fixture::{CollectedOutput, EngineFixture, collect_output};
use beespace_tests::gogs::FakeGogs;
use beespace_tests::tcp_proxy::{ProxyState, TcpProxy, Upstream};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long a call may take, in order of the attempts: a test tries again with more patience if this machine needed longer for a
/// call that did not hang.
const PATIENCE: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(120)];

/// The shared engine behind a proxy that can be paused.
async fn engine_behind_proxy(timeouts: Timeouts) -> (Docker, TcpProxy) {
    docker::ensure_running().unwrap();
    let proxy = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let options = docker::options(&format!("tcp://{}", proxy.address()), &docker::instance());
    (Docker::new(DockerOptions { timeouts, ..options }).unwrap(), proxy)
}

async fn impatient(patience: Duration) -> (Docker, TcpProxy) {
    let timeouts = Timeouts {
        quick: patience,
        slow: patience,
        transfer: patience,
        pull_idle: patience,
        exit_poll: patience,
        max_outage: patience,
        after_kill: patience,
    };
    engine_behind_proxy(timeouts).await
}

async fn run(engine: &dyn Engine, launch: Launch) -> (Result<Exit, EngineError>, CollectedOutput) {
    let (sender, receiver) = mpsc::channel(8);
    tokio::join!(engine.run(launch, sender, CancellationToken::new()), collect_output(receiver))
}

fn assert_slow_engine_reason(error: &EngineError, call: &str, patience: Duration) {
    assert!(error.is_transient(), "{error:?}");
    let reason = error.reason();
    assert_eq!(reason.code, "engine-slow");
    assert!(reason.message.contains(call), "{reason}");
    assert!(reason.message.contains(&format!("within {} s", patience.as_secs())), "{reason}");
    assert!(reason.help.as_ref().is_some_and(|help| help.contains("engine's own log")), "{reason}");
}

/// Pauses the engine at a request about a step's container, and resumes it afterwards.
async fn hang_at(request: &str, call: &str) {
    let fixture = EngineFixture::docker().await;
    for (step, patience) in (1..).zip(PATIENCE) {
        let (engine, proxy) = impatient(patience).await;
        let launch = fixture.launch(step, fixture.shell_container("echo on"));
        let name = format!("beespace-{}-{}-0", docker::instance(), launch.step);
        proxy.pause_at(&request.replace("NAME", &name));
        let (ended, before) = run(&engine, launch.clone()).await;
        if !proxy.is_paused() {
            continue;
        }
        let Err(error) = ended else { panic!("{request}: {ended:?}") };
        assert_slow_engine_reason(&error, call, patience);
        proxy.set(ProxyState::Open);
        let stored = OutputOffsets { stdout: before.stdout.len() as u64, stderr: 0 };
        let (exit, after) = fixture.adopt(launch.clone(), stored).await.unwrap();
        let (exit, after) = match exit.cause {
            ExitCause::Lost => {
                let (exit, after) = run(&*fixture.engine, launch).await;
                (exit.unwrap(), after)
            }
            _ => (exit, after),
        };
        assert!(exit.is_success(), "{request}: {exit:?}");
        assert_eq!(before.stdout + &after.stdout, "on\n", "{request}");
        return fixture.destroy().await;
    }
    panic!("{request} is never reached: a call before it takes longer than {PATIENCE:?}");
}

#[tokio::test]
async fn a_hang_at_any_engine_call_times_out_and_the_container_runs_once() {
    tokio::join!(
        hang_at("/containers/create?name=NAME&", "create a container"),
        hang_at("/containers/NAME/attach", "attach to a container"),
        hang_at("/containers/NAME/start", "start a container"),
        hang_at("/containers/NAME/wait", "inspect a container"),
    );
}

#[tokio::test]
async fn concurrent_starts_are_limited_and_waiting_steps_log_the_reason() {
    docker::ensure_running().unwrap();
    let proxy = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let options = docker::options(&format!("tcp://{}", proxy.address()), &docker::instance());
    let engine = Arc::new(Docker::new(options).unwrap());
    let fixture = EngineFixture::on(engine, docker::test_image().await.unwrap()).await;
    let at_once = 2 * std::thread::available_parallelism().unwrap().get();
    proxy.stall_at("/start HTTP/1.1");
    // A step reports that it waits as soon as it does: two outputs of the host mean that both others wait.
    let waiting = AtomicUsize::new(0);
    let run = async |launch: Launch| {
        let (sender, mut receiver) = mpsc::channel::<Output>(8);
        let (forward, collected) = mpsc::channel(8);
        let relay = async {
            while let Some(output) = receiver.recv().await {
                waiting.fetch_add(usize::from(output.stream == Stream::Host), Ordering::SeqCst);
                forward.send(output).await.unwrap();
            }
            drop(forward);
        };
        let run = fixture.engine.run(launch, sender, CancellationToken::new());
        let (exit, (), output) = tokio::join!(run, relay, collect_output(collected));
        (exit, output)
    };
    let launches = (1..=at_once + 2).map(|step| fixture.launch(u16::try_from(step).unwrap(), fixture.shell_container("echo on")));
    let runs = futures::future::join_all(launches.map(&run));
    let release = async {
        let began = Instant::now();
        while proxy.stalled() < at_once || waiting.load(Ordering::SeqCst) < 2 {
            assert!(began.elapsed() < WAIT_TIMEOUT, "{} start, {waiting:?} wait", proxy.stalled());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let stalled = proxy.stalled();
        proxy.set(ProxyState::Open);
        stalled
    };
    let (ends, stalled) = tokio::join!(runs, release);
    assert_eq!(stalled, at_once);
    let reason = format!("waiting to start: the engine is already starting {at_once} containers, the limit\n");
    assert!(ends.iter().all(|(exit, output)| exit.as_ref().unwrap().is_success() && output.stdout == "on\n"), "{ends:#?}");
    assert_eq!(ends.iter().filter(|(_, output)| output.host == reason).count(), 2, "{ends:#?}");
    fixture.destroy().await;
}

/// Runs a container that does not end by itself. As soon as it has printed something, calls `act` and cancels the run. The result
/// of the run; none if it ended before.
async fn cancel_after_output(engine: &Docker, launch: Launch, act: impl Fn()) -> Option<Result<Exit, EngineError>> {
    let (sender, mut receiver) = mpsc::channel::<Output>(8);
    let cancel = CancellationToken::new();
    let run = engine.run(launch, sender, cancel.clone());
    let stop = async {
        let mut is_running = false;
        while let Some(output) = receiver.recv().await {
            if !is_running && output.stream != Stream::Host {
                is_running = true;
                act();
                cancel.cancel();
            }
        }
        is_running
    };
    let (ended, is_running) = tokio::join!(run, stop);
    is_running.then_some(ended)
}

#[tokio::test]
async fn a_cancel_on_a_hanging_engine_ends_with_an_engine_error() {
    let fixture = EngineFixture::docker().await;
    for (step, patience) in (1..).zip(PATIENCE) {
        let (engine, proxy) = impatient(patience).await;
        let launch = fixture.launch(step, fixture.shell_container("echo on; sleep 600"));
        let Some(ended) = cancel_after_output(&engine, launch, || proxy.set(ProxyState::Paused)).await else { continue };
        let error = ended.unwrap_err();
        assert!(matches!(error, EngineError::TimedOut { .. }), "{error:?}");
        return fixture.destroy().await;
    }
    panic!("no container starts within {PATIENCE:?}");
}

#[tokio::test]
async fn a_container_that_cannot_be_killed_is_named_and_does_not_block_a_cancel() {
    let fixture = EngineFixture::docker().await;
    // No call hangs here.
    let (engine, proxy) = engine_behind_proxy(Timeouts { after_kill: Duration::from_secs(1), ..Timeouts::default() }).await;
    let launch = fixture.launch(1, fixture.shell_container("echo on; sleep 600"));
    let ended = cancel_after_output(&engine, launch.clone(), || proxy.refuse("/kill?signal=")).await;
    let error = ended.expect("the container never ran").unwrap_err();
    assert!(!error.is_transient(), "it is not taken up again: {error:?}");
    let reason = error.reason();
    assert!(reason.code == "engine-unkillable" && reason.message.contains(&launch.step.to_string()), "{reason}");
    fixture.destroy().await;
}

#[tokio::test]
async fn a_hanging_engine_fails_its_health_check_and_stage_operations() {
    let fixture = EngineFixture::docker().await;
    for patience in PATIENCE {
        let (engine, proxy) = impatient(patience).await;
        // From the first call on, the engine's version is known.
        if engine.check().await.is_err() {
            continue;
        }
        proxy.set(ProxyState::Paused);
        assert_slow_engine_reason(&engine.check().await.unwrap_err(), "version", patience);
        assert_slow_engine_reason(&engine.open(fixture.stage).await.unwrap_err(), "inspect a volume", patience);
        assert_slow_engine_reason(&engine.inventory().await.unwrap_err(), "list containers", patience);
        assert_slow_engine_reason(&engine.destroy(fixture.stage).await.unwrap_err(), "list containers", patience);
        return fixture.destroy().await;
    }
    panic!("the engine does not respond within {PATIENCE:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_waits_for_an_unreachable_engine_and_the_build_continues() {
    docker::ensure_running().unwrap();
    let proxy = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository("ada/hive").await.unwrap();
    let engine = format!("[engine]\nkind = \"docker\"\nhost = \"tcp://{}\"\n", proxy.address());
    let beespace = Beespace::start(&gogs, &engine).await.unwrap();
    beespace.enable("ada/hive").await.unwrap();
    proxy.set(ProxyState::Cut);
    let steps = json!({"steps": [{"name": "build", "image": docker::test_image().await.unwrap(), "run": ["echo on"]}]});
    gogs.push("ada/hive", "main", &[(".beespace.yml", &steps.to_string())], "Change the hive").await.unwrap();
    let waiting = beespace.wait_for_build("ada/hive", 1, |build| build.status == Status::Running).await.unwrap();
    beespace
        .wait_for("the clone to log the reason for its wait", async || {
            let log = beespace.log(&waiting, "clone").await.unwrap_or_default();
            Ok(log.iter().any(|line| line.contains("does not respond") && line.ends_with("retrying")).then_some(()))
        })
        .await
        .unwrap();
    proxy.set(ProxyState::Open);
    let build = beespace.wait_until_finished("ada/hive", 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{:?}", build.reason);
    let log = beespace.log(&build, "clone").await.unwrap();
    assert!(log.last().is_some_and(|line| line.contains("in place")), "{log:?}");
}
