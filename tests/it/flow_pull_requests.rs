//! Pull requests, from Gogs to the build. Gogs names no commit, and updates its ref after the webhook.

use beespace::store::delivery::{Delivery, DeliveryOutcome};
use beespace::store::pull_request::{KnownPullRequest, PullRequests as _};
use beespace_core::build::{Base, Build};
use beespace_core::event::EventKind;
use beespace_core::ids::Sha;
use beespace_core::status::Status;
use beespace_core::trust::Trust;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::{FakeGogs, Faults};
use serde_json::json;

use crate::flow::world;

const REPO: &str = "ada/hive";
const FORK: &str = "eve/hive";
const PIPELINE: &str = "steps:\n  - name: build\n    image: busybox\n    env: { OUTPUT: { from_secret: token } }\n";

/// Nobody has to approve untrusted code: `flow_forks.rs` has the tests of that policy.
const WITHOUT_APPROVAL: &str = "[[policy]]\nname = \"forks\"\nplugin = \"policy-forks\"\nmode = \"shadow\"\n";

/// A repository with a pipeline on `main`, which was built as number 1, and with a fork of eve. Gogs updates the ref of a pull
/// request 100 ms after its webhook.
async fn forked(pipeline: &str) -> (FakeGogs, Beespace) {
    let (gogs, beespace) = world(WITHOUT_APPROVAL).await;
    beespace.set_secret("token", "a-secret-of-the-repository").await.unwrap();
    gogs.set_faults(Faults { pull_ref_delay_ms: 100, ..Faults::default() });
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], "Add a pipeline").await.unwrap();
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    gogs.fork(REPO, "eve").await.unwrap();
    (gogs, beespace)
}

fn known(beespace: &Beespace, build: &Build) -> KnownPullRequest {
    let read = beespace.app.store.read().unwrap();
    read.pull_request(build.event.repository.id, build.event.pull_request().unwrap().number).unwrap().unwrap()
}

