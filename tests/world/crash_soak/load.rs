//! Bursts of pushes, so that a server is killed while it has much unfinished work.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Result, ensure};
use beespace::store::Store;
use beespace::store::build::BuildFilter;
use beespace_core::build::Phase;
use beespace_core::status::Status;

use super::server::{POLL_INTERVAL, REPO, SoakServer};
use crate::gogs::Faults;

/// The repositories of a burst.
pub(super) const REPOSITORIES: [&str; 4] = [REPO, "ada/comb", "ada/meadow", "ada/nectar"];

/// The number of stages that a server runs concurrently.
pub(super) const CAPACITY: u64 = 4;

/// More than the builds of one round.
const MAX_BUILDS: usize = 100;

impl SoakServer {
    /// The pushes of a burst to each repository; fewer with containers, which take longer.
    fn pushes_per_repository(&self) -> u64 {
        if self.image.is_some() { 2 } else { 5 }
    }

    /// Pushes to all repositories while Gogs holds the deliveries back.
    pub(super) async fn push_a_burst(&mut self) -> Result<()> {
        self.gogs.set_faults(Faults { deliveries_paused: true, ..Faults::default() });
        for _ in 0..self.pushes_per_repository() {
            for repository in REPOSITORIES {
                self.push(repository).await?;
            }
        }
        Ok(())
    }

    /// Lets Gogs send all deliveries of the burst, and kills the server during that or during the builds.
    pub(super) async fn kill_during_burst(&mut self, part: u64) -> Result<()> {
        let usual_ms = self.pushes_per_repository() * REPOSITORIES.len() as u64 * self.typical_build_ms() / CAPACITY;
        self.gogs.set_faults(Faults::default());
        // The approvals never end by themselves; the timeout ends them.
        let _ = tokio::time::timeout(Duration::from_millis(part * usual_ms / 1_000), self.approve_repeatedly()).await;
        ensure!(!self.process.has_exited()?, "the server exited by itself");
        self.process.kill().await
    }

    /// Approves every blocked build again and again. Errors are ignored, because the server may be down.
    async fn approve_repeatedly(&self) -> Infallible {
        loop {
            let _ = self.approve().await;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Counts the unfinished work of the killed server.
    pub(super) fn record_load(&mut self, rows: &Store) -> Result<()> {
        let builds = rows.read()?.builds(BuildFilter::default(), MAX_BUILDS)?;
        let unfinished = builds.iter().filter(|build| build.phase != Phase::Finished).count();
        let running = builds.iter().filter(|build| build.status == Status::Running).count();
        self.summary.bursts += 1;
        self.summary.unfinished += unfinished;
        self.summary.most_unfinished = self.summary.most_unfinished.max(unfinished);
        self.summary.most_running = self.summary.most_running.max(running);
        Ok(())
    }
}
