//! Builds with several pipelines: documents of one file, and files of `.beespace/`.

use beespace::store::build::Builds as _;
use beespace_core::build::{Build, Stage};
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;

use crate::flow::world;

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
