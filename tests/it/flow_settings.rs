//! Keys of the pipeline file and settings of the instance, and the record of decisions.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use beespace::clock::now;
use beespace_core::build::Build;
use beespace_core::digest::Digest;
use beespace_core::exit::ExitCause;
use beespace_core::policy::Ruling;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::flow::{DUMMY, world};
use crate::plugins;

const REPO: &str = "ada/hive";

async fn push(gogs: &FakeGogs, pipeline: &str, message: &str) {
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], message).await.unwrap();
}

pub(crate) fn reason(build: &Build) -> String {
    build.reason.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_without_a_timeout_uses_the_default_of_the_instance() {
    let (gogs, beespace) = world("[limits]\nstage_timeout_default = \"1s\"\n").await;
    push(&gogs, "steps: [{ name: long, image: busybox, env: { SLEEP: 60s } }]", "Sleep").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Killed, "{build:#?}");
    assert!(reason(&build).contains("timeout") && reason(&build).contains("stage_timeout"), "{}", reason(&build));
    push(&gogs, "timeout: 1m\nsteps: [{ name: long, image: busybox, env: { SLEEP: 2s } }]", "Sleep less").await;
    assert_eq!(beespace.wait_until_finished(REPO, 2).await.unwrap().status, Status::Success, "the file states its requirements");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_cannot_raise_the_timeout_of_the_instance() {
    let (gogs, beespace) = world("[limits]\nstage_timeout = \"1s\"\n").await;
    push(&gogs, "timeout: 365d\nsteps: [{ name: long, image: busybox, env: { SLEEP: 60s } }]", "Sleep").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Killed, "{build:#?}");
    let stage = beespace.stage(&build).unwrap();
    let [remark] = &*stage.remarks else { panic!("{stage:#?}") };
    assert_eq!(remark.message, "the pipeline's `timeout` of 365d is lowered to 1s, the longest one of this instance");
}

