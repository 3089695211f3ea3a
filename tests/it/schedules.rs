//! Schedules: set by people or by the pipeline file, and the builds that they start. No test waits for a time: the store is
//! given the time at which a schedule was set, so its next time is already past.

use beespace::store::StoreError;
use beespace::store::repository::Repositories as _;
use beespace::store::schedule::{ScheduleId, ScheduleOrigin, Schedules as _, StoredSchedule};
use beespace_core::build::Build;
use beespace_core::event::{EventKind, GivenParams};
use beespace_core::ids::{BuildId, RepositoryId};
use beespace_core::schedule::{MAX_SCHEDULES, Schedule};
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_core::trust::Trust;
use beespace_tests::beespace::Beespace;
use beespace_tests::client::HttpResponse;
use beespace_tests::gogs::FakeGogs;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::flow::{asking, world};

const REPO: &str = "ada/hive";
const BASE: &str = "/api/v1/repositories/ada/hive/schedules";
/// The default branch of a new repository.
const MAIN: &str = "master";
const DAY: u64 = 24 * 3_600_000;
/// Runs for schedules, and for pushes that do not skip.
const FILE: &str = "when: { event: [push, cron] }\nsteps:\n  - name: build\n    image: busybox\n";

fn daily(name: &str) -> Schedule {
    let (cron, zone) = ("@daily".to_owned(), "UTC".to_owned());
    Schedule { name: name.to_owned(), cron, zone, branch: None, params: GivenParams::new(), enabled: true }
}

fn repository(beespace: &Beespace) -> RepositoryId {
    let read = beespace.app.store.read().unwrap();
    read.repository_by_name(&REPO.parse().unwrap()).unwrap().unwrap().id
}

fn stored(beespace: &Beespace) -> Vec<StoredSchedule> {
    beespace.app.store.read().unwrap().schedules(repository(beespace)).unwrap()
}

fn names(beespace: &Beespace) -> Vec<(String, ScheduleOrigin)> {
    stored(beespace).into_iter().map(|stored| (stored.schedule.name, stored.origin)).collect()
}

async fn push(gogs: &FakeGogs, branch: &str, file: &str, message: &str) -> String {
    gogs.push(REPO, branch, &[(".beespace.yml", file)], message).await.unwrap()
}

async fn call(beespace: &Beespace, method: Method, path: &str, body: Value) -> HttpResponse {
    beespace.admin().unwrap().call(method, path, &body).await.unwrap()
}

