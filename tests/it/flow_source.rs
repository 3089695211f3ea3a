//! The source of a build: the name of its pipeline file, its branch, its place among the builds that are prepared, its mirror.

use std::time::Duration;

use beespace::clock::now;
use beespace::store::Queue;
use beespace::store::build::Builds as _;
use beespace::store::delivery::DeliveryOutcome;
use beespace::store::queue::Queues as _;
use beespace::store::repository::Repositories as _;
use beespace::{mirror_cleanup, retention};
use beespace_core::build::Build;
use beespace_core::ids::RepositoryId;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::{NO_ENV, Process};

use crate::crash::PROGRAM;

const DUMMY: &str = "[engine]\nkind = \"dummy\"\n";
const HIVE: &str = "ada/hive";
const COMB: &str = "ada/comb";
const FILE: &str = "steps:\n  - name: build\n    image: busybox\n";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn world() -> (FakeGogs, Beespace) {
    let gogs = FakeGogs::start().await.unwrap();
    let beespace = Beespace::start(&gogs, DUMMY).await.unwrap();
    for repository in [HIVE, COMB] {
        gogs.create_repository(repository).await.unwrap();
        beespace.enable(repository).await.unwrap();
    }
    (gogs, beespace)
}

fn id_of(beespace: &Beespace, repository: &str) -> RepositoryId {
    beespace.app.store.read().unwrap().repository_by_name(&repository.parse().unwrap()).unwrap().unwrap().id
}

