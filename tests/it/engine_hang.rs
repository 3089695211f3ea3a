//! An engine that hangs, or speaks another version: nothing waits for ever, and every end says what to do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse as _;
use beespace::engine::docker::{Docker, DockerOptions, Timeouts};
use beespace::engine::{Engine, EngineError, Launch};
use beespace_core::exit::Exit;
use beespace_core::ids::{BuildId, StageId, StageNumber};
use beespace_core::output::OutputOffsets;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::docker;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::tcp_proxy::{ProxyState, TcpProxy, Upstream};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine_bench::{CollectedOutput, EngineFixture, LONG, gather};

/// Far below what is waited for in earnest, far above what a healthy engine needs.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// No call may take longer than a few of those, one after the other.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(20);

/// A stage on the engine of the tests, with a line in between that can be held.
async fn engine_behind_proxy() -> (EngineFixture, TcpProxy) {
    docker::ensure_running().unwrap();
    let line = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let options = docker::options(&format!("tcp://{}", line.address()), &docker::instance());
    let timeouts = Timeouts {
        quick: CALL_TIMEOUT,
        slow: CALL_TIMEOUT,
        transfer: CALL_TIMEOUT,
        pull_idle: CALL_TIMEOUT,
        exit_poll: CALL_TIMEOUT,
        max_outage: CALL_TIMEOUT,
        after_kill: CALL_TIMEOUT,
    };
    let engine = Docker::new(DockerOptions { timeouts, ..options }).unwrap();
    (EngineFixture::on(Arc::new(engine), docker::test_image().await.unwrap()).await, line)
}

async fn run(bench: &EngineFixture, launch: Launch) -> (Result<Exit, EngineError>, CollectedOutput) {
    let (sender, receiver) = mpsc::channel(8);
    tokio::join!(bench.engine.run(launch, sender, CancellationToken::new()), gather(receiver))
}

fn assert_slow_engine_reason(error: &EngineError, call: &str) {
    assert!(error.is_transient(), "{error:?}");
    let reason = error.reason();
    assert_eq!(reason.code, "engine-slow");
    assert!(reason.message.contains(call) && reason.message.contains("within 3 s"), "{reason}");
    assert!(reason.help.as_ref().is_some_and(|help| help.contains("engine's own log")), "{reason}");
}

/// Holds the engine when it is asked for something about a step's container, and lets it go on afterwards.
async fn hang_at(request: &str, call: &str) {
    let (bench, line) = engine_behind_proxy().await;
    let launch = bench.launch(1, bench.shell_container("echo on"));
    let name = format!("beespace-{}-{}-0", docker::instance(), launch.step);
    line.pause_at(&request.replace("NAME", &name));
    let began = Instant::now();
    let (ended, before) = run(&bench, launch.clone()).await;
    assert!(began.elapsed() < TOTAL_TIMEOUT, "{request}: {:?}", began.elapsed());
    let Err(error) = ended else { panic!("{request}: {ended:?}") };
    assert_slow_engine_reason(&error, call);
    line.set(ProxyState::Open);
    let stored = OutputOffsets { stdout: before.stdout.len() as u64, stderr: 0 };
    let (exit, after) = bench.adopt(launch.clone(), stored).await.unwrap();
    let (exit, after) = match exit.cause {
        beespace_core::exit::ExitCause::Lost => {
            let (exit, after) = run(&bench, launch).await;
            (exit.unwrap(), after)
        }
        _ => (exit, after),
    };
    assert!(exit.is_success(), "{request}: {exit:?}");
    assert_eq!(before.stdout + &after.stdout, "on\n", "{request}");
    bench.destroy().await;
}

#[tokio::test]
async fn an_engine_that_hangs_at_any_call_is_not_waited_for_and_the_container_runs_once() {
    tokio::join!(
        hang_at("/containers/create?name=NAME&", "create a container"),
        hang_at("/containers/NAME/attach", "attach to a container"),
        hang_at("/containers/NAME/start", "start a container"),
        hang_at("/containers/NAME/wait", "inspect a container"),
    );
}

