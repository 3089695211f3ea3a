//! The real store on a real disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use beespace::store::build::key_of_stage;
use beespace::store::build::{BuildFilter, Builds as _};
use beespace::store::build_lifecycle::Prepared;
use beespace::store::delivery::{Accepted, Deliveries as _, DeliveryAction, DeliveryOutcome, NewDelivery};
use beespace::store::kv;
use beespace::store::queue::{Claim, MAX_ATTEMPTS};
use beespace::store::repository::{Repositories as _, Repository};
use beespace::store::{Queue, Store, StoreError, Write, tables};
use beespace_core::build::{Build, Phase, Stage};
use beespace_core::event::{Actor, Cause, Event, Push};
use beespace_core::ids::{BuildId, DeliveryId, RepositoryId, RepositoryName, Sha, StageId, StageNumber};
use beespace_core::notice::NoticeKind;
use beespace_core::pipeline::Pipeline;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_core::trigger::LastSeenRef;
use tokio::sync::Notify;

pub const NOW: Timestamp = Timestamp(1_000_000);
const REPOSITORY: RepositoryId = RepositoryId(7);

pub struct World {
    pub store: Store,
    folder: tempfile::TempDir,
}

pub(crate) fn repository(id: RepositoryId, owner: &str, name: &str) -> Repository {
    Repository {
        id,
        name: RepositoryName::new(owner, name).unwrap(),
        default_branch: "main".to_owned(),
        is_private: false,
        html_url: String::new(),
        hook: None,
        previous_hooks: Vec::new(),
        last_number: 0,
        enabled_at: NOW,
    }
}

pub async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("beespace.redb")).unwrap();
    store.set_notifiers(["hook"]);
    world_on(store, folder).await
}

/// A world with its repository in an existing store.
pub async fn world_on(store: Store, folder: tempfile::TempDir) -> World {
    store.change_repository(REPOSITORY, |_| Ok(repository(REPOSITORY, "acme", "app"))).await.unwrap();
    World { store, folder }
}

fn push(after: &str) -> Event {
    Event {
        repository: beespace_core::event::Repository {
            id: REPOSITORY,
            name: RepositoryName::new("acme", "app").unwrap(),
            default_branch: "main".to_owned(),
            is_private: false,
            html_url: String::new(),
        },
        sender: Actor::user(1, "ada"),
        cause: Cause::Push(Push {
            branch: "main".to_owned(),
            before: None,
            last_known_tip: None,
            after: Sha::new(&after.repeat(40)).unwrap(),
            commits: vec![],
            compare_url: None,
        }),
    }
}

fn delivery(forge_id: &str, body: &str) -> NewDelivery {
    NewDelivery {
        id: DeliveryId(uuid::Uuid::now_v7()),
        repository: REPOSITORY,
        forge_id: forge_id.to_owned(),
        event: "push".to_owned(),
        body: body.as_bytes().to_vec(),
        received_at: NOW,
    }
}

fn stage(build: BuildId, status: Status) -> Stage {
    let pipeline = Pipeline { name: "default".to_owned(), ..Pipeline::default() };
    let id = StageId { build, stage: StageNumber(1) };
    Stage { status, ..Stage::pending(id, pipeline, None, vec![], NOW) }
}

pub async fn build_of(world: &World, forge_id: &str, after: &'static str) -> BuildId {
    let accepted = world.store.accept_delivery(delivery(forge_id, after)).await.unwrap();
    let Accepted::New(id) = accepted else { panic!("{accepted:?}") };
    let build = BuildId(uuid::Uuid::now_v7());
    let decide = move |_: Option<&LastSeenRef>| DeliveryAction::Build(vec![(build, push(after))]);
    world.store.finish_delivery(id, Some("refs/heads/main".to_owned()), NOW, decide).await.unwrap();
    build
}

