//! Which image a step runs: the one that its reference means in this build, and only if it can run the step.

use std::sync::Arc;

use beespace::engine::Engine as _;
use beespace::engine::docker::Docker;
use beespace_core::build::Build;
use beespace_core::exit::ExitCause;
use beespace_core::status::Status;
use beespace_tests::docker;
use beespace_tests::engine_fixture::EngineFixture;
use beespace_tests::registry::Registry;
use beespace_tests::tcp_proxy::ProxyState;
use bollard::exec::CreateExecOptions;
use bollard::query_parameters::ListImagesOptionsBuilder;
use serde_json::{Value, json};

use crate::needs_docker::flow_docker::World;

const REPO: &str = "ada/hive";

/// Lets the step that waits for the file `go` continue.
async fn let_go(world: &World, build: &Build) {
    let look = async || Ok(docker::running_containers(&build.id.to_string()).await?.pop());
    let container = world.beespace.wait_for("the container", look).await.unwrap();
    let api = docker::api().await.unwrap();
    let command = CreateExecOptions { cmd: Some(vec!["sh", "-c", ": >/workspace/go"]), ..Default::default() };
    let command = api.create_exec(&container, command).await.unwrap().id;
    api.start_exec(&command, None).await.unwrap();
}

async fn shown_digests(world: &World, number: u64) -> Vec<Value> {
    let path = format!("/api/v1/repositories/{REPO}/builds/{number}");
    let build: Value = world.beespace.admin().unwrap().get(&path).await.unwrap().json().unwrap();
    let steps = build["stages"][0]["steps"].as_array().unwrap().iter();
    steps.flat_map(|step| step["images"].as_array().unwrap()).map(|image| image["digest"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_is_pulled_in_every_build_and_all_steps_of_a_build_run_the_same_image() {
    let (world, registry) = (World::new("").await, Registry::start().await.unwrap());
    let one = registry.push("acme/tool:latest", "one", 0).await.unwrap();
    let image = one.name.trim_end_matches(":latest").to_owned();
    let waits = "cat /which; until [ -e go ]; do sleep 0.1; done";
    let pipeline = |steps: Value| json!({ "clone": false, "steps": steps });
    let twice = pipeline(json!([
        { "name": "first", "image": image, "run": waits },
        { "name": "second", "image": image, "run": "cat /which" },
    ]));
    world.push(twice).await;
    let build = world.running("first").await;
    let printed = async || Ok(world.log(&build, "first").await.iter().any(|line| line == "one").then_some(()));
    world.beespace.wait_for("the first step", printed).await.unwrap();
    let two = registry.push("acme/tool:latest", "two", 0).await.unwrap();
    let_go(&world, &build).await;
    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    let log = world.log(&build, "second").await;
    assert_eq!((build.status, log.last().map(String::as_str)), (Status::Success, Some("one")), "{log:#?}");
    let (_, digest) = one.by_digest.split_once('@').unwrap();
    assert_eq!(shown_digests(&world, 1).await, [digest, digest]);

    let once = |pull: Option<&str>| {
        let mut step = json!({ "name": "use", "image": image, "run": "cat /which" });
        if let Some(pull) = pull {
            step["pull"] = json!(pull);
        }
        pipeline(json!([step]))
    };
    world.push(once(None)).await;
    let build = world.beespace.wait_until_finished(REPO, 2).await.unwrap();
    let log = world.log(&build, "use").await;
    assert_eq!((build.status, log.last().map(String::as_str)), (Status::Success, Some("two")), "{log:#?}");
    let (_, digest) = two.by_digest.split_once('@').unwrap();
    assert_eq!(shown_digests(&world, 2).await, [digest]);

    registry.proxy.set(ProxyState::Cut);
    world.push(once(Some("always"))).await;
    let build = world.beespace.wait_until_finished(REPO, 3).await.unwrap();
    let reason = world.step(&build, "use").reason.unwrap().to_string();
    assert_eq!(build.status, Status::Error, "{reason}");
    assert!(reason.contains("cannot be reached") && reason.contains("set `pull: if-absent`"), "{reason}");
    world.push(once(Some("if-absent"))).await;
    let build = world.beespace.wait_until_finished(REPO, 4).await.unwrap();
    let log = world.log(&build, "use").await;
    assert_eq!((build.status, log), (Status::Success, vec!["two".to_owned()]));

    let absent = json!({ "name": "use", "image": registry.name("acme/other:1"), "pull": "never", "run": "true" });
    world.push(pipeline(json!([absent]))).await;
    let build = world.beespace.wait_until_finished(REPO, 5).await.unwrap();
    let reason = world.step(&build, "use").reason.unwrap().to_string();
    assert!(build.status == Status::Error && reason.contains("`pull: never`"), "{reason}");
    registry.proxy.set(ProxyState::Open);
    world.assert_clean().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn an_image_is_never_found_by_its_id() {
    let fixture = EngineFixture::docker().await;
    let inspected = docker::api().await.unwrap().inspect_image(&fixture.image).await.unwrap();
    let id = inspected.id.unwrap();
    let hex = id.strip_prefix("sha256:").unwrap();
    for (step, image) in (1..).zip([&id, hex, &hex[..12], &hex[..4], &id[..14]]) {
        let mut container = fixture.shell_container("echo on");
        image.clone_into(&mut container.image);
        let (exit, output) = fixture.run(fixture.launch(step, container)).await;
        assert_eq!((exit.cause, &*output.stdout), (ExitCause::ImageFailed, ""), "{image}: {exit:?}");
        assert!(exit.message.contains("may read it as an image id"), "{exit:?}");
    }
    fixture.destroy().await;
}

#[tokio::test]
async fn a_volume_of_an_image_below_the_workspace_neither_appears_early_nor_hides_files() {
    let fixture = EngineFixture::docker().await;
    let image = docker::image_with(docker::plain_shell_layer().unwrap(), &["VOLUME /workspace/cache"]).await.unwrap();
    let mut container = fixture.shell_container("cat cache/a");
    container.image = image;
    let launch = fixture.launch(2, container);
    fixture.engine.prepare(&launch).await.unwrap();
    assert_eq!(fixture.shell_output(1, "ls; mkdir -p cache; echo a > cache/a").await, "", "nothing of step 2 is there");
    let (exit, _) = fixture.run(launch).await;
    assert_eq!(exit.cause, ExitCause::StartFailed, "{exit:?}");
    assert!(exit.message.contains("`VOLUME /workspace/cache`"), "{exit:?}");
    // A volume at the workspace itself is replaced by the workspace.
    let mut whole = fixture.shell_container("cat cache/a");
    whole.image = docker::image_with(docker::plain_shell_layer().unwrap(), &["VOLUME /workspace /data"]).await.unwrap();
    let (exit, output) = fixture.run(fixture.launch(3, whole)).await;
    assert_eq!((exit.code, &*output.stdout), (Some(0), "a\n"), "{exit:?}");
    fixture.destroy().await;
}

#[tokio::test]
async fn a_step_without_a_command_is_refused_with_the_remedy() {
    let fixture = EngineFixture::docker().await;
    let mut container = fixture.shell_container("");
    container.script = None;
    let (exit, _) = fixture.run(fixture.launch(1, container)).await;
    assert_eq!(exit.cause, ExitCause::StartFailed);
    assert!(exit.message.contains("no command of its own; add `run`"), "{exit:?}");
    fixture.destroy().await;
}

#[tokio::test]
async fn a_server_that_stops_leaves_no_pause_image() {
    let instance = format!("stop{}", std::process::id());
    let engine = Arc::new(Docker::new(docker::options(docker::HOST, &instance)).unwrap());
    let count = async || {
        let filters = [("label".to_owned(), vec![format!("beespace.instance={instance}")])].into();
        let ours = ListImagesOptionsBuilder::new().filters(&filters).build();
        docker::api().await.unwrap().list_images(Some(ours)).await.unwrap().len()
    };
    engine.maintain().await.unwrap();
    assert_eq!(count().await, 1);
    let fixture = EngineFixture::on(engine.clone(), docker::test_image().await.unwrap()).await;
    engine.shutdown().await.unwrap();
    assert_eq!(count().await, 1, "a stage still uses it");
    fixture.destroy().await;
    engine.shutdown().await.unwrap();
    assert_eq!(count().await, 0);
}
