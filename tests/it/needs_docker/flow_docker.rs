//! The path of a push with a real engine: what containers see, how they end, and what is left over.

use beespace_core::build::{Build, CancelRequest, Stage, Step};
use beespace_core::exit::ExitCause;
use beespace_core::ids::StageId;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::docker;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::{NO_ENV, Process};
use serde_json::{Value, json};

const REPO: &str = "ada/hive";

pub(crate) struct World {
    pub(crate) gogs: FakeGogs,
    pub(crate) beespace: Beespace,
    pub(crate) image: String,
}

impl World {
    pub(crate) async fn new(extra: &str) -> Self {
        Self::with(docker::test_image().await.unwrap(), extra).await
    }

    /// Like [`World::new`], on another engine, which `extra` selects and which has the image.
    pub(crate) async fn with(image: String, extra: &str) -> Self {
        let gogs = FakeGogs::start().await.unwrap();
        gogs.create_repository(REPO).await.unwrap();
        let beespace = Beespace::start(&gogs, &format!("[engine]\nkind = \"docker\"\n{extra}")).await.unwrap();
        beespace.enable(REPO).await.unwrap();
        Self { gogs, beespace, image }
    }

    /// Pushes a pipeline. JSON is valid YAML. A step without an image gets the test image.
    pub(crate) async fn push(&self, mut pipeline: Value) {
        for step in pipeline["steps"].as_array_mut().unwrap() {
            if step.get("image").is_none() && step.get("uses").is_none() {
                step["image"] = json!(self.image);
            }
        }
        self.gogs.push(REPO, "main", &[(".beespace.yml", &pipeline.to_string())], "Change the hive").await.unwrap();
    }

    pub(crate) async fn build(&self, pipeline: Value) -> Build {
        self.push(pipeline).await;
        let number = u64::try_from(self.beespace.builds().unwrap().iter().filter(|build| build.number.is_some()).count());
        self.beespace.wait_until_finished(REPO, number.unwrap().max(1)).await.unwrap()
    }

    pub(crate) async fn running(&self, step: &str) -> Build {
        running(&self.beespace, step).await
    }

    pub(crate) fn step(&self, build: &Build, name: &str) -> Step {
        self.beespace.step(build, name).unwrap()
    }

    /// The output of a step, without the trace of its script.
    pub(crate) async fn log(&self, build: &Build, step: &str) -> Vec<String> {
        self.beespace.log(build, step).await.unwrap().into_iter().filter(|line| !line.starts_with("+ ")).collect()
    }

    pub(crate) async fn cancel(&self, build: &Build) {
        let stage = self.beespace.stage(build).unwrap();
        let app = &self.beespace.app;
        let at = beespace::clock::now();
        let ask = move |stage: &mut Stage| {
            stage.cancel_requested = Some(CancelRequest { by: "ada".to_owned(), at });
            stage.reason = Some(beespace_core::reason::Reason::new(ReasonCode::Cancelled, "cancelled by ada"));
            Ok(())
        };
        let id = StageId { build: build.id, stage: stage.number };
        app.store.change_stage(id, at, ask).await.unwrap();
    }

    /// Waits until nothing of this instance is left in the engine.
    pub(crate) async fn assert_clean(&self) {
        assert_clean(&self.beespace).await;
    }
}

/// A server after a build whose only step printed 64 MiB, and the server's memory before it.
async fn flooded_build(limits: &str) -> (FakeGogs, Process, u64) {
    let image = docker::test_image().await.unwrap();
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let settings = format!("[engine]\nkind = \"docker\"\n{limits}");
    let program = env!("CARGO_BIN_EXE_beespace-under-test");
    let server = Process::start(program, &gogs, &settings, NO_ENV).await.unwrap();
    server.enable(REPO).await.unwrap();
    let before = server.resident_memory().unwrap();
    let step = json!({ "name": "flood", "image": image, "run": "yes 'a comb of cells' | head -c 67108864" });
    gogs.push(REPO, "main", &[(".beespace.yml", &json!({ "steps": [step] }).to_string())], "Flood the hive").await.unwrap();
    let admin = server.admin().unwrap();
    let over = |build: Value| Some(build).filter(|build| build["finished_at"].is_string());
    let build = server.wait_for("the build", async || Ok(over(admin.get(FLOODED_BUILD).await?.json()?))).await.unwrap();
    assert_eq!(build["status"], "success", "{build:#}");
    (gogs, server, before)
}

