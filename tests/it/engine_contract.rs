//! The written contract of `Engine`, held against every engine.

use std::time::Duration;

use beespace::engine::EngineError;
use beespace_core::exit::{Exit, ExitCause};
use beespace_core::output::OutputOffsets;
use beespace_core::status::Status;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine_bench::{EngineFixture, LONG, gather};

macro_rules! every_engine_keeps {
    ($($sentence:ident),+ $(,)?) => {
        mod dummy {
            $(#[tokio::test]
            async fn $sentence() {
                super::$sentence(crate::engine_bench::EngineFixture::dummy().await).await;
            })+
        }
        mod docker {
            $(#[tokio::test]
            async fn $sentence() {
                super::$sentence(crate::engine_bench::EngineFixture::docker().await).await;
            })+
        }
    };
}

every_engine_keeps!(
    a_container_runs_to_its_end,
    an_exit_code_is_told_truly,
    out_of_memory_is_named,
    a_container_that_cannot_start_says_why,
    cancel_ends_a_running_container,
    cancel_before_the_start_runs_nothing,
    the_plans_time_limit_stops_a_container,
    nothing_runs_in_a_stage_that_is_not_open,
    open_and_destroy_may_come_twice,
    destroy_ends_what_runs,
    an_exit_can_be_asked_for_until_release,
    a_container_runs_once_however_often_it_is_asked_for,
    what_is_not_there_is_lost,
    sources_that_cannot_be_read_fail_the_fill,
    a_receiver_that_is_gone_stops_nothing,
    a_receiver_that_never_reads_does_not_hold_up_a_cancel,
    an_unknown_container_is_our_own_mistake,
    preparing_twice_is_fine,
    a_closed_stage_is_known_and_runs_nothing_until_it_is_open_again,
    the_inventory_lists_what_exists,
    an_engine_reports_its_kind_and_version,
    maintenance_and_shutdown_may_be_repeated,
    containers_of_a_stage_reach_each_other_at_localhost,
    streams_arrive_separately_and_in_order,
    a_container_that_is_started_early_waits_for_its_start_signal,
);

async fn a_container_runs_to_its_end(bench: EngineFixture) {
    let (exit, output) = bench.run(bench.launch(1, bench.obedient(&[("OUTPUT", "hello")]))).await;
    assert_eq!((exit.cause, exit.code, exit.message.as_str()), (ExitCause::Exited, Some(0), ""));
    assert_eq!(exit.container, "step");
    assert_eq!(output.stdout, "hello\n");
    bench.destroy().await;
}

async fn an_exit_code_is_told_truly(bench: EngineFixture) {
    for (step, code) in [1, 127, 255].into_iter().enumerate() {
        let wish = code.to_string();
        let (exit, _) = bench.run(bench.launch(u16::try_from(step).unwrap(), bench.obedient(&[("EXIT_CODE", &wish)]))).await;
        assert_eq!((exit.cause, exit.code), (ExitCause::Exited, Some(code)));
    }
    bench.destroy().await;
}

async fn out_of_memory_is_named(bench: EngineFixture) {
    let (exit, _) = bench.run(bench.launch(1, bench.obedient(&[("SLEEP", "1s"), ("OOM", "yes")]))).await;
    assert_eq!((exit.cause, exit.cause.status(exit.code)), (ExitCause::OutOfMemory, Status::Failure), "{exit:?}");
    assert!(exit.message.contains("memory"), "{}", exit.message);
    bench.destroy().await;
}

async fn a_container_that_cannot_start_says_why(bench: EngineFixture) {
    let (exit, _) = bench.run(bench.launch(1, bench.obedient(&[("FAIL_START", "no such program")]))).await;
    assert_eq!((exit.cause, exit.code), (ExitCause::StartFailed, None));
    assert!(exit.message.to_lowercase().contains("no such"), "{}", exit.message);
    bench.destroy().await;
}

