//! Compares a server with 100,000 builds to one with 1,000. Both run side by side, and each request goes to one and then to the
//! other, so that other load on the machine affects both. The start is meaningful only with a release build: with debug
//! assertions, redb checks its whole file whenever it opens it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use beespace::clock::now;
use beespace::log::LogStore;
use beespace::store::Store;
use beespace::store::build::BuildFilter;
use beespace::store::repository::Repositories as _;
use beespace_core::ids::{RepositoryName, StageNumber, StepId, StepNumber};
use beespace_core::mask::Secrets;
use beespace_tests::gogs::{Delivery, FakeGogs};
use beespace_tests::seed_data::{self, SeededRepository};
use serde_json::Value;

use crate::report::{Report, percentile};
use crate::server::{Server, wait_for};
use crate::webhook;

const FEW_BUILDS: u64 = 1_000;
const MANY_BUILDS: u64 = 100_000;
/// The largest accepted ratio of the times with many and with few builds.
const BOUND: f64 = 1.5;

/// With a thousand builds each repository has a hundred: more than one page of a list.
const REPOSITORIES: usize = 10;
/// The number of the requested build.
const BUILD_NUMBER: u64 = 75;
/// Builds on the last page of the repository's list.
const LAST_PAGE: usize = 50;

/// How often the same body is stored under new ids; later deliveries count as repeats.
const DELIVERIES: usize = 32;

/// Names and paths of the measured requests; `{last}` is the cursor of the last page.
const REQUESTS: [(&str, &str); 18] = [
    ("list of builds, page", "/"),
    ("list of failed builds, page", "/?status=failure"),
    ("an owner's builds, page", "/ada"),
    ("a repository, page", "/ada/r0"),
    ("its killed builds (three), page", "/ada/r0?status=killed"),
    ("a build, page", "/ada/r0/75"),
    ("a step's log, page", "/ada/r0/75/1/2"),
    ("deliveries, page", "/-/deliveries"),
    ("notices, page", "/-/notices"),
    ("list of builds, API", "/api/v1/builds"),
    ("list of failed builds, API", "/api/v1/builds?status=failure"),
    ("list of blocked builds (none), API", "/api/v1/builds?status=blocked"),
    ("a repository's builds, API", "/api/v1/repositories/ada/r0/builds"),
    ("its killed builds (three), API", "/api/v1/repositories/ada/r0/builds?status=killed"),
    ("the last page of its builds, API", "/api/v1/repositories/ada/r0/builds?after={last}"),
    ("notices given up (none), API", "/api/v1/notices?status=dead_letter"),
    ("figures for Prometheus", "/metrics"),
    ("readiness", "/readyz"),
];

/// The times of one request, with few builds and with many.
#[derive(Default)]
struct Comparison {
    few: Vec<Duration>,
    many: Vec<Duration>,
}

impl Comparison {
    fn report(mut self, what: &'static str, figures: &mut Report) {
        let (few, many) = (percentile(&mut self.few, 0.5), percentile(&mut self.many, 0.5));
        eprintln!("{few:>10.2} ms with {FEW_BUILDS} builds, {many:>10.2} ms with {MANY_BUILDS}, p50");
        figures.at_most(what, many / few, "x", BOUND);
    }
}

/// Measures how much longer each request takes with many builds than with few.
pub(crate) async fn measure(program: &Path, figures: &mut Report) -> Result<()> {
    let mut few = World::start(program, FEW_BUILDS).await?;
    let mut many = World::start(program, MANY_BUILDS).await?;
    let mut starts = Comparison::default();
    for _ in 0..5 {
        starts.few.push(few.restart().await?);
        starts.many.push(many.restart().await?);
    }
    starts.report("start to ready, 100,000 builds beside 1,000", figures);
    for (what, path) in REQUESTS {
        let mut pair = Comparison::default();
        for _ in 0..25 {
            pair.few.push(few.request(path).await?);
            pair.many.push(many.request(path).await?);
        }
        pair.report(what, figures);
    }
    let (mut answers, mut ends, mut hooks) = (Comparison::default(), Comparison::default(), Comparison::default());
    for _ in 0..25 {
        for (world, answers, ends) in [(&few, &mut answers.few, &mut ends.few), (&many, &mut answers.many, &mut ends.many)] {
            let (answered, ended) = world.restart_build().await?;
            answers.push(answered);
            ends.push(ended);
        }
    }
    answers.report("restart of a build, answered", figures);
    ends.report("restart of a build, to its end", figures);
    let client = reqwest::Client::builder().no_proxy().build()?;
    for _ in 0..DELIVERIES {
        hooks.few.push(webhook::deliver(&client, &few.delivery).await?);
        hooks.many.push(webhook::deliver(&client, &many.delivery).await?);
    }
    hooks.report("hook answered, delivery stored", figures);
    let mut repeats = Comparison::default();
    for _ in 0..100 {
        repeats.few.push(webhook::deliver(&client, &few.delivery).await?);
        repeats.many.push(webhook::deliver(&client, &many.delivery).await?);
    }
    repeats.report("hook answered, delivery was there", figures);
    figures.info("size of the store with 100,000 builds", many.store_size()?, "MiB");
    few.server.stop().await?;
    many.server.stop().await
}