const FLOODED_BUILD: &str = "/api/v1/repositories/ada/hive/builds/1";

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_fills_neither_the_log_nor_memory() {
    let (_gogs, server, before) = flooded_build("[limits]\nlog_bytes = \"1MiB\"\n").await;
    let log = server.admin().unwrap().get(&format!("{FLOODED_BUILD}/stages/1/steps/1/log")).await.unwrap().body;
    assert!(
        (1 << 20..2 << 20).contains(&log.len()) && log.contains("the limit of 1048576 bytes"),
        "{} bytes are kept",
        log.len()
    );
    let grown = server.resident_memory().unwrap().saturating_sub(before);
    assert!(grown < 32 << 20, "memory grew by {grown} bytes over a flood of 64 MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_stored_and_served_in_little_memory() {
    let (_gogs, server, before) = flooded_build("").await;
    let log = server.admin().unwrap().get(&format!("{FLOODED_BUILD}/stages/1/steps/1/log")).await.unwrap().body;
    assert_eq!(log.matches("a comb of cells\n").count(), 64 * (1 << 20) / 16);
    let grown = server.resident_memory().unwrap().saturating_sub(before);
    assert!(grown < 48 << 20, "memory grew by {grown} bytes over a log of 64 MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn git_hooks_and_configuration_of_a_container_are_never_executed() {
    let world = World::new("").await;
    let plant = "mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch /tmp/owned\\n' > .git/hooks/post-checkout; chmod +x \
                 .git/hooks/post-checkout; printf '[core]\\n\\tfsmonitor = touch /tmp/owned\\n\\thooksPath = /workspace\\n' >> \
                 .git/config; ls .git/hooks";
    let first = world.build(json!({ "steps": [{ "name": "plant", "run": plant }] })).await;
    assert_eq!((first.status, world.log(&first, "plant").await), (Status::Success, vec!["post-checkout".to_owned()]));
    // Neither the mirror nor the next workspace contains any of it.
    let look = "ls .git/hooks 2>/dev/null || true; grep -c -e fsmonitor -e hooksPath .git/config || true; ls /tmp/owned \
                2>/dev/null || true";
    world.push(json!({ "name": "again", "steps": [{ "name": "look", "run": look }] })).await;
    let second = world.beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!((second.status, world.log(&second, "look").await), (Status::Success, vec!["0".to_owned()]));
    let mirrors = world.beespace.app.config.data.dir.join("mirrors");
    for entry in walkdir(&mirrors) {
        let text = std::fs::read(&entry).unwrap_or_default();
        assert!(!text.windows(9).any(|bytes| bytes == b"fsmonitor"), "{}", entry.display());
        assert!(!entry.ends_with("hooks/post-checkout"), "{}", entry.display());
    }
    assert!(!std::path::Path::new("/tmp/owned").exists());
}

/// Every file below a folder.
fn walkdir(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walkdir(&path) } else { vec![path] }).collect()
}

async fn running(beespace: &Beespace, step: &str) -> Build {
    let look = async || {
        let Some(build) = beespace.build(REPO, 1)? else { return Ok(None) };
        let step = beespace.step(&build, step).ok();
        Ok(step.filter(|step| step.status == Status::Running).map(|_| build))
    };
    beespace.wait_for("the step to run", look).await.unwrap()
}

pub(crate) async fn assert_clean(beespace: &Beespace) {
    let look = async || Ok(beespace.app.engine.inventory().await?.is_empty().then_some(()));
    beespace.wait_for("an engine without leftovers", look).await.unwrap();
}