async fn cancel_ends_a_running_container(bench: EngineFixture) {
    let cancel = CancellationToken::new();
    let (sender, mut receiver) = mpsc::channel(8);
    let launch = bench.launch(1, bench.obedient(&[("OUTPUT", "up"), ("SLEEP", "1000s")]));
    let run = bench.engine.run(launch, sender, cancel.clone());
    let cancelled = async {
        assert_eq!(receiver.recv().await.unwrap().bytes, "up\n");
        cancel.cancel();
    };
    let (exit, ()) = tokio::time::timeout(LONG, async { tokio::join!(run, cancelled) }).await.unwrap();
    let exit = exit.unwrap();
    assert_eq!((exit.cause, exit.cause.status(exit.code)), (ExitCause::Cancelled, Status::Killed));
    bench.destroy().await;
}

async fn cancel_before_the_start_runs_nothing(bench: EngineFixture) {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let (sender, receiver) = mpsc::channel(8);
    let launch = bench.launch(1, bench.obedient(&[("OUTPUT", "never")]));
    let exit = bench.engine.run(launch.clone(), sender, cancel).await.unwrap();
    assert_eq!((exit.cause, exit.code), (ExitCause::Cancelled, None));
    assert_eq!(gather(receiver).await.stdout, "");
    let (adopted, _) = bench.adopt(launch, OutputOffsets::default()).await.unwrap();
    assert_eq!(adopted.cause, ExitCause::Lost);
    bench.destroy().await;
}

async fn the_plans_time_limit_stops_a_container(bench: EngineFixture) {
    let mut container = bench.obedient(&[("SLEEP", "1000s")]);
    container.limits.timeout_seconds = Some(1);
    let (exit, _) = bench.run(bench.launch(1, container)).await;
    assert_eq!((exit.cause, exit.cause.status(exit.code)), (ExitCause::TimedOut, Status::Killed));
    bench.destroy().await;
}

async fn nothing_runs_in_a_stage_that_is_not_open(bench: EngineFixture) {
    bench.engine.destroy(bench.stage).await.unwrap();
    let (sender, _receiver) = mpsc::channel(8);
    let run = bench.engine.run(bench.launch(1, bench.obedient(&[])), sender, CancellationToken::new()).await;
    assert!(matches!(run, Err(EngineError::NotOpen(stage)) if stage == bench.stage), "{run:?}");
    let fill = bench.engine.fill(bench.stage, None, &[]).await;
    assert!(matches!(fill, Err(EngineError::NotOpen(_))), "{fill:?}");
    bench.destroy().await;
}

async fn open_and_destroy_may_come_twice(bench: EngineFixture) {
    bench.engine.open(bench.stage).await.unwrap();
    let (exit, _) = bench.run(bench.launch(1, bench.obedient(&[]))).await;
    assert!(exit.is_success());
    bench.engine.destroy(bench.stage).await.unwrap();
    bench.engine.destroy(bench.stage).await.unwrap();
    bench.engine.open(bench.stage).await.unwrap();
    bench.destroy().await;
}

async fn destroy_ends_what_runs(bench: EngineFixture) {
    let (sender, mut receiver) = mpsc::channel(8);
    let launch = bench.launch(1, bench.obedient(&[("OUTPUT", "up"), ("SLEEP", "1000s")]));
    let run = bench.engine.run(launch, sender, CancellationToken::new());
    let destroyed = async {
        receiver.recv().await.unwrap();
        bench.engine.destroy(bench.stage).await.unwrap();
    };
    let (exit, ()) = tokio::time::timeout(LONG, async { tokio::join!(run, destroyed) }).await.unwrap();
    assert!(!exit.unwrap().is_success());
    bench.destroy().await;
}

/// Who sees a container begin and who reads of it later have two clocks.
fn timeless(exit: Exit) -> Exit {
    Exit { duration_ms: 0, ..exit }
}

async fn an_exit_can_be_asked_for_until_release(bench: EngineFixture) {
    let launch = bench.launch(1, bench.obedient(&[("OUTPUT", "abc"), ("EXIT_CODE", "3")]));
    let (exit, _) = bench.run(launch.clone()).await;
    let (again, output) = bench.adopt(launch.clone(), OutputOffsets { stdout: 4, stderr: 0 }).await.unwrap();
    assert_eq!(timeless(again), timeless(exit));
    assert_eq!(output.stdout, "", "it was stored already");
    for _ in 0..2 {
        bench.engine.release(launch.step).await.unwrap();
    }
    let (gone, _) = bench.adopt(launch, OutputOffsets::default()).await.unwrap();
    assert_eq!(gone.cause, ExitCause::Lost);
    bench.destroy().await;
}