#[tokio::test(flavor = "multi_thread")]
async fn substitutions_get_the_values_of_the_build() {
    let (gogs, beespace) = world("").await;
    let pipeline = r#"
env: { NUMBER: "${{ number }}" }
steps: [{ name: build, image: "app:${{ short_sha }}", run: "echo ${{ repo.name }}", env: { BRANCH: "${{ branch }}" } }]
"#;
    push(&gogs, pipeline, "First").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let stage = beespace.stage(&build).unwrap();
    let container = &stage.steps[1].round.as_ref().unwrap().plan.containers[0];
    assert_eq!(container.image, format!("app:{}", build.short_sha()));
    assert!(container.script.as_ref().unwrap().ends_with("\necho hive\n"), "{container:?}");
    assert_eq!((&*container.env["NUMBER"], &*container.env["BRANCH"]), ("1", "main"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_invalid_with_the_values_of_the_build_is_an_error() {
    let (gogs, beespace) = world("").await;
    push(&gogs, "steps:\n- { name: build, image: \"app:${{ tag }}\" }", "First").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Error, "{build:#?}");
    let [problem] = &*build.files[0].diagnostics else { panic!("{build:#?}") };
    assert!(problem.message.starts_with("`app:` is not a valid image name"), "{problem}");
    assert_eq!(problem.span.unwrap().line, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_tried_again_and_each_attempt_has_its_own_log() {
    let (gogs, beespace) = world("").await;
    let pipeline = r#"
steps:
  - name: flaky
    image: busybox
    env: { FAILED_ATTEMPTS: "2", OUTPUT: "attempt" }
    retry: { max: 3, on: [failure] }
  - { name: after, image: busybox }
"#;
    push(&gogs, pipeline, "First").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{build:#?}");
    let step = &beespace.stage(&build).unwrap().steps[1];
    assert_eq!((step.attempt, step.status), (3, Status::Success));
    let remarks: Vec<&str> = step.remarks.iter().map(|remark| &*remark.message).collect();
    assert_eq!(
        remarks,
        [
            "attempt 1 did not succeed: the program exited with code 1",
            "attempt 2 did not succeed: the program exited with code 1"
        ]
    );
    let admin = beespace.admin().unwrap();
    let log = async |attempt: u16| {
        let path = format!("/api/v1/repositories/{REPO}/builds/1/stages/1/steps/1/log?attempt={attempt}");
        admin.get(&path).await.unwrap()
    };
    assert_eq!(log(1).await.body, "attempt\nattempt 2 of 4 follows\n");
    assert_eq!(log(3).await.body, "attempt\n");
    assert_eq!(log(4).await.status, StatusCode::NOT_FOUND);
    let page = admin.get(&format!("/{REPO}/1/1/1")).await.unwrap().body;
    assert!(page.contains("Attempt 2</a>") && !page.contains("Attempt 3</a>"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_keeps_failing_ends_after_its_last_attempt() {
    let (gogs, beespace) = world("").await;
    let step = "{ name: a, image: busybox, env: { EXIT_CODE: \"3\" }, retry: { max: 1 } }";
    let other = "{ name: b, image: busybox, needs: [], env: { EXIT_CODE: \"3\" }, retry: { max: 1, on: [timeout] } }";
    push(&gogs, &format!("steps: [{step}, {other}]"), "First").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Failure, "{build:#?}");
    let steps = beespace.stage(&build).unwrap().steps;
    assert_eq!((steps[1].attempt, steps[1].status), (2, Status::Failure));
    assert_eq!((steps[2].attempt, steps[2].status), (1, Status::Failure));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_waits_for_its_next_attempt_can_be_cancelled() {
    let (gogs, beespace) = world("").await;
    push(&gogs, "steps: [{ name: a, image: busybox, env: { EXIT_CODE: \"3\" }, retry: { max: 1, backoff: 1h } }]", "First").await;
    let waits = async || {
        let Some(build) = beespace.builds()?.into_iter().next() else { return Ok(None) };
        let stage = beespace.stage(&build).ok();
        Ok(stage.filter(|stage| stage.steps.get(1).is_some_and(|step| step.attempt == 2)))
    };
    beespace.wait_for("the second attempt", waits).await.unwrap();
    let cancelled = beespace.admin().unwrap().post(&format!("/api/v1/repositories/{REPO}/builds/1/cancel"), &json!({})).await;
    assert!(cancelled.unwrap().status.is_success());
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Killed, "{build:#?}");
    assert_eq!(beespace.stage(&build).unwrap().steps[1].attempt, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_without_an_engine_for_it_is_an_error_at_once() {
    let (gogs, beespace) = world("labels = \"gpu=true\"\n").await;
    push(&gogs, "labels: { gpu: true }\nsteps: [{ name: a, image: busybox }]", "First").await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
    push(&gogs, "labels: { zone: a }\nplatform: plan9/mips\nsteps: [{ name: a, image: busybox }]", "Second").await;
    let build = beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!(build.status, Status::Error, "{build:#?}");
    for text in ["no engine has the platform \"plan9/mips\" and the label \"zone\"", "the labels gpu=true"] {
        assert!(reason(&build).contains(text), "{}", reason(&build));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_step_are_lowered_to_those_of_the_instance() {
    let (gogs, beespace) = world("[limits]\nstep_cpu = \"1.5\"\nstep_pids = 100\n").await;
    push(&gogs, "steps: [{ name: big, image: busybox, limits: { cpu: 4, memory: 1GiB, pids: 500 } }]", "First").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{build:#?}");
    let step = &beespace.stage(&build).unwrap().steps[1];
    let limits = &step.round.as_ref().unwrap().plan.containers[0].limits;
    assert_eq!((limits.cpu_millis, limits.memory_bytes, limits.pids), (Some(1_500), Some(1 << 30), Some(100)));
    let [remark] = &*step.remarks else { panic!("{step:#?}") };
    assert_eq!(remark.message, "limits of the instance apply: `cpu` of 4 is lowered to 1.5, `pids` of 500 is lowered to 100");
}

#[tokio::test(flavor = "multi_thread")]
async fn access_to_the_machine_is_declined_at_its_line() {
    let (gogs, beespace) = world("").await;
    push(&gogs, "steps:\n- name: dind\n  image: docker\n  privileged: true\n", "First").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Declined, "{build:#?}");
    assert!(reason(&build).contains("does not allow privileged containers"), "{}", reason(&build));
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_pushes_are_listed_on_the_repository_page_with_a_reason() {
    let (gogs, beespace) = world("").await;
    gogs.push(REPO, "main", &[("README.md", "# Hive\n")], "First").await.unwrap();
    push(&gogs, "steps: [{ name: build, image: busybox }]", "Second").await;
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    push(&gogs, "steps: [{ name: build, image: alpine }]", "Only words [skip ci]").await;
    let page = async || {
        let page = beespace.admin()?.get(&format!("/{REPO}")).await?.body;
        Ok(page.contains("[skip ci]").then_some(page))
    };
    let page = beespace.wait_for("the ignored pushes", page).await.unwrap();
    for text in ["Deliveries without a build", "no pipeline file"] {
        assert!(page.contains(text), "{text}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skip_keyword_counts_even_if_gogs_lists_no_commit() {
    let (gogs, beespace) = world("").await;
    push(&gogs, "steps: [{ name: build, image: busybox }]", "First").await;
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    // Another branch whose commit has the keyword, and a push without commits in Gogs' payload.
    let sha = gogs.push(REPO, "quiet", &[("a", "1")], "Quiet\n\n[skip ci]").await.unwrap();
    let mut payload = gogs.wait_until_delivered().await.unwrap().last().unwrap().payload().unwrap();
    payload["ref"] = json!("refs/heads/main");
    payload["commits"] = json!([]);
    payload["after"] = json!(sha);
    gogs.send_event(REPO, "push", &payload).unwrap();
    let skipped = async || {
        let deliveries = beespace.admin()?.get("/api/v1/deliveries").await?.json()?;
        let by_keyword = |one: &&Value| one["reason"].as_str().is_some_and(|reason| reason.contains("[skip ci]"));
        let count = deliveries.as_array().map_or(0, |all| all.iter().filter(by_keyword).count());
        Ok((count == 2).then_some(()))
    };
    beespace.wait_for("both to be skipped", skipped).await.unwrap();
    assert_eq!(beespace.builds().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_gogs_token_is_reported_and_waited_for() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_private_repository(REPO).await.unwrap();
    let beespace = Beespace::start(&gogs, DUMMY).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    gogs.set_token_revoked(true);
    push(&gogs, "steps: [{ name: build, image: busybox }]", "First").await;
    let waits = async || Ok(beespace.builds()?.into_iter().find(|build| reason(build).contains("next attempt")));
    let build = beespace.wait_for("the build to wait", waits).await.unwrap();
    assert!(build.status == Status::Pending && reason(&build).contains("token"), "{}", reason(&build));
    gogs.set_token_revoked(false);
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_files_are_readable_by_their_owner_only() {
    let (_gogs, beespace) = world("").await;
    let data = &beespace.app.config.data;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data.dir), mode(&data.admin_token_path())), (0o700, 0o600));
}

/// A policy that is loaded from a file, with these settings.
fn images(settings: &str) -> String {
    format!("[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\nsettings = {{ {settings} }}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_records_component_settings_and_subject() {
    let before = now();
    let (gogs, beespace) = world(&images("forbidden_tags = [\"never\"]")).await;
    push(&gogs, "steps: [{ name: build, image: \"busybox:1\" }]", "First").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let decisions = beespace.app.store.read().unwrap().decisions(build.id).unwrap();
    let stage = beespace.stage(&build).unwrap();
    let subjects = [stage.pipeline.document().digest(), stage.steps[1].round.as_ref().unwrap().plan.document().digest()];
    assert_eq!(decisions.len(), 2);
    for (decision, subject) in decisions.iter().zip(subjects) {
        assert_eq!((decision.subject, decision.subject_before, &decision.ruling), (subject, subject, &Ruling::Allowed));
        assert!(decision.decided_at >= before && decision.decided_at <= now(), "{decision:#?}");
        let by_policy = decision.evaluations.iter().find(|one| one.policy == "images").unwrap();
        assert_eq!(by_policy.component, Some(Digest::of(plugins::component("plugins/policy-images"))));
        assert!(by_policy.settings.is_some() && by_policy.result.is_ok() && by_policy.applied.is_empty());
    }
    let settings = |decisions: &[beespace_core::policy::Decision]| decisions[0].evaluations.iter().find_map(|one| one.settings);
    let first = settings(&decisions);
    let beespace = beespace.restart_with(&format!("{DUMMY}{}", images("forbidden_tags = [\"ever\"]"))).await.unwrap();
    let again =
        beespace.admin().unwrap().post(&format!("/api/v1/repositories/{REPO}/builds/1/restart"), &json!({})).await.unwrap();
    assert!(again.status.is_success(), "{again:?}");
    let build = beespace.wait_until_finished(REPO, 2).await.unwrap();
    let second = settings(&beespace.app.store.read().unwrap().decisions(build.id).unwrap());
    assert!(first.is_some() && second.is_some() && first != second);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_lapses_when_the_settings_of_its_policy_change() {
    let asks = |settings: &str| {
        let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests/approval.wasm").canonicalize().unwrap();
        format!("{DUMMY}[[policy]]\nname = \"asks\"\nplugin = {plugin:?}\nsettings = {{ {settings} }}\n")
    };
    let (gogs, beespace) = world("").await;
    let beespace = {
        push(&gogs, "name: deploy\nsteps: [{ name: build, image: busybox }]", "First").await;
        beespace.wait_until_finished(REPO, 1).await.unwrap();
        beespace.restart_with(&asks("which = 1")).await.unwrap()
    };
    let restart = format!("/api/v1/repositories/{REPO}/builds/1/restart");
    assert!(beespace.admin().unwrap().post(&restart, &json!({})).await.unwrap().status.is_success());
    let blocked = beespace.wait_for_build(REPO, 2, |build| build.status == Status::Blocked).await.unwrap();
    let asked = beespace.stage(&blocked).unwrap().approvals[0].clone();
    let beespace = beespace.restart_with(&asks("which = 2")).await.unwrap();
    let body = json!({ "subject": asked.subject.to_string() });
    let response = beespace.admin().unwrap().post(&format!("/api/v1/repositories/{REPO}/builds/2/approve"), &body).await.unwrap();
    assert_eq!(response.status, StatusCode::OK, "{response:?}");
    let anew = async || {
        let stage = beespace.stage(&blocked)?;
        Ok((stage.status == Status::Blocked && stage.approvals[0].decision != asked.decision).then_some(stage))
    };
    let stage = beespace.wait_for("a new approval request", anew).await.unwrap();
    assert!(
        stage.approvals[0].approved_by.is_empty()
            && stage.steps.iter().all(|step| step.exits.iter().all(|exit| exit.cause == ExitCause::Lost))
    );
}
