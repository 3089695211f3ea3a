//! Step types whose next plan requires an approval: the step waits and occupies nothing.

use std::path::{Path, PathBuf};

use beespace_core::build::{Build, Stage};
use beespace_core::exit::ExitCause;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::notify;

pub(crate) const REPO: &str = "ada/hive";

pub(crate) const BUILD: &str = "/api/v1/repositories/ada/hive/builds/1";

pub(crate) fn guest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/guests/{name}.wasm")).canonicalize().unwrap()
}

/// Settings with the step type `rounds` and a policy that requires an approval for plans whose scripts contain `publish`.
pub(crate) fn settings(policy: &str) -> String {
    let (rounds, asks) = (guest("rounds"), guest("approval"));
    format!("[[step]]\nname = \"rounds\"\nplugin = {rounds:?}\n[[policy]]\nname = \"asks\"\nplugin = {asks:?}\n{policy}")
}

pub(crate) fn rounds(image: &str, rounds: &Value) -> Value {
    json!({ "name": "work", "uses": "rounds", "with": { "images": [image], "rounds": rounds } })
}

pub(crate) async fn blocked(beespace: &Beespace) -> Build {
    beespace.wait_for_build(REPO, 1, |build| build.status == Status::Blocked).await.unwrap()
}

/// The stage as soon as it is blocked and has released its capacity.
pub(crate) async fn waiting_stage(beespace: &Beespace, build: &Build) -> Stage {
    let rests = async || Ok(Some(beespace.stage(build)?).filter(|stage| stage.status == Status::Blocked));
    beespace.wait_for("the stage to rest", rests).await.unwrap()
}

pub(crate) async fn answer(beespace: &Beespace, verb: &str, body: Value) -> Value {
    let answer = beespace.admin().unwrap().post(&format!("{BUILD}/{verb}"), &body).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json().unwrap()
}

/// The only incomplete approval, from the API.
pub(crate) async fn waiting(beespace: &Beespace) -> Value {
    let build = beespace.admin().unwrap().get(BUILD).await.unwrap().json().unwrap();
    let approvals = build["stages"][0]["approvals"].as_array().unwrap().clone();
    let mut open = approvals.into_iter().filter(|approval| approval["missing"] != json!([]));
    let one = open.next().unwrap();
    assert!(open.next().is_none(), "{build:#}");
    one
}

pub(crate) async fn approve(beespace: &Beespace) {
    let subject = waiting(beespace).await["subject"].clone();
    answer(beespace, "approve", json!({ "subject": subject, "reason": "looks right" })).await;
}

/// A world with the dummy engine, in which a step waits with its second plan.
async fn dummy(pipeline: &str) -> (FakeGogs, Beespace) {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let inbox = notify::webhook("inbox", &gogs.inbox_url("team"), gogs.url());
    let beespace =
        Beespace::start(&gogs, &format!("[engine]\nkind = \"dummy\"\ncapacity = 1\n{}", settings(&inbox))).await.unwrap();
    beespace.set_plugin_secret("key", "a-key-for-the-receiver").await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let work = rounds("busybox", &json!([["first"], ["publish"]]));
    gogs.push(REPO, "main", &[(".beespace.yml", &format!("{pipeline}steps: [{work}]\n"))], "Publish").await.unwrap();
    (gogs, beespace)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decline_after_an_approval_counts_while_the_stage_is_queued() {
    let (gogs, beespace) = dummy("").await;
    let build = blocked(&beespace).await;
    waiting_stage(&beespace, &build).await;
    // It occupies the only slot.
    let long = "steps: [{ name: long, image: busybox, env: { SLEEP: 60s } }]";
    gogs.push(REPO, "main", &[(".beespace.yml", long)], "Sleep").await.unwrap();
    beespace.wait_for_build(REPO, 2, |build| build.status == Status::Running).await.unwrap();
    approve(&beespace).await;
    assert_eq!(beespace.stage(&build).unwrap().status, Status::Pending, "approved, and without a place");
    answer(&beespace, "decline", json!({ "reason": "I looked again" })).await;
    let other = format!("/api/v1/repositories/{REPO}/builds/2/cancel");
    assert_eq!(beespace.admin().unwrap().post(&other, &json!({})).await.unwrap().status, StatusCode::OK);
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let step = beespace.step(&build, "work").unwrap();
    assert_eq!((build.status, step.status), (Status::Declined, Status::Declined), "{step:#?}");
    assert_eq!(step.reason.unwrap().message, "declined by admin: I looked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_approval_does_not_count_towards_the_stage_timeout() {
    let (gogs, beespace) = dummy("timeout: 15s\n").await;
    let build = blocked(&beespace).await;
    let since = waiting_stage(&beespace, &build).await.awaiting_approval_since.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(15_500)).await;
    approve(&beespace).await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
    let notices = gogs.wait_for_inbox("team", 2).await.unwrap();
    for kind in ["approval.requested", "build.finished"] {
        assert_eq!(notices.iter().filter(|notice| notice.body.contains(kind)).count(), 1, "{kind}: {notices:?}");
    }
    let stage = beespace.stage(&build).unwrap();
    assert!(stage.approval_wait_ms >= 15_500 && stage.awaiting_approval_since.is_none(), "{since:?} {stage:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_a_waiting_step_and_reevaluates_changed_policies() {
    let (_gogs, beespace) = dummy("").await;
    let build = blocked(&beespace).await;
    let before = waiting_stage(&beespace, &build).await;
    let asked = waiting(&beespace).await;
    let beespace = beespace.restart().await.unwrap();
    assert_eq!(beespace.stage(&build).unwrap(), before);

    let more = format!("[[policy]]\nname = \"asks-too\"\nplugin = {:?}\n", guest("approval"));
    let beespace = beespace.restart_with(&format!("[engine]\nkind = \"dummy\"\n{}", settings(&more))).await.unwrap();
    answer(&beespace, "approve", json!({ "subject": asked["subject"] })).await;
    let asks_anew = async || {
        let stage = beespace.stage(&build)?;
        let of_both = stage.approvals.iter().any(|approval| approval.requirements.len() == 2);
        Ok((of_both && stage.status == Status::Blocked).then_some(stage))
    };
    let again = beespace.wait_for("the approval request of both policies", asks_anew).await.unwrap();
    assert_eq!(again.approvals.len(), 1, "{again:#?}");
    assert!(again.approvals[0].approved_by.is_empty(), "the lapsed approval does not count: {again:#?}");
    approve(&beespace).await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    // The dummy engine has lost the stage with its process, like a machine that died; its plan was admitted.
    let step = beespace.step(&build, "work").unwrap();
    assert_eq!((step.status, step.exits[0].cause), (Status::Failure, ExitCause::Lost), "{step:#?}");
}