async fn a_container_runs_once_however_often_it_is_asked_for(bench: EngineFixture) {
    let launch = bench.launch(1, bench.obedient(&[("SLEEP", "0.1s"), ("EXIT_CODE", "4")]));
    let (first, _) = bench.run(launch.clone()).await;
    let (second, _) = bench.run(launch).await;
    assert_eq!(timeless(first), timeless(second));
    bench.destroy().await;
}

async fn what_is_not_there_is_lost(bench: EngineFixture) {
    let (exit, _) = bench.adopt(bench.launch(1, bench.obedient(&[])), OutputOffsets::default()).await.unwrap();
    assert_eq!((exit.cause, exit.cause.status(exit.code)), (ExitCause::Lost, Status::Error));
    bench.destroy().await;
}

async fn sources_that_cannot_be_read_fail_the_fill(bench: EngineFixture) {
    let folder = tempfile::tempdir().unwrap();
    let filled = bench.engine.fill(bench.stage, Some(&folder.path().join("gone")), &[]).await;
    let error = filled.unwrap_err();
    assert!(matches!(error, EngineError::SourcesUnreadable(_)), "{error:?}");
    assert!(error.to_string().contains("No such file"), "{error}");
    bench.destroy().await;
}

async fn a_receiver_that_is_gone_stops_nothing(bench: EngineFixture) {
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    let launch = bench.launch(1, bench.obedient(&[("OUTPUT", "into the void"), ("EXIT_CODE", "2")]));
    let exit = bench.engine.run(launch, sender, CancellationToken::new()).await.unwrap();
    assert_eq!((exit.cause, exit.code), (ExitCause::Exited, Some(2)));
    bench.destroy().await;
}

async fn a_receiver_that_never_reads_does_not_hold_up_a_cancel(bench: EngineFixture) {
    let (sender, receiver) = mpsc::channel(1);
    // The one place is taken, so that all output of the program is stuck.
    let taken = beespace::engine::Output {
        stream: beespace_core::output::Stream::Host,
        at: beespace_core::time::Timestamp(0),
        bytes: Bytes::new(),
    };
    sender.send(taken).await.unwrap();
    let cancel = CancellationToken::new();
    let launch = bench.launch(1, bench.obedient(&[("OUTPUT", "stuck"), ("SLEEP", "1000s")]));
    let run = bench.engine.run(launch, sender, cancel.clone());
    let cancelled = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        cancel.cancel();
    };
    let (exit, ()) = tokio::time::timeout(LONG, async { tokio::join!(run, cancelled) }).await.unwrap();
    assert_eq!(exit.unwrap().cause, ExitCause::Cancelled);
    drop(receiver);
    bench.destroy().await;
}

async fn an_unknown_container_is_our_own_mistake(bench: EngineFixture) {
    let mut launch = bench.launch(1, bench.obedient(&[]));
    launch.container = "other".to_owned();
    let (sender, _receiver) = mpsc::channel(8);
    let run = bench.engine.run(launch, sender, CancellationToken::new()).await;
    assert!(matches!(run, Err(EngineError::NoSuchContainer { .. })), "{run:?}");
    bench.destroy().await;
}

async fn preparing_twice_is_fine(bench: EngineFixture) {
    let launch = bench.launch(1, bench.obedient(&[("OUTPUT", "once")]));
    for _ in 0..2 {
        bench.engine.prepare(&launch).await.unwrap();
    }
    let (exit, output) = bench.run(launch.clone()).await;
    assert!(exit.is_success(), "{exit:?}");
    assert_eq!((output.stdout.as_str(), output.host.as_str()), ("once\n", ""));
    bench.engine.prepare(&launch).await.unwrap();
    let (again, _) = bench.run(launch).await;
    assert_eq!(timeless(again), timeless(exit), "it has run, and preparing makes no second one");
    bench.destroy().await;
}