fn scheduled(beespace: &Beespace) -> Vec<Build> {
    beespace.builds().unwrap().into_iter().filter(|build| build.event.kind() == EventKind::Cron).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_passed_while_the_server_was_down_are_built_once() {
    let (gogs, beespace) = world("").await;
    let sha = push(&gogs, MAIN, FILE, "Change [skip ci]").await;
    // Set in 1970: twenty thousand times have passed.
    let set = beespace.app.store.set_schedule(repository(&beespace), daily("nightly"), Timestamp(0)).await.unwrap();
    assert_eq!(set.next, Some(Timestamp(DAY)));
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!((build.status, build.sha().unwrap().as_str(), build.trust()), (Status::Success, &*sha, Trust::Trusted));
    assert_eq!((build.event.schedule(), build.event.branch()), (Some("nightly"), Some(MAIN)));
    assert_eq!(build.event.sender.stable_id(), "schedule:nightly");
    let all = stored(&beespace);
    let [after] = all.as_slice() else { panic!("one schedule") };
    let next = after.next.unwrap();
    assert!(next > build.created_at && next.since(build.created_at).as_millis() <= u128::from(DAY), "{after:?}");
    assert_eq!(after.last, Some((build.id, build.created_at)));
    assert_eq!(scheduled(&beespace).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_starts_one_build_and_a_clock_that_is_set_back_none() {
    let (_gogs, beespace) = world("").await;
    let store = &beespace.app.store;
    let id = ScheduleId { repository: repository(&beespace), name: "nightly".to_owned() };
    // Far in the future, so that the server itself starts nothing.
    let start = Timestamp(1_000_000 * DAY);
    store.set_schedule(id.repository, daily("nightly"), start).await.unwrap();
    let run = async |now: u64| {
        let build = BuildId(uuid::Uuid::now_v7());
        store.run_due_schedule(id.clone(), build, Timestamp(now)).await.unwrap().is_some()
    };
    let due = start.0 + DAY;
    assert!(!run(due - 1).await, "not due yet");
    assert!(run(due + 5).await);
    assert!(!run(due + 5).await && !run(due + 6).await, "the same time again");
    assert!(!run(due - DAY).await, "the clock was set back");
    assert!(run(due + 10 * DAY).await, "nine times were missed");
    assert!(!run(due + 10 * DAY).await);
    assert_eq!(scheduled(&beespace).len(), 2);
    store.remove_schedule(id.clone()).await.unwrap();
    assert!(!run(due + 99 * DAY).await, "it was removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_not_enabled_and_a_disabled_repository_start_nothing() {
    let (_gogs, beespace) = world("").await;
    let store = &beespace.app.store;
    let repository = repository(&beespace);
    let disabled = Schedule { enabled: false, ..daily("off") };
    assert_eq!(store.set_schedule(repository, disabled, Timestamp(0)).await.unwrap().next, None);
    call(&beespace, Method::DELETE, "/api/v1/repositories/ada/hive", json!({})).await;
    let (id, build) = (ScheduleId { repository, name: "on".to_owned() }, BuildId(uuid::Uuid::now_v7()));
    store.set_schedule(repository, daily("on"), Timestamp(1_000_000 * DAY)).await.unwrap();
    assert_eq!(store.run_due_schedule(id, build, Timestamp(1_000_002 * DAY)).await.unwrap(), None);
    assert_eq!(scheduled(&beespace).len(), 0);
    let run = call(&beespace, Method::POST, &format!("{BASE}/on/run"), json!({})).await;
    assert_eq!(run.status, StatusCode::CONFLICT, "{}", run.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_set_run_and_remove_schedules() {
    let (gogs, beespace) = world("").await;
    push(&gogs, MAIN, FILE, "Change [skip ci]").await;
    push(&gogs, "topic", FILE, "Change [skip ci]").await;
    let body = json!({ "cron": "0 3 * * *", "zone": "Europe/Berlin", "branch": "topic" });
    let set = call(&beespace, Method::PUT, &format!("{BASE}/nightly"), body).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.body);
    assert!(set.json().unwrap()["next_at"].is_string(), "{}", set.body);
    let run = call(&beespace, Method::POST, &format!("{BASE}/nightly/run"), json!({})).await;
    assert_eq!(run.json().unwrap()["schedule"], "nightly", "{}", run.body);
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!((build.event.branch(), build.event.sender.stable_id().as_str()), (Some("topic"), "admin"));
    let page = beespace.admin().unwrap().get("/ada/hive").await.unwrap().body;
    assert!(page.contains("0 3 * * * (Europe/Berlin), branch topic") && page.contains("last build"), "{page}");
    let removed = call(&beespace, Method::DELETE, &format!("{BASE}/nightly"), json!({})).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    assert_eq!(stored(&beespace), []);
    for (path, body) in [
        ("nightly", json!({ "cron": "*/2 * * * *" })),
        ("nightly", json!({ "cron": "60 * * * *" })),
        ("nightly", json!({ "cron": "@daily", "zone": "Mars" })),
        ("nightly", json!({ "cron": "@daily", "branch": "a..b" })),
        ("a%20b", json!({ "cron": "@daily" })),
    ] {
        let refused = call(&beespace, Method::PUT, &format!("{BASE}/{path}"), body.clone()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}: {}", refused.body);
    }
    for number in 0..MAX_SCHEDULES {
        let one = daily(&format!("s{number}"));
        beespace.app.store.set_schedule(repository(&beespace), one, Timestamp(1_000_000 * DAY)).await.unwrap();
    }
    let many = call(&beespace, Method::PUT, &format!("{BASE}/more"), json!({ "cron": "@daily" })).await;
    assert_eq!(many.status, StatusCode::CONFLICT, "{}", many.body);
}

fn with_schedules(schedules: &str) -> String {
    format!("schedules: {schedules}\n{FILE}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_file_of_the_default_branch_sets_schedules() {
    let (gogs, beespace) = world("").await;
    let two = with_schedules("[{ name: nightly, cron: \"@daily\" }, { name: weekly, cron: \"@weekly\" }]");
    push(&gogs, MAIN, &two, "Two schedules").await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
    let file = ScheduleOrigin::File;
    assert_eq!(names(&beespace), [("nightly".to_owned(), file), ("weekly".to_owned(), file)]);
    // Another branch sets nothing, and a schedule of the file is changed only there.
    push(&gogs, "topic", &with_schedules("[{ name: other, cron: \"@daily\" }]"), "Not here").await;
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!(names(&beespace).len(), 2);
    for method in [Method::PUT, Method::DELETE] {
        let refused = call(&beespace, method, &format!("{BASE}/nightly"), json!({ "cron": "@hourly" })).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
    }
    push(&gogs, MAIN, &with_schedules("[{ name: weekly, cron: \"@hourly\" }]"), "One schedule").await;
    beespace.wait_until_finished(REPO, 3).await.unwrap();
    let all = stored(&beespace);
    let [weekly] = all.as_slice() else { panic!("one schedule") };
    assert_eq!(weekly.schedule.cron, "@hourly");
    // A restart of an older build does not bring its schedules back.
    let restart = call(&beespace, Method::POST, "/api/v1/repositories/ada/hive/builds/1/restart", json!({})).await;
    assert!(restart.status.is_success(), "{}", restart.body);
    beespace.wait_until_finished(REPO, 4).await.unwrap();
    assert_eq!(names(&beespace), [("weekly".to_owned(), file)]);
    push(&gogs, MAIN, FILE, "No schedule").await;
    beespace.wait_until_finished(REPO, 5).await.unwrap();
    assert_eq!(names(&beespace), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_pipeline_runs_only_by_schedule_sets_it() {
    let (gogs, beespace) = world("").await;
    let file =
        "schedules: [{ name: nightly, cron: \"@daily\" }]\nwhen: { cron: nightly }\nsteps: [{ name: a, image: busybox }]\n";
    push(&gogs, MAIN, file, "Only nightly").await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Skipped);
    assert_eq!(names(&beespace).len(), 1);
    call(&beespace, Method::POST, &format!("{BASE}/nightly/run"), json!({})).await;
    assert_eq!(beespace.wait_until_finished(REPO, 2).await.unwrap().status, Status::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_of_the_file_that_are_not_possible_are_an_error_of_the_build() {
    let (gogs, beespace) = world("").await;
    beespace.app.store.set_schedule(repository(&beespace), daily("nightly"), Timestamp(1_000_000 * DAY)).await.unwrap();
    let file = with_schedules("[{ name: nightly, cron: \"@daily\" }, { name: often, cron: \"*/2 * * * *\" }]");
    push(&gogs, MAIN, &file, "Not possible").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let reason = build.reason.unwrap();
    assert_eq!((build.status, reason.code.as_str()), (Status::Error, "invalid-schedules"));
    for part in ["\"nightly\" is also set by hand", "`[limits] schedule_interval` (5m)"] {
        assert!(reason.to_string().contains(part), "{reason}");
    }
    assert_eq!(names(&beespace), [("nightly".to_owned(), ScheduleOrigin::Person)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_of_a_declined_file_are_not_set() {
    let policy =
        "[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\nsettings = { repositories = [\"docker.io/acme/*\"] }\n";
    let (gogs, beespace) = world(policy).await;
    push(&gogs, MAIN, &with_schedules("[{ name: nightly, cron: \"@daily\" }]"), "Denied").await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Declined);
    assert_eq!(names(&beespace), [], "a declined file sets nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_of_a_file_that_waits_for_an_approval_are_set_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (gogs, beespace) = world(&asking(&folder, "asks")).await;
    push(&gogs, MAIN, &with_schedules("[{ name: nightly, cron: \"@daily\" }]"), "Ask first").await;
    let blocked = beespace.wait_for_build(REPO, 1, |build| build.status == Status::Blocked).await.unwrap();
    assert_eq!(names(&beespace), [], "nobody has approved the file");
    let subject = beespace.stage(&blocked).unwrap().approvals[0].subject.to_string();
    let path = "/api/v1/repositories/ada/hive/builds/1/approve";
    let approved = call(&beespace, Method::POST, path, json!({ "subject": subject })).await;
    assert!(approved.status.is_success(), "{}", approved.body);
    assert_eq!(names(&beespace), [("nightly".to_owned(), ScheduleOrigin::File)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_gone_is_an_error_of_the_scheduled_build() {
    let (gogs, beespace) = world("").await;
    push(&gogs, MAIN, FILE, "Change [skip ci]").await;
    let gone = Schedule { branch: Some("gone".to_owned()), ..daily("nightly") };
    beespace.app.store.set_schedule(repository(&beespace), gone, Timestamp(0)).await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!((build.status, build.reason.unwrap().code.as_str()), (Status::Error, "no-such-revision"));
    let unknown = ScheduleId { repository: repository(&beespace), name: "unknown".to_owned() };
    assert!(matches!(beespace.app.store.remove_schedule(unknown).await, Err(StoreError::NotFound(_))));
}
