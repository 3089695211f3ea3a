//! The default policy for untrusted code: a person approves each commit, and the target's pipeline runs.

use beespace::store::delivery::DeliveryOutcome;
use beespace_core::build::Build;
use beespace_core::event::EventKind;
use beespace_core::policy::Point;
use beespace_core::status::Status;
use beespace_core::trust::Trust;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use serde_json::json;

use crate::flow::{DUMMY, world};

const REPO: &str = "ada/hive";
const FORK: &str = "eve/hive";
const OURS: &str = "steps:\n  - name: ours\n    image: busybox\n";
const THEIRS: &str = "steps:\n  - name: theirs\n    image: busybox\n";

/// A repository whose pipeline was built as number 1, and a pull request of eve's fork with another pipeline.
async fn forked(extra: &str) -> (FakeGogs, Beespace, u64) {
    let (gogs, beespace) = world(extra).await;
    gogs.push(REPO, "main", &[(".beespace.yml", OURS)], "Add a pipeline").await.unwrap();
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    gogs.fork(REPO, "eve").await.unwrap();
    gogs.push(FORK, "topic", &[(".beespace.yml", THEIRS)], "Run something else").await.unwrap();
    let number = gogs.open_pull_request(REPO, "eve", "eve:topic", "main").unwrap();
    (gogs, beespace, number)
}

async fn blocked(beespace: &Beespace, number: u64) -> Build {
    beespace.wait_for_build(REPO, number, |build| build.status == Status::Blocked).await.unwrap()
}

fn steps(beespace: &Beespace, build: &Build) -> Vec<String> {
    beespace.stage(build).unwrap().pipeline.steps.iter().map(|step| step.name.clone()).collect()
}

