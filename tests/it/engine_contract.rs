//! The written contract of `Engine`: each clause is a test that runs against every engine.

use std::time::Duration;

use beespace::engine::EngineError;
use beespace_core::exit::{Exit, ExitCause};
use beespace_core::output::OutputOffsets;
use beespace_core::status::Status;
use beespace_tests::WAIT_TIMEOUT;
use beespace_tests::engine_fixture::{EngineFixture, collect_output};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Makes one test of each clause, with the engine that this constructor of [`EngineFixture`] opens.
macro_rules! contract_tests {
    ($fixture:ident) => {
        $crate::engine_contract::contract_tests!(
            $fixture:
            a_container_runs_to_completion,
            an_exit_code_is_reported_unchanged,
            out_of_memory_is_reported,
            a_container_that_cannot_start_reports_why,
            a_cancel_stops_a_running_container,
            a_cancel_before_the_start_runs_nothing,
            the_timeout_of_the_plan_applies,
            nothing_runs_in_a_stage_that_is_not_open,
            open_and_destroy_are_idempotent,
            destroy_stops_running_containers,
            an_exit_can_be_read_until_release,
            a_container_runs_once_however_often_run_is_called,
            a_missing_container_is_reported_as_lost,
            unreadable_sources_fail_the_fill,
            a_dropped_receiver_stops_nothing,
            a_stalled_receiver_does_not_block_a_cancel,
            an_unknown_container_is_an_internal_error,
            prepare_is_idempotent,
            a_closed_stage_stays_known_and_runs_nothing_until_it_is_reopened,
            the_inventory_lists_what_exists,
            an_engine_reports_its_kind_and_version,
            maintenance_and_shutdown_may_be_repeated,
            containers_of_a_stage_reach_each_other_at_localhost,
            streams_arrive_separately_and_in_order,
            a_container_that_is_started_early_waits_for_its_start_signal,
        );
    };
    ($fixture:ident: $($clause:ident,)+) => {
        $(#[tokio::test]
        async fn $clause() {
            $crate::engine_contract::$clause(beespace_tests::engine_fixture::EngineFixture::$fixture().await).await;
        })+
    };
}
pub(crate) use contract_tests;

mod dummy {
    super::contract_tests!(dummy);
}

pub(crate) async fn a_container_runs_to_completion(fixture: EngineFixture) {
    let (exit, output) = fixture.run(fixture.launch(1, fixture.controllable_container(&[("OUTPUT", "hello")]))).await;
    assert_eq!((exit.cause, exit.code, exit.message.as_str()), (ExitCause::Exited, Some(0), ""));
    assert_eq!(exit.container, "step");
    assert_eq!(output.stdout, "hello\n");
    fixture.destroy().await;
}

pub(crate) async fn an_exit_code_is_reported_unchanged(fixture: EngineFixture) {
    for (step, code) in [1, 127, 255].into_iter().enumerate() {
        let wish = code.to_string();
        let (exit, _) = fixture
            .run(fixture.launch(u16::try_from(step).unwrap(), fixture.controllable_container(&[("EXIT_CODE", &wish)])))
            .await;
        assert_eq!((exit.cause, exit.code), (ExitCause::Exited, Some(code)));
    }
    fixture.destroy().await;
}

pub(crate) async fn out_of_memory_is_reported(fixture: EngineFixture) {
    let (exit, _) = fixture.run(fixture.launch(1, fixture.controllable_container(&[("SLEEP", "1s"), ("OOM", "yes")]))).await;
    assert_eq!((exit.cause, exit.cause.status(exit.code)), (ExitCause::OutOfMemory, Status::Failure), "{exit:?}");
    assert!(exit.message.contains("memory"), "{}", exit.message);
    fixture.destroy().await;
}

pub(crate) async fn a_container_that_cannot_start_reports_why(fixture: EngineFixture) {
    let (exit, _) = fixture.run(fixture.launch(1, fixture.controllable_container(&[("FAIL_START", "no such program")]))).await;
    assert_eq!((exit.cause, exit.code), (ExitCause::StartFailed, None));
    assert!(exit.message.to_lowercase().contains("no such"), "{}", exit.message);
    fixture.destroy().await;
}

