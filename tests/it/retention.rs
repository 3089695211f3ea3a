//! Builds that are older than the retention period, and what remains of them.

use std::collections::BTreeMap;
use std::time::Duration;

use beespace::clock::now;
use beespace::retention;
use beespace::store::build::{BuildFilter, Builds as _};
use beespace::store::delivery::{Accepted, Deliveries as _, DeliveryAction, NewDelivery};
use beespace::store::repository::{Hook, Repositories as _, Repository};
use beespace::store::tables;
use beespace::store::transaction::Rows as _;
use beespace::store::{Store, StoreError};
use beespace_core::build::Build;
use beespace_core::digest::Digest;
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

    for world in [&world, &small] {
        for repository in [1, 2] {
            replace_hook(world, RepositoryId(repository), Timestamp(0), None).await;
        }
    }
    assert_eq!(retention::pass(&world.app, Timestamp(0)).await.unwrap(), (0, 0), "nothing is as old as that");
    assert_eq!(rows(store)["build"], 120);
    assert_eq!(retention::pass(&world.app, tomorrow()).await.unwrap(), (118, 118));

    let (mut left, mut of_small) = (rows(store), rows(&small.app.store));
    assert_eq!(
        (left.remove("delivery_seen"), of_small.remove("delivery_seen")),
        (Some(122), Some(4)),
        "and the digests of all deliveries"
    );
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

/// Gives the repository a webhook that was created at `created_at`. The one before it is accepted until `grace`.
async fn replace_hook(world: &World, repository: RepositoryId, created_at: Timestamp, grace: Option<Timestamp>) {
    let secret = world.app.key.seal("hook", b"secret").unwrap();
    let hook = Hook { key: Digest::of(created_at.0.to_be_bytes()), secret, forge_id: 1, created_at };
    let change = move |known: Option<Repository>| {
        let mut known = known.ok_or(StoreError::NotFound("repository"))?;
        known.previous_hooks.extend(known.hook.take().zip(grace));
        Ok(Repository { hook: Some(hook.clone()), ..known })
    };
    world.app.store.change_repository(repository, change).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_of_a_delivery_goes_when_no_webhook_accepts_it_again() {
    let world = World::with(6).await;
    let store = &world.app.store;
    for repository in [1, 2] {
        replace_hook(&world, RepositoryId(repository), Timestamp(0), None).await;
    }
    assert_eq!(retention::pass(&world.app, tomorrow()).await.unwrap(), (4, 4));
    // Four digests, and both keys of the two deliveries that are left.
    assert_eq!(rows(store)["delivery_seen"], 4 + 4);

    let end_of_grace = now() + Duration::from_secs(3_600);
    replace_hook(&world, RepositoryId(1), now(), Some(end_of_grace)).await;
    store.forget_unacceptable_deliveries(now()).await.unwrap();
    assert_eq!(rows(store)["delivery_seen"], 4 + 4, "the webhook before is still accepted");
    store.forget_unacceptable_deliveries(end_of_grace).await.unwrap();
    assert_eq!(rows(store)["delivery_seen"], 2 + 4, "the other repository keeps its webhook");
    let first = store.read().unwrap().repository(RepositoryId(1)).unwrap().unwrap();
    assert!(first.previous_hooks.is_empty() && first.hook.is_some());

    let disable = |known: Option<Repository>| Ok(Repository { hook: None, ..known.ok_or(StoreError::NotFound("repository"))? });
    store.change_repository(RepositoryId(2), disable).await.unwrap();
    store.forget_unacceptable_deliveries(now()).await.unwrap();
    assert_eq!(rows(store)["delivery_seen"], 4, "a disabled repository accepts nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ahead_removes_nothing_before_a_second_look() {
    const DAY: Duration = Duration::from_secs(86_400);
    let world = World::with_settings(4, "[retention]\nbuilds = \"90d\"\n").await;
    let (store, start) = (&world.app.store, now());
    let look = async |at: Timestamp| (retention::look_and_pass(&world.app, at).await.unwrap(), rows(store)["build"]);
    assert_eq!(look(start).await, (false, 4), "nothing is known of the clock");
    assert_eq!(look(start + DAY).await, (true, 4), "nothing has expired");
    assert_eq!(look(start + DAY * 200).await, (false, 4), "the clock has jumped");
    assert_eq!(look(start + DAY * 200 + DAY / 2).await, (false, 4));
    assert_eq!(look(start + DAY + DAY / 2).await, (true, 4), "it was set right");
    assert_eq!(look(start + DAY * 200).await, (false, 4), "the server was off for months");
    assert_eq!(look(start + DAY * 201).await, (true, 2), "all but the last run of each branch has expired");
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
        store.purge_deliveries(piece.removable, now()).await.unwrap();
        let deliveries = store.rows_read() - before - builds;
        assert!(deliveries <= 7 * 50, "{deliveries} rows were read for fifty deliveries");
        costs.push(builds);
    }
    assert_eq!(costs[0], costs[1]);
}
