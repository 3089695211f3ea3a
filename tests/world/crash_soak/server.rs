//! One server under test: rounds of pushes and kills. Each round ends with an idle server whose state is checked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use beespace::fail_point;
use beespace::store::Store;
use beespace::store::build::Builds as _;
use beespace_core::ids::StepId;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::kill::{Kill, KillSchedule};
use super::load::{CAPACITY, REPOSITORIES};
use super::{Campaign, Summary};
use crate::WAIT_TIMEOUT;
use crate::docker;
use crate::gogs::{Delivery, FakeGogs};
use crate::process::{NO_ENV, Process};
use crate::seeded_rng::SeededRng;

pub(super) const REPO: &str = "ada/hive";
pub(super) const INBOX: &str = "team";

/// The lines of the counting step, each with its number.
pub(super) const LINES: usize = 12;

/// The number of prefetched networks.
pub(super) const PREWARMED: usize = 2;

/// The interval between two checks of a server.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The newest builds, which include all of a round.
pub(super) const RECENT: &str = "/api/v1/builds?limit=50";

pub(super) struct SoakServer {
    pub(super) gogs: FakeGogs,
    pub(super) process: Process,
    /// The image of its steps; `None` with the dummy engine.
    pub(super) image: Option<String>,
    pub(super) summary: Summary,
    /// The commits pushed in this round.
    pub(super) pushed: Vec<String>,
    /// The ids of all checked builds.
    pub(super) builds: Vec<String>,
    /// The instance id, which labels everything in the engine; known after the first kill.
    pub(super) instance: String,
    schedule: Arc<Mutex<KillSchedule>>,
    rng: SeededRng,
}

/// The activity of a server at the moment of its kill.
enum KilledWhile {
    Working,
    Idle,
}

impl SoakServer {
    pub(super) async fn open(campaign: &Campaign, deck: Arc<Mutex<KillSchedule>>, number: u64, is_docker: bool) -> Result<Self> {
        let image = if is_docker { Some(docker::test_image().await?) } else { None };
        let gogs = FakeGogs::start().await?;
        for repository in REPOSITORIES {
            gogs.create_repository(repository).await?;
        }
        let (inbox, host) = (gogs.inbox_url(INBOX), gogs.url().to_owned());
        let guests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests").canonicalize()?;
        let (rounds, asks) = (guests.join("rounds.wasm"), guests.join("approval.wasm"));
        let settings = format!(
            "[engine]\nkind = \"{}\"\ncapacity = {CAPACITY}\nprewarmed_networks = {PREWARMED}\n\
             [[notifier]]\nname = \"inbox\"\nplugin = \"notify-webhook\"\n\
             settings = {{ url = \"{inbox}\", secret = \"key\" }}\n\
             grants = {{ hosts = [{{ url = \"{host}\", addresses = \"loopback\" }}], secrets = [\"key\"] }}\n\
             [[step]]\nname = \"rounds\"\nplugin = {rounds:?}\n[[policy]]\nname = \"asks\"\nplugin = {asks:?}\n",
            if is_docker { "docker" } else { "dummy" }
        );
        let process = Process::start(&campaign.program, &gogs, &settings, NO_ENV).await?;
        process.set_plugin_secret("key", "a-key-for-the-inbox").await?;
        for repository in REPOSITORIES {
            process.enable(repository).await?;
        }
        let rng = SeededRng::new(campaign.seed.wrapping_add(number));
        Ok(Self {
            gogs,
            process,
            image,
            summary: Summary::default(),
            pushed: Vec::new(),
            builds: Vec::new(),
            instance: String::new(),
            schedule: deck,
            rng,
        })
    }

    /// Runs rounds until there were this many kills and, as far as possible, every fail point was hit.
    pub(super) async fn run_rounds(mut self, kills: usize) -> Result<Summary> {
        while self.summary.kills < kills || (self.has_points_left() && self.summary.kills + self.summary.idle_kills < 4 * kills) {
            let blows = lock(&self.schedule).next_round();
            let round = self.round(&blows).await.with_context(|| format!("a round of {blows:?}"));
            self.with_log(round)?;
        }
        if self.image.is_some() {
            self.summary.docker_kills = self.summary.kills;
            self.summary.docker_at_points = self.summary.at_points.clone();
        }
        let swept = self.wait_until_cleaned_up().await;
        self.with_log(swept)?;
        // A regular shutdown, so that prefetched networks are removed, too.
        self.process.stop().await?;
        Ok(self.summary)
    }