pub(crate) async fn a_cancel_stops_a_running_container(fixture: EngineFixture) {
    let cancel = CancellationToken::new();
    let (sender, mut receiver) = mpsc::channel(8);
    let launch = fixture.launch(1, fixture.controllable_container(&[("OUTPUT", "up"), ("SLEEP", "1000s")]));
    let run = fixture.engine.run(launch, sender, cancel.clone());
    let cancelled = async {
        assert_eq!(receiver.recv().await.unwrap().bytes, "up\n");
        cancel.cancel();
    };
    let (exit, ()) = tokio::time::timeout(WAIT_TIMEOUT, async { tokio::join!(run, cancelled) }).await.unwrap();
    let exit = exit.unwrap();
    assert_eq!((exit.cause, exit.cause.status(exit.code)), (ExitCause::Cancelled, Status::Killed));
    fixture.destroy().await;
}

pub(crate) async fn a_cancel_before_the_start_runs_nothing(fixture: EngineFixture) {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let (sender, receiver) = mpsc::channel(8);
    let launch = fixture.launch(1, fixture.controllable_container(&[("OUTPUT", "never")]));
    let exit = fixture.engine.run(launch.clone(), sender, cancel).await.unwrap();
    assert_eq!((exit.cause, exit.code), (ExitCause::Cancelled, None));
    assert_eq!(collect_output(receiver).await.stdout, "");
    let (adopted, _) = fixture.adopt(launch, OutputOffsets::default()).await.unwrap();
    assert_eq!(adopted.cause, ExitCause::Lost);
    fixture.destroy().await;
}

pub(crate) async fn the_timeout_of_the_plan_applies(fixture: EngineFixture) {
    let mut container = fixture.controllable_container(&[("SLEEP", "1000s")]);
    container.limits.timeout_seconds = Some(1);
    let (exit, _) = fixture.run(fixture.launch(1, container)).await;
    assert_eq!((exit.cause, exit.cause.status(exit.code)), (ExitCause::TimedOut, Status::Killed));
    fixture.destroy().await;
}

pub(crate) async fn nothing_runs_in_a_stage_that_is_not_open(fixture: EngineFixture) {
    fixture.engine.destroy(fixture.stage).await.unwrap();
    let (sender, _receiver) = mpsc::channel(8);
    let run = fixture.engine.run(fixture.launch(1, fixture.controllable_container(&[])), sender, CancellationToken::new()).await;
    assert!(matches!(run, Err(EngineError::NotOpen(stage)) if stage == fixture.stage), "{run:?}");
    let fill = fixture.engine.fill(fixture.stage, None, &[]).await;
    assert!(matches!(fill, Err(EngineError::NotOpen(_))), "{fill:?}");
    fixture.destroy().await;
}

pub(crate) async fn open_and_destroy_are_idempotent(fixture: EngineFixture) {
    fixture.engine.open(fixture.stage).await.unwrap();
    let (exit, _) = fixture.run(fixture.launch(1, fixture.controllable_container(&[]))).await;
    assert!(exit.is_success());
    fixture.engine.destroy(fixture.stage).await.unwrap();
    fixture.engine.destroy(fixture.stage).await.unwrap();
    fixture.engine.open(fixture.stage).await.unwrap();
    fixture.destroy().await;
}

pub(crate) async fn destroy_stops_running_containers(fixture: EngineFixture) {
    let (sender, mut receiver) = mpsc::channel(8);
    let launch = fixture.launch(1, fixture.controllable_container(&[("OUTPUT", "up"), ("SLEEP", "1000s")]));
    let run = fixture.engine.run(launch, sender, CancellationToken::new());
    let destroyed = async {
        receiver.recv().await.unwrap();
        fixture.engine.destroy(fixture.stage).await.unwrap();
    };
    let (exit, ()) = tokio::time::timeout(WAIT_TIMEOUT, async { tokio::join!(run, destroyed) }).await.unwrap();
    assert!(!exit.unwrap().is_success());
    fixture.destroy().await;
}

/// The observer of a container and a later reader have different clocks, so durations are ignored.
fn timeless(exit: Exit) -> Exit {
    Exit { duration_ms: 0, ..exit }
}