#[tokio::test]
async fn an_engine_is_asked_for_a_few_starts_at_once_and_who_waits_says_for_what() {
    docker::ensure_running().unwrap();
    let line = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let options = docker::options(&format!("tcp://{}", line.address()), &docker::instance());
    let engine = Arc::new(Docker::new(options).unwrap());
    let bench = EngineFixture::on(engine, docker::test_image().await.unwrap()).await;
    let at_once = 2 * std::thread::available_parallelism().unwrap().get();
    line.stall_at("/start HTTP/1.1");
    let launches = (1..=at_once + 2).map(|step| bench.launch(u16::try_from(step).unwrap(), bench.shell_container("echo on")));
    let runs = futures::future::join_all(launches.map(|launch| run(&bench, launch)));
    let let_go = async {
        let began = Instant::now();
        while line.stalled() < at_once {
            assert!(began.elapsed() < LONG, "{} are being started", line.stalled());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Long enough for the others to be made and to wait.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let stalled = line.stalled();
        line.set(ProxyState::Open);
        stalled
    };
    let (ends, stalled) = tokio::join!(runs, let_go);
    assert_eq!(stalled, at_once);
    let told = format!("waiting to start: the engine is already starting {at_once} containers, the limit\n");
    assert!(ends.iter().all(|(exit, said)| exit.as_ref().unwrap().is_success() && said.stdout == "on\n"), "{ends:#?}");
    assert_eq!(ends.iter().filter(|(_, said)| said.host == told).count(), 2, "{ends:#?}");
    bench.destroy().await;
}

#[tokio::test]
async fn a_cancel_ends_on_an_engine_that_hangs_and_blames_the_engine() {
    let (bench, line) = engine_behind_proxy().await;
    let launch = bench.launch(1, bench.shell_container("echo on; sleep 60"));
    let (sender, mut receiver) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let run = bench.engine.run(launch.clone(), sender, cancel.clone());
    let stop = async {
        assert_eq!(&*receiver.recv().await.unwrap().bytes, b"on\n");
        line.set(ProxyState::Paused);
        cancel.cancel();
        let began = Instant::now();
        while receiver.recv().await.is_some() {}
        began
    };
    let (ended, began) = tokio::join!(run, stop);
    assert!(began.elapsed() < TOTAL_TIMEOUT, "{:?}", began.elapsed());
    let error = ended.unwrap_err();
    assert!(matches!(error, EngineError::TimedOut { .. }), "{error:?}");
    line.set(ProxyState::Open);
    bench.destroy().await;
}

#[tokio::test]
async fn a_container_that_cannot_be_killed_is_named_and_keeps_no_cancel_waiting() {
    let (bench, line) = engine_behind_proxy().await;
    let launch = bench.launch(1, bench.shell_container("echo on; sleep 60"));
    let (sender, mut receiver) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let run = bench.engine.run(launch.clone(), sender, cancel.clone());
    let stop = async {
        assert_eq!(&*receiver.recv().await.unwrap().bytes, b"on\n");
        line.refuse("/kill?signal=");
        cancel.cancel();
        while receiver.recv().await.is_some() {}
    };
    let began = Instant::now();
    let (ended, ()) = tokio::join!(run, stop);
    assert!(began.elapsed() < TOTAL_TIMEOUT, "{:?}", began.elapsed());
    let error = ended.unwrap_err();
    assert!(!error.is_transient(), "it is not taken up again: {error:?}");
    let reason = error.reason();
    assert!(reason.code == "engine-unkillable" && reason.message.contains(&launch.step.to_string()), "{reason}");
    line.set(ProxyState::Open);
    bench.destroy().await;
}

#[tokio::test]
async fn an_engine_that_hangs_is_not_well_and_its_stage_cannot_be_opened_or_removed() {
    let (bench, line) = engine_behind_proxy().await;
    line.set(ProxyState::Paused);
    let began = Instant::now();
    assert_slow_engine_reason(&bench.engine.check().await.unwrap_err(), "version");
    assert_slow_engine_reason(&bench.engine.open(bench.stage).await.unwrap_err(), "inspect a volume");
    assert_slow_engine_reason(&bench.engine.inventory().await.unwrap_err(), "list containers");
    assert_slow_engine_reason(&bench.engine.destroy(bench.stage).await.unwrap_err(), "list containers");
    assert!(began.elapsed() < TOTAL_TIMEOUT, "{:?}", began.elapsed());
    line.set(ProxyState::Open);
    bench.destroy().await;
}

/// An engine that answers nothing but what `check` asks, and says it speaks `api` and nothing older than `oldest`.
async fn engine_with_answer(api: &'static str, oldest: Option<&'static str>) -> (Docker, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    let answer = move |uri: Uri| {
        log.lock().unwrap().push(uri.path().to_owned());
        async move {
            match oldest {
                _ if uri.path().ends_with("/version") => {
                    axum::Json(json!({ "ApiVersion": api, "Version": "99" })).into_response()
                }
                Some(oldest) => {
                    let message = format!("client version 1.53 is too old. Minimum supported API version is {oldest}");
                    (StatusCode::BAD_REQUEST, axum::Json(json!({ "message": message }))).into_response()
                }
                None => axum::Json(json!({})).into_response(),
            }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    (Docker::new(docker::options(&host, "a")).unwrap(), asked)
}

#[tokio::test]
async fn the_newest_version_that_both_sides_speak_is_spoken() {
    let ours = bollard::API_DEFAULT_VERSION.to_string();
    for (theirs, spoken) in [("1.41", "1.41"), ("1.44", "1.44"), ("9.9", &*ours)] {
        let (engine, asked) = engine_with_answer(theirs, None).await;
        assert_eq!(engine.check().await.unwrap().api, spoken);
        let asked = asked.lock().unwrap();
        assert_eq!(asked.last(), Some(&format!("/v{spoken}/info")), "{asked:?}");
    }
}

#[tokio::test]
async fn an_engine_of_another_age_is_refused_with_what_to_install() {
    let (engine, _) = engine_with_answer("1.40", None).await;
    let error = engine.check().await.unwrap_err();
    assert!(matches!(&error, EngineError::TooOld { api, .. } if api == "1.40"), "{error:?}");
    assert!(!error.is_transient() && error.reason().to_string().contains("Docker 20.10"), "{}", error.reason());

    let (engine, _) = engine_with_answer("9.9", Some("1.60")).await;
    let error = engine.check().await.unwrap_err();
    assert!(matches!(error, EngineError::TooNew { .. }), "{error:?}");
    let reason = error.reason().to_string();
    assert!(!error.is_transient() && reason.contains("1.60") && reason.contains("newer Beespace"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sources_wait_for_an_engine_that_is_away_and_the_build_goes_on() {
    docker::ensure_running().unwrap();
    let line = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository("ada/hive").await.unwrap();
    let engine = format!("[engine]\nkind = \"docker\"\nhost = \"tcp://{}\"\n", line.address());
    let beespace = Beespace::start(&gogs, &engine).await.unwrap();
    beespace.enable("ada/hive").await.unwrap();
    line.set(ProxyState::Cut);
    let steps = json!({"steps": [{"name": "build", "image": docker::test_image().await.unwrap(), "run": ["echo on"]}]});
    gogs.push("ada/hive", "main", &[(".beespace.yml", &steps.to_string())], "Change the hive").await.unwrap();
    let waiting = beespace.wait_for_build("ada/hive", 1, |build| build.status == Status::Running).await.unwrap();
    beespace
        .wait_for("the clone to say what it waits for", async || {
            let log = beespace.log(&waiting, "clone").await.unwrap_or_default();
            Ok(log.iter().any(|line| line.contains("does not respond") && line.ends_with("retrying")).then_some(()))
        })
        .await
        .unwrap();
    line.set(ProxyState::Open);
    let build = beespace.wait_until_finished("ada/hive", 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{:?}", build.reason);
    let log = beespace.log(&build, "clone").await.unwrap();
    assert!(log.last().is_some_and(|line| line.contains("in place")), "{log:?}");
}

/// What comes of a stage on an engine that has these networks and says of every other that its addresses are taken, and which were asked for.
async fn opened_among(networks: serde_json::Value) -> (EngineError, BTreeSet<String>) {
    let (sender, mut asked) = mpsc::unbounded_channel();
    let answer = async move |uri: Uri, body: Bytes| match uri.path() {
        path if path.ends_with("/version") => axum::Json(json!({ "ApiVersion": "1.41", "Version": "99" })).into_response(),
        path if path.ends_with("/volumes/create") => {
            let volume =
                json!({ "Name": "v", "Driver": "local", "Mountpoint": "/v", "Labels": {}, "Scope": "local", "Options": {} });
            (StatusCode::CREATED, axum::Json(volume)).into_response()
        }
        path if path.ends_with("/networks") => axum::Json(networks).into_response(),
        path if path.ends_with("/networks/create") => {
            let network: serde_json::Value = serde_json::from_slice(&body).unwrap();
            sender.send(network["IPAM"]["Config"][0]["Subnet"].as_str().unwrap().to_owned()).unwrap();
            let message = "Pool overlaps with other one on this address space";
            (StatusCode::FORBIDDEN, axum::Json(json!({ "message": message }))).into_response()
        }
        path if path.ends_with("/containers/create") => axum::Json(json!({ "Id": "c", "Warnings": [] })).into_response(),
        path if ["/networks/", "/volumes/", "/containers/"].iter().any(|kind| path.contains(kind)) => {
            (StatusCode::NOT_FOUND, axum::Json(json!({ "message": "there is none" }))).into_response()
        }
        _ => axum::Json(json!({})).into_response(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let engine = Docker::new(docker::options(&host, "a")).unwrap();
    let stage = StageId { build: BuildId(uuid::Uuid::now_v7()), stage: StageNumber(1) };
    let error = engine.open(stage).await.unwrap_err();
    (error, std::iter::from_fn(|| asked.try_recv().ok()).collect())
}

fn asks_for_addresses(error: &EngineError, said: &str) {
    assert!(error.is_transient(), "a stage that ends gives its network back: {error:?}");
    let reason = error.reason();
    assert_eq!(reason.code, "engine-networks");
    assert!(reason.help.as_ref().is_some_and(|help| help.contains("[engine] network_pool")), "{reason}");
    assert!(reason.to_string().contains(said), "{reason}");
}

#[tokio::test]
async fn addresses_that_are_all_taken_are_told_with_what_gives_others() {
    let all = json!({ "Name": "x", "Driver": "bridge", "IPAM": { "Config": [{ "Subnet": "198.18.0.0/15" }] } });
    let (error, asked) = opened_among(json!([all])).await;
    asks_for_addresses(&error, "all are in use");
    assert!(asked.is_empty(), "{asked:?}");
}

#[tokio::test]
async fn addresses_that_an_engine_refuses_are_chosen_anew_and_not_for_ever() {
    let (error, asked) = opened_among(json!([])).await;
    asks_for_addresses(&error, "Pool overlaps");
    // Of 2,048 that could be chosen, eight times the same is no choice.
    assert!((2..=8).contains(&asked.len()) && asked.iter().all(|range| range.starts_with("198.19.")), "{asked:?}");
}
