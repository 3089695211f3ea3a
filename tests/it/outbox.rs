//! Notices in the store: their order, their attempts, and suspended bindings.

use std::time::Duration;

use beespace::background;
use beespace::encryption::Key;
use beespace::store::notice::{Notices as _, OrderingKey};
use beespace::store::outbox::FinishedAttempt;
use beespace::store::queue::{Claim, DueTime, MAX_ATTEMPTS};
use beespace::store::repository::{Hook, Repository};
use beespace::store::suspended::SuspendedBindings as _;
use beespace::store::{Queue, Store};
use beespace_core::build::Stage;
use beespace_core::digest::Digest;
use beespace_core::ids::{RepositoryId, StageId, StageNumber};
use beespace_core::notice::{AttemptOutcome, Notice, NoticeKind, NoticeState};
use beespace_core::status::Status;
use beespace_core::time::Timestamp;

use crate::scale;
use crate::store::{self, NOW, World};

/// A finished build that had requested an approval: two notices with one ordering key for each notifier.
async fn enqueue_two(world: &World, delivery: &str, commit: &'static str) {
    let build = store::build_of(world, delivery, commit).await;
    store::with_stage(world, build, Status::Blocked).await;
    let end = |stage: &mut Stage| {
        stage.status = Status::Declined;
        Ok(())
    };
    world.store.change_stage(StageId { build, stage: StageNumber(1) }, NOW, end).await.unwrap();
}

/// The same for this many builds.
async fn enqueue_two_for(builds: usize, world: &World) {
    let commits = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"];
    for (number, commit) in commits.into_iter().cycle().take(builds).enumerate() {
        enqueue_two(world, &format!("d{number}"), commit).await;
    }
}

/// The queued ordering keys, oldest first, each with its next notice.
fn queued(store: &Store) -> Vec<(OrderingKey, Notice, Timestamp)> {
    let read = store.read().unwrap();
    let waiting = read.queue_entries(Queue::Notice).unwrap().into_iter().map(|(key, row)| {
        let thread = OrderingKey::of_key(&key).unwrap();
        let first = read.oldest_unfinished(&thread).unwrap().unwrap();
        (thread, first, row.not_before)
    });
    waiting.collect()
}

fn states(store: &Store, binding: &str) -> Vec<NoticeState> {
    let mut notices = store.read().unwrap().notices(None, None, 100).unwrap();
    notices.retain(|notice| notice.binding == binding);
    notices.iter().rev().map(|notice| notice.state).collect()
}

fn without_receipt(outcome: AttemptOutcome) -> FinishedAttempt {
    FinishedAttempt { outcome, receipt: None }
}

