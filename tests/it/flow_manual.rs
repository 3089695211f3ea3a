//! Builds that people start.

use beespace_core::build::Build;
use beespace_core::event::EventKind;
use beespace_core::policy::approval::ADMIN_ID;
use beespace_core::status::Status;
use beespace_core::trust::Trust;
use beespace_tests::beespace::Beespace;
use beespace_tests::client::HttpResponse;
use beespace_tests::gogs::FakeGogs;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::flow::world;

const REPO: &str = "ada/hive";
const FILE: &str = "params:\n  level: { type: choice, options: [patch, minor], default: patch }\n  note: {}\n\
                    when: { event: manual }\nsteps:\n  - name: show\n    image: registry.example/tool:${{ params.level }}\n    \
                    env: { OUTPUT: \"level ${{ params.level }}\" }\n";
/// The default branch of a new repository.
const MAIN: &str = "master";
const PLAIN: &str = "steps:\n  - name: build\n    image: busybox\n";

async fn start(beespace: &Beespace, body: Value) -> HttpResponse {
    beespace.admin().unwrap().post(&format!("/api/v1/repositories/{REPO}/builds"), &body).await.unwrap()
}

/// Starts a build and waits for its end. Builds of this file's pushes are skipped by their messages, so only started ones have
/// numbers.
async fn run(beespace: &Beespace, body: Value, number: u64) -> Build {
    let answer = start(beespace, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    beespace.wait_until_finished(REPO, number).await.unwrap()
}

async fn push(gogs: &FakeGogs, branch: &str, pipeline: &str) -> String {
    gogs.push(REPO, branch, &[(".beespace.yml", pipeline)], "Change [skip ci]").await.unwrap()
}

fn reason(build: &Build) -> String {
    build.reason.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_of_a_branch_a_tag_or_a_commit_is_started() {
    let (gogs, beespace) = world("").await;
    let first = push(&gogs, MAIN, PLAIN).await;
    gogs.tag(REPO, MAIN, "v1", Some("annotated")).await.unwrap();
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    let second = push(&gogs, MAIN, PLAIN).await;
    for (number, body, expected, branch, tag) in [
        (2, json!({}), &second, Some(MAIN), None),
        (3, json!({ "branch": MAIN }), &second, Some(MAIN), None),
        (4, json!({ "tag": "v1" }), &first, None, Some("v1")),
        (5, json!({ "sha": first }), &first, None, None),
    ] {
        let build = run(&beespace, body, number).await;
        assert_eq!((build.status, build.sha().unwrap().as_str()), (Status::Success, expected.as_str()), "{build:#?}");
        assert_eq!((build.event.kind(), build.event.branch(), build.event.tag()), (EventKind::Manual, branch, tag));
        assert_eq!((build.event.sender.stable_id().as_str(), build.trust()), (ADMIN_ID, Trust::Trusted));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_tag_or_commit_that_gogs_does_not_have_is_an_error() {
    let (gogs, beespace) = world("").await;
    push(&gogs, MAIN, PLAIN).await;
    for (number, body, expected) in [
        (1, json!({ "branch": "nowhere" }), "Gogs has no branch \"nowhere\""),
        (2, json!({ "tag": "v0" }), "Gogs has no tag \"v0\""),
        (3, json!({ "sha": "ab".repeat(20) }), "Gogs has no commit abababa"),
    ] {
        let build = run(&beespace, body, number).await;
        assert_eq!(build.status, Status::Error, "{build:#?}");
        assert!(reason(&build).starts_with(expected), "{}", reason(&build));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn params_are_checked_against_the_file_and_reach_the_step() {
    let (gogs, beespace) = world("").await;
    push(&gogs, MAIN, FILE).await;
    let build = run(&beespace, json!({ "params": { "level": "minor", "note": 7 } }), 1).await;
    assert_eq!(build.status, Status::Success, "{}", reason(&build));
    let log = beespace.log(&build, "show").await.unwrap();
    assert!(log.iter().any(|line| line == "level minor"), "{log:#?}");
    let stage = beespace.stage(&build).unwrap();
    let step = &stage.steps[1];
    let inputs =
        beespace_core::environment::Inputs { build: &build, stage: &stage, step, status_so_far: Status::Success, build_url: "" };
    let variables = beespace_core::environment::variables(&inputs);
    assert_eq!((variables["BEESPACE_PARAM_LEVEL"].as_str(), variables["BEESPACE_PARAM_NOTE"].as_str()), ("minor", "7"));
    let refused = run(&beespace, json!({ "params": { "level": "major", "nota": "x" } }), 2).await;
    assert_eq!((refused.status, refused.reason.as_ref().unwrap().code.as_str()), (Status::Error, "invalid-params"));
    for part in ["`level` must be `patch` or `minor`", "did you mean `note`?", "`note` has no default"] {
        assert!(reason(&refused).contains(part), "{}", reason(&refused));
    }
    // A restart has the same values.
    let again = format!("/api/v1/repositories/{REPO}/builds/1/restart");
    assert!(beespace.admin().unwrap().post(&again, &json!({})).await.unwrap().status.is_success());
    let again = beespace.wait_until_finished(REPO, 3).await.unwrap();
    assert_eq!((again.status, again.event.params()), (Status::Success, build.event.params()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_started_build_without_a_pipeline_file_says_so() {
    let (gogs, beespace) = world("").await;
    gogs.push(REPO, MAIN, &[("README", "x")], "No pipeline").await.unwrap();
    let build = run(&beespace, json!({}), 1).await;
    assert_eq!((build.status, build.reason.unwrap().code.as_str()), (Status::Error, "no-pipeline-file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused() {
    let (gogs, beespace) = world("").await;
    push(&gogs, MAIN, PLAIN).await;
    for body in [
        json!({ "branch": MAIN, "tag": "v1" }),
        json!({ "branch": "a..b" }),
        json!({ "sha": "95a2db4" }),
        json!({ "params": { "a b": "c" } }),
        json!({ "params": { "a": ["c"] } }),
        json!({ "params": { "a": "x".repeat(5_000) } }),
    ] {
        let answer = start(&beespace, body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {}", answer.body);
    }
    assert_eq!(start(&beespace, json!({ "brunch": MAIN })).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let path = format!("/api/v1/repositories/{REPO}");
    beespace.admin().unwrap().call(reqwest::Method::DELETE, &path, &json!({})).await.unwrap();
    let answer = start(&beespace, json!({})).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.body);
    assert!(answer.body.contains("beespace repo enable"), "{}", answer.body);
    assert!(beespace.builds().unwrap().iter().all(|build| build.event.kind() == EventKind::Push));
}

const DEPLOY: &str = "when: { event: [manual, promote, rollback] }
steps:
  - name: test
    image: busybox
    when: { event: manual }
  - name: deploy
    image: busybox
    when: { target: 'prod*' }
    env: { OUTPUT: 'to ${{ target }}' }
";

async fn deploy(beespace: &Beespace, verb: &str, number: u64, target: &str) -> HttpResponse {
    let path = format!("/api/v1/repositories/{REPO}/builds/{number}/{verb}");
    beespace.admin().unwrap().post(&path, &json!({ "target": target })).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successful_build_is_promoted_and_rolled_back_to() {
    let (gogs, beespace) = world("").await;
    push(&gogs, MAIN, DEPLOY).await;
    let built = run(&beespace, json!({}), 1).await;
    assert_eq!(built.status, Status::Success, "{}", reason(&built));
    // The branch moves on; the commit of the build is deployed.
    push(&gogs, MAIN, "steps: [{ name: bad, image: busybox, env: { EXIT_CODE: \"1\" } }]\n").await;
    for (number, verb, kind) in [(2, "promote", EventKind::Promote), (3, "rollback", EventKind::Rollback)] {
        let answer = deploy(&beespace, verb, 1, "production").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert_eq!(
            (&answer.json().unwrap()["target"], &answer.json().unwrap()["promoted_build"]),
            (&json!("production"), &json!(1))
        );
        let build = beespace.wait_until_finished(REPO, number).await.unwrap();
        assert_eq!((build.status, build.event.kind(), build.sha()), (Status::Success, kind, built.sha()), "{build:#?}");
        assert_eq!((build.event.branch(), build.trust()), (Some(MAIN), Trust::Trusted));
        assert_eq!(beespace.step(&build, "test").unwrap().status, Status::Skipped);
        let log = beespace.log(&build, "deploy").await.unwrap();
        assert!(log.iter().any(|line| line == "to production"), "{log:#?}");
    }
    let elsewhere = deploy(&beespace, "promote", 1, "staging").await;
    assert!(elsewhere.status.is_success(), "{}", elsewhere.body);
    let build = beespace.wait_until_finished(REPO, 4).await.unwrap();
    assert_eq!(beespace.step(&build, "deploy").unwrap().status, Status::Skipped, "its target does not match");
    assert_eq!(deploy(&beespace, "promote", 1, "a b").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_successful_build_is_promoted() {
    let (gogs, beespace) = world("").await;
    push(&gogs, MAIN, "steps: [{ name: bad, image: busybox, env: { EXIT_CODE: \"1\" } }]\n").await;
    let failed = run(&beespace, json!({}), 1).await;
    assert_eq!(failed.status, Status::Failure, "{}", reason(&failed));
    for verb in ["promote", "rollback"] {
        let answer = deploy(&beespace, verb, 1, "production").await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.body);
        assert!(answer.body.contains("only a successful build"), "{}", answer.body);
    }
}

/// A commit that no branch reaches any more is untrusted code, whoever starts its build.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_no_branch_runs_the_pipeline_of_the_default_branch_after_an_approval_and_is_not_promoted() {
    let (gogs, beespace) = world("").await;
    push(&gogs, MAIN, "steps: [{ name: of-the-default-branch, image: busybox }]\n").await;
    let lost = push(&gogs, "topic", "steps: [{ name: own, image: busybox }]\n").await;
    run(&beespace, json!({ "branch": "topic" }), 1).await;
    let copy = gogs.clone_repository(REPO).await.unwrap();
    copy.git(&["push", "--quiet", "origin", "--delete", "refs/heads/topic"]).await.unwrap();
    let answer = start(&beespace, json!({ "sha": lost })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let blocked = beespace.wait_for_build(REPO, 2, |build| build.status == Status::Blocked).await.unwrap();
    assert_eq!(blocked.trust(), Trust::Untrusted);
    let stage = beespace.stage(&blocked).unwrap();
    assert_eq!(stage.pipeline.steps[0].name, "of-the-default-branch");
    let subject = stage.approvals[0].subject.to_string();
    let path = format!("/api/v1/repositories/{REPO}/builds/2/approve");
    let answer = beespace.admin().unwrap().post(&path, &json!({ "subject": subject })).await.unwrap();
    assert!(answer.status.is_success(), "{}", answer.body);
    assert_eq!(beespace.wait_until_finished(REPO, 2).await.unwrap().status, Status::Success);
    let promoted = deploy(&beespace, "promote", 2, "production").await;
    assert_eq!(promoted.status, StatusCode::CONFLICT, "{}", promoted.body);
    assert!(promoted.body.contains("untrusted"), "{}", promoted.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_of_the_repository_offers_the_params_and_starts_a_build() {
    let (gogs, beespace) = world("").await;
    push(&gogs, MAIN, FILE).await;
    run(&beespace, json!({ "params": { "note": "first" } }), 1).await;
    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    let page = session.get("/ada/hive").await.unwrap().body;
    assert!(page.contains(r#"<option selected>patch</option>"#) && page.contains(r#"name="param.note""#), "{page}");
    let csrf = page.split(r#"name="csrf" value=""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
    let fields = [("csrf", csrf.as_str()), ("of", "branch"), ("name", ""), ("param.level", "minor"), ("param.note", "hi")];
    let answer = session.form("/ada/hive/builds", &fields).await.unwrap();
    assert!(answer.header("location").starts_with("/ada/hive/"), "{answer:?}");
    let build = beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!(build.event.params().unwrap()["level"], "minor");
    let page = session.get("/ada/hive/2").await.unwrap().body;
    assert!(page.contains("Started by") && page.contains("note=hi"), "{page}");
    let fields = [("csrf", csrf.as_str()), ("target", "production"), ("param.note", "x")];
    let promoted = session.form("/ada/hive/2/promote", &fields).await.unwrap();
    assert!(page.contains(r#"action="/ada/hive/2/promote""#) && !promoted.header("location").is_empty(), "{promoted:?}");
    let skipped = beespace.wait_until_finished(REPO, 3).await.unwrap();
    assert_eq!((skipped.event.target(), skipped.status), (Some("production"), Status::Skipped), "the file does not ask for it");
    let forged = session.form("/ada/hive/builds", &[("csrf", "x"), ("of", "branch")]).await.unwrap();
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
}