pub(crate) async fn an_exit_can_be_read_until_release(fixture: EngineFixture) {
    let launch = fixture.launch(1, fixture.controllable_container(&[("OUTPUT", "abc"), ("EXIT_CODE", "3")]));
    let (exit, _) = fixture.run(launch.clone()).await;
    let (again, output) = fixture.adopt(launch.clone(), OutputOffsets { stdout: 4, stderr: 0 }).await.unwrap();
    assert_eq!(timeless(again), timeless(exit));
    assert_eq!(output.stdout, "", "it was stored already");
    for _ in 0..2 {
        fixture.engine.release(launch.step).await.unwrap();
    }
    let (gone, _) = fixture.adopt(launch, OutputOffsets::default()).await.unwrap();
    assert_eq!(gone.cause, ExitCause::Lost);
    fixture.destroy().await;
}

pub(crate) async fn a_container_runs_once_however_often_run_is_called(fixture: EngineFixture) {
    let launch = fixture.launch(1, fixture.controllable_container(&[("SLEEP", "0.1s"), ("EXIT_CODE", "4")]));
    let (first, _) = fixture.run(launch.clone()).await;
    let (second, _) = fixture.run(launch).await;
    assert_eq!(timeless(first), timeless(second));
    fixture.destroy().await;
}

pub(crate) async fn a_missing_container_is_reported_as_lost(fixture: EngineFixture) {
    let (exit, _) =
        fixture.adopt(fixture.launch(1, fixture.controllable_container(&[])), OutputOffsets::default()).await.unwrap();
    assert_eq!((exit.cause, exit.cause.status(exit.code)), (ExitCause::Lost, Status::Error));
    fixture.destroy().await;
}

pub(crate) async fn unreadable_sources_fail_the_fill(fixture: EngineFixture) {
    let folder = tempfile::tempdir().unwrap();
    let filled = fixture.engine.fill(fixture.stage, Some(&folder.path().join("gone")), &[]).await;
    let error = filled.unwrap_err();
    assert!(matches!(error, EngineError::SourcesUnreadable(_)), "{error:?}");
    assert!(error.to_string().contains("No such file"), "{error}");
    fixture.destroy().await;
}

pub(crate) async fn a_dropped_receiver_stops_nothing(fixture: EngineFixture) {
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    let launch = fixture.launch(1, fixture.controllable_container(&[("OUTPUT", "into the void"), ("EXIT_CODE", "2")]));
    let exit = fixture.engine.run(launch, sender, CancellationToken::new()).await.unwrap();
    assert_eq!((exit.cause, exit.code), (ExitCause::Exited, Some(2)));
    fixture.destroy().await;
}

pub(crate) async fn a_stalled_receiver_does_not_block_a_cancel(fixture: EngineFixture) {
    let (sender, receiver) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    // Its first piece fills the channel, and everything after it is stuck.
    let long = "stuck ".repeat(16_000);
    let launch = fixture.launch(1, fixture.controllable_container(&[("OUTPUT", &long), ("SLEEP", "1000s")]));
    let run = fixture.engine.run(launch, sender, cancel.clone());
    let cancelled = async {
        while receiver.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cancel.cancel();
    };
    let (exit, ()) = tokio::time::timeout(WAIT_TIMEOUT, async { tokio::join!(run, cancelled) }).await.unwrap();
    assert_eq!(exit.unwrap().cause, ExitCause::Cancelled);
    drop(receiver);
    fixture.destroy().await;
}

pub(crate) async fn an_unknown_container_is_an_internal_error(fixture: EngineFixture) {
    let mut launch = fixture.launch(1, fixture.controllable_container(&[]));
    launch.container = "other".to_owned();
    let (sender, _receiver) = mpsc::channel(8);
    let run = fixture.engine.run(launch, sender, CancellationToken::new()).await;
    assert!(matches!(run, Err(EngineError::NoSuchContainer { .. })), "{run:?}");
    fixture.destroy().await;
}

pub(crate) async fn prepare_is_idempotent(fixture: EngineFixture) {
    let launch = fixture.launch(1, fixture.controllable_container(&[("OUTPUT", "once")]));
    for _ in 0..2 {
        fixture.engine.prepare(&launch).await.unwrap();
    }
    let (exit, output) = fixture.run(launch.clone()).await;
    assert!(exit.is_success(), "{exit:?}");
    assert_eq!((output.stdout.as_str(), output.host.as_str()), ("once\n", ""));
    fixture.engine.prepare(&launch).await.unwrap();
    let (again, _) = fixture.run(launch).await;
    assert_eq!(timeless(again), timeless(exit), "it has run, and preparing makes no second one");
    fixture.destroy().await;
}