/// The deliveries of an event, oldest first, once all are processed.
async fn processed(beespace: &Beespace, count: usize) -> Vec<Delivery> {
    let look = async || {
        let mut deliveries = beespace.app.store.read()?.deliveries(None, None, 100)?;
        deliveries.retain(|delivery| delivery.event == "pull_request");
        let is_done = deliveries.len() >= count && deliveries.iter().all(|it| it.outcome != DeliveryOutcome::Waiting);
        Ok(is_done.then_some(deliveries))
    };
    let mut deliveries = beespace.wait_for("the pull request's deliveries", look).await.unwrap();
    deliveries.reverse();
    deliveries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_of_the_repository_is_built_at_the_commit_that_the_ref_gets_later_and_is_trusted() {
    let (gogs, beespace) = forked(PIPELINE).await;
    let base = gogs.push(REPO, "main", &[("a", "1")], "Go on").await.unwrap();
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    let first = gogs.push(REPO, "topic", &[("b", "1")], "Begin").await.unwrap();
    beespace.wait_until_finished(REPO, 3).await.unwrap();
    let number = gogs.open_pull_request(REPO, "ada", "topic", "main").unwrap();
    let build = beespace.wait_until_finished(REPO, 4).await.unwrap();
    assert_eq!((build.event.kind(), build.status), (EventKind::PullRequest, Status::Success), "{build:#?}");
    assert_eq!((build.sha().unwrap().as_str(), build.head_unconfirmed, build.trust()), (&*first, false, Trust::Trusted));
    assert_eq!(build.head.as_ref().unwrap().base, Base::Commit(Sha::new(&base).unwrap()), "the merge base with the target");
    let log = beespace.log(&build, "build").await.unwrap();
    assert!(log.iter().any(|line| line.contains("***")), "the secret is there, and masked: {log:#?}");

    let second = gogs.push(REPO, "topic", &[("b", "2")], "Go on").await.unwrap();
    let builds = [beespace.wait_until_finished(REPO, 5).await.unwrap(), beespace.wait_until_finished(REPO, 6).await.unwrap()];
    let build = builds.iter().find(|build| build.event.kind() == EventKind::PullRequest).unwrap();
    assert_eq!(build.sha().unwrap().as_str(), second, "never the value that the ref had when the webhook came");
    assert_eq!(known(&beespace, build).head.unwrap().sha.as_str(), second);
    assert_eq!(number, build.event.pull_request().unwrap().number);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_untrusted_even_after_its_commit_is_merged_whoever_restarts_the_build() {
    let (gogs, beespace) = forked(PIPELINE).await;
    let head = gogs.push(FORK, "topic", &[("b", "1")], "From outside").await.unwrap();
    let number = gogs.open_pull_request(REPO, "eve", "eve:topic", "main").unwrap();
    let build = beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!((build.sha().unwrap().as_str(), build.status, build.trust()), (&*head, Status::Success, Trust::Untrusted));
    let log = beespace.log(&build, "build").await.unwrap();
    assert!(!log.iter().any(|line| line.contains("***")), "{log:#?}");
    let step = beespace.step(&build, "build").unwrap();
    assert!(step.remarks.iter().any(|remark| remark.code == "beespace/baseline/untrusted-secret"), "{step:#?}");

    let restart = format!("/api/v1/repositories/{REPO}/builds/2/restart");
    let admin = beespace.admin().unwrap();
    assert!(admin.post(&restart, &json!({})).await.unwrap().status.is_success());
    let again = beespace.wait_until_finished(REPO, 3).await.unwrap();
    assert_eq!((again.sha(), again.trust()), (build.sha(), Trust::Untrusted), "the administrator's click makes no trust");

    gogs.merge_pull_request(REPO, number).await.unwrap();
    let merged = beespace.wait_until_finished(REPO, 4).await.unwrap();
    assert_eq!((merged.event.kind(), merged.trust()), (EventKind::Push, Trust::Trusted), "{merged:#?}");
    assert!(admin.post(&restart, &json!({})).await.unwrap().status.is_success());
    let reached = beespace.wait_until_finished(REPO, 5).await.unwrap();
    assert_eq!((reached.sha(), reached.trust()), (build.sha(), Trust::Untrusted), "whatever reaches the commit of a fork");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_list_and_api_name_the_pull_request() {
    let (gogs, beespace) = forked(PIPELINE).await;
    gogs.push(FORK, "topic", &[("b", "1")], "From outside").await.unwrap();
    gogs.open_pull_request(REPO, "eve", "eve:topic", "main").unwrap();
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    let anonymous = beespace.anonymous();
    for path in ["/ada/hive", "/ada/hive/2"] {
        let page = anonymous.get(path).await.unwrap().body;
        assert!(page.contains("#1 Merge topic") && page.contains("eve:topic → main"), "{path}: {page}");
    }
    let body = anonymous.get(&format!("/api/v1/repositories/{REPO}/builds/2")).await.unwrap().json().unwrap();
    let pull = &body["pull_request"];
    assert_eq!((&body["event"], &body["trust"], &body["branch"]), (&json!("pull_request"), &json!("untrusted"), &json!(null)));
    assert_eq!((&pull["source_label"], &pull["is_head_confirmed"]), (&json!("eve:topic"), &json!(true)), "{pull}");
    assert!(pull["url"].as_str().unwrap().ends_with("/ada/hive/pulls/1"), "{pull}");
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_labels_are_known_and_build_nothing() {
    let (gogs, beespace) = forked(PIPELINE).await;
    gogs.push(FORK, "topic", &[("b", "1")], "From outside").await.unwrap();
    let number = gogs.open_pull_request(REPO, "eve", "eve:topic", "main").unwrap();
    let build = beespace.wait_until_finished(REPO, 2).await.unwrap();
    gogs.edit_pull_request(REPO, number, "A better title").unwrap();
    gogs.label_pull_request(REPO, number, &["safe"], true).unwrap();
    let outcomes = processed(&beespace, 3).await;
    assert!(outcomes[1..].iter().all(|it| matches!(it.outcome, DeliveryOutcome::Ignored(_))), "{outcomes:#?}");
    let known = known(&beespace, &build);
    assert_eq!((known.details.title.as_str(), &*known.details.labels), ("A better title", &["safe".to_owned()][..]));
    assert_eq!((known.is_open, known.head.unwrap().build), (true, build.id));
    assert_eq!(beespace.builds().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_builds_no_head_twice_and_a_reopened_pull_request_is_built_again() {
    let (gogs, beespace) = forked(PIPELINE).await;
    let head = gogs.push(FORK, "topic", &[("b", "1")], "From outside").await.unwrap();
    let number = gogs.open_pull_request(REPO, "eve", "eve:topic", "main").unwrap();
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    // A tag with the name of the branch is reported as a push of it, and brings no commit.
    let opened = gogs.wait_until_delivered().await.unwrap().into_iter().find(|it| it.event == "pull_request").unwrap();
    let payload = opened.payload().unwrap();
    let synchronized = json!({ "action": "synchronized", "number": 1, "pull_request": payload["pull_request"],
        "repository": payload["repository"], "sender": payload["sender"] });
    gogs.send_event(REPO, "pull_request", &synchronized).unwrap();
    let look = async || {
        let deliveries = beespace.app.store.read()?.deliveries(None, None, 100)?;
        let reasons = deliveries.into_iter().filter_map(|delivery| match delivery.outcome {
            DeliveryOutcome::Ignored(reason) => Some(reason.code),
            _ => None,
        });
        Ok(reasons.into_iter().find(|code| code == "duplicate-head"))
    };
    beespace.wait_for("the duplicate to be ignored", look).await.unwrap();
    gogs.close_pull_request(REPO, number).unwrap();
    gogs.reopen_pull_request(REPO, number).unwrap();
    let again = beespace.wait_until_finished(REPO, 3).await.unwrap();
    assert_eq!((again.event.kind(), again.sha().unwrap().as_str()), (EventKind::PullRequest, &*head));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_the_builds_that_wait_and_is_built_if_a_pipeline_asks_for_it() {
    let slow = "when: { event: [push, pull_request, pull_request_closed] }\nsteps:\n  - name: build\n    image: busybox\n    \
                env: { SLEEP: 60s }\n    when: { event: push }\n  - name: after\n    image: busybox\n    needs: []\n";
    let (gogs, beespace) = world(&format!("capacity = 1\n{WITHOUT_APPROVAL}")).await;
    gogs.push(REPO, "main", &[(".beespace.yml", slow)], "Take the only slot").await.unwrap();
    beespace.wait_for_build(REPO, 1, |build| build.status == Status::Running).await.unwrap();
    gogs.fork(REPO, "eve").await.unwrap();
    let head = gogs.push(FORK, "topic", &[("b", "1")], "From outside").await.unwrap();
    let number = gogs.open_pull_request(REPO, "eve", "eve:topic", "main").unwrap();
    beespace.wait_for_build(REPO, 2, |build| build.head.is_some()).await.unwrap();
    gogs.close_pull_request(REPO, number).unwrap();
    let skipped = beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!((skipped.status, skipped.reason.unwrap().code.as_str()), (Status::Skipped, "pull-request-closed"));
    let closed = beespace.wait_for_build(REPO, 3, |build| build.head.is_some()).await.unwrap();
    assert_eq!((closed.event.kind(), closed.sha().unwrap().as_str()), (EventKind::PullRequestClosed, &*head));
    assert!(!known(&beespace, &closed).is_open);
    let cancel =
        beespace.admin().unwrap().post(&format!("/api/v1/repositories/{REPO}/builds/1/cancel"), &json!({})).await.unwrap();
    assert!(cancel.status.is_success(), "{}", cancel.body);
    assert_eq!(beespace.wait_until_finished(REPO, 3).await.unwrap().status, Status::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_request_whose_branch_was_deleted_is_not_built() {
    let (gogs, beespace) = forked(PIPELINE).await;
    gogs.push(FORK, "topic", &[("b", "1")], "From outside").await.unwrap();
    gogs.open_pull_request(REPO, "eve", "eve:topic", "main").unwrap();
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    gogs.delete_branch(FORK, "topic").await.unwrap();
    let look = async || {
        let deliveries = beespace.app.store.read()?.deliveries(None, None, 100)?;
        let is_deleted = |delivery: &Delivery| match &delivery.outcome {
            DeliveryOutcome::Ignored(reason) => reason.code == "branch-deleted",
            _ => false,
        };
        Ok(deliveries.iter().any(is_deleted).then_some(()))
    };
    beespace.wait_for("the deleted branch", look).await.unwrap();
    assert_eq!(beespace.builds().unwrap().len(), 2);
}

/// Only what Gogs calls a fork of the repository is read: a payload can name any repository.
#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_names_a_foreign_repository_brings_nothing_of_it_into_a_build() {
    let (gogs, beespace) = forked(PIPELINE).await;
    gogs.create_private_repository("ada/private").await.unwrap();
    let foreign = gogs.push("ada/private", "topic", &[(".beespace.yml", PIPELINE)], "Nothing for others").await.unwrap();
    let own = gogs.push(FORK, "topic", &[("b", "1")], "From outside").await.unwrap();
    gogs.open_pull_request(REPO, "eve", "eve:topic", "main").unwrap();
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    let opened = gogs.wait_until_delivered().await.unwrap().into_iter().find(|it| it.event == "pull_request").unwrap();
    let mut payload = opened.payload().unwrap();
    payload["action"] = json!("reopened");
    payload["pull_request"]["head_repo"]["name"] = json!("private");
    payload["pull_request"]["head_repo"]["owner"]["username"] = json!("ada");
    gogs.send_event(REPO, "pull_request", &payload).unwrap();
    let build = beespace.wait_until_finished(REPO, 3).await.unwrap();
    assert_eq!((build.sha().unwrap().as_str(), build.trust()), (&*own, Trust::Untrusted));
    assert_ne!(own, foreign);
}

const MERGED: &str = "clone: { pull_request: merge }\nsteps:\n  - name: build\n    image: busybox\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_merge_of_a_pull_request_is_made_and_conflicts_are_listed() {
    let (gogs, beespace) = forked(MERGED).await;
    let head = gogs.push(FORK, "topic", &[("b", "1")], "From outside").await.unwrap();
    let target = gogs.push(REPO, "main", &[("a", "1")], "Go on").await.unwrap();
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    gogs.open_pull_request(REPO, "eve", "eve:topic", "main").unwrap();
    let build = beespace.wait_until_finished(REPO, 3).await.unwrap();
    let merge = build.merge.clone().unwrap();
    assert_eq!((build.status, merge.target.as_str(), build.sha().unwrap().as_str()), (Status::Success, &*target, &*head));
    assert_eq!(build.trust(), Trust::Untrusted, "a merge is as trusted as its head");
    let clone = beespace.log(&build, "clone").await.unwrap();
    let cloned = format!("merged into {} as {}", merge.target.short(), merge.commit.short());
    assert!(clone.iter().any(|line| line.contains(&cloned)), "{clone:#?}");

    gogs.push(REPO, "main", &[("b", "another")], "Go another way").await.unwrap();
    beespace.wait_until_finished(REPO, 4).await.unwrap();
    gogs.push(FORK, "topic", &[("b", "2")], "Go on").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 5).await.unwrap();
    let reason = build.reason.unwrap();
    assert_eq!((build.status, reason.code.as_str(), build.merge), (Status::Error, "merge-conflict", None));
    assert_eq!(reason.parts.iter().map(|part| part.message.as_str()).collect::<Vec<_>>(), ["conflict in \"b\""]);
}
