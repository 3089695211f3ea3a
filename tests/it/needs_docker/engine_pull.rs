//! Images from a real registry: when a pull happens, what is logged, and how it can fail.

use std::sync::Arc;
use std::time::Duration;

use beespace::engine::docker::{Docker, DockerOptions, Timeouts};
use beespace_core::exit::{Exit, ExitCause};
use beespace_core::status::Status;
use beespace_tests::docker;
use beespace_tests::engine_fixture::{CollectedOutput, EngineFixture, collect_output};
use beespace_tests::guest_build;
use beespace_tests::registry::{PASSWORD, Registry, USER};
use beespace_tests::tcp_proxy::ProxyState;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::needs_docker::flow_docker::World;

const MEGABYTE: usize = 1_000_000;

/// Runs `cat /which` in an image.
async fn which(fixture: &EngineFixture, step: u16, image: &str) -> (Exit, CollectedOutput) {
    let mut container = fixture.shell_container("cat /which");
    container.image = image.to_owned();
    fixture.run(fixture.launch(step, container)).await
}

fn failed(exit: &Exit, parts: &[&str]) {
    assert_eq!((exit.cause, exit.code), (ExitCause::ImageFailed, None), "{exit:?}");
    for part in parts {
        assert!(exit.message.contains(part), "{part:?} is not in {:?}", exit.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_logged_in_a_few_lines() {
    let (world, registry) = (World::new("").await, Registry::start().await.unwrap());
    let image = registry.push("acme/tool:1", "honey", 8 * MEGABYTE).await.unwrap().name;
    registry.proxy.set_state_after(4 * MEGABYTE, ProxyState::Paused);
    world.push(json!({ "steps": [{ "name": "use", "image": image, "run": "cat /which" }] })).await;
    let build = world.running("use").await;
    let half = async || {
        let log = world.beespace.log(&build, "use").await?;
        Ok(log.into_iter().find(|line| line.starts_with("0 of 1 layers, ") && line.ends_with(" MB")))
    };
    world.beespace.wait_for("half of the image", half).await.unwrap();
    registry.proxy.set(ProxyState::Open);
    let build = world.beespace.wait_until_finished("ada/hive", 1).await.unwrap();
    let log = world.log(&build, "use").await;
    assert_eq!(build.status, Status::Success, "{log:#?}");
    assert_eq!(log[0], format!("pulling {image}"));
    assert_eq!(log.last().unwrap(), "honey");
    let pulled = log.iter().position(|line| line.starts_with(&format!("pulled {image} in "))).unwrap();
    assert!((2..=5).contains(&pulled), "a few lines: {log:#?}");
    world.assert_clean().await;
    registry.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unapproved_plan_causes_no_registry_request() {
    let registry = Registry::start().await.unwrap();
    let image = registry.push("acme/tool:1", "honey", 0).await.unwrap().name;
    let before = registry.proxy.connections();
    let pipeline = json!({ "steps": [{ "name": "use", "image": image, "run": "cat /which" }] });

    let other =
        "[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\nsettings = { repositories = [\"docker.io/acme/*\"] }\n";
    let world = World::new(other).await;
    assert_eq!(world.build(pipeline.clone()).await.status, Status::Declined);
    assert_eq!(registry.proxy.connections(), before, "denied");

    let folder = tempfile::tempdir().unwrap();
    let asks = folder.path().join("asks.wasm");
    std::fs::write(&asks, guest_build::approval_guest(1)).unwrap();
    let world = World::new(&format!("[[policy]]\nname = \"asks\"\nplugin = {asks:?}\n")).await;
    world.push(pipeline).await;
    let build = world.beespace.wait_for_build("ada/hive", 1, |build| build.status == Status::Blocked).await.unwrap();
    assert_eq!(registry.proxy.connections(), before, "waits for a person");
    let subject = world.beespace.stage(&build).unwrap().approvals[0].subject;
    let approve = "/api/v1/repositories/ada/hive/builds/1/approve";
    let answer = world.beespace.admin().unwrap().post(approve, &json!({ "subject": subject })).await.unwrap();
    assert!(answer.status.is_success(), "{answer:?}");
    let build = world.beespace.wait_until_finished("ada/hive", 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{:#?}", world.log(&build, "use").await);
    assert!(registry.proxy.connections() > before);
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn an_image_missing_in_its_registry_is_reported_with_a_remedy() {
    let (fixture, registry) = (EngineFixture::docker().await, Registry::start().await.unwrap());
    registry.push("acme/tool:1", "honey", 0).await.unwrap();
    let digest = format!("acme/tool@sha256:{}", "ab".repeat(32));
    for image in ["acme/tool:2", "acme/nothing", &digest] {
        let image = registry.name(image);
        let (exit, output) = which(&fixture, 1, &image).await;
        failed(&exit, &[&image, "there is no such image", "manifest", "check its name and tag"]);
        let tag = if image.ends_with("nothing") { ":latest" } else { "" };
        assert_eq!(output.host, format!("pulling {image}{tag}\n"));
    }
    fixture.destroy().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn an_image_by_digest_is_exact_and_a_present_image_is_not_pulled_again() {
    let (fixture, registry) = (EngineFixture::docker().await, Registry::start().await.unwrap());
    let old = registry.push("acme/tool:1", "old", 0).await.unwrap();
    let new = registry.push("acme/tool:1", "new", 0).await.unwrap();
    assert_ne!(old.by_digest, new.by_digest);
    let (_, digest) = old.by_digest.split_once('@').unwrap();
    let (exit, output) = which(&fixture, 1, &old.by_digest).await;
    assert_eq!((exit.cause, &*output.stdout), (ExitCause::Exited, "old"), "{exit:?} {output:?}");
    let (_, output) = which(&fixture, 2, &new.name).await;
    assert_eq!(output.stdout, "new");
    assert!(output.host.starts_with("pulling "), "{output:?}");
    let asked = registry.proxy.connections();
    let (_, output) = which(&fixture, 3, &format!("{}@{digest}", old.name)).await;
    assert_eq!((&*output.stdout, &*output.host), ("old", ""), "the digest counts, not the tag beside it");
    let (_, output) = which(&fixture, 4, &new.name).await;
    assert_eq!((&*output.stdout, &*output.host), ("new", ""));
    assert_eq!(registry.proxy.connections(), asked);
    fixture.destroy().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn two_stages_can_pull_the_same_image_at_once() {
    let (fixture, other, registry) =
        (EngineFixture::docker().await, EngineFixture::docker().await, Registry::start().await.unwrap());
    let image = registry.push("acme/tool:1", "honey", 4 * MEGABYTE).await.unwrap().name;
    registry.proxy.set_state_after(2 * MEGABYTE, ProxyState::Paused);
    let both = async { tokio::join!(which(&fixture, 1, &image), which(&other, 1, &image)) };
    let go_on = async {
        registry.proxy.wait_until(ProxyState::Paused).await;
        registry.proxy.set(ProxyState::Open);
    };
    let (both, ()) = tokio::join!(both, go_on);
    for (exit, output) in [both.0, both.1] {
        assert!(exit.is_success(), "{exit:?}");
        assert_eq!(output.stdout, "honey");
        assert!(output.host.starts_with("pulling ") && output.host.contains("\npulled "), "{}", output.host);
    }
    tokio::join!(fixture.destroy(), other.destroy());
    registry.stop().await.unwrap();
}

/// The shared engine with a short pull timeout.
async fn hasty() -> EngineFixture {
    let options = docker::options(docker::HOST, &docker::instance());
    let options = DockerOptions { timeouts: Timeouts { pull_idle: Duration::from_secs(2), ..Timeouts::default() }, ..options };
    EngineFixture::on(Arc::new(Docker::new(options).unwrap()), docker::test_image().await.unwrap()).await
}

#[tokio::test]
async fn a_hanging_registry_times_out_with_a_remedy() {
    let (fixture, registry) = (hasty().await, Registry::start().await.unwrap());
    let image = registry.push("acme/tool:1", "honey", 2 * MEGABYTE).await.unwrap().name;
    registry.proxy.set(ProxyState::Paused);
    let (exit, _) = which(&fixture, 1, &image).await;
    failed(&exit, &[&image, "no data arrived for 2s", "check that its registry is up"]);

    registry.proxy.set(ProxyState::Open);
    registry.proxy.set_state_after(MEGABYTE, ProxyState::Paused);
    let (exit, _) = which(&fixture, 2, &image).await;
    failed(&exit, &[&image, "no data arrived for 2s", "check that its registry is up"]);

    registry.proxy.set(ProxyState::Open);
    let (exit, output) = which(&fixture, 3, &image).await;
    assert!(exit.is_success() && output.stdout == "honey", "{exit:?}");
    fixture.destroy().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn a_cancel_ends_a_hanging_pull() {
    let (fixture, registry) = (EngineFixture::docker().await, Registry::start().await.unwrap());
    let mut container = fixture.shell_container("cat /which");
    container.image = registry.push("acme/tool:1", "honey", 2 * MEGABYTE).await.unwrap().name;
    registry.proxy.set_state_after(MEGABYTE, ProxyState::Paused);
    let (sender, receiver) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let run = fixture.engine.run(fixture.launch(1, container), sender, cancel.clone());
    let stop = async {
        registry.proxy.wait_until(ProxyState::Paused).await;
        cancel.cancel();
    };
    let (exit, (), _) = tokio::join!(run, stop, collect_output(receiver));
    assert_eq!(exit.unwrap().cause, ExitCause::Cancelled);
    registry.proxy.set(ProxyState::Open);
    fixture.destroy().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn an_interrupted_download_is_retried_and_logged() {
    let (fixture, registry) = (EngineFixture::docker().await, Registry::start().await.unwrap());
    let mut container = fixture.shell_container("cat /which");
    container.image = registry.push("acme/tool:1", "honey", 4 * MEGABYTE).await.unwrap().name;
    registry.proxy.set_state_after(2 * MEGABYTE, ProxyState::Cut);
    let (sender, mut receiver) = mpsc::channel(8);
    let run = fixture.engine.run(fixture.launch(1, container), sender, CancellationToken::new());
    let read = async {
        let mut text = String::new();
        while let Some(piece) = receiver.recv().await {
            text.push_str(std::str::from_utf8(&piece.bytes).unwrap());
            if text.contains("a download was interrupted and will be retried") {
                registry.proxy.set(ProxyState::Open);
            }
        }
        text
    };
    let (exit, text) = tokio::join!(run, read);
    let exit = exit.unwrap();
    assert!(exit.is_success() && text.ends_with("honey"), "{exit:?} {text}");
    fixture.destroy().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn a_registry_that_disappears_during_a_pull_is_reported() {
    let (fixture, registry) = (EngineFixture::docker().await, Registry::start().await.unwrap());
    let image = registry.push("acme/tool:1", "honey", 0).await.unwrap().name;
    // The registry disappears after its first response.
    registry.proxy.set_state_after(1, ProxyState::Cut);
    let (exit, _) = which(&fixture, 1, &image).await;
    failed(&exit, &[&image, "its registry cannot be reached", "check that the registry is up"]);
    fixture.destroy().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn a_registry_that_requires_authentication_is_reported_with_a_workaround() {
    let (fixture, registry) = (EngineFixture::docker().await, Registry::with_authentication().await.unwrap());
    let image = registry.push("acme/tool:1", "honey", 0).await.unwrap().name;
    let (exit, _) = which(&fixture, 1, &image).await;
    failed(&exit, &[&image, "requires authentication", "cannot sign in", "docker pull"]);

    // The workaround that the message describes.
    let api = docker::api().await.unwrap();
    let options = CreateImageOptionsBuilder::new().from_image(&image).build();
    let credentials = DockerCredentials {
        username: Some(USER.to_owned()),
        password: Some(PASSWORD.to_owned()),
        ..DockerCredentials::default()
    };
    let mut steps = std::pin::pin!(api.create_image(Some(options), None, Some(credentials)));
    while let Some(step) = steps.next().await {
        step.unwrap();
    }
    let asked = registry.proxy.connections();
    let (exit, output) = which(&fixture, 2, &image).await;
    assert!(exit.is_success() && output.stdout == "honey", "{exit:?}");
    assert_eq!(registry.proxy.connections(), asked);
    fixture.destroy().await;
    registry.stop().await.unwrap();
}