async fn approve(beespace: &Beespace, build: &Build) {
    let subject = beespace.stage(build).unwrap().approvals[0].subject.to_string();
    let path = format!("/api/v1/repositories/{REPO}/builds/{}/approve", build.number.unwrap());
    let answer = beespace.admin().unwrap().post(&path, &json!({ "subject": subject })).await.unwrap();
    assert!(answer.status.is_success(), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_commit_of_a_fork_waits_for_an_approval_and_runs_the_pipeline_of_the_target() {
    let (gogs, beespace, _) = forked("").await;
    let build = blocked(&beespace, 2).await;
    let reason = build.reason.as_ref().unwrap().to_string();
    assert!(reason.contains(&format!("commit {} of pull request #1 is in no branch", build.short_sha())), "{reason}");
    assert_eq!(steps(&beespace, &build), ["ours"], "the fork's file does not choose what runs");
    assert_eq!(build.pipeline_from.as_ref().unwrap().branch, "main");
    let decisions = beespace.app.store.read().unwrap().decisions(build.id).unwrap();
    assert!(decisions.iter().any(|decision| decision.point == Point::BuildAdmit), "{decisions:#?}");
    let page = beespace.anonymous().get("/ada/hive/2").await.unwrap().body;
    assert!(page.contains("from main at "), "{page}");
    approve(&beespace, &build).await;
    assert_eq!(beespace.wait_until_finished(REPO, 2).await.unwrap().status, Status::Success);

    gogs.push(FORK, "topic", &[("more", "1")], "Go on").await.unwrap();
    let next = blocked(&beespace, 3).await;
    assert_ne!(next.sha(), build.sha());
    let restart = format!("/api/v1/repositories/{REPO}/builds/2/restart");
    assert!(beespace.admin().unwrap().post(&restart, &json!({})).await.unwrap().status.is_success());
    assert_eq!(blocked(&beespace, 4).await.sha(), build.sha(), "a restart is asked about, too");

    gogs.push(FORK, "topic", &[("more", "2")], "Go on").await.unwrap();
    blocked(&beespace, 5).await;
    for number in [3, 4] {
        let ended = beespace.wait_until_finished(REPO, number).await.unwrap();
        assert_eq!((ended.status, ended.reason.unwrap().code.as_str()), (Status::Skipped, "superseded"));
    }
}

/// The author of a pull request chooses its commit, and could choose one that was merged together with its own revert.
#[tokio::test(flavor = "multi_thread")]
async fn a_forks_commit_that_a_branch_reaches_still_waits_for_an_approval() {
    let (gogs, beespace, number) = forked("").await;
    let build = blocked(&beespace, 2).await;
    approve(&beespace, &build).await;
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    gogs.merge_pull_request(REPO, number).await.unwrap();
    assert_eq!(beespace.wait_until_finished(REPO, 3).await.unwrap().trust(), Trust::Trusted, "the merge itself");
    let copy = gogs.clone_repository(FORK).await.unwrap();
    copy.git(&["fetch", "--quiet", "origin", "topic"]).await.unwrap();
    copy.push(&["FETCH_HEAD:refs/heads/again"]).await.unwrap();
    gogs.open_pull_request(REPO, "eve", "eve:again", "main").unwrap();
    let again = blocked(&beespace, 4).await;
    assert_eq!((again.sha(), again.trust()), (build.sha(), Trust::Untrusted));
}

/// Who knows the webhook's secret can sign a push of any commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_push_of_a_forks_commit_is_untrusted() {
    let (gogs, beespace, _) = forked("").await;
    let build = blocked(&beespace, 2).await;
    let push = gogs.wait_until_delivered().await.unwrap().into_iter().find(|it| it.event == "push").unwrap();
    let mut payload = push.payload().unwrap();
    payload["before"] = payload["after"].clone();
    payload["after"] = json!(build.sha().unwrap().as_str());
    payload["commits"] = json!([]);
    gogs.send_event(REPO, "push", &payload).unwrap();
    let forged = blocked(&beespace, 3).await;
    assert_eq!((forged.event.kind(), forged.trust()), (EventKind::Push, Trust::Untrusted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_of_the_repository_needs_no_approval_and_runs_its_own_pipeline() {
    let (gogs, beespace) = world("").await;
    gogs.push(REPO, "main", &[(".beespace.yml", OURS)], "Add a pipeline").await.unwrap();
    gogs.push(REPO, "topic", &[(".beespace.yml", THEIRS)], "Change it [skip ci]").await.unwrap();
    gogs.push(REPO, "topic", &[("a", "1")], "Go on").await.unwrap();
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    gogs.open_pull_request(REPO, "ada", "topic", "main").unwrap();
    let build = beespace.wait_until_finished(REPO, 3).await.unwrap();
    assert_eq!((build.status, steps(&beespace, &build)), (Status::Success, vec!["theirs".to_owned()]));
    let decisions = beespace.app.store.read().unwrap().decisions(build.id).unwrap();
    assert!(decisions.iter().all(|decision| decision.point != Point::BuildAdmit), "nobody had an opinion");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_may_choose_the_pipeline_of_the_head_and_doctor_says_that_it_replaces_the_policy() {
    let binding = "[[policy]]\nname = \"forks\"\nplugin = \"policy-forks\"\nsettings = { pipeline_file = \"head\" }\n";
    let (_gogs, beespace, _) = forked(binding).await;
    let build = blocked(&beespace, 2).await;
    assert_eq!((steps(&beespace, &build), build.pipeline_from.as_ref()), (vec!["theirs".to_owned()], None));
    let findings = beespace.admin().unwrap().get("/api/v1/doctor").await.unwrap().body;
    assert!(findings.contains("the configuration replaces the default policy for untrusted code"), "{findings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_build_does_not_run_files_that_changed_policies_no_longer_choose() {
    let binding = "[[policy]]\nname = \"forks\"\nplugin = \"policy-forks\"\nsettings = { pipeline_file = \"head\" }\n";
    let (_gogs, beespace, _) = forked(binding).await;
    assert_eq!(steps(&beespace, &blocked(&beespace, 2).await), ["theirs"]);
    let beespace = beespace.restart_with(DUMMY).await.unwrap();
    approve(&beespace, &blocked(&beespace, 2).await).await;
    let build = beespace.wait_until_finished(REPO, 2).await.unwrap();
    let reason = build.reason.as_ref().unwrap();
    assert_eq!((build.status, reason.code.as_str()), (Status::Declined, "pipeline-not-approved"), "{reason}");
    assert!(reason.help.as_ref().unwrap().contains("`beespace build restart`"), "{reason}");
    assert!(beespace.stage(&build).unwrap().steps.iter().all(|step| step.started_at.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_a_pipeline_file_builds_no_fork() {
    let (gogs, beespace) = world("").await;
    gogs.push(REPO, "main", &[("a", "1")], "Nothing to build").await.unwrap();
    gogs.fork(REPO, "eve").await.unwrap();
    gogs.push(FORK, "topic", &[(".beespace.yml", THEIRS)], "Bring a pipeline").await.unwrap();
    gogs.open_pull_request(REPO, "eve", "eve:topic", "main").unwrap();
    let look = async || {
        let deliveries = beespace.app.store.read()?.deliveries(None, None, 100)?;
        let of_pull = deliveries.into_iter().find(|delivery| delivery.event == "pull_request").map(|delivery| delivery.outcome);
        Ok(of_pull.and_then(|outcome| match outcome {
            DeliveryOutcome::Ignored(reason) => Some(reason),
            _ => None,
        }))
    };
    let reason = beespace.wait_for("the pull request to be ignored", look).await.unwrap();
    assert_eq!(reason.code, "no-pipeline-file");
    assert!(reason.message.contains("of branch \"main\", whose pipeline the build has to run"), "{reason}");
}