/// A server with history, in front of its own Gogs.
struct World {
    server: Server,
    _gogs: FakeGogs,
    /// The cursor of the last page of the repository's builds.
    last: String,
    /// A delivery that was accepted.
    delivery: Delivery,
}

impl World {
    async fn start(program: &Path, builds: u64) -> Result<Self> {
        let gogs = FakeGogs::start().await?;
        let mut server = Server::new(program, &gogs, "[engine]\nkind = \"dummy\"\n")?;
        server.start().await?;
        let mut commits = Vec::new();
        for number in 0..REPOSITORIES {
            let repository = format!("ada/r{number}");
            gogs.create_repository(&repository).await?;
            let file = seed_data::PIPELINE_FILE;
            commits.push((repository.clone(), gogs.push(&repository, "main", &[(".beespace.yml", file)], "Begin").await?));
            server.enable(&repository).await?;
        }
        // One real delivery, which is sent repeatedly.
        gogs.push("ada/r0", "other", &[("README", "hive")], "Go on").await?;
        let delivery = gogs.wait_until_delivered().await?.pop().context("no delivery")?;
        server.stop().await?;

        let store = Store::open(&server.data().join("beespace.redb"))?;
        let mut pasts = Vec::new();
        for (name, sha) in commits {
            let name: RepositoryName = name.parse()?;
            let repository = store.read()?.repository_by_name(&name)?.context("no repository")?;
            pasts.push(SeededRepository { repository, sha });
        }
        let before = Instant::now();
        seed_data::write_builds(&store, &pasts, builds).await?;
        eprintln!("{builds} builds written in {:.0} s", before.elapsed().as_secs_f64());
        let looked_at = pasts.first().context("no repository")?.repository.id;
        let read = store.read()?;
        let ids = read.build_ids(BuildFilter { repository: Some(looked_at), ..BuildFilter::default() }, usize::MAX)?;
        let last = ids.iter().rev().nth(LAST_PAGE).context("too few builds")?.to_string();
        let build = read.build_by_number(looked_at, BUILD_NUMBER)?.context("no such build")?.id;
        drop(read);
        let step = StepId { build, stage: StageNumber(1), step: StepNumber(2), attempt: 1 };
        write_log(&server, step).await?;
        store.close().await;
        server.start().await?;
        Ok(Self { server, _gogs: gogs, last, delivery })
    }

    async fn restart(&mut self) -> Result<Duration> {
        self.server.stop().await?;
        self.server.start().await
    }

    async fn request(&self, path: &str) -> Result<Duration> {
        let (client, path) = (self.server.admin()?, path.replace("{last}", &self.last));
        let begin = Instant::now();
        let answer = client.get(&path).await?;
        ensure!(answer.status.is_success(), "{path}: {}", answer.status);
        Ok(begin.elapsed())
    }

    /// The time until the response, and until the new build is finished.
    async fn restart_build(&self) -> Result<(Duration, Duration)> {
        let (client, list) = (self.server.admin()?, "/api/v1/repositories/ada/r0/builds");
        let begin = Instant::now();
        let answer = client.post(&format!("{list}/{BUILD_NUMBER}/restart"), &Value::Null).await?;
        let answered = begin.elapsed();
        ensure!(answer.status.is_success(), "{}", answer.body);
        let id = answer.json()?["id"].clone();
        wait_for("the end of the build", async || {
            let builds = client.get(&format!("{list}?limit=5")).await?.json()?;
            let is_over = |build: &Value| build["id"] == id && build["finished_at"].is_string();
            Ok(builds.as_array().is_some_and(|builds| builds.iter().any(is_over)).then_some(()))
        })
        .await?;
        Ok((answered, begin.elapsed()))
    }

    fn store_size(&self) -> Result<f64> {
        Ok(std::fs::metadata(self.server.data().join("beespace.redb"))?.len() as f64 / f64::from(1 << 20))
    }
}

async fn write_log(server: &Server, step: StepId) -> Result<()> {
    let writer = LogStore::new(server.data().join("logs")).writer(step, Secrets::default(), 1 << 20).await?;
    for line in 0..500 {
        writer.write_host_line(now(), &format!("line {line} of what a step says")).await?;
    }
    writer.finish(now(), None).await?;
    Ok(())
}
