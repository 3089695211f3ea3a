//! Pushes that come all at once, so that a server dies with much in hand.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Result, ensure};
use beespace::store::Store;
use beespace::store::build::BuildFilter;
use beespace_core::build::Phase;
use beespace_core::status::Status;

use super::server::{POLL_INTERVAL, REPO, SoakServer};
use crate::gogs::Faults;

/// All that a burst goes to.
pub(super) const REPOSITORIES: [&str; 4] = [REPO, "ada/comb", "ada/meadow", "ada/nectar"];

/// Stages that a server runs at once.
pub(super) const CAPACITY: u64 = 4;

/// More builds than a round has.
const MAX_BUILDS: usize = 100;

impl SoakServer {
    /// Pushes of a burst to each repository: containers take longer.
    fn pushes_per_repository(&self) -> u64 {
        if self.image.is_some() { 2 } else { 5 }
    }

    /// Pushes to all repositories in turn. Gogs keeps for itself that it has to tell of that.
    pub(super) async fn push_a_burst(&mut self) -> Result<()> {
        self.gogs.set_faults(Faults { deliveries_paused: true, ..Faults::default() });
        for _ in 0..self.pushes_per_repository() {
            for repository in REPOSITORIES {
                self.push(repository).await?;
            }
        }
        Ok(())
    }

    /// Lets Gogs tell of the whole burst, one delivery right after the other, and kills the server meanwhile or over what comes of it.
    pub(super) async fn kill_during_burst(&mut self, part: u64) -> Result<()> {
        let usual_ms = self.pushes_per_repository() * REPOSITORIES.len() as u64 * self.typical_build_ms() / CAPACITY;
        self.gogs.set_faults(Faults::default());
        // It never ends by itself.
        let _ = tokio::time::timeout(Duration::from_millis(part * usual_ms / 1_000), self.approve_repeatedly()).await;
        ensure!(!self.process.has_exited()?, "it ended by itself");
        self.process.kill().await
    }

    /// Says yes to whatever comes to wait for a person. A server that cannot be asked now is asked again.
    async fn approve_repeatedly(&self) -> Infallible {
        loop {
            let _ = self.approve().await;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Counts what the dead had in hand.
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