async fn conclude(store: &Store, notice: &Notice, attempt: AttemptOutcome) -> Notice {
    store.begin_notice_attempt(notice.id).await.unwrap();
    store.finish_notice_attempt(notice.id, without_receipt(attempt), NOW, 0.0).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_with_one_ordering_key_are_sent_in_order() {
    let world = store::world().await;
    enqueue_two(&world, "a", "1").await;
    let [(thread, first, _)] = queued(&world.store).try_into().unwrap();
    assert_eq!((first.kind, first.sequence), (NoticeKind::ApprovalRequested, 1));

    let busy = AttemptOutcome::Retry { after: Some(Duration::from_secs(60)), why: "busy".to_owned() };
    let put_off = conclude(&world.store, &first, busy).await;
    world.store.reschedule(Queue::Notice, thread.key(), DueTime::at(put_off.next_attempt_at, NOW), None, false).await.unwrap();
    let [(_, still, not_before)] = queued(&world.store).try_into().unwrap();
    assert_eq!((still.id, not_before), (first.id, put_off.next_attempt_at), "who comes after does not overtake");

    conclude(&world.store, &first, AttemptOutcome::Sent).await;
    let [(_, second, not_before)] = queued(&world.store).try_into().unwrap();
    assert_eq!((second.kind, second.sequence), (NoticeKind::BuildFinished, 2));
    assert!(not_before <= NOW, "it need not wait for anything: {not_before:?}");
    conclude(&world.store, &second, AttemptOutcome::Permanent("what is this".to_owned())).await;
    assert!(queued(&world.store).is_empty());
    assert_eq!(states(&world.store, "hook"), [NoticeState::Sent, NoticeState::DeadLetter]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_crash_the_process_are_counted() {
    let world = store::world().await;
    enqueue_two(&world, "a", "1").await;
    let [(thread, first, _)] = queued(&world.store).try_into().unwrap();
    for attempt in 1..=MAX_ATTEMPTS {
        assert_eq!(world.store.claim(Queue::Notice, thread.key()).await.unwrap(), Claim::Attempt(attempt));
        world.store.begin_notice_attempt(first.id).await.unwrap();
    }
    assert_eq!(world.store.claim(Queue::Notice, thread.key()).await.unwrap(), Claim::Exhausted);
    assert!(world.store.read().unwrap().notice(first.id).unwrap().unwrap().has_no_attempts_left());
    world.store.dead_letter_notice(thread.clone(), "it kills".to_owned(), NOW).await.unwrap();
    let [(_, next, _)] = queued(&world.store).try_into().unwrap();
    assert_eq!(next.sequence, 2, "the next of the thread is not delayed by it");
    assert_eq!(world.store.claim(Queue::Notice, thread.key()).await.unwrap(), Claim::Attempt(1), "and has a count of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_misconfigured_binding_is_suspended_until_a_notice_is_replayed() {
    let world = store::world().await;
    world.store.set_notifiers(["broken", "hook"]);
    enqueue_two(&world, "a", "1").await;
    enqueue_two(&world, "b", "2").await;
    let all = queued(&world.store);
    let (_, first, _) = all.iter().find(|(thread, ..)| thread.binding == "broken").unwrap();
    let under_way = &all.iter().rfind(|(thread, ..)| thread.binding == "broken").unwrap().1;
    world.store.begin_notice_attempt(under_way.id).await.unwrap();
    conclude(&world.store, first, AttemptOutcome::Misconfigured("401".to_owned())).await;
    assert_eq!(states(&world.store, "broken"), [NoticeState::Suspended; 4]);
    assert_eq!(states(&world.store, "hook"), [NoticeState::Pending; 4]);

    // A notice that was being sent when its binding was suspended does not return to the queue.
    let busy = AttemptOutcome::Retry { after: None, why: "busy".to_owned() };
    let concluded = world.store.finish_notice_attempt(under_way.id, without_receipt(busy), NOW, 0.0).await.unwrap();
    assert_eq!(concluded.state, NoticeState::Suspended);
    enqueue_two(&world, "c", "3").await;
    assert_eq!(states(&world.store, "broken"), [NoticeState::Suspended; 6]);
    assert!(queued(&world.store).iter().all(|(thread, ..)| thread.binding == "hook"));
    let suspended = world.store.read().unwrap().suspended_bindings().unwrap();
    assert_eq!(
        suspended.iter().map(|(name, binding)| (name.as_str(), binding.reason.as_str())).collect::<Vec<_>>(),
        [("broken", "401")]
    );

    world.store.retry_notice(under_way.id, NOW).await.unwrap();
    assert_eq!(states(&world.store, "broken"), [NoticeState::Pending; 6]);
    let firsts = queued(&world.store).into_iter().filter(|(thread, ..)| thread.binding == "broken");
    assert_eq!(firsts.map(|(_, first, _)| first.sequence).collect::<Vec<_>>(), [1, 1, 1]);
    assert!(world.store.read().unwrap().suspended_bindings().unwrap().is_empty());
}

/// Enables a repository.
async fn enable(world: &World, id: RepositoryId, name: &str) {
    let secret = Key::from_bytes([7; 32]).seal("hook", b"secret").unwrap();
    let hook = Hook { key: Digest::of(name), secret, forge_id: id.0, created_at: NOW };
    let repository = Repository { hook: Some(hook), ..store::repository(id, "acme", name) };
    world.store.change_repository(id, move |_| Ok(repository.clone())).await.unwrap();
}

/// Lets the notifier refuse the next notice of each build.
async fn refuse_all(world: &World) -> Vec<NoticeState> {
    let mut states = Vec::new();
    for (_, notice, _) in queued(&world.store) {
        states.push(conclude(&world.store, &notice, AttemptOutcome::Refused("403".to_owned())).await.state);
    }
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn one_repository_cannot_silence_a_notifier_for_the_others() {
    let world = store::world().await;
    enable(&world, RepositoryId(7), "app").await;
    enable(&world, RepositoryId(8), "other").await;
    enqueue_two_for(6, &world).await;
    assert_eq!(refuse_all(&world).await, [NoticeState::Pending; 6], "each is retried by itself");
    assert!(world.store.read().unwrap().suspended_bindings().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_several_builds_in_a_row_suspend_a_notifier() {
    let world = store::world().await;
    enqueue_two_for(3, &world).await;
    let all = queued(&world.store);
    let refused = || AttemptOutcome::Refused("401".to_owned());
    for index in [0, 1, 0, 1] {
        assert_eq!(conclude(&world.store, &all[index].1, refused()).await.state, NoticeState::Pending, "of two builds only");
    }
    conclude(&world.store, &all[2].1, AttemptOutcome::Sent).await;
    let queue = queued(&world.store);
    for (count, (_, notice, _)) in (1..=3).zip(&queue) {
        let state = conclude(&world.store, notice, refused()).await.state;
        let expected = if count < 3 { NoticeState::Pending } else { NoticeState::Suspended };
        assert_eq!(state, expected, "refusal {count} since the last one that was sent");
    }
    world.store.resume_all_bindings(NOW).await.unwrap();
    while world.store.propagate_suspension(NOW).await.unwrap() {}
    assert_eq!(conclude(&world.store, &queue[0].1, refused()).await.state, NoticeState::Pending, "the count begins again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_is_suspended_and_resumed_in_batches() {
    let world = store::world().await;
    world.store.set_notifiers(["broken"]);
    enqueue_two_for(130, &world).await;
    let count = |state| world.store.read().unwrap().notices(Some(state), None, 1_000).unwrap().len();
    let waiting = || world.store.read().unwrap().queue_length(Queue::Notice).unwrap();
    assert_eq!((count(NoticeState::Pending), waiting()), (260, 130));

    let all = queued(&world.store);
    conclude(&world.store, &all[0].1, AttemptOutcome::Misconfigured("401".to_owned())).await;
    assert_eq!(count(NoticeState::Suspended), 100, "one transaction suspends a hundred");
    let kept_back = world.store.begin_notice_attempt(all[129].1.id).await.unwrap();
    assert_eq!(
        (kept_back.state, kept_back.attempts),
        (NoticeState::Suspended, 0),
        "a notice that is not suspended yet is not sent either"
    );
    let mut pieces = 0;
    while world.store.propagate_suspension(NOW).await.unwrap() {
        pieces += 1;
    }
    assert_eq!((pieces, count(NoticeState::Suspended), waiting()), (2, 260, 0));

    // The server stops before all notices were resumed; the next one resumes the rest.
    world.store.retry_notice(all[0].1.id, NOW).await.unwrap();
    assert!(world.store.read().unwrap().suspended_bindings().unwrap().is_empty());
    assert!(count(NoticeState::Suspended) > 150);
    world.store.resume_all_bindings(NOW).await.unwrap();
    while world.store.propagate_suspension(NOW).await.unwrap() {}
    assert_eq!((count(NoticeState::Pending), waiting()), (260, 130));
    assert!(queued(&world.store).iter().all(|(_, first, _)| first.sequence == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_suspends_a_long_backlog_completely() {
    let scale::World { app, folder, .. } = scale::World::with(2).await;
    let world = store::world_on(app.store.clone(), folder).await;
    // The configuration has no such notifier.
    world.store.set_notifiers(["gone"]);
    enqueue_two_for(60, &world).await;
    let mut tasks = background::start(&app);
    let all_are_suspended = async {
        while world.store.read().unwrap().notices(Some(NoticeState::Suspended), None, 1_000).unwrap().len() < 120 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(beespace_tests::WAIT_TIMEOUT, all_are_suspended).await.unwrap();
    assert_eq!(world.store.read().unwrap().queue_length(Queue::Notice).unwrap(), 0);
    tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_can_be_retried_and_goes_first() {
    let world = store::world().await;
    enqueue_two(&world, "a", "1").await;
    let [(_, first, _)] = queued(&world.store).try_into().unwrap();
    conclude(&world.store, &first, AttemptOutcome::Permanent("no".to_owned())).await;
    world.store.retry_notice(first.id, NOW).await.unwrap();
    let [(_, again, _)] = queued(&world.store).try_into().unwrap();
    assert_eq!((again.id, again.attempts), (first.id, 0));
    conclude(&world.store, &again, AttemptOutcome::Sent).await;
    assert!(world.store.retry_notice(first.id, NOW).await.is_err());
}

/// Lets the receiver refuse the next notice of each ordering key for a minute.
async fn refuse_for_a_minute(store: &Store) {
    for (key, notice, _) in queued(store) {
        let busy = AttemptOutcome::Retry { after: Some(Duration::from_secs(60)), why: "busy".to_owned() };
        let due = DueTime::at(conclude(store, &notice, busy).await.next_attempt_at, NOW);
        store.reschedule(Queue::Notice, key.key(), due, None, false).await.unwrap();
    }
    assert!(queued(store).iter().all(|(_, _, not_before)| *not_before > NOW));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_waiting_notice_sends_those_before_it_at_once_too() {
    let world = store::world().await;
    enqueue_two_for(2, &world).await;
    refuse_for_a_minute(&world.store).await;
    let all = world.store.read().unwrap().notices(Some(NoticeState::Pending), None, 10).unwrap();
    let second = all.iter().find(|notice| notice.sequence == 2).unwrap();
    world.store.retry_notice(second.id, NOW).await.unwrap();
    let due: Vec<_> = queued(&world.store).into_iter().filter(|(_, _, not_before)| *not_before <= NOW).collect();
    let [(key, first, _)] = due.as_slice() else { panic!("{due:?}") };
    assert_eq!((key, first.sequence, first.attempts), (&OrderingKey::of(second), 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_notifier_sends_all_of_its_waiting_notices_at_once() {
    let world = store::world().await;
    world.store.set_notifiers(["hook", "other"]);
    enqueue_two_for(3, &world).await;
    assert!(world.store.read().unwrap().failing_notifiers(100).unwrap().is_empty(), "no attempt has failed");
    refuse_for_a_minute(&world.store).await;
    let failing = world.store.read().unwrap().failing_notifiers(100).unwrap();
    let failing: Vec<_> = failing.iter().map(|one| (&*one.binding, one.pending, &*one.last_error)).collect();
    assert_eq!(failing, [("hook", 6, "busy"), ("other", 6, "busy")]);

    world.store.retry_notices_of("hook".to_owned(), NOW).await.unwrap();
    for (key, notice, not_before) in queued(&world.store) {
        assert_eq!((not_before <= NOW, notice.attempts), if key.binding == "hook" { (true, 0) } else { (false, 1) }, "{key:?}");
    }
    let failing = world.store.read().unwrap().failing_notifiers(100).unwrap();
    assert_eq!(failing.iter().map(|one| &*one.binding).collect::<Vec<_>>(), ["other"]);
}
