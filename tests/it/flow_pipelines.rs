//! Builds with several pipelines: documents of one file, and files of `.beespace/`.

use beespace::store::Queue;
use beespace::store::build::Builds as _;
use beespace_core::build::{Build, Stage};
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;

use crate::flow::{asking, world};

const REPO: &str = "ada/hive";

fn stages(beespace: &Beespace, build: &Build) -> Vec<Stage> {
    beespace.app.store.read().unwrap().stages(build.id).unwrap()
}

/// Name and status of each stage, in the order of the files.
fn outcomes(stages: &[Stage]) -> Vec<(&str, Status)> {
    stages.iter().map(|stage| (stage.pipeline.name.as_str(), stage.status)).collect()
}

fn reason(stage: &Stage) -> String {
    stage.reason.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_document_of_the_file_is_a_stage_and_one_that_does_not_match_is_shown() {
    let (gogs, beespace) = world("").await;
    let file = "name: lint\nsteps: [{ name: a, image: busybox }]\n---\n\
                name: release\nwhen: { branch: release }\nsteps: [{ name: a, image: busybox }]\n---\n\
                name: test\nsteps: [{ name: a, image: busybox, env: { EXIT_CODE: \"3\" } }]\n";
    gogs.push(REPO, "main", &[(".beespace.yml", file)], "Three pipelines").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let stages = stages(&beespace, &build);
    assert_eq!(outcomes(&stages), [("lint", Status::Success), ("release", Status::Skipped), ("test", Status::Failure)]);
    assert!(reason(&stages[1]).starts_with("the pipeline's `when` does not match"), "{}", reason(&stages[1]));
    assert!(stages[1].steps.is_empty() && stages[1].finished_at.is_some());
    assert_eq!(build.status, Status::Failure);
    assert_eq!(build.reason.unwrap().message, "test: step a: the program exited with code 3");

    let page = beespace.admin().unwrap().get("/ada/hive/1").await.unwrap().body;
    for shown in ["Stage lint", "Stage release", "Stage test", "the pipeline&#39;s <code>when</code> does not match"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let api = beespace.admin().unwrap().get("/api/v1/repositories/ada/hive/builds/1").await.unwrap().json().unwrap();
    assert_eq!(api["stages"][1]["status"], "skipped");
    assert_eq!(api["stages"][2]["number"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_of_the_folder_is_a_pipeline_named_after_its_stem() {
    let (gogs, beespace) = world("").await;
    let step = "steps: [{ name: a, image: busybox }]\n";
    let files = [(".beespace/test.yaml", step), (".beespace/lint.yml", step), (".beespace/check.sh", "exit 1")];
    gogs.push(REPO, "main", &files, "A folder").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(outcomes(&stages(&beespace, &build)), [("lint", Status::Success), ("test", Status::Success)]);
    let paths: Vec<&str> = build.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, [".beespace/lint.yml", ".beespace/test.yaml"]);
    let page = beespace.admin().unwrap().get("/ada/hive/1").await.unwrap().body;
    assert!(page.contains("id=\"F1\"") && page.contains("id=\"F2-1\""), "{page}");

    let files = [(".beespace/test.yaml", "steps: [{ name: a, imag: busybox }]\n")];
    gogs.push(REPO, "main", &files, "A typo").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!((build.status, stages(&beespace, &build).len()), (Status::Error, 0));
    assert!(build.reason.unwrap().message.starts_with(".beespace/test.yaml has "));
    assert!(build.files[0].diagnostics.is_empty() && !build.files[1].diagnostics.is_empty());

    gogs.push(REPO, "main", &[(".beespace.yml", step)], "Both").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 3).await.unwrap();
    assert_eq!(build.status, Status::Error);
    let message = build.reason.unwrap().message;
    assert!(message.contains("both `.beespace.yml` and `.beespace/`"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_without_any_matching_pipeline_is_skipped_with_all_reasons() {
    let (gogs, beespace) = world("").await;
    let file = "name: one\nwhen: { branch: release }\nsteps: [{ name: a, image: busybox }]\n---\n\
                name: two\nwhen: { event: tag }\nsteps: [{ name: a, image: busybox }]\n";
    gogs.push(REPO, "main", &[(".beespace.yml", file)], "Nothing for main").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Skipped);
    let text = build.reason.unwrap().to_string();
    assert!(text.starts_with("no pipeline runs for this event: one: "), "{text}");
    assert!(text.contains("two: ") && text.contains("expected tag"), "{text}");
}

/// A pipeline with one step.
fn pipeline(name: &str, rest: &str, env: &str) -> String {
    format!("name: {name}\n{rest}steps: [{{ name: a, image: busybox, env: {{ {env} }} }}]\n---\n")
}

async fn push(gogs: &FakeGogs, pipelines: &[String]) {
    gogs.push(REPO, "main", &[(".beespace.yml", &pipelines.concat())], "A graph").await.unwrap();
}

async fn wait_for_stage(beespace: &Beespace, name: &str, wanted: impl Fn(&Stage) -> bool) -> Stage {
    let look = async || {
        let Some(build) = beespace.build(REPO, 1)? else { return Ok(None) };
        let read = beespace.app.store.read()?;
        Ok(read.stages(build.id)?.into_iter().find(|stage| stage.pipeline.name == name && wanted(stage)))
    };
    beespace.wait_for(&format!("stage {name}"), look).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_starts_when_all_that_it_needs_have_finished() {
    let (gogs, beespace) = world("capacity = 4\n").await;
    let deploy = pipeline("deploy", "needs: [lint, test]\n", "");
    push(&gogs, &[deploy, pipeline("lint", "", ""), pipeline("test", "needs: lint\n", "")]).await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{build:#?}");
    let stages = stages(&beespace, &build);
    let [deploy, lint, test] = &stages[..] else { panic!("{stages:#?}") };
    assert!(test.started_at >= lint.finished_at && deploy.started_at >= test.finished_at);
    let api = beespace.admin().unwrap().get("/api/v1/repositories/ada/hive/builds/1").await.unwrap().json().unwrap();
    assert_eq!(api["stages"][0]["needs"], serde_json::json!([2, 3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_stage_names_what_it_waits_for_and_a_cancelled_build_ends_it() {
    let (gogs, beespace) = world("capacity = 4\n").await;
    let always = "needs: [deploy]\nwhen: { status: [success, failure] }\n";
    push(&gogs, &[pipeline("test", "", "SLEEP: 60s"), pipeline("deploy", "needs: [test]\n", ""), pipeline("chat", always, "")])
        .await;
    wait_for_stage(&beespace, "test", |stage| stage.status == Status::Running).await;
    let deploy = wait_for_stage(&beespace, "deploy", |stage| stage.reason.is_some()).await;
    assert_eq!((deploy.status, &*reason(&deploy)), (Status::Pending, "waiting for test"));
    assert_eq!(beespace.app.store.read().unwrap().queue_length(Queue::Run).unwrap(), 1, "only what can run is queued");

    let cancelled = beespace.admin().unwrap().post("/api/v1/repositories/ada/hive/builds/1/cancel", &serde_json::json!({})).await;
    assert!(cancelled.unwrap().status.is_success());
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let stages = stages(&beespace, &build);
    assert!(stages.iter().all(|stage| stage.status == Status::Killed), "{:?}", outcomes(&stages));
    assert!(stages[1..].iter().all(|stage| stage.started_at.is_none()), "the end of one stage started another");
    assert_eq!(reason(&stages[2]), "cancelled by admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_pipeline_skips_those_that_need_it_unless_they_want_failures() {
    let (gogs, beespace) = world("capacity = 4\n").await;
    push(
        &gogs,
        &[
            pipeline("test", "", "EXIT_CODE: \"1\""),
            pipeline("other", "when: { branch: release }\nneeds: [test]\n", ""),
            pipeline("deploy", "needs: [test]\n", ""),
            pipeline("announce", "needs: [deploy]\n", ""),
            pipeline("repair", "needs: [deploy]\nwhen: { status: failure }\n", ""),
            pipeline("docs", "needs: [other]\n", ""),
        ],
    )
    .await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let stages = stages(&beespace, &build);
    let expected = [
        ("test", Status::Failure),
        ("other", Status::Skipped),
        ("deploy", Status::Skipped),
        ("announce", Status::Skipped),
        ("repair", Status::Success),
        ("docs", Status::Success),
    ];
    assert_eq!(outcomes(&stages), expected);
    assert_eq!(reason(&stages[3]), "test did not succeed");
    assert!(stages[3].steps.iter().all(|step| step.status == Status::Skipped));
    assert_eq!(build.status, Status::Failure);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_before_the_needs_have_finished_does_not_start_the_stage() {
    let folder = tempfile::tempdir().unwrap();
    let (gogs, beespace) = world(&format!("capacity = 4\n{}", asking(&folder, "asks"))).await;
    push(&gogs, &[pipeline("test", "", ""), pipeline("deploy", "needs: [test]\n", "")]).await;
    let approve = async |name: &str| {
        let stage = wait_for_stage(&beespace, name, |stage| stage.status == Status::Blocked).await;
        let answer = serde_json::json!({ "stage": stage.number.0, "subject": stage.approvals[0].subject.to_string() });
        let path = "/api/v1/repositories/ada/hive/builds/1/approve";
        let approved = beespace.admin().unwrap().post(path, &answer).await.unwrap();
        assert!(approved.status.is_success(), "{approved:?}");
    };
    wait_for_stage(&beespace, "deploy", |stage| stage.status == Status::Blocked).await;
    let page = beespace.admin().unwrap().get("/ada/hive/1").await.unwrap().body;
    assert!(page.contains("The pipeline (stage deploy) is waiting for approval"), "{page}");
    assert!(page.contains("needs test"), "{page}");
    approve("deploy").await;
    let deploy = wait_for_stage(&beespace, "deploy", |stage| stage.status == Status::Pending).await;
    assert_eq!(reason(&deploy), "waiting for test");
    approve("test").await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stages_of_a_build_obey_the_share_of_their_repository() {
    let (gogs, beespace) = world("capacity = 3\n[limits]\nrepository_capacity = 2\n").await;
    let sleeping: Vec<String> = ["a", "b", "c"].iter().map(|name| pipeline(name, "", "SLEEP: 60s")).collect();
    push(&gogs, &sleeping).await;
    for name in ["a", "b"] {
        wait_for_stage(&beespace, name, |stage| stage.status == Status::Running).await;
    }
    let third = wait_for_stage(&beespace, "c", |_| true).await;
    assert_eq!((third.status, beespace.app.config.engine.capacity.get()), (Status::Pending, 3), "a slot is free");
    assert_eq!(reason(&third), "waiting for a free slot (capacity: 3, 2 per repository)");
    let cancelled = beespace.admin().unwrap().post("/api/v1/repositories/ada/hive/builds/1/cancel", &serde_json::json!({})).await;
    assert!(cancelled.unwrap().status.is_success());
    beespace.wait_until_finished(REPO, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cell_of_a_matrix_is_a_stage_and_one_that_needs_the_pipeline_waits_for_all() {
    let (gogs, beespace) = world("capacity = 4\n").await;
    let matrix = "matrix: { axes: { rust: [\"1.94\", 1.10], db: [pg] } }\n";
    let skipped = pipeline("tag", "when: { event: tag }\nmatrix: { axes: { n: [1, 2, 3] } }\n", "");
    let cells = pipeline("test", matrix, "OUTPUT: \"rust ${{ matrix.rust }}\"");
    push(&gogs, &[pipeline("deploy", "needs: [test]\n", ""), cells, skipped]).await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let stages = stages(&beespace, &build);
    let titles: Vec<String> = stages.iter().map(Stage::title).collect();
    assert_eq!(titles, ["deploy", "test (db=pg, rust=1.94)", "test (db=pg, rust=1.10)", "tag"]);
    assert_eq!(stages[3].status, Status::Skipped);
    let begun = stages[0].started_at;
    assert!(stages[1..3].iter().all(|cell| cell.status == Status::Success && cell.finished_at <= begun), "{stages:#?}");
    let environment = |stage: &Stage| stage.steps[1].round.as_ref().unwrap().plan.containers[0].env["OUTPUT"].clone();
    assert_eq!([&stages[1], &stages[2]].map(environment), ["rust 1.94", "rust 1.10"]);
    let page = beespace.admin().unwrap().get("/ada/hive/1").await.unwrap().body;
    assert!(page.contains("test (db=pg, rust=1.10)"), "{page}");
    let api = beespace.admin().unwrap().get("/api/v1/repositories/ada/hive/builds/1").await.unwrap().json().unwrap();
    assert_eq!(api["stages"][2]["matrix"], serde_json::json!({ "db": "pg", "rust": "1.10" }));
    assert_eq!(api["stages"][0]["needs"], serde_json::json!([2, 3]));
}