pub(crate) async fn a_closed_stage_stays_known_and_runs_nothing_until_it_is_reopened(fixture: EngineFixture) {
    let (first, _) = fixture.run(fixture.launch(1, fixture.controllable_container(&[]))).await;
    assert!(first.is_success(), "{first:?}");
    for _ in 0..2 {
        fixture.engine.close(fixture.stage).await.unwrap();
    }
    assert!(fixture.engine.inventory().await.unwrap().contains(&fixture.stage));
    let (sender, _receiver) = mpsc::channel(8);
    let run = fixture.engine.run(fixture.launch(2, fixture.controllable_container(&[])), sender, CancellationToken::new()).await;
    assert!(matches!(run, Err(EngineError::NotOpen(stage)) if stage == fixture.stage), "{run:?}");
    fixture.engine.open(fixture.stage).await.unwrap();
    let (second, output) = fixture.run(fixture.launch(2, fixture.controllable_container(&[("OUTPUT", "on")]))).await;
    assert!(second.is_success() && output.stdout == "on\n", "{second:?}");
    fixture.engine.close(fixture.stage).await.unwrap();
    fixture.destroy().await;
}

pub(crate) async fn the_inventory_lists_what_exists(fixture: EngineFixture) {
    let mut second = fixture.stage;
    second.stage.0 += 1;
    fixture.engine.open(second).await.unwrap();
    let inventory = fixture.engine.inventory().await.unwrap();
    assert!(inventory.contains(&fixture.stage) && inventory.contains(&second), "{inventory:?}");
    fixture.engine.destroy(second).await.unwrap();
    let inventory = fixture.engine.inventory().await.unwrap();
    assert!(inventory.contains(&fixture.stage) && !inventory.contains(&second), "{inventory:?}");
    fixture.destroy().await;
}

pub(crate) async fn an_engine_reports_its_kind_and_version(fixture: EngineFixture) {
    let info = fixture.engine.check().await.unwrap();
    assert_eq!(info.kind, fixture.engine.kind());
    assert!(!info.version.is_empty());
    fixture.destroy().await;
}

pub(crate) async fn maintenance_and_shutdown_may_be_repeated(fixture: EngineFixture) {
    for _ in 0..2 {
        fixture.engine.maintain().await.unwrap();
    }
    for _ in 0..2 {
        fixture.engine.shutdown().await.unwrap();
    }
    assert!(fixture.engine.inventory().await.unwrap().contains(&fixture.stage), "stages are not affected");
    fixture.destroy().await;
}

pub(crate) async fn containers_of_a_stage_reach_each_other_at_localhost(fixture: EngineFixture) {
    if fixture.engine.capabilities().shared_localhost {
        let server = fixture.launch(1, fixture.shell_container("echo hello | nc -l -p 8080"));
        // The server responds once, and on a loaded machine it may start late.
        let client = "i=0; until nc -w 10 127.0.0.1 8080 </dev/null; do i=$((i+1)); [ $i -lt 250 ]; sleep 0.2; done";
        let ((exit, _), text) = tokio::join!(fixture.run(server), fixture.shell_output(2, client));
        assert!(exit.is_success(), "{exit:?}");
        assert_eq!(text, "hello\n");
    }
    fixture.destroy().await;
}

pub(crate) async fn streams_arrive_separately_and_in_order(fixture: EngineFixture) {
    if fixture.engine.capabilities().separate_streams {
        let (exit, output) =
            fixture.run(fixture.launch(1, fixture.shell_container("echo 1; echo a >&2; echo 2; echo b >&2"))).await;
        assert!(exit.is_success(), "{exit:?}");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("1\n2\n", "a\nb\n"));
    }
    fixture.destroy().await;
}

pub(crate) async fn a_container_that_is_started_early_waits_for_its_start_signal(fixture: EngineFixture) {
    if fixture.engine.capabilities().early_start {
        let launch = fixture.launch(1, fixture.shell_container("touch begun; echo once"));
        fixture.engine.prepare(&launch).await.unwrap();
        assert_eq!(fixture.shell_output(2, "ls").await, "", "its program has not begun");
        let (exit, output) = fixture.run(launch).await;
        assert!(exit.is_success() && output.stdout == "once\n", "{exit:?} {output:?}");
        assert_eq!(fixture.shell_output(3, "ls").await, "begun\n");
    }
    fixture.destroy().await;
}
