//! A complete server whose engine cannot kill a container: the build ends with the reason, other builds run, and the container is
//! removed as soon as that is possible.

use beespace::store::Queue;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::docker;
use beespace_tests::tcp_proxy::{ProxyState, TcpProxy, Upstream};
use serde_json::json;

use crate::needs_docker::flow_docker::World;

const REPO: &str = "ada/hive";

/// Waits until the stages' own tasks have ended, and then until the periodic cleanup makes a refused request again.
async fn is_requested_again(beespace: &Beespace, proxy: &TcpProxy) {
    let are_over = async || Ok((beespace.app.heartbeats.of(Queue::Run).in_progress() == 0).then_some(()));
    beespace.wait_for("the end of the stages' tasks", are_over).await.unwrap();
    let refused = proxy.refused();
    let is_refused_again = async || Ok((proxy.refused() > refused).then_some(()));
    beespace.wait_for("the cleanup of what is left", is_refused_again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_cannot_be_killed_ends_its_build_and_is_removed_later() {
    docker::ensure_running().unwrap();
    let proxy = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let world = World::new(&format!("host = \"tcp://{}\"\n", proxy.address())).await;
    proxy.refuse("/kill?signal=");
    world.push(json!({ "steps": [{ "name": "stay", "timeout": "1s", "run": "echo on; sleep 600" }] })).await;
    let id = world.running("stay").await.id.to_string();
    let look = async || Ok(docker::running_containers(&id).await?.pop());
    let container = world.beespace.wait_for("the container", look).await.unwrap();
    // Its removal fails, too, although it is forced.
    proxy.refuse(&format!("/containers/{container}?"));

    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    let code = build.reason.as_ref().map(|reason| &*reason.code);
    assert_eq!((build.status, code), (Status::Error, Some("engine-unkillable")), "{build:#?}");
    let page = world.beespace.admin().unwrap().get("/ada/hive/1").await.unwrap().body;
    for text in ["could not be run", "still runs 30 s after it was killed", "restart the engine"] {
        assert!(page.contains(text), "{text:?} is not on the page: {page}");
    }
    let log = world.log(&build, "stay").await;
    assert!(log.iter().any(|line| line == "on") && log.iter().any(|line| line.contains("still runs")), "{log:#?}");

    world.push(json!({ "steps": [{ "name": "next", "run": "echo on" }] })).await;
    let next = world.beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!(next.status, Status::Success, "{:?}", next.reason);

    is_requested_again(&world.beespace, &proxy).await;
    assert_eq!(docker::running_containers(&id).await.unwrap(), [container], "it runs on");
    proxy.set(ProxyState::Open);
    world.assert_clean().await;
    let instance = world.beespace.app.store.instance_id().await.unwrap().as_simple().to_string();
    assert_eq!((docker::leftover_count(&id).await.unwrap(), docker::network_count(&instance).await.unwrap()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partly_prepared_container_does_not_outlive_its_stage_network() {
    docker::ensure_running().unwrap();
    let proxy = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let world = World::new(&format!("host = \"tcp://{}\"\n", proxy.address())).await;
    // The creation of a prefetched container is pending while the checkout fails.
    proxy.stall_at("\"OpenStdin\":true");
    proxy.refuse("/archive?");
    world.push(json!({ "steps": [{ "name": "first", "run": "echo on" }, { "name": "second", "run": "echo on" }] })).await;
    let look = async || Ok((proxy.stalled() > 0 && proxy.refused() > 0).then_some(()));
    world.beespace.wait_for("both", look).await.unwrap();
    proxy.clear_refusals();
    // From now on nothing but the pending creation keeps the stage from being removed and filled again.
    let build = world.running("clone").await;
    let retries = async || Ok(world.log(&build, "clone").await.iter().any(|line| line.ends_with("retrying")).then_some(()));
    world.beespace.wait_for("the clone to log that it tries again", retries).await.unwrap();
    proxy.set(ProxyState::Open);

    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{:?} {:#?}", build.reason, world.beespace.stage(&build));
    assert_eq!(world.log(&build, "first").await, ["on"]);
    world.assert_clean().await;
}
