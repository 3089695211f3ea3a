//! The invariants of an idle server: each push was built once, each step ran once, each notice was sent once, nothing is left
//! over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptions, ListVolumesOptions};
use serde_json::Value;
use tokio::time::Instant;

use super::server::{INBOX, LINES, PREWARMED, RECENT, SoakServer, path_of};
use crate::docker;

/// Leftovers are removed within this time.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);

impl SoakServer {
    /// Checks the builds of this round and all notices.
    pub(super) async fn check_invariants(&mut self) -> Result<()> {
        let builds = self.list(RECENT).await?;
        for sha in self.pushed.clone() {
            let of_push: Vec<&Value> = builds.iter().filter(|build| build["sha"] == *sha).collect();
            let [build] = of_push.as_slice() else { anyhow::bail!("commit {sha} was not built exactly once: {builds:#?}") };
            self.builds.push(build["id"].as_str().context("no id")?.to_owned());
            self.check_build(&path_of(build)?).await?;
        }
        self.check_notices().await
    }

    async fn check_build(&mut self, path: &str) -> Result<()> {
        let build = self.process.admin()?.get(path).await?.json()?;
        let logs = self.logs(path).await?;
        match build["status"].as_str() {
            Some("success") => self.summary.successful_builds += 1,
            // The dummy engine loses its containers with its process, like a machine that died.
            Some("error") if self.image.is_none() && build["reason"]["code"] == "container-lost" => self.summary.lost_builds += 1,
            // A step type decides itself what a lost container means.
            Some("failure") if self.image.is_none() && build["stages"][0]["steps"][3]["status"] == "failure" => {
                self.summary.lost_builds += 1;
            }
            _ => anyhow::bail!("a build has an unexpected status: {build:#}\n{}", logs.join("\n---\n")),
        }
        for (step, log) in logs.iter().enumerate().skip(1) {
            let is_good = build["stages"][0]["steps"][step]["status"] == "success";
            self.check_log(log, is_good, if step == 3 { 2 } else { 1 })
                .with_context(|| format!("step {step} of {build:#}\n{log}"))?;
        }
        Ok(())
    }

    /// The logs of all steps, the clone first.
    async fn logs(&self, path: &str) -> Result<Vec<String>> {
        let (admin, mut logs) = (self.process.admin()?, Vec::new());
        for step in 0..=3 {
            logs.push(admin.get(&format!("{path}/stages/1/steps/{step}/log")).await?.body);
        }
        Ok(logs)
    }

    /// Every line appears once, and all lines are from one run.
    fn check_log(&self, log: &str, is_good: bool, rounds: usize) -> Result<()> {
        let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("line")).collect();
        if self.image.is_none() {
            ensure!(lines.len() == rounds || (!is_good && lines.len() < rounds), "each round of the step did not run once");
            return Ok(());
        }
        let runs: BTreeSet<&str> = lines.iter().filter_map(|line| line.split(' ').nth(2)).collect();
        let numbers: Vec<Option<usize>> = lines.iter().map(|line| line.split(' ').nth(1)?.parse().ok()).collect();
        ensure!(runs.len() == 1, "the step did not run exactly once: {runs:?}");
        ensure!(numbers == (1..=LINES).map(Some).collect::<Vec<_>>(), "lines are missing or repeated");
        Ok(())
    }

    async fn check_notices(&mut self) -> Result<()> {
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for received in self.gogs.inbox(INBOX) {
            let event = serde_json::from_str::<Value>(&received.body)?;
            keys.entry(format!("{} of {} of {}", event["type"], event["subject"], event["source"]))
                .or_default()
                .push(received.header("idempotency-key").context("no key")?.to_owned());
        }
        let ends = keys.keys().filter(|subject| subject.contains("build.finished")).count();
        ensure!(ends == self.summary.pushes, "{} builds, but notices of {ends}", self.summary.pushes);
        self.summary.repeated_notices = keys.values().map(|keys| keys.len() - 1).sum();
        for (subject, keys) in keys {
            ensure!(keys.iter().collect::<BTreeSet<_>>().len() == 1, "{subject} was sent with several keys: {keys:?}");
        }
        let notices = self.list("/api/v1/notices?limit=100").await?;
        ensure!(notices.iter().all(|notice| notice["state"] == "sent"), "{notices:#?}");
        Ok(())
    }

    pub(super) async fn wait_until_cleaned_up(&self) -> Result<()> {
        let until = Instant::now() + CLEANUP_TIMEOUT;
        loop {
            let left = self.leftovers().await?;
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < until, "leftovers: {left:#?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Scratch directories, and everything in the engine with this server's id, except its prefetched networks.
    async fn leftovers(&self) -> Result<Vec<String>> {
        let scratch = self.process.data().join("scratch");
        let mut left = Vec::new();
        if scratch.is_dir() {
            for entry in std::fs::read_dir(scratch)? {
                left.push(entry?.path().display().to_string());
            }
        }
        if self.image.is_none() {
            return Ok(left);
        }
        let api = docker::api().await?;
        let containers = api.list_containers(Some(ListContainersOptionsBuilder::new().all(true).build())).await?;
        let networks = api.list_networks(None::<ListNetworksOptions>).await?;
        let volumes = api.list_volumes(None::<ListVolumesOptions>).await?.volumes.unwrap_or_default();
        let containers = containers.into_iter().map(|one| (one.names.unwrap_or_default().join(" "), one.labels));
        let networks = networks.into_iter().map(|one| (one.name.unwrap_or_default(), one.labels));
        let volumes = volumes.into_iter().map(|one| (one.name, Some(one.labels)));
        let all = containers.chain(networks).chain(volumes);
        let ours = all.filter_map(|(name, labels)| {
            labels.filter(|all| all.get("beespace.instance") == Some(&self.instance)).map(|all| (name, all))
        });
        let (networks, others): (Vec<_>, Vec<_>) =
            ours.partition(|(_, all)| all.contains_key("beespace.network") && !all.contains_key("beespace.build"));
        let networks: BTreeSet<String> =
            networks.into_iter().filter_map(|(_, all)| all.get("beespace.network").cloned()).collect();
        left.extend(networks.into_iter().skip(PREWARMED));
        left.extend(others.into_iter().map(|(name, _)| name));
        Ok(left)
    }
}
