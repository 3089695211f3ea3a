//! Builds that wait: for capacity, for their position in the queue, and for Gogs.

use std::collections::BTreeSet;

use beespace::clock::now;
use beespace::store::Store;
use beespace::store::build::{BuildFilter, Builds as _};
use beespace_core::build::Build;
use beespace_core::ids::BuildId;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::{NO_ENV, Process};
use uuid::Uuid;

const DUMMY: &str = "[engine]\nkind = \"dummy\"\n";
const HIVE: &str = "ada/hive";
const COMB: &str = "ada/comb";

async fn world(extra: &str) -> (FakeGogs, Beespace) {
    let gogs = FakeGogs::start().await.unwrap();
    let beespace = Beespace::start(&gogs, &format!("{DUMMY}{extra}")).await.unwrap();
    for repository in [HIVE, COMB] {
        gogs.create_repository(repository).await.unwrap();
        beespace.enable(repository).await.unwrap();
    }
    (gogs, beespace)
}

async fn push(gogs: &FakeGogs, repository: &str, sleep: &str) {
    let file = format!("steps:\n  - name: build\n    image: busybox\n    env: {{ SLEEP: {sleep} }}\n");
    gogs.push(repository, "main", &[(".beespace.yml", &file)], &format!("Sleep {sleep}")).await.unwrap();
}

async fn waiting_for_gogs(beespace: &Beespace, count: usize) -> Vec<Build> {
    let waits = |build: &Build| build.reason.as_ref().is_some_and(|reason| reason.code == "waiting-for-gogs");
    beespace
        .wait_for("builds that wait for Gogs", async || {
            let builds: Vec<Build> = beespace.builds()?.into_iter().filter(waits).collect();
            Ok((builds.len() == count).then_some(builds))
        })
        .await
        .unwrap()
}

/// A world whose Gogs went offline before the build could fetch its sources.
async fn kept_deliveries_waiting() -> (FakeGogs, Beespace, Build) {
    let (gogs, beespace) = world("").await;
    gogs.set_offline(true);
    push(&gogs, HIVE, "1ms").await;
    let build = waiting_for_gogs(&beespace, 1).await.remove(0);
    (gogs, beespace, build)
}

/// Stores a copy of a build that is this many hours older.
async fn make_older(beespace: &Beespace, build: &Build, hours: u64) -> BuildId {
    let older = Build { id: BuildId(Uuid::now_v7()), created_at: Timestamp(now().0 - hours * 3_600_000), ..build.clone() };
    let id = older.id;
    beespace.app.store.write(move |write| write.create_build(&older)).await.unwrap();
    id
}

async fn finished(beespace: &Beespace, id: BuildId) -> Build {
    let read = async || Ok(beespace.app.store.read()?.build(id)?.filter(|build| build.status.is_over()));
    beespace.wait_for("the end of a build", read).await.unwrap()
}