async fn a_closed_stage_is_known_and_runs_nothing_until_it_is_open_again(bench: EngineFixture) {
    let (first, _) = bench.run(bench.launch(1, bench.obedient(&[]))).await;
    assert!(first.is_success(), "{first:?}");
    for _ in 0..2 {
        bench.engine.close(bench.stage).await.unwrap();
    }
    assert!(bench.engine.inventory().await.unwrap().contains(&bench.stage));
    let (sender, _receiver) = mpsc::channel(8);
    let run = bench.engine.run(bench.launch(2, bench.obedient(&[])), sender, CancellationToken::new()).await;
    assert!(matches!(run, Err(EngineError::NotOpen(stage)) if stage == bench.stage), "{run:?}");
    bench.engine.open(bench.stage).await.unwrap();
    let (second, output) = bench.run(bench.launch(2, bench.obedient(&[("OUTPUT", "on")]))).await;
    assert!(second.is_success() && output.stdout == "on\n", "{second:?}");
    bench.engine.close(bench.stage).await.unwrap();
    bench.destroy().await;
}

async fn the_inventory_lists_what_exists(bench: EngineFixture) {
    let mut second = bench.stage;
    second.stage.0 += 1;
    bench.engine.open(second).await.unwrap();
    let inventory = bench.engine.inventory().await.unwrap();
    assert!(inventory.contains(&bench.stage) && inventory.contains(&second), "{inventory:?}");
    bench.engine.destroy(second).await.unwrap();
    let inventory = bench.engine.inventory().await.unwrap();
    assert!(inventory.contains(&bench.stage) && !inventory.contains(&second), "{inventory:?}");
    bench.destroy().await;
}

async fn an_engine_reports_its_kind_and_version(bench: EngineFixture) {
    let info = bench.engine.check().await.unwrap();
    assert_eq!(info.kind, bench.engine.kind());
    assert!(!info.version.is_empty());
    bench.destroy().await;
}

async fn maintenance_and_shutdown_may_be_repeated(bench: EngineFixture) {
    for _ in 0..2 {
        bench.engine.maintain().await.unwrap();
    }
    for _ in 0..2 {
        bench.engine.shutdown().await.unwrap();
    }
    assert!(bench.engine.inventory().await.unwrap().contains(&bench.stage), "stages are not affected");
    bench.destroy().await;
}

async fn containers_of_a_stage_reach_each_other_at_localhost(bench: EngineFixture) {
    if bench.engine.capabilities().shared_localhost {
        let server = bench.launch(1, bench.shell_container("echo hello | nc -l -p 8080"));
        // The server responds once, and on a loaded machine it may start late.
        let client = "i=0; until nc -w 10 127.0.0.1 8080 </dev/null; do i=$((i+1)); [ $i -lt 250 ]; sleep 0.2; done";
        let ((exit, _), text) = tokio::join!(bench.run(server), bench.shell_output(2, client));
        assert!(exit.is_success(), "{exit:?}");
        assert_eq!(text, "hello\n");
    }
    bench.destroy().await;
}

async fn streams_arrive_separately_and_in_order(bench: EngineFixture) {
    if bench.engine.capabilities().separate_streams {
        let (exit, output) = bench.run(bench.launch(1, bench.shell_container("echo 1; echo a >&2; echo 2; echo b >&2"))).await;
        assert!(exit.is_success(), "{exit:?}");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("1\n2\n", "a\nb\n"));
    }
    bench.destroy().await;
}

async fn a_container_that_is_started_early_waits_for_its_start_signal(bench: EngineFixture) {
    if bench.engine.capabilities().early_start {
        let launch = bench.launch(1, bench.shell_container("touch begun; echo once"));
        bench.engine.prepare(&launch).await.unwrap();
        assert_eq!(bench.shell_output(2, "ls").await, "", "its program has not begun");
        let (exit, output) = bench.run(launch).await;
        assert!(exit.is_success() && output.stdout == "once\n", "{exit:?} {output:?}");
        assert_eq!(bench.shell_output(3, "ls").await, "begun\n");
    }
    bench.destroy().await;
}
