//! The path of a push from Gogs to the notice, with the dummy engine.

use beespace::clock::now;
use beespace::store::delivery::DeliveryOutcome;
use beespace::store::notice::Notices as _;
use beespace::store::{Queue, StoreError};
use beespace_core::build::{Build, Stage};
use beespace_core::change_event::ChangeEvent;
use beespace_core::ids::{StageId, StageNumber};
use beespace_core::notice::NoticeState;
use beespace_core::policy::approval::ADMIN_ID;
use beespace_core::policy::approval::Approver;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_core::user_action;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::{Delivery, FakeGogs};
use reqwest::Method;

pub(crate) const DUMMY: &str = "[engine]\nkind = \"dummy\"\n";
const REPO: &str = "ada/hive";

const ONE_STEP: &str = "steps:\n  - name: build\n    image: busybox\n    env: { OUTPUT: \"cells filled\" }\n";

/// A fake Gogs with one repository, and a server with the dummy engine, whose steps are controlled by their environment.
pub(crate) async fn world(extra: &str) -> (FakeGogs, Beespace) {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start(&gogs, &format!("{DUMMY}{extra}")).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    (gogs, beespace)
}

async fn push(gogs: &FakeGogs, pipeline: &str, message: &str) -> String {
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], message).await.unwrap()
}

