//! A step whose next plan waits for approval keeps no container and no network.

use beespace_core::build::Build;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::docker;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::tcp_proxy::{ProxyState, TcpProxy, Upstream};
use serde_json::json;

use crate::needs_docker::flow_docker::{World, assert_clean};

use crate::flow_rounds_wait::{BUILD, REPO, answer, approve, blocked, rounds, settings, waiting, waiting_stage};

/// The number of the build's containers and volumes in the engine.
async fn object_count(build: &Build) -> usize {
    docker::leftover_count(&build.id.to_string()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_plan_waits_for_approval_without_a_network_and_keeps_its_workspace() {
    let world = World::new(&format!("prewarmed_networks = 0\n{}", settings(""))).await;
    let plans = json!([["echo one > made; echo first"], ["cat made; echo publish"], ["echo third"]]);
    world
        .push(json!({ "steps": [rounds(&world.image, &plans), { "name": "after", "run": "echo after", "needs": ["work"] }] }))
        .await;
    let build = blocked(&world.beespace).await;
    let stage = waiting_stage(&world.beespace, &build).await;
    let reason = stage.reason.unwrap().to_string();
    assert!(reason.starts_with("waiting for approval of the next plan of step \"work\": needs 1 more person"), "{reason}");
    let only_the_workspace = async || Ok((object_count(&build).await == 1).then_some(()));
    world.beespace.wait_for("its network and its containers to be removed", only_the_workspace).await.unwrap();
    let instance = world.beespace.app.store.instance_id().await.unwrap().as_simple().to_string();
    assert_eq!(docker::pause_containers(&instance).await.unwrap(), Vec::<String>::new());

    let asked = waiting(&world.beespace).await;
    assert_eq!(asked["description"], "the next plan of step \"work\"");
    assert!(asked["runs"].to_string().contains("$ cat made; echo publish"), "{asked:#}");
    let page = world.beespace.admin().unwrap().get("/ada/hive/1").await.unwrap().body;
    assert!(page.contains("The next plan of step &#34;work&#34; is waiting for approval"), "{page}");
    assert!(page.contains(asked["subject"].as_str().unwrap()), "{page}");

    let step_page = world.beespace.admin().unwrap().get("/ada/hive/1/1/1").await.unwrap().body;
    assert!(step_page.contains("Waiting for approval") && step_page.contains("first"), "{step_page}");

    // A client that follows the log meanwhile receives the rest.
    let client = world.beespace.admin().unwrap();
    let follow =
        tokio::spawn(async move { client.get(&format!("{BUILD}/stages/1/steps/1/log/stream?after=0")).await.unwrap().body });
    approve(&world.beespace).await;
    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    let log = world.log(&build, "work").await;
    assert_eq!(build.status, Status::Success, "{log:#?} {build:#?}");
    let followed = follow.await.unwrap();
    assert!(["first", "publish", "third", "event: end"].iter().all(|text| followed.contains(text)), "{followed}");
    assert_eq!(
        log.iter().filter(|line| !line.starts_with("waiting for approval")).collect::<Vec<_>>(),
        ["first", "one", "publish", "third"]
    );
    assert_eq!(log.len(), 5, "the log shows why it waited: {log:#?}");
    assert_eq!(world.log(&build, "after").await, ["after"]);
    let stage = world.beespace.stage(&build).unwrap();
    assert_eq!(stage.approvals[0].approved_by[0].id, "admin");
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn declining_a_later_plan_fails_the_step_and_runs_failure_steps() {
    let world = World::new(&settings("")).await;
    let plans = json!([["echo first"], ["echo publish"]]);
    let after =
        json!({ "name": "tell", "run": "echo $BEESPACE_BUILD_STATUS", "needs": ["work"], "when": { "status": ["failure"] } });
    world.push(json!({ "steps": [rounds(&world.image, &plans), after] })).await;
    let build = blocked(&world.beespace).await;
    waiting_stage(&world.beespace, &build).await;
    answer(&world.beespace, "decline", json!({ "reason": "not on a Friday" })).await;
    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    let (log, step) = (world.log(&build, "work").await, world.step(&build, "work"));
    assert_eq!((build.status, step.status), (Status::Declined, Status::Declined), "{log:#?} {step:#?}");
    assert_eq!(log.last().unwrap(), "declined by admin: not on a Friday");
    assert!(!log.iter().any(|line| line == "publish"), "{log:#?}");
    assert_eq!(world.log(&build, "tell").await, ["failure"]);
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_build_with_a_waiting_step_ends_it_and_leaves_nothing() {
    let world = World::new(&settings("")).await;
    world.push(json!({ "steps": [rounds(&world.image, &json!([["echo first"], ["echo publish"]]))] })).await;
    let build = blocked(&world.beespace).await;
    waiting_stage(&world.beespace, &build).await;
    let over = answer(&world.beespace, "cancel", json!({})).await;
    assert_eq!((&over["status"], &over["stages"][0]["steps"][1]["status"]), (&json!("killed"), &json!("killed")), "{over:#}");
    // Long before the periodic cleanup.
    world.assert_clean().await;
    let path = format!("{BUILD}/stages/1/steps/1/log/stream?after=0");
    let followed = world.beespace.admin().unwrap().get(&path).await.unwrap().body;
    assert!(followed.contains("cancelled by admin") && followed.contains("\"incomplete\":false"), "{followed}");
    assert_eq!(object_count(&build).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_can_be_approved_while_others_run() {
    let world = World::new(&settings("")).await;
    let beside = json!({ "name": "beside", "run": "until [ -e ready ]; do sleep 0.1; done; echo seen", "needs": [] });
    let plans = json!([["echo first"], ["echo publish > ready"]]);
    let mut work = rounds(&world.image, &plans);
    work["needs"] = json!([]);
    world.push(json!({ "steps": [beside, work] })).await;
    let build = blocked(&world.beespace).await;
    let stage = world.beespace.stage(&build).unwrap();
    assert_eq!(stage.status, Status::Running, "a step of it runs: {:#?}", stage.steps);
    approve(&world.beespace).await;
    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!((build.status, world.log(&build, "beside").await), (Status::Success, vec!["seen".to_owned()]));
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_waiting_steps_are_approved_separately() {
    let world = World::new(&settings("")).await;
    let step = |name: &str| {
        let mut step = rounds(&world.image, &json!([["echo first"], [format!("echo publish {name}")]]));
        (step["name"], step["needs"]) = (json!(name), json!([]));
        step
    };
    world.push(json!({ "steps": [step("one"), step("two")] })).await;
    let open = async || {
        let build = world.beespace.admin()?.get(BUILD).await?.json()?;
        let approvals = build["stages"][0]["approvals"].as_array().cloned().unwrap_or_default();
        anyhow::Ok(approvals.into_iter().filter(|approval| approval["missing"] != json!([])).collect::<Vec<_>>())
    };
    let both = async || Ok(Some(open().await?).filter(|open| open.len() == 2));
    let both = world.beespace.wait_for("both steps to wait", both).await.unwrap();
    let of_one = both.iter().find(|approval| approval["description"].as_str().unwrap().contains("\"one\"")).unwrap();
    answer(&world.beespace, "approve", json!({ "subject": of_one["subject"] })).await;
    let build = world.beespace.builds().unwrap().remove(0);
    let one_is_over = async || Ok(world.beespace.step(&build, "one")?.status.is_over().then_some(()));
    world.beespace.wait_for("the first to end", one_is_over).await.unwrap();
    let (one, two) = (world.step(&build, "one"), world.step(&build, "two"));
    assert_eq!((one.status, two.status), (Status::Success, Status::Blocked), "{two:#?}");
    approve(&world.beespace).await;
    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{build:#?}");
    for name in ["one", "two"] {
        let log = world.log(&build, name).await;
        assert_eq!(log.last().unwrap(), &format!("publish {name}"), "{log:#?}");
    }
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_step_continues_after_a_restart() {
    let world = World::new(&settings("")).await;
    let plans = json!([["echo one > made; echo first"], ["cat made; echo publish"]]);
    world.push(json!({ "steps": [rounds(&world.image, &plans)] })).await;
    let build = blocked(&world.beespace).await;
    waiting_stage(&world.beespace, &build).await;
    let World { gogs, beespace, .. } = world;
    let beespace = beespace.restart().await.unwrap();
    approve(&beespace).await;
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let log = beespace.log(&build, "work").await.unwrap();
    assert_eq!(build.status, Status::Success, "{log:#?}");
    for line in ["first", "one", "publish"] {
        assert_eq!(log.iter().filter(|logged| *logged == line).count(), 1, "{line}: {log:#?}");
    }
    assert_clean(&beespace).await;
    drop(gogs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_being_stopped_does_not_wait_for_approval() {
    let world = World::new(&settings("")).await;
    let mut work = rounds(&world.image, &json!([["echo on; sleep 60"]]));
    work["with"]["clean"] = json!("echo publish");
    world.push(json!({ "steps": [work] })).await;
    let build = world.running("work").await;
    let on = async || Ok(world.log(&build, "work").await.iter().any(|line| line == "on").then_some(()));
    world.beespace.wait_for("the container's first line", on).await.unwrap();
    answer(&world.beespace, "cancel", json!({})).await;
    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    let (log, step) = (world.log(&build, "work").await, world.step(&build, "work"));
    assert_eq!((build.status, step.status), (Status::Killed, Status::Killed), "{log:#?}");
    assert_eq!(step.reason.unwrap().message, "cancelled by admin");
    assert!(log.last().unwrap().contains("needs approval, and a cancelled step does not wait for approval"), "{log:#?}");
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_could_not_be_released_is_released_later() {
    docker::ensure_running().unwrap();
    let image = docker::test_image().await.unwrap();
    let proxy = TcpProxy::to(Upstream::Unix(docker::HOST.trim_start_matches("unix://").into())).await.unwrap();
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let engine = format!("[engine]\nkind = \"docker\"\nhost = \"tcp://{}\"\n", proxy.address());
    let beespace = Beespace::start(&gogs, &format!("{engine}{}", settings(""))).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let pipeline = json!({ "steps": [rounds(&image, &json!([["echo first; sleep 2"], ["echo publish"]]))] });
    gogs.push(REPO, "main", &[(".beespace.yml", &pipeline.to_string())], "Publish").await.unwrap();
    let first = async || {
        let Some(build) = beespace.build(REPO, 1)? else { return Ok(None) };
        Ok(beespace.log(&build, "work").await.is_ok_and(|log| log.iter().any(|line| line == "first")).then_some(build))
    };
    let build = beespace.wait_for("the first round to run", first).await.unwrap();
    let instance = beespace.app.store.instance_id().await.unwrap().as_simple().to_string();
    proxy.refuse("/networks/");
    waiting_stage(&beespace, &build).await;
    // The number of attempts of one removal.
    beespace.wait_for("it to be refused", async || Ok((proxy.refused() >= 20).then_some(()))).await.unwrap();
    assert_eq!(docker::network_count(&instance).await.unwrap(), 1);
    proxy.set(ProxyState::Open);
    let given_back = async || Ok((docker::network_count(&instance).await? == 0).then_some(()));
    beespace.wait_for("the network to be removed all the same", given_back).await.unwrap();
    approve(&beespace).await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
    assert_clean(&beespace).await;
}
