//! A whole server whose engine cannot kill a container: the build ends with the reason, others run, and what is left goes once it can.

use std::time::Duration;

use beespace_core::status::Status;
use beespace_tests::docker;
use beespace_tests::tcp_proxy::{ProxyState, TcpProxy, Upstream};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::flow_docker::World;

const REPO: &str = "ada/hive";

/// Who has not asked again for so long has given up.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Two looks at what is left over, and some: the first one after a stage's end leaves it to whoever ran it.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(75);

/// Waits until whoever is refused something has given up, and it is asked for anew.
async fn is_requested_again(line: &TcpProxy) {
    let asked = async {
        let mut refused = usize::MAX;
        while refused != line.refused() {
            refused = line.refused();
            sleep(CALL_TIMEOUT).await;
        }
        while refused == line.refused() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(CLEANUP_TIMEOUT, asked).await.is_ok(), "nobody looks for what is left over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_cannot_be_killed_ends_its_build_with_the_reason_and_is_removed_once_it_can_be() {
    docker::ensure_running().unwrap();
    let line = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let world = World::new(&format!("host = \"tcp://{}\"\n", line.address())).await;
    line.refuse("/kill?signal=");
    world.push(json!({ "steps": [{ "name": "stay", "timeout": "1s", "run": "echo on; sleep 600" }] })).await;
    let id = world.running("stay").await.id.to_string();
    let look = async || Ok(docker::running_containers(&id).await?.pop());
    let container = world.beespace.wait_for("the container", look).await.unwrap();
    // Its removal; that it is forced does not help either.
    line.refuse(&format!("/containers/{container}?"));

    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    let code = build.reason.as_ref().map(|reason| &*reason.code);
    assert_eq!((build.status, code), (Status::Error, Some("engine-unkillable")), "{build:#?}");
    let page = world.beespace.admin().unwrap().get("/ada/hive/1").await.unwrap().body;
    for words in ["could not be run", "still runs 30 s after it was killed", "restart the engine"] {
        assert!(page.contains(words), "{words:?} is not on the page: {page}");
    }
    let log = world.log(&build, "stay").await;
    assert!(log.iter().any(|line| line == "on") && log.iter().any(|line| line.contains("still runs")), "{log:#?}");

    world.push(json!({ "steps": [{ "name": "next", "run": "echo on" }] })).await;
    let next = world.beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!(next.status, Status::Success, "{:?}", next.reason);

    is_requested_again(&line).await;
    assert_eq!(docker::running_containers(&id).await.unwrap(), [container], "it runs on");
    line.set(ProxyState::Open);
    world.assert_clean().await;
    let instance = world.beespace.app.store.instance_id().await.unwrap().as_simple().to_string();
    assert_eq!((docker::leftover_count(&id).await.unwrap(), docker::network_count(&instance).await.unwrap()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_half_made_ready_does_not_outlive_the_room_of_its_stage() {
    docker::ensure_running().unwrap();
    let line = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let world = World::new(&format!("host = \"tcp://{}\"\n", line.address())).await;
    // One that is made ready is on its way to the engine while the sources fail to get there.
    line.stall_at("\"OpenStdin\":true");
    line.refuse("/archive?");
    world.push(json!({ "steps": [{ "name": "first", "run": "echo on" }, { "name": "second", "run": "echo on" }] })).await;
    let look = async || Ok((line.stalled() > 0 && line.refused() > 0).then_some(()));
    world.beespace.wait_for("both", look).await.unwrap();
    line.clear_refusals();
    // Long enough to remove the stage and fill it again, were it not for the one on its way.
    sleep(Duration::from_secs(4)).await;
    world.running("clone").await;
    line.set(ProxyState::Open);

    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{:?} {:#?}", build.reason, world.beespace.stage(&build));
    assert_eq!(world.log(&build, "first").await, ["on"]);
    world.assert_clean().await;
}
