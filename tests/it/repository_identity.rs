//! Names of repositories that are claimed or stored, and belong to another repository in Gogs.

use beespace::clock::now;
use beespace::store::Queue;
use beespace::store::delivery::{Delivery, DeliveryOutcome};
use beespace::store::queue::Queues as _;
use beespace::store::repository::{Repositories as _, Repository};
use beespace_core::build::Build;
use beespace_core::ids::{BuildId, RepositoryId};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use reqwest::StatusCode;
use serde_json::{Value, json};

const DUMMY: &str = "[engine]\nkind = \"dummy\"\n";
const HIVE: &str = "ada/hive";
const FILE: &str = "steps:\n  - name: build\n    image: busybox\n";
const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

/// An open server with an enabled repository and its first build.
async fn world(is_private: bool) -> (FakeGogs, Beespace, Build) {
    let gogs = FakeGogs::start().await.unwrap();
    let beespace = Beespace::start_with(&gogs, "open = true", DUMMY).await.unwrap();
    match is_private {
        true => gogs.create_private_repository(HIVE).await.unwrap(),
        false => gogs.create_repository(HIVE).await.unwrap(),
    };
    beespace.enable(HIVE).await.unwrap();
    gogs.push(HIVE, "main", &[(".beespace.yml", FILE)], "Fill cells").await.unwrap();
    let build = beespace.wait_until_finished(HIVE, 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{build:#?}");
    (gogs, beespace, build)
}

/// Sends a push of the first build's commit to another branch, signed with the secret of the repository's webhook, with other
/// facts about the repository.
fn send_forged(gogs: &FakeGogs, branch: &str, facts: &Value) {
    let genuine = gogs.deliveries().into_iter().find(|delivery| delivery.event == "push").unwrap();
    let mut payload: Value = serde_json::from_str(&genuine.json).unwrap();
    payload["ref"] = json!(format!("refs/heads/{branch}"));
    payload["before"] = json!(NO_COMMIT);
    for (key, value) in facts.as_object().unwrap() {
        payload["repository"][key] = value.clone();
    }
    gogs.send_event(HIVE, "push", &payload).unwrap();
}

fn stored(beespace: &Beespace, id: RepositoryId) -> Repository {
    beespace.app.store.read().unwrap().repository(id).unwrap().unwrap()
}

/// The newest delivery, once it has this outcome.
async fn newest_delivery<T>(beespace: &Beespace, what: &str, outcome: impl Fn(&Delivery) -> Option<T>) -> T {
    let look = async || Ok(beespace.app.store.read()?.deliveries(None, None, 1)?.first().and_then(&outcome));
    beespace.wait_for(what, look).await.unwrap()
}

async fn ignored(beespace: &Beespace) -> Reason {
    let outcome = |delivery: &Delivery| match &delivery.outcome {
        DeliveryOutcome::Ignored(reason) => Some(reason.clone()),
        _ => None,
    };
    newest_delivery(beespace, "the delivery to be ignored", outcome).await
}

/// What somebody without a session gets at the repository's address.
async fn anonymous_status(beespace: &Beespace) -> StatusCode {
    beespace.anonymous().get(&format!("/api/v1/repositories/{HIVE}")).await.unwrap().status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_payload_with_the_name_of_another_repository_fetches_nothing() {
    let (gogs, beespace, build) = world(false).await;
    let id = build.event.repository.id;
    let vault = gogs.create_private_repository("ada/vault").await.unwrap();
    gogs.push("ada/vault", "secret", &[("secret.txt", "top secret")], "Hide").await.unwrap();

    send_forged(&gogs, "x", &json!({ "name": "vault", "full_name": "ada/vault", "default_branch": "secret" }));
    let reason = ignored(&beespace).await;
    assert_eq!(reason.code, ReasonCode::OtherRepository.as_str());
    assert!(reason.message.contains(&format!("in Gogs ada/vault is repository {}", vault.id)), "{reason}");
    assert!(reason.message.contains(&format!("the webhook belongs to repository {id}")), "{reason}");

    send_forged(&gogs, "y", &json!({ "name": "nowhere", "full_name": "ada/nowhere" }));
    let unknown = async || Ok(Some(ignored(&beespace).await).filter(|reason| reason.message.contains("does not find")));
    beespace.wait_for("the unknown name to be ignored", unknown).await.unwrap();

    let row = stored(&beespace, id);
    assert_eq!((row.name.to_string().as_str(), row.default_branch.as_str()), (HIVE, "main"));
    assert_eq!(beespace.builds().unwrap().len(), 1);
    assert_eq!(beespace.app.mirrors.of(id).tip("refs/heads/secret").await.unwrap(), None, "nothing of it is in the mirror");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_can_hide_a_repository_and_cannot_publish_it() {
    let (gogs, beespace, build) = world(true).await;
    let id = build.event.repository.id;
    assert_eq!(anonymous_status(&beespace).await, StatusCode::NOT_FOUND);
    send_forged(&gogs, "main2", &json!({ "private": false, "default_branch": "main2", "html_url": "http://evil.example/" }));
    let forged = beespace.wait_until_finished(HIVE, 2).await.unwrap();
    assert!(forged.event.repository.is_private && forged.event.repository.default_branch == "main", "{forged:#?}");
    let row = stored(&beespace, id);
    assert!(row.is_private && row.default_branch == "main" && !row.html_url.contains("evil"), "{row:?}");
    assert_eq!(anonymous_status(&beespace).await, StatusCode::NOT_FOUND);

    let (gogs, beespace, build) = world(false).await;
    let id = build.event.repository.id;
    assert_eq!(anonymous_status(&beespace).await, StatusCode::OK);
    gogs.set_offline(true);
    send_forged(&gogs, "hidden", &json!({ "private": true }));
    beespace.wait_for("the repository to be hidden", async || Ok(stored(&beespace, id).is_private.then_some(()))).await.unwrap();
    assert_eq!(anonymous_status(&beespace).await, StatusCode::NOT_FOUND);
    gogs.set_offline(false);
    gogs.push(HIVE, "main", &[("README.md", "# Hive")], "Describe").await.unwrap();
    let is_public = async || Ok((!stored(&beespace, id).is_private).then_some(()));
    beespace.wait_for("Gogs to report that it is public", is_public).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_was_created_again_under_the_old_name_is_not_fetched_for_the_old_one() {
    let (gogs, beespace, build) = world(false).await;
    let old = build.event.repository.id;
    gogs.delete_repository(HIVE).unwrap();
    let new = gogs.create_private_repository(HIVE).await.unwrap();
    gogs.push(HIVE, "secret", &[("secret.txt", "top secret")], "Hide").await.unwrap();
    beespace.app.store.restart_build(build.id, BuildId(uuid::Uuid::now_v7()), now()).await.unwrap();
    let restarted = beespace.wait_until_finished(HIVE, 2).await.unwrap();
    let reason = restarted.reason.as_ref().unwrap();
    assert_eq!((restarted.status, reason.code.as_str()), (Status::Error, ReasonCode::OtherRepository.as_str()));
    assert!(reason.message.contains(&format!("repository {}", new.id)), "{reason}");
    assert!(reason.message.contains(&format!("repository {old}")), "{reason}");
    assert_eq!(beespace.app.mirrors.of(old).tip("refs/heads/secret").await.unwrap(), None, "nothing of it is in the mirror");
    let doctor = beespace.admin().unwrap().get("/api/v1/doctor").await.unwrap().json().unwrap();
    let finding = doctor.as_array().unwrap().iter().find(|one| one["check"] == "permissions in ada/hive").unwrap();
    assert!(
        finding["level"] == "problem" && finding["detail"].as_str().unwrap().contains(&format!("repository {}", new.id)),
        "{finding}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_waits_for_gogs_and_a_known_commit_does_not() {
    let (gogs, beespace, build) = world(false).await;
    gogs.rename(HIVE, "comb").unwrap();
    gogs.set_offline(true);
    gogs.push("ada/comb", "main", &[("README.md", "# Comb")], "Rename").await.unwrap();
    let waits = |delivery: &Delivery| {
        let entry = beespace.app.store.read().ok()?.queue_entry(Queue::Delivery, delivery.id.0.as_bytes()).ok()??;
        (delivery.outcome == DeliveryOutcome::Waiting && entry.not_before > delivery.received_at).then_some(())
    };
    newest_delivery(&beespace, "the delivery to wait", waits).await;
    assert_eq!(stored(&beespace, build.event.repository.id).name.to_string(), HIVE);

    // Nothing can be fetched under either name, and this commit is already here.
    beespace.app.store.restart_build(build.id, BuildId(uuid::Uuid::now_v7()), now()).await.unwrap();
    assert_eq!(beespace.wait_until_finished(HIVE, 2).await.unwrap().status, Status::Success);

    gogs.set_offline(false);
    let renamed = beespace.wait_until_finished("ada/comb", 3).await.unwrap();
    assert_eq!((renamed.status, renamed.event.repository.name.to_string().as_str()), (Status::Success, "ada/comb"));
}