/// Why the push to a repository without a pipeline file was not built.
async fn no_pipeline_file(beespace: &Beespace, repository: &str) -> Reason {
    let id = id_of(beespace, repository);
    let reason = async || {
        let all = beespace.app.store.read()?.deliveries(Some(id), None, 10)?;
        Ok(all.into_iter().find_map(|delivery| match delivery.outcome {
            DeliveryOutcome::Ignored(reason) if reason.code == ReasonCode::NoPipelineFile => Some(reason),
            _ => None,
        }))
    };
    beespace.wait_for("the push to be ignored", reason).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_file_has_one_of_two_names_and_a_wrong_name_is_noticed() {
    let (gogs, beespace) = world().await;
    gogs.push(HIVE, "main", &[(".beespace.yaml", FILE)], "The longer suffix").await.unwrap();
    let build = beespace.wait_until_finished(HIVE, 1).await.unwrap();
    assert_eq!((build.status, build.files.first().unwrap().path.as_str()), (Status::Success, ".beespace.yaml"));

    gogs.push(HIVE, "main", &[(".beespace.yml", FILE)], "Both").await.unwrap();
    let build = beespace.wait_until_finished(HIVE, 2).await.unwrap();
    assert_eq!(build.status, Status::Error);
    assert_eq!(build.reason.unwrap().message, "the repository has both `.beespace.yml` and `.beespace.yaml`");

    for (name, help) in [
        ("beespace.yml", "rename `beespace.yml` to `.beespace.yml`"),
        (".beespace/ci.json", "add a file such as `.beespace/test.yml`"),
        (".drone.yml", "`.drone.yml` is not read: add a `.beespace.yml`"),
        ("README", "add a `.beespace.yml` to the root of the repository"),
    ] {
        let repository = format!("ada/with{}", name.replace(['/', '.'], "-"));
        gogs.create_repository(&repository).await.unwrap();
        beespace.enable(&repository).await.unwrap();
        gogs.push(&repository, "main", &[(name, FILE)], "Another name").await.unwrap();
        let reason = no_pipeline_file(&beespace, &repository).await;
        assert!(reason.help.as_ref().is_some_and(|text| text.starts_with(help)), "{name}: {reason:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_of_the_server_reports_what_is_wrong_with_gogs() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.set_token_revoked(true);
    let server = Process::start(PROGRAM, &gogs, DUMMY, NO_ENV).await.unwrap();
    let is_logged = async || Ok(server.log().contains("nothing can be built until Gogs responds").then_some(()));
    server.wait_for("the log to report the token", is_logged).await.unwrap();
    let log = server.log();
    assert!(log.contains("Gogs rejected the token") && log.contains("create a new token in Gogs"), "{log}");
    assert!(!log.contains(gogs.token()), "{log}");

    gogs.set_token_revoked(false);
    let server = Process::start(PROGRAM, &gogs, DUMMY, NO_ENV).await.unwrap();
    let is_logged = async || Ok(server.log().contains("Gogs responds and accepts the token").then_some(()));
    server.wait_for("the log to report Gogs", is_logged).await.unwrap();
    assert!(!server.log().contains("nothing can be built"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_deleted_before_its_commit_is_fetched_ends_its_build() {
    let (gogs, beespace) = world().await;
    gogs.push(HIVE, "main", &[(".beespace.yml", FILE)], "Begin").await.unwrap();
    beespace.wait_until_finished(HIVE, 1).await.unwrap();
    gogs.set_offline(true);
    gogs.push(HIVE, "topic", &[("a", "1")], "Soon gone").await.unwrap();
    gogs.delete_branch(HIVE, "topic").await.unwrap();
    gogs.wait_until_delivered().await.unwrap();
    let waits = |build: &&Build| build.reason.as_ref().is_some_and(|reason| reason.code == ReasonCode::WaitingForGogs);
    let waiting = async || Ok(beespace.builds()?.iter().find(waits).cloned());
    let build = beespace.wait_for("the build to wait for Gogs", waiting).await.unwrap();
    let hive = id_of(&beespace, HIVE);
    let forgotten = async || Ok(beespace.app.store.read()?.last_seen(hive, "refs/heads/topic")?.is_none().then_some(()));
    beespace.wait_for("the deletion to be processed", forgotten).await.unwrap();
    gogs.set_offline(false);
    let over = async || Ok(beespace.app.store.read()?.build(build.id)?.filter(|build| build.finished_at.is_some()));
    let over = beespace.wait_for("the end of the build", over).await.unwrap();
    let reason = over.reason.unwrap();
    assert_eq!((over.status, reason.code.as_str()), (Status::Skipped, ReasonCode::BranchDeleted.as_str()));
    assert!(reason.message.starts_with("branch \"topic\" was deleted before its commit"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_slow_to_fetch_leaves_places_for_others() {
    let (gogs, beespace) = world().await;
    // Longer than the test: no fetch ends.
    gogs.set_delay(Duration::from_secs(3_600));
    for branch in 0..5 {
        gogs.push(HIVE, &format!("b{branch}"), &[(".beespace.yml", FILE)], "One of many").await.unwrap();
    }
    let stored = async || Ok((beespace.builds()?.len() == 5).then_some(()));
    beespace.wait_for("five builds", stored).await.unwrap();
    gogs.push(COMB, "main", &[(".beespace.yml", FILE)], "From elsewhere").await.unwrap();
    let in_progress = |repository: RepositoryId| -> anyhow::Result<usize> {
        let read = beespace.app.store.read()?;
        let mut claimed = 0;
        for build in beespace.builds()?.iter().filter(|build| build.event.repository.id == repository) {
            let entry = read.queue_entry(Queue::Prepare, build.id.0.as_bytes())?;
            claimed += usize::from(entry.is_some_and(|entry| entry.attempts > 0));
        }
        Ok(claimed)
    };
    let comb = id_of(&beespace, COMB);
    let begun = async || Ok((in_progress(comb)? == 1).then_some(()));
    beespace.wait_for("the other repository's build to be prepared", begun).await.unwrap();
    assert_eq!(in_progress(id_of(&beespace, HIVE)).unwrap(), 2);
    gogs.set_delay(Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pins_of_a_build_go_with_it_and_an_ignored_push_leaves_none() {
    let (gogs, beespace) = world().await;
    for number in 1..=2 {
        gogs.push(HIVE, "main", &[(".beespace.yml", FILE)], &format!("Change {number}")).await.unwrap();
        beespace.wait_until_finished(HIVE, number).await.unwrap();
    }
    let pinned = |repository: &str| -> Vec<String> {
        let mirror = beespace.app.config.data.dir.join(format!("mirrors/{}.git", id_of(&beespace, repository)));
        assert!(mirror.join("HEAD").exists());
        let pins = std::fs::read_dir(mirror.join("refs/beespace/builds")).into_iter().flatten();
        let mut names: Vec<String> = pins.map(|pin| pin.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    };
    let [newer, older] = beespace.builds().unwrap().try_into().unwrap();
    assert_eq!(pinned(HIVE), [older.id.to_string(), newer.id.to_string()]);
    assert_eq!(retention::pass(&beespace.app, now() + DAY).await.unwrap().0, 1, "the last run of the branch stays");
    assert_eq!(pinned(HIVE), [newer.id.to_string()]);

    gogs.push(COMB, "main", &[("README", "")], "Nothing to build").await.unwrap();
    no_pipeline_file(&beespace, COMB).await;
    assert_eq!(pinned(COMB), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mirror_of_a_repository_that_is_disabled_or_gone_is_removed_after_a_month() {
    let (gogs, beespace) = world().await;
    for repository in [HIVE, COMB] {
        gogs.push(repository, "main", &[(".beespace.yml", FILE)], "Begin").await.unwrap();
        beespace.wait_until_finished(repository, 1).await.unwrap();
    }
    let (hive, comb) = (id_of(&beespace, HIVE), id_of(&beespace, COMB));
    let mirrors_after = async |days: u32| {
        mirror_cleanup::pass(&beespace.app, now() + DAY * days).await.unwrap();
        let mut left = beespace.app.mirrors.existing().await.unwrap();
        left.sort_unstable();
        left
    };
    assert_eq!(mirrors_after(60).await, [hive, comb], "both are in use");
    beespace.app.enabler.disable(&HIVE.parse().unwrap()).await.unwrap();
    gogs.delete_repository(COMB).unwrap();
    gogs.set_offline(true);
    assert_eq!(mirrors_after(29).await, [hive, comb], "a disabled repository may be enabled again");
    assert_eq!(mirrors_after(31).await, [comb], "while Gogs is away, nothing is known of the other one");
    gogs.set_offline(false);
    assert_eq!(mirrors_after(29).await, [comb]);
    assert_eq!(mirrors_after(31).await, []);
    beespace.enable(HIVE).await.unwrap();
    gogs.push(HIVE, "main", &[("a", "1")], "Again").await.unwrap();
    assert_eq!(beespace.wait_until_finished(HIVE, 2).await.unwrap().status, Status::Success, "the next push brings it back");
}