pub async fn with_stage(world: &World, build: BuildId, status: Status) {
    let row = world.store.read().unwrap().build(build).unwrap().unwrap();
    let prepared = Prepared::Stages { build: Box::new(row), stages: vec![stage(build, status)], decisions: vec![] };
    world.store.store_prepared(build, prepared, NOW).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_delivery_is_stored_once() {
    let world = world().await;
    let Accepted::New(first) = world.store.accept_delivery(delivery("a", "x")).await.unwrap() else { panic!() };
    let late = NewDelivery { received_at: NOW + Duration::from_secs(301), ..delivery("b", "x") };
    for again in [delivery("a", "x"), delivery("a", "other"), late] {
        assert_eq!(world.store.accept_delivery(again).await.unwrap(), Accepted::Duplicate(first));
    }
    assert_eq!(world.store.read().unwrap().deliveries(None, None, 10).unwrap().len(), 1);
    assert_eq!(world.store.read().unwrap().queue_entries(Queue::Delivery).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_without_effect_writes_nothing() {
    let world = world().await;
    world.store.accept_delivery(delivery("a", "x")).await.unwrap();
    // Every commit writes the header of the file.
    let head = || std::fs::read(world.folder.path().join("beespace.redb")).unwrap()[..4096].to_vec();
    let before = head();
    assert!(matches!(world.store.accept_delivery(delivery("a", "x")).await.unwrap(), Accepted::Duplicate(_)));
    world.store.write(|write| write.dequeue(Queue::Run, b"unknown")).await.unwrap();
    assert!(head() == before, "a delivery that is here already was written again");
    world.store.accept_delivery(delivery("b", "y")).await.unwrap();
    assert!(head() != before, "a new one is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_body_under_another_id_is_stored_as_a_repeat_up_to_a_limit() {
    let world = world().await;
    let Accepted::New(first) = world.store.accept_delivery(delivery("a", "x")).await.unwrap() else { panic!() };
    for number in 0..32 {
        let repeat = NewDelivery { received_at: NOW + Duration::from_secs(number), ..delivery(&format!("b{number}"), "x") };
        let Accepted::New(id) = world.store.accept_delivery(repeat).await.unwrap() else { panic!("repeat {number} is lost") };
        assert!(world.store.read().unwrap().delivery(id).unwrap().unwrap().is_repeat);
        assert_eq!(world.store.read().unwrap().delivery_body(id).unwrap().unwrap(), b"x");
    }
    assert_eq!(world.store.accept_delivery(delivery("c", "x")).await.unwrap(), Accepted::Duplicate(first));
    assert!(!world.store.read().unwrap().delivery(first).unwrap().unwrap().is_repeat);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_copies_at_once_are_one_delivery() {
    let world = world().await;
    let copies = (0..100).map(|_| world.store.accept_delivery(delivery("a", "x")));
    let accepted = futures::future::join_all(copies).await;
    assert_eq!(accepted.iter().filter(|one| matches!(one, Ok(Accepted::New(_)))).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_processed_again_when_it_is_redelivered() {
    let world = world().await;
    let Accepted::New(id) = world.store.accept_delivery(delivery("a", "x")).await.unwrap() else { panic!() };
    let bury = |_: Option<&LastSeenRef>| DeliveryAction::DeadLetter(Reason::from_rule("malformed", "no repository in it"));
    world.store.finish_delivery(id, None, NOW, bury).await.unwrap();
    assert!(matches!(world.store.read().unwrap().delivery(id).unwrap().unwrap().outcome, DeliveryOutcome::DeadLetter(_)));
    assert_eq!(world.store.accept_delivery(delivery("a", "x")).await.unwrap(), Accepted::Duplicate(id));
    assert_eq!(world.store.read().unwrap().delivery(id).unwrap().unwrap().outcome, DeliveryOutcome::Waiting);
    assert_eq!(world.store.read().unwrap().queue_entries(Queue::Delivery).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_remembers_its_last_recorded_commit() {
    let world = world().await;
    build_of(&world, "a", "1").await;
    let read = world.store.read().unwrap();
    assert_eq!(read.last_seen(REPOSITORY, "refs/heads/main").unwrap(), LastSeenRef::of_push(&push("1")));
    assert_eq!(read.queue_entries(Queue::Prepare).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_leads_to_the_repository_that_used_it_last() {
    let world = world().await;
    let name = |name: &str| RepositoryName::new("acme", name).unwrap();
    let found = |called: &str| world.store.read().unwrap().repository_by_name(&name(called)).unwrap().map(|found| found.id);
    let call = async |id: RepositoryId, called: &str| {
        let called = name(called);
        let change = move |known: Option<Repository>| {
            let known = known.unwrap_or_else(|| Repository { id, ..repository(REPOSITORY, "acme", "app") });
            Ok(Repository { name: called.clone(), ..known })
        };
        world.store.change_repository(id, change).await.unwrap();
    };
    let other = RepositoryId(8);
    call(REPOSITORY, "product").await;
    assert_eq!((found("app"), found("product")), (Some(REPOSITORY), Some(REPOSITORY)), "addresses from before stay good");
    call(other, "app").await;
    call(REPOSITORY, "product").await;
    assert_eq!((found("app"), found("product")), (Some(other), Some(REPOSITORY)));
    call(REPOSITORY, "thing").await;
    assert_eq!((found("app"), found("thing")), (Some(other), Some(REPOSITORY)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_ends_exactly_once_and_fills_the_outbox() {
    let world = world().await;
    let build = build_of(&world, "a", "1").await;
    with_stage(&world, build, Status::Pending).await;
    let id = StageId { build, stage: StageNumber(1) };
    assert_eq!(world.store.read().unwrap().queue_entries(Queue::Run).unwrap()[0].0, key_of_stage(id));
    let change = async |status| {
        let change = move |stage: &mut Stage| {
            stage.status = status;
            Ok(())
        };
        world.store.change_stage(id, NOW, change).await
    };
    change(Status::Running).await.unwrap();
    change(Status::Success).await.unwrap();
    for status in [Status::Failure, Status::Pending] {
        assert!(matches!(change(status).await, Err(StoreError::Conflict(_))), "{status}");
    }
    let read = world.store.read().unwrap();
    let row: Build = read.build(build).unwrap().unwrap();
    assert_eq!((row.phase, row.number, row.finished_at), (Phase::Finished, Some(1), Some(NOW)));
    let notices = read.notices(None, None, 10).unwrap();
    assert_eq!(notices.iter().map(|notice| notice.kind).collect::<Vec<_>>(), [NoticeKind::BuildFinished]);
    assert_eq!(read.queue_entries(Queue::Notice).unwrap().len(), 1);
    assert!(read.queue_entries(Queue::Run).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_stage_leaves_the_queue_and_requests_approval() {
    let world = world().await;
    let build = build_of(&world, "a", "1").await;
    with_stage(&world, build, Status::Blocked).await;
    let read = world.store.read().unwrap();
    assert!(read.queue_entries(Queue::Run).unwrap().is_empty());
    assert_eq!(read.build(build).unwrap().unwrap().status, Status::Blocked);
    assert_eq!(read.notices(None, None, 10).unwrap()[0].kind, NoticeKind::ApprovalRequested);
    let id = StageId { build, stage: StageNumber(1) };
    let release = |stage: &mut Stage| {
        stage.status = Status::Pending;
        Ok(())
    };
    world.store.change_stage(id, NOW, release).await.unwrap();
    assert_eq!(world.store.read().unwrap().queue_entries(Queue::Run).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_a_pipeline_file_leaves_no_build() {
    let world = world().await;
    let build = build_of(&world, "a", "1").await;
    let ignored = Prepared::Ignored(Reason::new(ReasonCode::NoPipelineFile, "no pipeline file at 1111111"));
    world.store.store_prepared(build, ignored, NOW).await.unwrap();
    let read = world.store.read().unwrap();
    assert!(read.builds(BuildFilter::default(), 10).unwrap().is_empty());
    let outcome = &read.deliveries(None, None, 1).unwrap()[0].outcome;
    assert!(matches!(outcome, DeliveryOutcome::Ignored(reason) if reason.code == "no-pipeline-file"), "{outcome:?}");
    assert!(read.notices(None, None, 10).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_have_no_gaps_and_builds_are_found_by_them() {
    let world = world().await;
    for (forge_id, after) in [("a", "1"), ("b", "2"), ("c", "3")] {
        let build = build_of(&world, forge_id, after).await;
        with_stage(&world, build, Status::Pending).await;
    }
    let read = world.store.read().unwrap();
    for number in 1..=3 {
        assert_eq!(read.build_by_number(REPOSITORY, number).unwrap().unwrap().number, Some(number));
    }
    let newest = read.builds(BuildFilter { repository: Some(REPOSITORY), ..BuildFilter::default() }, 2).unwrap();
    assert_eq!(newest.iter().map(|build| build.number.unwrap()).collect::<Vec<_>>(), [3, 2]);
    let rest = BuildFilter { repository: Some(REPOSITORY), after: Some(newest[1].id), status: None };
    assert_eq!(read.builds(rest, 10).unwrap()[0].number, Some(1));
    let pending = BuildFilter { status: Some(Status::Pending), ..BuildFilter::default() };
    assert_eq!(read.builds(pending, 10).unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_counted_before_the_work_begins() {
    let world = world().await;
    let Accepted::New(id) = world.store.accept_delivery(delivery("a", "x")).await.unwrap() else { panic!() };
    let key = id.0.as_bytes().to_vec();
    for attempt in 1..=MAX_ATTEMPTS {
        assert_eq!(world.store.claim(Queue::Delivery, key.clone()).await.unwrap(), Claim::Attempt(attempt));
    }
    assert_eq!(world.store.claim(Queue::Delivery, key).await.unwrap(), Claim::Exhausted);
    assert_eq!(world.store.claim(Queue::Delivery, vec![0; 16]).await.unwrap(), Claim::Gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_changes_survive_a_reopen() {
    let World { store, folder } = world().await;
    store.accept_delivery(delivery("a", "x")).await.unwrap();
    let instance = store.instance_id().await.unwrap();
    let (clone, read) = (store.clone(), store.read().unwrap());
    store.close().await;
    assert!(matches!(clone.read(), Err(StoreError::Unavailable(_))), "it is closed for everyone");
    assert!(matches!(clone.accept_delivery(delivery("b", "y")).await, Err(StoreError::Unavailable(_))));
    clone.close().await;
    let store = Store::open(&folder.path().join("beespace.redb")).unwrap();
    drop(read);
    assert_eq!(store.instance_id().await.unwrap(), instance);
    assert_eq!(store.read().unwrap().queue_entries(Queue::Delivery).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_format_is_refused_with_an_explanation() {
    let World { store, folder } = world().await;
    store.instance_id().await.unwrap();
    store.close().await;
    for (format, expected) in [(None, "an older development version"), (Some([1, 99]), "a newer version")] {
        let path = folder.path().join(expected);
        std::fs::copy(folder.path().join("beespace.redb"), &path).unwrap();
        let database = redb::Database::open(&path).unwrap();
        let change = database.begin_write().unwrap();
        let mut meta = change.open_table(tables::META).unwrap();
        match &format {
            Some(row) => drop(meta.insert(b"format".as_slice(), row.as_slice()).unwrap()),
            None => drop(meta.remove(b"format".as_slice()).unwrap()),
        }
        drop(meta);
        change.commit().unwrap();
        drop(database);
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Format(_)) && error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_change_does_not_affect_others_in_its_batch() {
    let world = world().await;
    let good = (0..20).map(|n| {
        let store = world.store.clone();
        async move { store.accept_delivery(delivery(&format!("d{n}"), &format!("body {n}"))).await.map(drop) }
    });
    let bad = (0..20).map(|_| {
        let store = world.store.clone();
        async move { store.write(|_| Err::<(), _>(StoreError::Conflict("no".to_owned()))).await }
    });
    let (good, bad) = tokio::join!(futures::future::join_all(good), futures::future::join_all(bad));
    assert!(good.iter().all(Result::is_ok), "{good:?}");
    assert!(bad.iter().all(Result::is_err));
    assert_eq!(world.store.read().unwrap().deliveries(None, None, 100).unwrap().len(), 20);
}

#[test]
fn writes_waiting_for_a_slow_disk_do_not_use_up_threads() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = world().await;
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (released, store) = (std::sync::Mutex::new(released), world.store.clone());
        let is_writing = Arc::new(Notify::new());
        let tell = Arc::clone(&is_writing);
        let slow = tokio::spawn(async move {
            let wait = move |_: &Write<'_>| {
                tell.notify_one();
                // An error means that the sender was dropped.
                let _ = released.lock().unwrap().recv();
                Ok(())
            };
            store.write(wait).await
        });
        is_writing.notified().await;
        let begun = Arc::new(AtomicUsize::new(0));
        let changes = (0..1_000).map(|number| {
            let (store, begun) = (world.store.clone(), Arc::clone(&begun));
            tokio::spawn(async move {
                begun.fetch_add(1, Ordering::Relaxed);
                store.accept_delivery(delivery(&format!("d{number}"), &format!("body {number}"))).await
            })
        });
        let changes: Vec<_> = changes.collect();
        while begun.load(Ordering::Relaxed) < changes.len() {
            tokio::task::yield_now().await;
        }
        // The only blocking thread, which logs use, too, is free.
        let other = tokio::task::spawn_blocking(|| ());
        tokio::time::timeout(beespace_tests::WAIT_TIMEOUT, other).await.unwrap().unwrap();
        drop(release);
        slow.await.unwrap().unwrap();
        for change in changes {
            change.await.unwrap().unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_plugin_keys_do_not_count_towards_the_quota() {
    let world = world().await;
    let put = async |key: String, value: Vec<u8>, expires_at: Option<Timestamp>, at: Timestamp| {
        world.store.kv_put("notifier".to_owned(), "hook".to_owned(), key, (value, expires_at), None, at).await.unwrap()
    };
    let soon = NOW + std::time::Duration::from_secs(1);
    let half = kv::QUOTA_BYTES / 2;
    assert_eq!(put("stays".to_owned(), vec![7; 10], None, NOW).await, kv::PutOutcome::Stored(1));
    assert_eq!(put("goes".to_owned(), vec![0; half], Some(soon), NOW).await, kv::PutOutcome::Stored(1));
    assert_eq!(put("next".to_owned(), vec![0; half], None, NOW).await, kv::PutOutcome::QuotaExceeded);
    assert_eq!(put("next".to_owned(), vec![0; half], None, soon).await, kv::PutOutcome::Stored(1));
    let read = world.store.read().unwrap();
    let keys = |at| read.kv_keys("notifier", "hook", "", None, at, 10).unwrap();
    assert_eq!(
        (keys(soon), keys(NOW)),
        (vec!["next".to_owned(), "stays".to_owned()], vec!["next".to_owned(), "stays".to_owned()])
    );
}