fn reason(build: &Build) -> String {
    build.reason.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_builds_and_its_log_is_kept() {
    let (gogs, beespace) = world("").await;
    let sha = push(&gogs, ONE_STEP, "Fill cells").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{build:#?}");
    let head = build.head.as_ref().unwrap();
    assert_eq!((head.sha.as_str(), head.message.trim()), (sha.as_str(), "Fill cells"));
    assert_eq!(build.event.sender.login, "ada");
    let log = beespace.log(&build, "build").await.unwrap();
    assert!(log.iter().any(|line| line == "cells filled"), "{log:#?}");
    assert!(beespace.log(&build, "clone").await.unwrap().iter().any(|line| line.contains("sources are in place")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_build_runs_nothing() {
    let policy =
        "[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\nsettings = { repositories = [\"docker.io/acme/*\"] }\n";
    let (gogs, beespace) = world(policy).await;
    push(&gogs, ONE_STEP, "Use busybox").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Declined);
    assert!(reason(&build).contains("images: "), "{}", reason(&build));
    let stage = beespace.stage(&build).unwrap();
    assert!(stage.steps.iter().all(|step| step.started_at.is_none() && step.status == Status::Skipped), "{stage:#?}");
    assert!(stage.started_at.is_none());
    let decisions = beespace.app.store.read().unwrap().decisions(build.id).unwrap();
    assert!(decisions.iter().any(|decision| decision.evaluations.iter().any(|one| one.policy == "images")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_push_builds_once_however_often_it_is_delivered() {
    let (gogs, beespace) = world("").await;
    push(&gogs, ONE_STEP, "Fill cells").await;
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    let deliveries = gogs.wait_until_delivered().await.unwrap();
    for delivery in deliveries.iter().chain(&deliveries) {
        gogs.redeliver(&delivery.uuid).unwrap();
    }
    gogs.wait_until_delivered().await.unwrap();
    push(&gogs, "steps:\n  - name: other\n    image: busybox\n", "Another push").await;
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!(beespace.builds().unwrap().len(), 2);
}

async fn first_push(gogs: &FakeGogs) -> Delivery {
    gogs.wait_until_delivered().await.unwrap().into_iter().find(|delivery| delivery.event == "push").unwrap()
}

/// Sends the same push again under another delivery id. Returns the reason code for which it is ignored.
async fn ignored(gogs: &FakeGogs, beespace: &Beespace, repository: &str, push: &Delivery) -> String {
    gogs.send_event(repository, "push", &push.payload().unwrap()).unwrap();
    let delivery = gogs.deliveries().pop().unwrap();
    assert!(delivery.json == push.json && delivery.uuid != push.uuid, "{delivery:#?}");
    let fate = beespace
        .wait_for("the delivery to be settled", async || {
            let deliveries = beespace.app.store.read()?.deliveries(None, None, 10)?;
            let fate = deliveries.into_iter().find(|one| one.forge_id == delivery.uuid).map(|one| one.outcome);
            Ok(fate.filter(|fate| *fate != DeliveryOutcome::Waiting))
        })
        .await
        .unwrap();
    let DeliveryOutcome::Ignored(reason) = &fate else { panic!("{fate:?}") };
    reason.code.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_push_with_another_delivery_id_builds_nothing() {
    let (gogs, beespace) = world("").await;
    push(&gogs, ONE_STEP, "One").await;
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    gogs.push(REPO, "main", &[("cells", "2")], "Two").await.unwrap();
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    let one = first_push(&gogs).await;
    assert_eq!(ignored(&gogs, &beespace, REPO, &one).await, "duplicate-push");
    assert_eq!(beespace.builds().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_sent_to_the_webhook_of_another_repository_builds_in_neither() {
    const OTHER: &str = "ada/comb";
    let (gogs, beespace) = world("").await;
    gogs.create_repository(OTHER).await.unwrap();
    beespace.enable(OTHER).await.unwrap();
    gogs.push(OTHER, "main", &[(".beespace.yml", ONE_STEP)], "Fill cells").await.unwrap();
    beespace.wait_until_finished(OTHER, 1).await.unwrap();
    let of_the_other = first_push(&gogs).await;
    assert_eq!(ignored(&gogs, &beespace, REPO, &of_the_other).await, "other-repository");
    assert_eq!(beespace.builds().unwrap().len(), 1);
    let shown = beespace.admin().unwrap().get("/api/v1/deliveries").await.unwrap().json().unwrap();
    assert_eq!((&shown[0]["repository"], &shown[0]["outcome"]), (&REPO.into(), &"ignored".into()), "{shown:#}");
}

/// Gogs' payloads have times in whole seconds, so these pushes have equal payloads.
#[tokio::test(flavor = "multi_thread")]
async fn pushes_within_one_second_all_build_although_two_payloads_are_equal() {
    let (gogs, beespace) = world("").await;
    let one = push(&gogs, ONE_STEP, "One").await;
    let two = push(&gogs, ONE_STEP, "Two").await;
    let copy = gogs.clone_repository(REPO).await.unwrap();
    copy.git(&["fetch", "--quiet", "origin"]).await.unwrap();
    for _ in 0..3 {
        copy.push(&[&format!("+{one}:refs/heads/main")]).await.unwrap();
        copy.push(&[&format!("{two}:refs/heads/main")]).await.unwrap();
    }
    for _ in 0..3 {
        copy.push(&[&format!("{one}:refs/heads/passing")]).await.unwrap();
        copy.push(&[":refs/heads/passing"]).await.unwrap();
    }
    beespace.wait_until_finished(REPO, 11).await.unwrap();
    gogs.wait_until_delivered().await.unwrap();
    let built: Vec<String> = beespace.builds().unwrap().iter().map(|build| build.event.sha().unwrap().to_string()).collect();
    assert_eq!(built.len(), 11, "{built:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_skips_what_follows_and_fails_the_build() {
    let (gogs, beespace) = world("").await;
    let pipeline = "steps:\n  - name: bad\n    image: busybox\n    env: { EXIT_CODE: 3 }\n  - name: after\n    image: busybox\n  \
                    - name: always\n    image: busybox\n    when: { status: [success, failure] }\n";
    push(&gogs, pipeline, "Fail").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Failure, "{build:#?}");
    assert_eq!(beespace.step(&build, "bad").unwrap().status, Status::Failure);
    let after = beespace.step(&build, "after").unwrap();
    assert_eq!(after.status, Status::Skipped);
    assert!(after.reason.unwrap().to_string().contains("bad"));
    assert_eq!(beespace.step(&build, "always").unwrap().status, Status::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_pipeline_file_is_an_error_with_every_problem() {
    let (gogs, beespace) = world("").await;
    push(&gogs, "steps:\n  - name: a\n    imag: busybox\n  - name: b\n    image: busybox\n    commands: [x]\n", "Typos").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Error);
    let file = build.files.first().unwrap();
    assert!(file.diagnostics.len() >= 2, "{:#?}", file.diagnostics);
    assert!(file.diagnostics.iter().all(|problem| problem.span.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_a_pipeline_file_is_ignored_with_a_reason() {
    let (gogs, beespace) = world("").await;
    let files = [("README.md", "add a `.beespace.yml`"), (".beespace/README.md", "add a file such as `.beespace/test.yml`")];
    for (pushed, (file, helps)) in (1..).zip(files) {
        gogs.push(REPO, "main", &[(file, "# Hive")], "No pipeline").await.unwrap();
        let fates = beespace
            .wait_for("the outcome of the push", async || {
                let deliveries = beespace.app.store.read()?.deliveries(None, None, 10)?;
                let pushes = deliveries.into_iter().filter(|one| one.event == "push").map(|one| one.outcome);
                let fates: Vec<DeliveryOutcome> =
                    pushes.filter(|fate| !matches!(fate, DeliveryOutcome::Waiting | DeliveryOutcome::Built(_))).collect();
                Ok((fates.len() == pushed).then_some(fates))
            })
            .await
            .unwrap();
        let newest = fates.first().unwrap();
        let DeliveryOutcome::Ignored(reason) = newest else { panic!("{newest:?}") };
        assert!(reason.message.starts_with("no pipeline file at "), "{reason}");
        assert!(reason.to_string().contains(helps), "{reason}");
    }
    assert!(beespace.builds().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmet_when_condition_is_explained_part_by_part() {
    let (gogs, beespace) = world("").await;
    push(&gogs, &format!("when: {{ branch: release }}\n{ONE_STEP}"), "Elsewhere").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Skipped);
    assert!(reason(&build).contains("release"), "{}", reason(&build));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_waits_for_gogs_with_a_reason_and_continues() {
    let (gogs, beespace) = world("").await;
    gogs.set_offline(true);
    push(&gogs, ONE_STEP, "While Gogs is away").await;
    let waiting = beespace
        .wait_for("a build that waits", async || {
            let builds = beespace.builds()?;
            Ok(builds.into_iter().find(|build| build.reason.as_ref().is_some_and(|reason| reason.code == "waiting-for-gogs")))
        })
        .await
        .unwrap();
    assert_eq!((waiting.status, waiting.number), (Status::Pending, None));
    gogs.set_offline(false);
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_build_follows_a_renamed_repository() {
    let (gogs, beespace) = world("").await;
    gogs.set_offline(true);
    push(&gogs, ONE_STEP, "Fill cells").await;
    let first = beespace.wait_for("the first build", async || Ok(beespace.builds()?.pop())).await.unwrap();
    gogs.rename(REPO, "comb").unwrap();
    gogs.set_offline(false);
    // Gogs sends the new name with the next push.
    gogs.push("ada/comb", "main", &[("README.md", "# Comb")], "Rename").await.unwrap();
    beespace.wait_until_finished("ada/comb", 2).await.unwrap();
    let build = beespace
        .wait_for("the first build's end", async || {
            Ok(beespace.builds()?.into_iter().find(|build| build.id == first.id && build.status.is_over()))
        })
        .await
        .unwrap();
    assert_eq!(build.status, Status::Success, "{build:#?}");
    assert_eq!(beespace.build(REPO, build.number.unwrap()).unwrap().unwrap().id, first.id, "the old address leads to it, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_an_error_with_a_remedy() {
    let (gogs, beespace) = world("").await;
    let pipeline = "steps:\n  - name: use\n    image: busybox\n    env: { TOKEN: { from_secret: registry_token } }\n";
    push(&gogs, pipeline, "Use a secret").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Error);
    assert!(reason(&build).contains("beespace secret set registry_token"), "{}", reason(&build));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_missing_secret_is_reported_before_the_first_step() {
    let (gogs, beespace) = world("").await;
    beespace.set_plugin_secret("hook-key", "a-key-for-the-receiver").await.unwrap();
    let step = |name: &str, rest: &str| format!("  - {{ name: {name}, image: busybox{rest} }}\n");
    let pipeline = [
        "steps:\n".to_owned(),
        step("first", ""),
        step("upload", ", env: { A: { from_secret: upload_key }, B: { from_secret: hook-key } }"),
        step("elsewhere", ", when: { branch: release }, env: { C: { from_secret: release_key } }"),
        step("afterwards", ", when: { status: failure }, env: { D: { from_secret: chat_key } }"),
    ];
    push(&gogs, &pipeline.concat(), "Use secrets").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Error);
    let stage = beespace.stage(&build).unwrap();
    assert!(stage.steps.iter().all(|step| step.started_at.is_none()), "{stage:#?}");
    let parts = build.reason.unwrap().parts;
    let codes: Vec<_> = parts.iter().map(|part| (&*part.code, part.message.split('"').nth(1).unwrap())).collect();
    let expected = [("secret-missing", "chat_key"), ("secret-of-plugins", "hook-key"), ("secret-missing", "upload_key")];
    assert_eq!(codes, expected, "not release_key: its step does not run");
    assert!(parts[1].help.as_ref().is_some_and(|help| help.contains("beespace secret set hook-key --instance")), "{parts:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_type_judges_the_commit_without_a_container() {
    let (gogs, beespace) = world("[[step]]\nname = \"check\"\nplugin = \"step-check\"\n").await;
    let pipeline = "steps:\n  - name: files\n    uses: check\n    with: { require: [LICENSE] }\n";
    push(&gogs, pipeline, "No licence").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Failure, "{build:#?}");
    let step = beespace.step(&build, "files").unwrap();
    assert!(step.findings.iter().any(|finding| finding.message.contains("LICENSE")), "{step:#?}");
    gogs.push(REPO, "main", &[("LICENSE", "Apache-2.0")], "Add a licence").await.unwrap();
    assert_eq!(beespace.wait_until_finished(REPO, 2).await.unwrap().status, Status::Success);
}

fn notifier(gogs: &FakeGogs) -> String {
    format!(
        "[[notifier]]\nname = \"inbox\"\nplugin = \"notify-webhook\"\nsettings = {{ url = \"{}\", secret = \"inbox-key\" }}\n\
         grants = {{ hosts = [{{ url = \"{}\", addresses = \"loopback\" }}], secrets = [\"inbox-key\"] }}\n",
        gogs.inbox_url("team"),
        gogs.url()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_build_is_notified_once_and_signed() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start(&gogs, &format!("{DUMMY}{}", notifier(&gogs))).await.unwrap();
    beespace.set_plugin_secret("inbox-key", "a-key-for-the-inbox").await.unwrap();
    beespace.enable(REPO).await.unwrap();
    push(&gogs, ONE_STEP, "Fill cells").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let received = gogs.wait_for_inbox("team", 1).await.unwrap();
    assert!(received[0].body.contains("build.finished"), "{}", received[0].body);
    assert!(received[0].headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("webhook-signature")));
    let notice = beespace
        .wait_for("the notice to be settled", async || {
            let notices = beespace.app.store.read()?.notices(Some(NoticeState::Sent), None, 10)?;
            Ok(notices.into_iter().next())
        })
        .await
        .unwrap();
    assert_eq!((notice.build, notice.attempts), (build.id, 1));
    assert!(beespace.app.store.read().unwrap().notice(notice.id).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_notifier_delays_no_build() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    gogs.set_inbox_status("team", 503);
    let beespace = Beespace::start(&gogs, &format!("{DUMMY}{}", notifier(&gogs))).await.unwrap();
    beespace.set_plugin_secret("inbox-key", "a-key-for-the-inbox").await.unwrap();
    beespace.enable(REPO).await.unwrap();
    for number in 1..=3 {
        push(&gogs, &format!("name: p{number}\n{ONE_STEP}"), "Again").await;
        assert_eq!(beespace.wait_until_finished(REPO, number).await.unwrap().status, Status::Success);
    }
    let waiting = beespace.app.store.read().unwrap().notices(Some(NoticeState::Pending), None, 10).unwrap();
    assert_eq!(waiting.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_and_repeats_no_build() {
    let (gogs, beespace) = world("").await;
    let pipeline = "steps:\n  - name: long\n    image: busybox\n    env: { SLEEP: 60s }\n";
    push(&gogs, pipeline, "Take long").await;
    let running = beespace.wait_for_build(REPO, 1, |build| build.status == Status::Running).await.unwrap();
    beespace
        .wait_for("the step to run", async || {
            Ok(beespace.step(&running, "long").ok().filter(|step| step.status == Status::Running))
        })
        .await
        .unwrap();
    let beespace = beespace.restart().await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    // The dummy engine loses its containers with the process, like a machine that died.
    assert_eq!(build.status, Status::Error, "{build:#?}");
    assert_eq!(build.id, running.id);
    assert_eq!(beespace.builds().unwrap().len(), 1);
    assert_eq!(beespace.step(&build, "long").unwrap().reason.unwrap().code, "container-lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_wait_for_open_event_streams() {
    let (_gogs, beespace) = world("").await;
    let listener = beespace.anonymous();
    let events = listener.request(Method::GET, "/api/v1/events").send().await.unwrap();
    // An old snapshot of the store, as an endless handler may hold one.
    let view = beespace.app.store.read().unwrap();
    let beespace = beespace.restart().await.unwrap();
    assert_eq!(beespace.builds().unwrap(), []);
    drop((view, events));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_makes_progress_survives_repeated_server_crashes() {
    let (gogs, beespace) = world("").await;
    push(&gogs, "steps:\n  - name: long\n    image: busybox\n    env: { SLEEP: 60s }\n", "Take your time").await;
    let build = beespace.wait_for_build(REPO, 1, |build| build.status == Status::Running).await.unwrap();
    let store = &beespace.app.store;
    let attempts = || -> anyhow::Result<_> { Ok(store.read()?.queue_entries(Queue::Run)?.first().map(|(_, row)| row.attempts)) };
    let (key, _) = store.read().unwrap().queue_entries(Queue::Run).unwrap().remove(0);
    for _ in 0..3 {
        store.claim(Queue::Run, key.clone()).await.unwrap();
    }
    assert_eq!(attempts().unwrap(), Some(4));
    beespace.wait_for("the attempts forgiven", async || Ok(attempts()?.filter(|attempts| *attempts == 1))).await.unwrap();
    let stop = |stage: &mut Stage| {
        user_action::cancel(stage, ADMIN_ID, now()).map_err(|refused| StoreError::Conflict(refused.to_string()))
    };
    let id = StageId { build: build.id, stage: StageNumber(1) };
    store.change_stage(id, now(), stop).await.unwrap();
    beespace.wait_until_finished(REPO, 1).await.unwrap();
}

pub(crate) fn asking(folder: &tempfile::TempDir, name: &str) -> String {
    let path = folder.path().join("asks.wasm");
    std::fs::write(&path, beespace_tests::guest_build::approval_guest(1)).unwrap();
    format!("[[policy]]\nname = \"{name}\"\nplugin = \"{}\"\n", path.display())
}

async fn cancel(beespace: &Beespace, build: &Build) {
    let id = StageId { build: build.id, stage: StageNumber(1) };
    let stop = |stage: &mut Stage| {
        user_action::cancel(stage, ADMIN_ID, now()).map_err(|refused| StoreError::Conflict(refused.to_string()))
    };
    beespace.app.store.change_stage(id, now(), stop).await.unwrap();
}

async fn approve(beespace: &Beespace, build: &Build) {
    approve_at(beespace, build, now()).await;
}

async fn approve_at(beespace: &Beespace, build: &Build, at: Timestamp) {
    let id = StageId { build: build.id, stage: StageNumber(1) };
    let yes = move |stage: &mut Stage| {
        let approver = Approver { id: ADMIN_ID.to_owned(), at, reason: None };
        let subject = stage.approvals[0].subject;
        user_action::approve(stage, subject, approver, "gogs:1").map_err(|refused| StoreError::Conflict(refused.to_string()))
    };
    beespace.app.store.change_stage(id, now(), yes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_expires_before_the_stage_starts_is_requested_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("asks.wasm");
    std::fs::write(&path, beespace_tests::guest_build::lapsing_approval_guest(600)).unwrap();
    let (gogs, beespace) = world(&format!("[[policy]]\nname = \"asks\"\nplugin = \"{}\"\n", path.display())).await;
    push(&gogs, ONE_STEP, "Ask first").await;
    let blocked = beespace.wait_for_build(REPO, 1, |build| build.status == Status::Blocked).await.unwrap();
    let mut changes = beespace.app.store.watch();
    approve_at(&beespace, &blocked, Timestamp(now().0 - 601_000)).await;
    // From approved to blocked again.
    for _ in 0..2 {
        while !matches!(changes.recv().await.unwrap(), ChangeEvent::StageChanged { .. }) {}
    }
    let again = beespace.wait_for_build(REPO, 1, |build| build.status == Status::Blocked).await.unwrap();
    let stage = beespace.stage(&again).unwrap();
    assert!(stage.reason.unwrap().message.starts_with("waiting for approval"));
    assert!(stage.started_at.is_none() && stage.steps.iter().all(|step| step.started_at.is_none()), "nothing ran");
    approve(&beespace, &again).await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_change_invalidates_a_waiting_approval() {
    let folder = tempfile::tempdir().unwrap();
    let (gogs, beespace) = world(&asking(&folder, "asks")).await;
    push(&gogs, ONE_STEP, "Ask first").await;
    let blocked = beespace.wait_for_build(REPO, 1, |build| build.status == Status::Blocked).await.unwrap();
    let first = beespace.stage(&blocked).unwrap().approvals[0].decision;
    let beespace = beespace.restart_with(&format!("{DUMMY}{}", asking(&folder, "asks-more"))).await.unwrap();
    approve(&beespace, &blocked).await;
    let again = beespace
        .wait_for("a new approval request", async || {
            let stage = beespace.stage(&blocked)?;
            Ok(stage.approvals.first().filter(|approval| approval.decision != first).cloned())
        })
        .await
        .unwrap();
    assert_eq!((again.requirements[0].policy.as_str(), again.approved_by.len()), ("asks-more", 0));
    let waiting = beespace.wait_for_build(REPO, 1, |build| build.status == Status::Blocked).await.unwrap();
    assert!(beespace.step(&waiting, "build").unwrap().started_at.is_none(), "nothing ran on the lapsed approval");
    approve(&beespace, &waiting).await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_during_policy_reevaluation_takes_effect() {
    let folder = tempfile::tempdir().unwrap();
    let (gogs, beespace) = world(&asking(&folder, "asks")).await;
    push(&gogs, ONE_STEP, "Ask first").await;
    let blocked = beespace.wait_for_build(REPO, 1, |build| build.status == Status::Blocked).await.unwrap();
    // Each policy uses its whole time budget, so that there is time between the first and the last result.
    let slow = folder.path().join("slow.wasm");
    std::fs::write(&slow, beespace_tests::guest_build::policy_guest(&[(";; evaluate", "(loop $again (br $again))")])).unwrap();
    let slow = |number| format!("[[policy]]\nname = \"slow-{number}\"\nplugin = \"{}\"\nmode = \"shadow\"\n", slow.display());
    let policies: String = (0..10).map(slow).collect();
    let beespace = beespace.restart_with(&format!("{DUMMY}{policies}{}", asking(&folder, "asks-more"))).await.unwrap();
    approve(&beespace, &blocked).await;
    beespace
        .wait_for("the first policy's answer", async || {
            Ok(beespace.admin()?.get("/metrics").await?.body.contains("mode=\"shadow\"").then_some(()))
        })
        .await
        .unwrap();
    cancel(&beespace, &blocked).await;
    let decided = beespace.app.store.read().unwrap().decisions(blocked.id).unwrap().len();
    beespace
        .wait_for("the last policy's answer", async || {
            Ok((beespace.app.store.read()?.decisions(blocked.id)?.len() > decided).then_some(()))
        })
        .await
        .unwrap();
    assert_eq!(beespace.build(REPO, 1).unwrap().unwrap().status, Status::Killed);
    assert_eq!(beespace.stage(&blocked).unwrap().status, Status::Killed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_cannot_be_checked_counts_as_met_and_is_reported() {
    let (gogs, beespace) = world("").await;
    let pipeline = "steps:\n  - name: build\n    image: busybox\n    when: { paths: [\"nowhere/**\"] }\n";
    push(&gogs, pipeline, "The branch is new").await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let step = beespace.step(&build, "build").unwrap();
    assert_eq!(step.status, Status::Success);
    assert!(step.remarks[0].to_string().contains("the branch is new, and it is the default branch"), "{:?}", step.remarks);
    let page = beespace.admin().unwrap().get("/ada/hive/1").await.unwrap();
    assert!(page.body.contains("the branch is new, and it is the default branch"), "{}", page.body);
    push(&gogs, pipeline, "Now git knows").await;
    let build = beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!(beespace.step(&build, "build").unwrap().status, Status::Skipped);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_engine_is_reported_and_deliveries_are_accepted() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let away = "[engine]\nkind = \"docker\"\nhost = \"unix:///nonexistent/docker.sock\"\n";
    let beespace = Beespace::start(&gogs, away).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let ready = beespace.anonymous().get("/readyz?verbose").await.unwrap();
    assert_eq!(ready.status.as_u16(), 503, "{ready:?}");
    assert!(ready.body.contains("engine"), "{ready:?}");
    push(&gogs, ONE_STEP, "Nobody can run it").await;
    let deliveries = gogs.wait_until_delivered().await.unwrap();
    assert!(deliveries.iter().all(|delivery| delivery.status() == Some(202)), "{deliveries:?}");
    let waiting = beespace.wait_for_build(REPO, 1, |build| build.status == Status::Running).await.unwrap();
    let logged = beespace
        .wait_for("the clone to log the reason for its wait", async || {
            let log = beespace.log(&waiting, "clone").await.unwrap_or_default();
            Ok(log.into_iter().find(|line| line.ends_with("retrying")))
        })
        .await
        .unwrap();
    assert!(logged.contains("does not respond"), "{logged}");
    cancel(&beespace, &waiting).await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Killed);
    assert!(beespace.step(&build, "build").unwrap().started_at.is_none());
}
