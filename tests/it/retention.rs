//! Builds that are older than the retention period, and what remains of them.

use std::collections::BTreeMap;
use std::time::Duration;

use beespace::clock::now;
use beespace::retention;
use beespace::store::Store;
use beespace::store::build::{BuildFilter, Builds as _};
use beespace::store::delivery::{Accepted, Deliveries as _, DeliveryAction, NewDelivery};
use beespace::store::tables;
use beespace::store::transaction::Rows as _;
use beespace_core::build::Build;
use beespace_core::ids::{BuildId, RepositoryId, StageNumber, StepId, StepNumber};
use beespace_core::mask::Secrets;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::time::Timestamp;
use beespace_core::trigger::LastSeenRef;
use redb::TableHandle as _;

use crate::scale::{World, delivery};

/// A time at which everything that exists now has expired.
fn tomorrow() -> Timestamp {
    now() + Duration::from_secs(86_400)
}

/// The number of rows of each table.
fn rows(store: &Store) -> BTreeMap<String, u64> {
    let read = store.read().unwrap();
    tables::ALL.iter().map(|table| (table.name().to_owned(), read.count(*table).unwrap())).collect()
}

fn builds(store: &Store) -> Vec<Build> {
    store.read().unwrap().builds(BuildFilter::default(), usize::MAX).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_build_leaves_only_the_digest_of_its_delivery() {
    let (world, small) = tokio::join!(World::with(120), World::with(2));
    let store = &world.app.store;
    let oldest = builds(store).pop().unwrap().id;
    let step = StepId { build: oldest, stage: StageNumber(1), step: StepNumber(1), attempt: 1 };
    let log = world.app.logs.writer(step, Secrets::default(), 1_000).await.unwrap();
    log.write_host_line(now(), "a line").await.unwrap();
    log.finish(now(), None).await.unwrap();
    let folder = world.app.config.data.dir.join("logs").join(oldest.to_string());
    assert!(folder.exists());
    let (first, body) = {
        let read = store.read().unwrap();
        let first = read.deliveries(None, None, usize::MAX).unwrap().pop().unwrap();
        let body = read.delivery_body(first.id).unwrap().unwrap();
        (first, body)
    };

    assert_eq!(retention::pass(&world.app, Timestamp(0)).await.unwrap(), (0, 0), "nothing is as old as that");
    assert_eq!(rows(store)["build"], 120);
    assert_eq!(retention::pass(&world.app, tomorrow()).await.unwrap(), (118, 118));

    let (mut left, mut of_small) = (rows(store), rows(&small.app.store));
    assert_eq!((left.remove("delivery_seen"), of_small.remove("delivery_seen")), (Some(240), Some(4)));
    assert_eq!(left, of_small, "all that is left is that of a store with two builds");
    let read = store.read().unwrap();
    for build in builds(store) {
        let last = read.last_run(build.event.repository.id, "main").unwrap();
        assert_eq!(last, Some(build.id), "policies receive the last run of a branch");
    }
    assert!(!folder.exists(), "its log is gone");
    drop(read);

    let again = NewDelivery { repository: first.repository, forge_id: "other".to_owned(), body, ..delivery() };
    assert_eq!(store.accept_delivery(again).await.unwrap(), Accepted::Duplicate(first.id), "what was built is not built again");
    assert_eq!(retention::pass(&world.app, tomorrow()).await.unwrap(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_run_of_a_deleted_branch_expires() {
    let world = World::with(4).await;
    let store = &world.app.store;
    store.write(|write| write.record_ref(RepositoryId(1), "refs/heads/main", None)).await.unwrap();
    assert_eq!(retention::pass(&world.app, tomorrow()).await.unwrap(), (3, 3));
    assert_eq!(builds(store).iter().map(|build| build.event.repository.id).collect::<Vec<_>>(), [RepositoryId(2)]);
    assert_eq!(rows(store)["last_run"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_builds_never_expire_and_dead_letters_may_return() {
    let world = World::with(2).await;
    let store = &world.app.store;
    let restarted = store.restart_build(builds(store)[0].id, BuildId(uuid::Uuid::now_v7()), now()).await.unwrap();
    let Accepted::New(waiting) = store.accept_delivery(delivery()).await.unwrap() else { panic!("it is new") };
    assert_eq!(retention::pass(&world.app, tomorrow()).await.unwrap(), (0, 0));
    assert!(store.read().unwrap().build(restarted.id).unwrap().is_some());

    let bury =
        |_: Option<&LastSeenRef>| DeliveryAction::DeadLetter(Reason::new(ReasonCode::DeliveryCorrupt, "it cannot be read"));
    store.finish_delivery(waiting, None, now(), bury).await.unwrap();
    assert_eq!(retention::pass(&world.app, tomorrow()).await.unwrap(), (0, 1));
    let again = store.accept_delivery(delivery()).await.unwrap();
    assert!(matches!(again, Accepted::New(_)), "a redelivered dead letter is accepted: {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_batches_stay_small_with_a_large_backlog() {
    let mut costs = Vec::new();
    let (few, many) = tokio::join!(World::with(120), World::with(360));
    for world in [few, many] {
        let store = &world.app.store;
        let before = store.rows_read();
        let piece = store.read().unwrap().expired_builds(None, tomorrow()).unwrap();
        assert_eq!((piece.removable.len(), piece.next), (50, piece.removable.last().copied()));
        store.purge_builds(piece.removable).await.unwrap();
        let builds = store.rows_read() - before;
        let piece = store.read().unwrap().expired_deliveries(None, tomorrow()).unwrap();
        store.purge_deliveries(piece.removable).await.unwrap();
        let deliveries = store.rows_read() - before - builds;
        assert!(deliveries <= 5 * 50, "{deliveries} rows were read for fifty deliveries");
        costs.push(builds);
    }
    assert_eq!(costs[0], costs[1]);
}
