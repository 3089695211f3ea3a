//! Images out of a real registry: how a pull is told, when it happens, how it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use beespace::engine::docker::{Docker, DockerOptions, Timeouts};
use beespace_core::exit::{Exit, ExitCause};
use beespace_core::status::Status;
use beespace_tests::docker;
use beespace_tests::registry::{PASSWORD, Registry, USER};
use beespace_tests::tcp_proxy::ProxyState;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine_bench::{CollectedOutput, EngineFixture, gather};
use crate::flow_docker::World;
use crate::guests;

const MEGABYTE: usize = 1_000_000;

/// Runs `cat /which` in an image.
async fn which(bench: &EngineFixture, step: u16, image: &str) -> (Exit, CollectedOutput) {
    let mut container = bench.shell_container("cat /which");
    container.image = image.to_owned();
    bench.run(bench.launch(step, container)).await
}

fn failed(exit: &Exit, parts: &[&str]) {
    assert_eq!((exit.cause, exit.code), (ExitCause::ImageFailed, None), "{exit:?}");
    for part in parts {
        assert!(exit.message.contains(part), "{part:?} is not in {:?}", exit.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_told_in_the_steps_log_in_a_few_lines() {
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
async fn nothing_is_asked_of_a_registry_for_a_plan_that_is_not_approved() {
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
    std::fs::write(&asks, guests::approval_guest(1)).unwrap();
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
async fn an_image_that_its_registry_does_not_have_is_named_with_what_to_do() {
    let (bench, registry) = (EngineFixture::docker().await, Registry::start().await.unwrap());
    registry.push("acme/tool:1", "honey", 0).await.unwrap();
    let digest = format!("acme/tool@sha256:{}", "ab".repeat(32));
    for image in ["acme/tool:2", "acme/nothing", &digest] {
        let image = registry.name(image);
        let (exit, output) = which(&bench, 1, &image).await;
        failed(&exit, &[&image, "there is no such image", "manifest", "check its name and tag"]);
        assert_eq!(output.host, format!("pulling {image}\n"));
    }
    bench.destroy().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn a_digest_gives_exactly_that_image_and_what_is_there_is_not_pulled_again() {
    let (bench, registry) = (EngineFixture::docker().await, Registry::start().await.unwrap());
    let old = registry.push("acme/tool:1", "old", 0).await.unwrap();
    let new = registry.push("acme/tool:1", "new", 0).await.unwrap();
    assert_ne!(old.by_digest, new.by_digest);
    let (_, digest) = old.by_digest.split_once('@').unwrap();
    let (exit, said) = which(&bench, 1, &old.by_digest).await;
    assert_eq!((exit.cause, &*said.stdout), (ExitCause::Exited, "old"), "{exit:?} {said:?}");
    let (_, said) = which(&bench, 2, &new.name).await;
    assert_eq!(said.stdout, "new");
    assert!(said.host.starts_with("pulling "), "{said:?}");
    let asked = registry.proxy.connections();
    let (_, said) = which(&bench, 3, &format!("{}@{digest}", old.name)).await;
    assert_eq!((&*said.stdout, &*said.host), ("old", ""), "the digest counts, not the tag beside it");
    let (_, said) = which(&bench, 4, &new.name).await;
    assert_eq!((&*said.stdout, &*said.host), ("new", ""));
    assert_eq!(registry.proxy.connections(), asked);
    bench.destroy().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn stages_that_pull_one_image_at_once_both_get_it() {
    let (bench, other, registry) =
        (EngineFixture::docker().await, EngineFixture::docker().await, Registry::start().await.unwrap());
    let image = registry.push("acme/tool:1", "honey", 4 * MEGABYTE).await.unwrap().name;
    registry.proxy.set_state_after(2 * MEGABYTE, ProxyState::Paused);
    let both = async { tokio::join!(which(&bench, 1, &image), which(&other, 1, &image)) };
    let go_on = async {
        registry.proxy.is(ProxyState::Paused).await;
        registry.proxy.set(ProxyState::Open);
    };
    let (both, ()) = tokio::join!(both, go_on);
    for (exit, said) in [both.0, both.1] {
        assert!(exit.is_success(), "{exit:?}");
        assert_eq!(said.stdout, "honey");
        assert!(said.host.starts_with("pulling ") && said.host.contains("\npulled "), "{}", said.host);
    }
    tokio::join!(bench.destroy(), other.destroy());
    registry.stop().await.unwrap();
}

/// The tests' engine with little patience for a pull.
async fn hasty() -> EngineFixture {
    let options = docker::options(docker::HOST, &docker::instance());
    let options = DockerOptions { timeouts: Timeouts { pull_idle: Duration::from_secs(2), ..Timeouts::default() }, ..options };
    EngineFixture::on(Arc::new(Docker::new(options).unwrap()), docker::test_image().await.unwrap()).await
}

#[tokio::test]
async fn a_registry_that_hangs_is_given_up_with_words_that_say_where_to_look() {
    let (bench, registry) = (hasty().await, Registry::start().await.unwrap());
    let image = registry.push("acme/tool:1", "honey", 2 * MEGABYTE).await.unwrap().name;
    registry.proxy.set(ProxyState::Paused);
    let (exit, _) = which(&bench, 1, &image).await;
    failed(&exit, &[&image, "no data arrived for 2s", "check that its registry is up"]);

    registry.proxy.set(ProxyState::Open);
    registry.proxy.set_state_after(MEGABYTE, ProxyState::Paused);
    let (exit, _) = which(&bench, 2, &image).await;
    failed(&exit, &[&image, "no data arrived for 2s", "check that its registry is up"]);

    registry.proxy.set(ProxyState::Open);
    let (exit, said) = which(&bench, 3, &image).await;
    assert!(exit.is_success() && said.stdout == "honey", "{exit:?}");
    bench.destroy().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn a_cancel_ends_a_pull_that_hangs() {
    let (bench, registry) = (EngineFixture::docker().await, Registry::start().await.unwrap());
    let mut container = bench.shell_container("cat /which");
    container.image = registry.push("acme/tool:1", "honey", 2 * MEGABYTE).await.unwrap().name;
    registry.proxy.set_state_after(MEGABYTE, ProxyState::Paused);
    let (sender, receiver) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let run = bench.engine.run(bench.launch(1, container), sender, cancel.clone());
    let stop = async {
        registry.proxy.is(ProxyState::Paused).await;
        cancel.cancel();
        Instant::now()
    };
    let (exit, stopped, _) = tokio::join!(run, stop, gather(receiver));
    assert_eq!(exit.unwrap().cause, ExitCause::Cancelled);
    assert!(stopped.elapsed() < Duration::from_secs(20), "{:?}", stopped.elapsed());
    registry.proxy.set(ProxyState::Open);
    bench.destroy().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn a_download_that_breaks_off_is_tried_again_and_told() {
    let (bench, registry) = (EngineFixture::docker().await, Registry::start().await.unwrap());
    let mut container = bench.shell_container("cat /which");
    container.image = registry.push("acme/tool:1", "honey", 4 * MEGABYTE).await.unwrap().name;
    registry.proxy.set_state_after(2 * MEGABYTE, ProxyState::Cut);
    let (sender, mut receiver) = mpsc::channel(8);
    let run = bench.engine.run(bench.launch(1, container), sender, CancellationToken::new());
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
    bench.destroy().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn a_registry_that_goes_away_in_the_middle_is_told_as_that() {
    let (bench, registry) = (EngineFixture::docker().await, Registry::start().await.unwrap());
    let image = registry.push("acme/tool:1", "honey", 0).await.unwrap().name;
    // It has greeted, and then it is gone.
    registry.proxy.set_state_after(1, ProxyState::Cut);
    let (exit, _) = which(&bench, 1, &image).await;
    failed(&exit, &[&image, "its registry cannot be reached", "check that it is up"]);
    bench.destroy().await;
    registry.stop().await.unwrap();
}

#[tokio::test]
async fn a_registry_that_wants_a_sign_in_is_told_as_not_possible_yet_with_the_way_around() {
    let (bench, registry) = (EngineFixture::docker().await, Registry::with_authentication().await.unwrap());
    let image = registry.push("acme/tool:1", "honey", 0).await.unwrap().name;
    let (exit, _) = which(&bench, 1, &image).await;
    failed(&exit, &[&image, "requires authentication", "cannot sign in", "docker pull"]);

    // The way around that the message tells of.
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
    let (exit, said) = which(&bench, 2, &image).await;
    assert!(exit.is_success() && said.stdout == "honey", "{exit:?}");
    assert_eq!(registry.proxy.connections(), asked);
    bench.destroy().await;
    registry.stop().await.unwrap();
}