    /// A kill with Docker takes seconds, so a short run need not hit every point there.
    fn has_points_left(&self) -> bool {
        self.image.is_none() && !lock(&self.schedule).all_points_hit()
    }

    /// Prints the server's log after a failure; the error itself stays short.
    fn with_log<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.inspect_err(|_| println!("{}", self.process.log()))
    }

    async fn round(&mut self, blows: &[Kill]) -> Result<()> {
        self.pushed.clear();
        self.process.kill().await?;
        for (place, blow) in blows.iter().enumerate() {
            match blow {
                Kill::FailPoint(point, passage) => {
                    self.process.restart(&[(fail_point::VARIABLE, format!("{point} {passage}"))])?;
                }
                Kill::WhileRunning(_) | Kill::DuringBurst(_) => self.process.restart(NO_ENV)?,
            }
            if place < 2 {
                self.wait_until_ready_or_killed().await?;
                self.push_work(blow).await?;
            }
            match self.carry_out_kill(blow).await.with_context(|| format!("{blow:?}"))? {
                KilledWhile::Working => self.summary.kills += 1,
                KilledWhile::Idle => self.summary.idle_kills += 1,
            }
            self.inspect_data(blow).await?;
        }
        self.process.restart(NO_ENV)?;
        self.process.wait_until_ready().await?;
        self.redeliver_unconfirmed().await?;
        self.wait_until_idle().await?;
        self.check_invariants().await
    }

    /// Pushes the work during which the server is killed.
    async fn push_work(&mut self, blow: &Kill) -> Result<()> {
        if let Kill::DuringBurst(_) = blow {
            return self.push_a_burst().await;
        }
        self.push(REPO).await?;
        self.gogs.wait_until_delivered().await.map(drop)
    }

    pub(super) async fn push(&mut self, repository: &str) -> Result<()> {
        self.summary.pushes += 1;
        let number = self.summary.pushes;
        let steps = match &self.image {
            None => json!([
                { "name": "first", "image": "busybox", "env": { "OUTPUT": "line", "SLEEP": "200ms" } },
                { "name": "second", "image": "busybox", "env": { "OUTPUT": "line", "SLEEP": "100ms" } },
                two_round_step("busybox", "busy", "publish"),
            ]),
            Some(image) => {
                let count = format!(
                    "run=$(cat /proc/sys/kernel/random/uuid); i=0; \
                     while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i $run; sleep 0.05; done"
                );
                // The second step checks that the first ran once in the same workspace.
                json!([
                    { "name": "first", "image": image, "run": format!("echo ran >> ran; {count}") },
                    { "name": "second", "image": image, "run": format!("[ \"$(cat ran)\" = ran ]; {count}") },
                    two_round_step(image, "echo once >> rounds", &format!("# publish\n[ \"$(cat rounds)\" = once ]; {count}")),
                ])
            }
        };
        // The schedule differs in each push, so each build stores it. It is never due.
        let schedule = json!({ "name": "yearly", "cron": format!("{} 3 29 2 *", number % 60) });
        let when = json!({ "event": ["push", "cron"] });
        let pipeline = json!({
            "name": format!("p{number}"), "when": when, "schedules": [schedule], "steps": after_host_steps(steps),
        });
        let pipeline = pipeline.to_string();
        let sha = self.gogs.push(repository, "main", &[(".beespace.yml", &pipeline)], &format!("Push {number}")).await?;
        self.pushed.push(sha);
        Ok(())
    }

    /// Carries out the kill. If the fail point is not reached, the server is killed when it is idle.
    async fn carry_out_kill(&mut self, blow: &Kill) -> Result<KilledWhile> {
        if let Kill::DuringBurst(part) = blow {
            self.kill_during_burst(*part).await?;
            return Ok(KilledWhile::Working);
        }
        let until = Instant::now() + WAIT_TIMEOUT;
        let mut asked = false;
        loop {
            if self.process.was_killed()? {
                let Kill::FailPoint(point, _) = blow else { anyhow::bail!("it ended by itself") };
                *self.summary.at_points.entry(point.clone()).or_default() += 1;
                lock(&self.schedule).record_hit(point);
                return Ok(KilledWhile::Working);
            }
            ensure!(Instant::now() < until, "the server does not become idle");
            // The server may be down at any moment, so errors are ignored.
            let _ = self.approve().await;
            let builds = self.list("/api/v1/builds?status=running").await;
            if let Kill::WhileRunning(part) = blow
                && builds.is_ok_and(|builds| !builds.is_empty())
            {
                tokio::time::sleep(Duration::from_millis(part * self.typical_build_ms() / 1_000)).await;
                self.process.kill().await?;
                return Ok(KilledWhile::Working);
            }
            if asked && self.is_idle().await.is_ok_and(|quiet| quiet) {
                self.process.kill().await?;
                return Ok(KilledWhile::Idle);
            }
            // The readiness check calls the engine, which has a fail point.
            asked |= self.process.admin()?.get("/readyz").await.is_ok();
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The typical duration of a build.
    pub(super) fn typical_build_ms(&self) -> u64 {
        if self.image.is_some() { 2_500 } else { 500 }
    }

    /// Waits until the server responds or was killed.
    async fn wait_until_ready_or_killed(&mut self) -> Result<()> {
        let until = Instant::now() + WAIT_TIMEOUT;
        while !self.process.was_killed()? && self.process.admin()?.get("/healthz").await.is_err() {
            ensure!(Instant::now() < until, "the server does not respond");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Reads the data of the killed server and truncates one of its logs.
    async fn inspect_data(&mut self, blow: &Kill) -> Result<()> {
        let rows = self.rows().await?;
        if let Kill::DuringBurst(_) = blow {
            self.record_load(&rows)?;
        }
        self.truncate_a_log(&rows).await?;
        self.instance = rows.instance_id().await?.as_simple().to_string();
        rows.close().await;
        Ok(())
    }

    /// While it is dead, the end of a log that has none yet is torn off, as a power cut can do with what was not synced. Once the
    /// store has the exits of a step's containers, their output must have been.
    async fn truncate_a_log(&mut self, rows: &Store) -> Result<()> {
        let logs = self.process.data().join("logs");
        let store = beespace::log::LogStore::new(&logs);
        let stored = rows.read()?;
        for step in self.steps_of(&logs)? {
            let stage = stored.stage(step.stage_id())?;
            if stage.is_some_and(|stage| stage.steps.iter().any(|row| row.number == step.step && !row.exits.is_empty())) {
                continue;
            }
            let path = logs.join(format!("{}/{}/{}.{}", step.build, step.stage, step.step, step.attempt));
            let length = std::fs::metadata(&path)?.len();
            if length > 0 && store.reader(step).end().await?.is_none() {
                let file = std::fs::OpenOptions::new().write(true).open(&path)?;
                file.set_len(length.saturating_sub(1 + self.rng.below(20)))?;
                self.summary.logs_cut += 1;
            }
        }
        Ok(())
    }

    /// The store of the killed server. A child process may hold the lock for a moment longer.
    async fn rows(&self) -> Result<Store> {
        let path = self.process.data().join("beespace.redb");
        let until = Instant::now() + WAIT_TIMEOUT;
        loop {
            match Store::open(&path) {
                Err(_) if Instant::now() < until => tokio::time::sleep(POLL_INTERVAL).await,
                opened => return Ok(opened?),
            }
        }
    }

    /// The steps with a log, of the newest builds.
    fn steps_of(&self, logs: &std::path::Path) -> Result<Vec<StepId>> {
        let mut steps = Vec::new();
        for build in file_names(logs)?.into_iter().filter(|build| !self.builds.contains(build)) {
            for stage in file_names(&logs.join(&build))? {
                for file in file_names(&logs.join(&build).join(&stage))? {
                    let Some((step, attempt)) = file.split_once('.') else { continue };
                    let (Ok(step), Ok(attempt)) = (step.parse(), attempt.parse()) else { continue };
                    steps.push(StepId {
                        build: build.parse()?,
                        stage: beespace_core::ids::StageNumber(stage.parse()?),
                        step: beespace_core::ids::StepNumber(step),
                        attempt,
                    });
                }
            }
        }
        Ok(steps)
    }

    /// Redelivers everything that was not confirmed, as people can do in Gogs.
    async fn redeliver_unconfirmed(&mut self) -> Result<()> {
        for delivery in self.gogs.deliveries().into_iter().filter(|delivery| !is_confirmed(delivery)) {
            self.gogs.redeliver(&delivery.uuid)?;
            self.summary.redelivered += 1;
        }
        self.gogs.wait_for_deliveries("all to be confirmed", |all| all.iter().all(is_confirmed)).await.map(drop)
    }

    async fn wait_until_idle(&self) -> Result<()> {
        let until = Instant::now() + WAIT_TIMEOUT;
        while !self.is_idle().await? {
            ensure!(
                Instant::now() < until,
                "not every push becomes a build that ends: {:#?}",
                self.list("/api/v1/builds").await?
            );
            self.approve().await?;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Approves everything that is blocked.
    pub(super) async fn approve(&self) -> Result<()> {
        let admin = self.process.admin()?;
        for build in self.list("/api/v1/builds?status=blocked").await? {
            let path = path_of(&build)?;
            let build = admin.get(&path).await?.json()?;
            let approvals = build["stages"][0]["approvals"].as_array().cloned().unwrap_or_default();
            for approval in approvals.iter().filter(|approval| approval["missing"] != json!([])) {
                admin.post(&format!("{path}/approve"), &json!({ "subject": approval["subject"] })).await?;
            }
        }
        Ok(())
    }

    /// Whether all builds are finished and all notices sent, including those of every confirmed push.
    async fn is_idle(&self) -> Result<bool> {
        let builds = self.list(RECENT).await?;
        let unsaid = self.list("/api/v1/notices?status=pending").await?;
        let pushes = self.gogs.deliveries().into_iter().filter(|delivery| delivery.event == "push");
        let settled = pushes.filter(is_confirmed).count();
        let built = self.pushed.iter().filter(|sha| builds.iter().any(|build| build["sha"] == **sha)).count();
        // All builds of earlier rounds are finished.
        let earlier = self.summary.pushes - self.pushed.len();
        Ok(earlier + built >= settled && builds.iter().all(|build| !build["finished_at"].is_null()) && unsaid.is_empty())
    }

    pub(super) async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let answer = self.process.admin()?.get(path).await?;
        ensure!(answer.status.is_success(), "{path}: {answer:?}");
        answer.json()?.as_array().cloned().context("no list")
    }
}

/// The steps one after the other, after two that run no container.
fn after_host_steps(steps: Value) -> Value {
    let ours = |name: &str| json!({ "name": name, "uses": "rounds", "with": { "rounds": [[]] }, "needs": [] });
    let (mut all, mut before) = (Vec::new(), "weigh".to_owned());
    for mut step in steps.as_array().cloned().unwrap_or_default() {
        step["needs"] = json!([before]);
        before = step["name"].as_str().unwrap_or_default().to_owned();
        all.push(step);
    }
    let (look, mut weigh) = (ours("look"), ours("weigh"));
    weigh["needs"] = json!(["look"]);
    all.extend([look, weigh]);
    all.into()
}

/// A step of two rounds; the second one requires an approval.
fn two_round_step(image: &str, first: &str, second: &str) -> Value {
    let with = json!({ "images": [image], "rounds": [[first], [second]] });
    json!({ "name": "third", "uses": "rounds", "with": with, "env": { "OUTPUT": "line", "SLEEP": "50ms" } })
}

/// The API path of a build.
pub(super) fn path_of(build: &Value) -> Result<String> {
    let (repository, number) = (build["repository"].as_str(), build["number"].as_u64());
    Ok(format!("/api/v1/repositories/{}/builds/{}", repository.context("no repository")?, number.context("no number")?))
}

fn is_confirmed(delivery: &Delivery) -> bool {
    delivery.attempts.iter().any(|attempt| attempt.status.is_some_and(|status| status < 300))
}

fn file_names(path: &std::path::Path) -> Result<Vec<String>> {
    match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
    }
}

fn lock(deck: &Mutex<KillSchedule>) -> std::sync::MutexGuard<'_, KillSchedule> {
    deck.lock().unwrap_or_else(PoisonError::into_inner)
}