async fn cancel(beespace: &Beespace, build: &Build) {
    let path = format!("/api/v1/repositories/{}/builds/{}/cancel", build.event.repository.name, build.number.unwrap());
    let answer = beespace.admin().unwrap().post(&path, &serde_json::json!({})).await.unwrap();
    assert!(answer.status.is_success(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_without_capacity_waits_with_a_reason() {
    let (gogs, beespace) = world("capacity = 1\n").await;
    push(&gogs, HIVE, "60s").await;
    let first = beespace.wait_for_build(HIVE, 1, |build| build.status == Status::Running).await.unwrap();
    push(&gogs, COMB, "1ms").await;
    let second = beespace
        .wait_for_build(COMB, 1, |build| build.reason.as_ref().is_some_and(|reason| reason.message.contains("free slot")))
        .await
        .unwrap();
    assert_eq!(second.status, Status::Pending);
    let reason = second.reason.unwrap();
    assert_eq!((&*reason.code, &*reason.message), ("capacity", "waiting for a free slot (capacity: 1)"));
    let page = beespace.admin().unwrap().get("/ada/comb/1").await.unwrap().body;
    assert!(page.contains("waiting for a free slot"), "{page}");
    cancel(&beespace, &first).await;
    assert_eq!(beespace.wait_until_finished(COMB, 1).await.unwrap().status, Status::Success);
    assert_eq!(beespace.wait_until_finished(HIVE, 1).await.unwrap().status, Status::Killed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_leaves_a_slot_to_the_others() {
    let (gogs, beespace) = world("capacity = 2\n").await;
    push(&gogs, HIVE, "60s").await;
    let first = beespace.wait_for_build(HIVE, 1, |build| build.status == Status::Running).await.unwrap();
    push(&gogs, HIVE, "61s").await;
    let waits = |build: &Build| build.reason.as_ref().is_some_and(|reason| reason.code == "capacity");
    beespace.wait_for_build(HIVE, 2, waits).await.unwrap();
    push(&gogs, COMB, "1ms").await;
    assert_eq!(beespace.wait_until_finished(COMB, 1).await.unwrap().status, Status::Success);
    assert_eq!(beespace.build(HIVE, 2).unwrap().unwrap().status, Status::Pending, "a slot was free all the time");
    cancel(&beespace, &first).await;
    let second = beespace.wait_for_build(HIVE, 2, |build| build.status == Status::Running).await.unwrap();
    cancel(&beespace, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_waited_while_the_policies_changed_runs_only_if_they_allow_it() {
    let (gogs, beespace) = world("capacity = 1\n").await;
    push(&gogs, HIVE, "60s").await;
    beespace.wait_for_build(HIVE, 1, |build| build.status == Status::Running).await.unwrap();
    push(&gogs, COMB, "1ms").await;
    let waits = |build: &Build| build.reason.as_ref().is_some_and(|reason| reason.code == "capacity");
    beespace.wait_for_build(COMB, 1, waits).await.unwrap();
    let policy = "[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\n\
                  settings = { repositories = [\"docker.io/library/alpine\"] }\n";
    let beespace = beespace.restart_with(&format!("{DUMMY}capacity = 1\n{policy}")).await.unwrap();
    let build = beespace.wait_until_finished(COMB, 1).await.unwrap();
    assert_eq!(build.status, Status::Declined, "{build:#?}");
    let stage = beespace.stage(&build).unwrap();
    assert!(stage.started_at.is_none() && stage.steps.iter().all(|step| step.started_at.is_none()), "{stage:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_runs_a_bounded_number_of_containers_at_once() {
    let (gogs, beespace) = world("[limits]\nstage_containers = 2\n").await;
    const STEPS: [&str; 3] = ["a", "b", "c"];
    let step =
        |name: &str| format!("  - {{ name: {name}, image: busybox, needs: [], env: {{ OUTPUT: started, SLEEP: 60s }} }}\n");
    let file = format!("clone: false\nsteps:\n{}", STEPS.map(step).concat());
    gogs.push(HIVE, "main", &[(".beespace.yml", &file)], "Three at once").await.unwrap();
    let build = beespace.wait_for_build(HIVE, 1, |build| build.status == Status::Running).await.unwrap();
    let logs = async || {
        let mut logs = Vec::new();
        for step in STEPS {
            logs.push(beespace.log(&build, step).await.unwrap_or_default().join("\n"));
        }
        let count = |text: &str| logs.iter().filter(|log| log.contains(text)).count();
        Ok((count("started") == 2 && count("waiting for a free slot: at most 2 containers") == 1).then_some(logs))
    };
    beespace.wait_for("two containers, and one that waits", logs).await.unwrap();
    cancel(&beespace, &build).await;
    let build = beespace.wait_until_finished(HIVE, 1).await.unwrap();
    let ends = STEPS.map(|step| beespace.step(&build, step).unwrap().status);
    assert_eq!(ends, [Status::Killed; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pushes_to_one_repository_do_not_delay_another() {
    let (gogs, beespace) = world("capacity = 1\n").await;
    push(&gogs, HIVE, "60s").await;
    let first = beespace.wait_for_build(HIVE, 1, |build| build.status == Status::Running).await.unwrap();
    for _ in 0..5 {
        push(&gogs, HIVE, "1ms").await;
    }
    push(&gogs, COMB, "1ms").await;
    let waits = |build: &Build| build.reason.as_ref().is_some_and(|reason| reason.code == "capacity");
    let all_wait = async || Ok((beespace.builds()?.iter().filter(|build| waits(build)).count() == 6).then_some(()));
    beespace.wait_for("six queued builds", all_wait).await.unwrap();
    cancel(&beespace, &first).await;
    let comb = beespace.wait_until_finished(COMB, 1).await.unwrap();
    for number in 2..=6 {
        beespace.wait_until_finished(HIVE, number).await.unwrap();
    }
    let started_before = |build: &Build| build.id != first.id && build.started_at.is_some_and(|at| at < comb.started_at.unwrap());
    let before = beespace.builds().unwrap().iter().filter(|build| started_before(build)).count();
    assert!(before <= 1, "{before} of five went before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_force_pushed_away_during_an_outage_is_skipped_and_names_its_successor() {
    let (gogs, beespace) = world("").await;
    push(&gogs, HIVE, "1ms").await;
    beespace.wait_until_finished(HIVE, 1).await.unwrap();
    gogs.set_offline(true);
    push(&gogs, HIVE, "2ms").await;
    let lost = waiting_for_gogs(&beespace, 1).await.remove(0);
    let file = "steps:\n  - name: build\n    image: busybox\n";
    let newer = gogs.force_push(HIVE, "main", &[(".beespace.yml", file)], "Begin anew").await.unwrap();
    waiting_for_gogs(&beespace, 2).await;
    gogs.set_offline(false);
    let lost = finished(&beespace, lost.id).await;
    assert_eq!(lost.status, Status::Skipped, "{lost:#?}");
    let reason = lost.reason.unwrap();
    assert_eq!(reason.code, "ref-moved");
    assert!(reason.message.contains(&newer[..7]), "{reason}");
    let built = |build: &Build| build.event.sha().unwrap().to_string() == newer && build.status == Status::Success;
    let built = async || Ok(beespace.builds()?.into_iter().find(built));
    beespace.wait_for("the newer commit's build", built).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_during_an_outage_of_gogs_build_afterwards() {
    const PUSHES: usize = 30;
    let (gogs, beespace) = world("").await;
    gogs.set_offline(true);
    for repository in [HIVE, COMB].into_iter().cycle().take(PUSHES) {
        push(&gogs, repository, "1ms").await;
    }
    let waiting = waiting_for_gogs(&beespace, PUSHES).await;
    gogs.set_offline(false);
    let mut built = BTreeSet::new();
    for build in &waiting {
        let aged = make_older(&beespace, build, 1).await;
        let build = finished(&beespace, aged).await;
        assert_eq!(build.status, Status::Success, "{build:#?}");
        built.insert((build.event.repository.name.to_string(), build.event.sha().unwrap().to_string()));
    }
    assert_eq!(built.len(), PUSHES, "each has its commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_waits_for_gogs_for_a_day_at_most() {
    let (gogs, beespace, waiting) = kept_deliveries_waiting().await;
    let (fresh_id, old_id) = (make_older(&beespace, &waiting, 23).await, make_older(&beespace, &waiting, 25).await);
    let old = finished(&beespace, old_id).await;
    assert_eq!(old.status, Status::Error);
    let reason = old.reason.unwrap();
    assert_eq!(reason.code, "source-timeout");
    assert!(reason.message.contains("24 h") && reason.help.is_some(), "{reason}");
    let fresh = beespace.app.store.read().unwrap().build(fresh_id).unwrap().unwrap();
    assert_eq!(fresh.status, Status::Pending, "one of 23 hours waits on");
    gogs.set_offline(false);
    let late_id = make_older(&beespace, &waiting, 23).await;
    assert_eq!(finished(&beespace, late_id).await.status, Status::Success, "and is built once Gogs is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_a_vanished_repository_waits_with_a_reason_and_ends() {
    let (gogs, beespace, waiting) = kept_deliveries_waiting().await;
    gogs.delete_repository(HIVE).unwrap();
    gogs.set_offline(false);
    let is_gone = |build: &Build| build.reason.as_ref().is_some_and(|reason| reason.code == "repository-gone");
    let gone = async || Ok(beespace.builds()?.into_iter().find(is_gone));
    let gone = beespace.wait_for("the build to report that the repository is gone", gone).await.unwrap();
    assert_eq!((gone.id, gone.status), (waiting.id, Status::Pending));
    let old_id = make_older(&beespace, &gone, 25).await;
    let old = finished(&beespace, old_id).await;
    let reason = old.reason.unwrap();
    assert_eq!((old.status, reason.code.as_str()), (Status::Error, "source-timeout"));
    assert!(reason.help.as_ref().unwrap().contains("access in Gogs"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_a_thousand_pushes_is_kept_and_does_not_delay_new_ones() {
    const PUSHES: usize = 1_000;
    let gogs = FakeGogs::start().await.unwrap();
    for repository in [HIVE, COMB] {
        gogs.create_repository(repository).await.unwrap();
    }
    let server = Process::start(env!("CARGO_BIN_EXE_beespace-under-test"), &gogs, DUMMY, NO_ENV).await.unwrap();
    for repository in [HIVE, COMB] {
        server.enable(repository).await.unwrap();
    }
    push(&gogs, HIVE, "1ms").await;
    let admin = server.admin().unwrap();
    let list = async |path: &str| anyhow::Ok(admin.get(path).await?.json()?.as_array().cloned().unwrap_or_default());
    let one_is_over = async || Ok(list("/api/v1/builds?status=success&limit=1").await?.pop());
    server.wait_for("the first build", one_is_over).await.unwrap();
    let before = server.resident_memory().unwrap();

    gogs.set_offline(true);
    let deliveries = gogs.deliveries();
    let mut payload = deliveries.iter().find(|one| one.event == "push").unwrap().payload().unwrap();
    payload["before"] = "0".repeat(40).into();
    for number in 0..PUSHES {
        payload["ref"] = format!("refs/heads/b{number}").into();
        payload["after"] = format!("{number:040x}").replace("00000", "abcde").into();
        payload["commits"][0]["id"] = payload["after"].clone();
        gogs.send_event(HIVE, "push", &payload).unwrap();
        if number % 100 == 99 {
            gogs.wait_until_delivered().await.unwrap();
        }
    }
    let attempted = gogs.deliveries();
    let answers: Vec<_> =
        attempted.iter().rev().take(PUSHES).map(|one| one.attempts.last().and_then(|last| last.status)).collect();
    assert!(answers.iter().all(|status| *status == Some(202)), "{answers:?}");
    let settled = async || Ok(list("/api/v1/deliveries?limit=1").await?.pop().filter(|last| last["build"].is_string()));
    server.wait_for("the last of them to be a build", &settled).await.unwrap();

    gogs.set_offline(false);
    // Gogs sends all held-back deliveries at once.
    for number in PUSHES..2 * PUSHES {
        payload["ref"] = format!("refs/heads/b{number}").into();
        payload["after"] = format!("{number:040x}").replace("00000", "abcde").into();
        gogs.send_event(HIVE, "push", &payload).unwrap();
    }
    gogs.wait_until_delivered().await.unwrap();
    server.wait_for("the last of those, too", settled).await.unwrap();
    // These commits do not exist. Their builds wait, while a push to another repository is built at once.
    push(&gogs, COMB, "2ms").await;
    let built = async || Ok((list("/api/v1/builds?status=success&limit=2").await?.len() == 2).then_some(()));
    server.wait_for("the push to the other one to be built", built).await.unwrap();
    let grown = server.resident_memory().unwrap().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes over two thousand pushes");
    let folder = server.stop().await.unwrap();
    let store = Store::open(&folder.path().join("data/beespace.redb")).unwrap();
    let builds = store.read().unwrap().builds(BuildFilter::default(), usize::MAX).unwrap();
    let of_hive: Vec<_> = builds.iter().filter(|build| build.event.repository.name.to_string() == HIVE).collect();
    let branches: BTreeSet<&str> = of_hive.iter().filter_map(|build| build.event.branch()).collect();
    assert_eq!((of_hive.len(), branches.len()), (2 * PUSHES + 1, 2 * PUSHES + 1), "each has one build");
}