fn reason(step: &Step) -> String {
    step.reason.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_have_the_sources_and_any_user_can_write_there() {
    let world = World::new("").await;
    world.gogs.push(REPO, "main", &[("README.md", "# Hive\n")], "First").await.unwrap();
    let look =
        "git log --format=%s; echo \"dirty: [$(git status --porcelain)]\"; echo made > by-root; echo $BEESPACE_BUILD_NUMBER";
    let write = "echo made > by-user; cat by-root README.md; id -u";
    let pipeline = json!({ "clone": { "depth": 1 }, "steps": [
        { "name": "look", "run": look },
        { "name": "write", "run": format!("su user -c '{write}'") },
    ] });
    let build = world.build(pipeline).await;
    let (looked, wrote) = (world.log(&build, "look").await, world.log(&build, "write").await);
    assert_eq!(build.status, Status::Success, "{looked:#?} {wrote:#?} {build:#?}");
    assert_eq!(looked, ["Change the hive", "dirty: []", "1"]);
    assert_eq!(wrote, ["made", "# Hive", "1000"].map(String::from));
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn git_works_in_the_workspace_with_any_environment_and_finds_it_clean() {
    let world = World::new("").await;
    world.gogs.push(REPO, "main", &[("README.md", "# Hive\n"), ("run.sh", "true\n")], "First").await.unwrap();
    let plumbing = "git diff-index --quiet HEAD -- && git diff-files --quiet && echo clean";
    let bare = "su - user -c 'git -C /workspace log -1 --format=%s'; \
                env -i PATH=\"$PATH\" HOME=/tmp su user -c 'git log -1 --format=%s'; git diff --name-only origin/HEAD HEAD";
    let own = "rm -f /etc/gitconfig; git config user.name; su user -c 'git diff-files --quiet && git log -1 --format=%s'";
    let settings = json!({ "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "ci" });
    let pipeline = json!({ "steps": [
        { "name": "plumbing", "run": plumbing },
        { "name": "bare", "run": bare },
        { "name": "own", "env": settings, "run": own },
    ] });
    let build = world.build(pipeline).await;
    let logs = [world.log(&build, "plumbing").await, world.log(&build, "bare").await, world.log(&build, "own").await];
    assert_eq!(build.status, Status::Success, "{logs:#?} {build:#?}");
    let change = "Change the hive";
    assert_eq!(logs, [vec!["clean".to_owned()], vec![change.into(), change.into()], vec!["ci".into(), change.into()]]);
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exit_is_reported_with_its_cause() {
    let world = World::new("[limits]\nstep_memory = \"32MiB\"\n").await;
    let free = json!([]);
    // The engine begins to watch the memory of a container some time after its start, and reports only what it sees. So the limit
    // is exceeded again and again before the step ends.
    let hungry = "for i in 1 2 3 4 5; do tail -c 200000000 /dev/zero >/dev/null || code=$?; sleep 1; done; exit $code";
    let build = world
        .build(json!({ "steps": [
            { "name": "three", "run": "exit 3", "needs": free, "failure": "ignore" },
            { "name": "hungry", "run": hungry, "needs": free },
            { "name": "absent", "image": "localhost:1/no/such:1", "run": "true", "needs": free },
            { "name": "slow", "run": "sleep 60", "needs": free, "timeout": "1s" },
        ] }))
        .await;
    let three = world.step(&build, "three");
    assert_eq!((three.status, &*reason(&three)), (Status::Failure, "the program exited with code 3"));
    assert_eq!((three.exits[0].cause, three.exits[0].code), (ExitCause::Exited, Some(3)));
    let hungry = world.step(&build, "hungry");
    assert_eq!((hungry.status, hungry.reason.as_ref().unwrap().code.as_str()), (Status::Failure, "out-of-memory"));
    let absent = world.step(&build, "absent");
    assert_eq!((absent.status, absent.reason.as_ref().unwrap().code.as_str()), (Status::Error, "image-failed"));
    assert!(reason(&absent).contains("localhost:1/no/such:1"), "{}", reason(&absent));
    let slow = world.step(&build, "slow");
    assert_eq!((slow.status, slow.reason.as_ref().unwrap().code.as_str()), (Status::Killed, "step-timeout"));
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_exceeds_its_timeout_is_stopped_with_a_reason() {
    let world = World::new("").await;
    let build = world.build(json!({ "timeout": "3s", "steps": [{ "name": "slow", "run": "sleep 60" }] })).await;
    assert_eq!(build.status, Status::Killed, "{build:#?}");
    assert_eq!(world.step(&build, "slow").reason.unwrap().code, "stage-timeout");
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_stage_stops_its_step_and_leaves_nothing() {
    let world = World::new("").await;
    world.push(json!({ "steps": [{ "name": "slow", "run": "echo on; sleep 1000" }, { "name": "after", "run": "true" }] })).await;
    let build = world.running("slow").await;
    world.cancel(&build).await;
    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Killed);
    assert!(reason(&world.step(&build, "slow")).contains("ada"));
    assert_ne!(world.step(&build, "after").status, Status::Success);
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_keep_their_order_and_secrets_stay_hidden() {
    let world = World::new("").await;
    world.beespace.set_secret("token", "nectar-and-pollen").await.unwrap();
    let script = "echo out; sleep 0.3; echo err >&2; sleep 0.3; echo \"got $TOKEN\"; sleep 2";
    let env = json!({ "TOKEN": { "from_secret": "token" } });
    world.push(json!({ "steps": [{ "name": "use", "env": env, "run": script }] })).await;
    let build = world.running("use").await;
    let api = docker::api().await.unwrap();
    let look = async || Ok(docker::running_containers(&build.id.to_string()).await?.pop());
    let container = world.beespace.wait_for("the container", look).await.unwrap();
    let seen = api.inspect_container(&container, None::<bollard::query_parameters::InspectContainerOptions>).await.unwrap();
    assert!(!serde_json::to_string(&seen).unwrap().contains("nectar-and-pollen"));
    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    let log = world.log(&build, "use").await;
    assert_eq!(build.status, Status::Success, "{log:#?}");
    assert_eq!(log[..2], ["out", "err"]);
    assert!(log[2].starts_with("got ") && !log[2].contains("nectar"), "{log:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_errors_of_a_script_keep_their_order_however_close_they_are() {
    let world = World::new("").await;
    let pairs = "n=0; while [ $n -lt 300 ]; do n=$((n + 1)); echo out $n; echo err $n >&2; done";
    let build = world.build(json!({ "steps": [{ "name": "both", "run": [pairs, "touch /nowhere/x", "true )"] }] })).await;
    let log = world.beespace.log(&build, "both").await.unwrap();
    let expected: Vec<String> = (1..=300).flat_map(|n| [format!("out {n}"), format!("err {n}")]).collect();
    assert_eq!(log[1..=600], expected);
    assert_eq!(log[601], "+ touch /nowhere/x");
    assert!(log[602].contains("/nowhere/x"), "{:#?}", &log[600..]);
    assert_eq!(log.len(), 603, "the log has nothing but the output of the program: {:#?}", &log[600..]);
    let both = world.step(&build, "both");
    assert_eq!((both.status, &*reason(&both)), (Status::Failure, "the program exited with code 1"));
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_without_needs_overlap_and_a_failure_can_cancel_them() {
    let world = World::new("").await;
    let meet = |me: &str, other: &str| format!("touch {me}; until [ -e {other} ]; do sleep 0.1; done");
    let build = world
        .build(json!({ "steps": [
            { "name": "a", "needs": [], "run": meet("a", "b") },
            { "name": "b", "needs": [], "run": meet("b", "a") },
            { "name": "fails", "needs": ["a", "b"], "failure": "cancel", "run": "until [ -e on ]; do sleep 0.1; done; exit 1" },
            { "name": "long", "needs": ["a", "b"], "run": "touch on; sleep 60" },
        ] }))
        .await;
    assert_eq!(build.status, Status::Failure, "{build:#?}");
    assert_eq!((world.step(&build, "a").status, world.step(&build, "b").status), (Status::Success, Status::Success));
    let long = world.step(&build, "long");
    assert_eq!((long.status, long.reason.unwrap().code.as_str()), (Status::Killed, "cancelled-by-sibling"));
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_plan_creates_and_pulls_nothing() {
    let policy =
        "[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\nsettings = { repositories = [\"docker.io/acme/*\"] }\n";
    let world = World::new(policy).await;
    let build = world.build(json!({ "steps": [{ "name": "pull", "image": "localhost:1/no/such:1", "run": "true" }] })).await;
    assert_eq!(build.status, Status::Declined);
    let step = world.step(&build, "pull");
    assert_eq!((step.status, step.started_at, step.exits.len()), (Status::Skipped, None, 0));
    assert!(world.log(&build, "pull").await.is_empty());
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_outlives_the_server_and_its_log_has_every_line_once() {
    let World { gogs, beespace, image } = World::new("").await;
    let script = "n=0; while [ $n -lt 60 ]; do n=$((n+1)); echo $n; sleep 0.1; done; exit 7";
    let pipeline = json!({ "steps": [{ "name": "count", "image": image, "run": script }] }).to_string();
    gogs.push(REPO, "main", &[(".beespace.yml", &pipeline)], "Count").await.unwrap();
    let build = running(&beespace, "count").await;
    let mut beespace = beespace;
    for lines in [5, 25] {
        let look = async || Ok((beespace.log(&build, "count").await?.len() >= lines).then_some(()));
        beespace.wait_for("lines", look).await.unwrap();
        beespace = beespace.restart().await.unwrap();
    }
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let log = beespace.log(&build, "count").await.unwrap();
    let numbers: Vec<u32> = log.iter().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(numbers, (1..=60).collect::<Vec<u32>>(), "{log:#?}");
    let step = beespace.step(&build, "count").unwrap();
    assert_eq!((step.status, step.exits[0].code), (Status::Failure, Some(7)));
    assert_eq!(beespace.builds().unwrap().len(), 1);
    assert_clean(&beespace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_secret_stays_hidden_in_a_container_that_outlives_the_server() {
    let World { gogs, beespace, image } = World::new("").await;
    beespace.set_secret("token", "nectar-and-pollen").await.unwrap();
    let env = json!({ "TOKEN": { "from_secret": "token" } });
    let script = "while true; do echo \"got $TOKEN\"; sleep 0.1; done";
    let pipeline = json!({ "steps": [{ "name": "use", "image": image, "env": env, "run": script }] }).to_string();
    gogs.push(REPO, "main", &[(".beespace.yml", &pipeline)], "Use a secret").await.unwrap();
    let build = running(&beespace, "use").await;
    let lines = async |beespace: &Beespace, least: usize| {
        let look = async || {
            let log = beespace.log(&build, "use").await?;
            let got: Vec<String> = log.into_iter().filter(|line| line.starts_with("got ")).collect();
            Ok((got.len() >= least).then_some(got))
        };
        beespace.wait_for("lines", look).await.unwrap()
    };
    let before = lines(&beespace, 2).await.len();
    beespace.set_secret("token", "wax-and-propolis").await.unwrap();
    let beespace = beespace.restart().await.unwrap();
    let all = lines(&beespace, before + 20).await;
    assert!(all.iter().all(|line| !line.contains("nectar")), "{all:#?}");
    let path = format!("/api/v1/repositories/{REPO}/builds/1/cancel");
    assert!(beespace.admin().unwrap().post(&path, &json!({})).await.unwrap().status.is_success());
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Killed);
    assert_clean(&beespace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pause_container_is_restarted_after_a_reboot() {
    let world = World::new("").await;
    let steps = json!([{ "name": "wait", "run": "echo on; sleep 2" }, { "name": "after", "run": "cat .beespace.yml" }]);
    world.push(json!({ "steps": steps })).await;
    let build = world.running("wait").await;
    let World { beespace, .. } = world;
    beespace
        .wait_for("the first line", async || {
            Ok(beespace.log(&build, "wait").await?.iter().any(|line| line == "on").then_some(()))
        })
        .await
        .unwrap();
    let api = docker::api().await.unwrap();
    let instance = beespace.app.store.instance_id().await.unwrap().as_simple().to_string();
    let holders = docker::pause_containers(&instance).await.unwrap();
    assert_eq!(holders.len(), 1, "{holders:?}");
    api.kill_container(&holders[0], None::<bollard::query_parameters::KillContainerOptions>).await.unwrap();
    let beespace = beespace.restart().await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{:#?}", beespace.stage(&build));
    assert_clean(&beespace).await;
}
