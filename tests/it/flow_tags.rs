//! Tags and releases, from Gogs to the build.

use beespace::store::delivery::DeliveryOutcome;
use beespace_core::build::Build;
use beespace_core::event::EventKind;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use serde_json::{Value, json};

use crate::flow::world;

const REPO: &str = "ada/hive";
const BY_DEFAULT: &str = "steps:\n  - name: build\n    image: busybox\n";
const FOR_RELEASES: &str = "when: { event: [tag, release], tag: \"v*\" }\nsteps:\n  - name: build\n    image: busybox\n";

/// Pushes a pipeline to `main`, whose build gets the number 1 if the pipeline builds pushes.
async fn push(gogs: &FakeGogs, pipeline: &str) -> String {
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], "Add a pipeline [skip ci]").await.unwrap()
}

/// Reports a release, as Gogs does when somebody publishes one on its page.
fn publish(gogs: &FakeGogs, repository: &Value, tag: &str) {
    let payload = json!({
        "action": "published", "repository": repository, "sender": repository["owner"],
        "release": { "id": 1, "tag_name": tag, "name": format!("The {tag} release"), "body": "new", "draft": false },
    });
    gogs.send_event(REPO, "release", &payload).unwrap();
}

/// The repository as payloads describe it.
async fn repository_object(gogs: &FakeGogs) -> Value {
    gogs.wait_until_delivered().await.unwrap()[0].payload().unwrap()["repository"].clone()
}

async fn outcome_of(beespace: &Beespace, event: &str) -> DeliveryOutcome {
    let look = async || {
        let deliveries = beespace.app.store.read()?.deliveries(None, None, 100)?;
        let found = deliveries.into_iter().find(|delivery| delivery.event == event);
        let Some(found) = found else { return Ok(None) };
        let built = match found.outcome {
            DeliveryOutcome::Built(id) => beespace.builds()?.into_iter().find(|build| build.id == id),
            _ => None,
        };
        let is_waiting = found.outcome == DeliveryOutcome::Waiting || built.is_some_and(|build| build.number.is_none());
        Ok((!is_waiting).then_some(found.outcome))
    };
    beespace.wait_for("the outcome of a delivery", look).await.unwrap()
}

fn facts(build: &Build) -> (EventKind, Option<&str>, Option<&str>, Status) {
    (build.event.kind(), build.event.tag(), build.event.branch(), build.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn lightweight_and_annotated_tags_build_their_commit() {
    let (gogs, beespace) = world("").await;
    let sha = push(&gogs, BY_DEFAULT).await;
    for (number, (name, message)) in (1..).zip([("v1", None), ("release/2.0", Some("The second"))]) {
        let object = gogs.tag(REPO, "main", name, message).await.unwrap();
        let build = beespace.wait_until_finished(REPO, number).await.unwrap();
        assert_eq!(facts(&build), (EventKind::Tag, Some(name), None, Status::Success), "{build:#?}");
        assert_eq!(build.sha().unwrap().as_str(), sha, "of {object}");
        let clone = beespace.log(&build, "clone").await.unwrap();
        assert!(clone.iter().any(|line| line.contains(&format!("refs/tags/{name}"))), "{clone:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_and_its_release_build_the_tag_once() {
    let (gogs, beespace) = world("").await;
    push(&gogs, BY_DEFAULT).await;
    let repository = repository_object(&gogs).await;
    gogs.tag(REPO, "main", "v1", None).await.unwrap();
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    publish(&gogs, &repository, "v1");
    let DeliveryOutcome::Ignored(reason) = outcome_of(&beespace, "release").await else { panic!("the release was built") };
    assert!(["duplicate-tag", "no-release-pipeline"].contains(&&*reason.code), "{reason:?}");
    assert_eq!(beespace.builds().unwrap().iter().filter(|build| build.number.is_some()).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_makes_its_tag_builds_the_tag_and_itself_if_a_pipeline_asks_for_it() {
    let (gogs, beespace) = world("").await;
    push(&gogs, FOR_RELEASES).await;
    let repository = repository_object(&gogs).await;
    let mut copy = gogs.clone_repository(REPO).await.unwrap();
    copy.checkout("main").await.unwrap();
    // Gogs makes the tag of a release page itself, and reports only the release.
    copy.git(&["push", "--quiet", "--no-verify", "origin", "main:refs/tags/v2"]).await.unwrap();
    publish(&gogs, &repository, "v2");
    let (first, second) =
        (beespace.wait_until_finished(REPO, 1).await.unwrap(), beespace.wait_until_finished(REPO, 2).await.unwrap());
    let mut kinds = [first.event.kind(), second.event.kind()];
    kinds.sort_unstable();
    assert_eq!(kinds, [EventKind::Tag, EventKind::Release]);
    assert_eq!((first.sha(), first.status, second.status), (second.sha(), Status::Success, Status::Success));
    assert!(matches!(outcome_of(&beespace, "release").await, DeliveryOutcome::Built(_)));
    let page = beespace.anonymous().get("/ada/hive").await.unwrap();
    assert!(page.body.contains("The v2 release"), "the release is titled by its name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_or_is_made_again_is_built_again() {
    let (gogs, beespace) = world("").await;
    push(&gogs, BY_DEFAULT).await;
    gogs.tag(REPO, "main", "v1", None).await.unwrap();
    let first = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let moved = gogs.push(REPO, "main", &[("a", "1")], "Move it [no ci]").await.unwrap();
    gogs.tag(REPO, "main", "v1", Some("moved")).await.unwrap();
    let second = beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!(second.sha().unwrap().as_str(), moved);
    let copy = gogs.clone_repository(REPO).await.unwrap();
    copy.git(&["push", "--quiet", "origin", "--delete", "refs/tags/v1"]).await.unwrap();
    outcome_of(&beespace, "delete").await;
    gogs.tag(REPO, "main", "v1", Some("made again")).await.unwrap();
    assert_eq!(beespace.wait_until_finished(REPO, 3).await.unwrap().sha(), second.sha());
    // A restart builds the commit of its build, wherever the tag is now.
    let restarted =
        beespace.admin().unwrap().post(&format!("/api/v1/repositories/{REPO}/builds/1/restart"), &json!({})).await.unwrap();
    assert!(restarted.status.is_success(), "{}", restarted.body);
    let again = beespace.wait_until_finished(REPO, 4).await.unwrap();
    assert_eq!((again.sha(), again.status), (first.sha(), Status::Success), "{again:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_of_something_else_than_a_commit_is_an_error() {
    let (gogs, beespace) = world("").await;
    push(&gogs, BY_DEFAULT).await;
    let mut copy = gogs.clone_repository(REPO).await.unwrap();
    copy.checkout("main").await.unwrap();
    let blob = copy.git(&["rev-parse", "HEAD:.beespace.yml"]).await.unwrap();
    copy.git(&["push", "--quiet", "origin", &format!("{}:refs/tags/file", blob.trim())]).await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!((build.status, build.reason.unwrap().code.as_str()), (Status::Error, "not-a-commit"));
}
