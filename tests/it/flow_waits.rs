//! Builds that wait: for a place, for their turn, for Gogs, and how long.

use std::time::Duration;

use beespace::clock::now;
use beespace::store::build::Builds as _;
use beespace_core::build::Build;
use beespace_core::ids::BuildId;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::PracticeGogs;
use uuid::Uuid;

const DUMMY: &str = "[engine]\nkind = \"dummy\"\n";
const HIVE: &str = "ada/hive";
const COMB: &str = "ada/comb";

async fn world(extra: &str) -> (PracticeGogs, Beespace) {
    let gogs = PracticeGogs::start().await.unwrap();
    let beespace = Beespace::start(&gogs, &format!("{DUMMY}{extra}")).await.unwrap();
    for repository in [HIVE, COMB] {
        gogs.create_repository(repository).await.unwrap();
        beespace.enable(repository).await.unwrap();
    }
    (gogs, beespace)
}

async fn push(gogs: &PracticeGogs, repository: &str, sleep: &str) {
    let file = format!("steps:\n  - name: build\n    image: busybox\n    env: {{ SLEEP: {sleep} }}\n");
    gogs.push(repository, "main", &[(".beespace.yml", &file)], &format!("Sleep {sleep}")).await.unwrap();
}

async fn waiting_for_gogs(beespace: &Beespace, count: usize) -> Vec<Build> {
    let waits = |build: &Build| build.reason.as_ref().is_some_and(|reason| reason.code == "waiting-for-gogs");
    beespace
        .when("builds that wait for Gogs", async || {
            let builds: Vec<Build> = beespace.builds()?.into_iter().filter(waits).collect();
            Ok((builds.len() == count).then_some(builds))
        })
        .await
        .unwrap()
}

async fn over(beespace: &Beespace, id: BuildId) -> Build {
    let read = async || Ok(beespace.app.store.read()?.build(id)?.filter(|build| build.status.is_over()));
    beespace.when("the end of a build", read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_place_waits_and_says_for_what() {
    let (gogs, beespace) = world("capacity = 1\n").await;
    push(&gogs, HIVE, "60s").await;
    let first = beespace.build_when(HIVE, 1, |build| build.status == Status::Running).await.unwrap();
    push(&gogs, COMB, "1ms").await;
    let second = beespace
        .build_when(COMB, 1, |build| build.reason.as_ref().is_some_and(|reason| reason.message.contains("at once")))
        .await
        .unwrap();
    assert_eq!(second.status, Status::Pending);
    let reason = second.reason.unwrap();
    assert_eq!((&*reason.code, &*reason.message), ("capacity", "waits for its turn: 1 may run at once"));
    let page = beespace.admin().unwrap().get("/ada/comb/1").await.unwrap().body;
    assert!(page.contains("waits for its turn"), "{page}");
    let cancel = format!("/api/v1/repositories/{HIVE}/builds/{}/cancel", first.number.unwrap());
    let answer = beespace.admin().unwrap().post(&cancel, &serde_json::json!({})).await.unwrap();
    assert!(answer.status.is_success(), "{answer:?}");
    assert_eq!(beespace.finished(COMB, 1).await.unwrap().status, Status::Success);
    assert_eq!(beespace.finished(HIVE, 1).await.unwrap().status, Status::Killed);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pushes_to_one_repository_leave_the_next_place_to_another() {
    let (gogs, beespace) = world("capacity = 1\n").await;
    gogs.set_away(true);
    for _ in 0..5 {
        push(&gogs, HIVE, "300ms").await;
    }
    push(&gogs, COMB, "1ms").await;
    waiting_for_gogs(&beespace, 6).await;
    gogs.set_away(false);
    let comb = beespace.finished(COMB, 1).await.unwrap();
    for number in 1..=5 {
        beespace.finished(HIVE, number).await.unwrap();
    }
    let started_before = |build: &Build| {
        build.event.repository.name.to_string() == HIVE && build.started_at.is_some_and(|at| at < comb.started_at.unwrap())
    };
    let before = beespace.builds().unwrap().iter().filter(|build| started_before(build)).count();
    // Prepared at about the same time: one may run, and one more may have been ready first.
    assert!(before <= 2, "{before} of five went before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_pushed_over_while_gogs_was_away_is_skipped_and_names_what_came_after() {
    let (gogs, beespace) = world("").await;
    push(&gogs, HIVE, "1ms").await;
    beespace.finished(HIVE, 1).await.unwrap();
    gogs.set_away(true);
    push(&gogs, HIVE, "2ms").await;
    let lost = waiting_for_gogs(&beespace, 1).await.remove(0);
    let file = "steps:\n  - name: build\n    image: busybox\n";
    let newer = gogs.force_push(HIVE, "main", &[(".beespace.yml", file)], "Begin anew").await.unwrap();
    waiting_for_gogs(&beespace, 2).await;
    gogs.set_away(false);
    let lost = over(&beespace, lost.id).await;
    assert_eq!(lost.status, Status::Skipped, "{lost:#?}");
    let reason = lost.reason.unwrap();
    assert_eq!(reason.code, "moved-on");
    assert!(reason.message.contains(&newer[..7]), "{reason}");
    let built = |build: &Build| build.event.sha().to_string() == newer && build.status == Status::Success;
    let built = async || Ok(beespace.builds()?.into_iter().find(built));
    beespace.when("the newer commit's build", built).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn gogs_is_waited_for_a_day_and_not_longer() {
    let (gogs, beespace) = world("").await;
    gogs.set_away(true);
    push(&gogs, HIVE, "1ms").await;
    let waiting = waiting_for_gogs(&beespace, 1).await.remove(0);
    let since = |hours: u64| Build {
        id: BuildId(Uuid::now_v7()),
        created_at: Timestamp(now().0 - Duration::from_secs(hours * 3600).as_millis() as u64),
        ..waiting.clone()
    };
    let (fresh, old) = (since(23), since(25));
    let (fresh_id, old_id) = (fresh.id, old.id);
    let put = move |write: &beespace::store::Write| write.put_new_build(&fresh).and_then(|()| write.put_new_build(&old));
    beespace.app.store.write(put).await.unwrap();
    let old = over(&beespace, old_id).await;
    assert_eq!(old.status, Status::Error);
    let reason = old.reason.unwrap();
    assert_eq!(reason.code, "gave-up-waiting");
    assert!(reason.message.contains("24 h") && reason.help.is_some(), "{reason}");
    let fresh = beespace.app.store.read().unwrap().build(fresh_id).unwrap().unwrap();
    assert_eq!(fresh.status, Status::Pending, "one of 23 hours waits on");
}
