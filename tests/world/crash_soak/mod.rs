//! Servers that are killed again and again at every kind of work, and the checks afterwards.
//!
//! | file | content |
//! |---|---|
//! | [`kill`] | ways to kill a server |
//! | `server` | one server: pushes, kills, restarts |
//! | `load` | bursts of pushes |
//! | `invariants` | what must be true when the server is idle again |

mod invariants;
pub mod kill;
mod load;
mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::ensure;
use kill::KillSchedule;
use serde::Serialize;
use server::SoakServer;

/// Servers with the dummy engine that run side by side; they wait most of the time.
const DUMMY_SERVERS: usize = 3;

/// This many unfinished builds count as load.
const LOADED_BUILDS: usize = 5;

/// With this many kills in bursts, at least one must meet the load.
const MIN_BURSTS: usize = 8;

/// How many kills to carry out.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The path of the server program.
    pub program: String,
    pub seed: u64,
    /// The minimum with the dummy engine.
    pub kills: usize,
    /// The minimum with Docker.
    pub docker_kills: usize,
}

/// The outcome of a run. It contains no failures: those are errors.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    pub seed: u64,
    pub kills: usize,
    pub docker_kills: usize,
    /// Additional kills of idle servers, which never reached their fail point.
    pub idle_kills: usize,
    /// Kills at each fail point; the others came from outside.
    pub at_points: BTreeMap<String, usize>,
    /// The kills at fail points with Docker.
    pub docker_at_points: BTreeMap<String, usize>,
    /// Pushes, including those of bursts.
    pub pushes: usize,
    /// Kills during a burst of pushes.
    pub bursts: usize,
    /// The total number of unfinished builds at these kills.
    pub unfinished: usize,
    /// The largest number of unfinished builds at one kill.
    pub most_unfinished: usize,
    /// The largest number of running builds at one kill.
    pub most_running: usize,
    /// Deliveries without a confirmation, which Gogs sent again.
    pub redelivered: usize,
    pub successful_builds: usize,
    /// Builds that ended because a container was lost with its engine, and that report it.
    pub lost_builds: usize,
    /// Logs that were truncated within a frame.
    pub logs_cut: usize,
    /// Notices that arrived more than once, each time with the same key.
    pub repeated_notices: usize,
}

impl Summary {
    /// Whether a server was killed while it had much unfinished work.
    #[must_use]
    pub fn has_killed_under_load(&self) -> bool {
        self.most_unfinished >= LOADED_BUILDS && self.most_running > 1
    }

    fn add(&mut self, other: Self) {
        self.kills += other.kills;
        self.docker_kills += other.docker_kills;
        self.idle_kills += other.idle_kills;
        self.pushes += other.pushes;
        self.bursts += other.bursts;
        self.unfinished += other.unfinished;
        self.most_unfinished = self.most_unfinished.max(other.most_unfinished);
        self.most_running = self.most_running.max(other.most_running);
        self.redelivered += other.redelivered;
        self.successful_builds += other.successful_builds;
        self.lost_builds += other.lost_builds;
        self.logs_cut += other.logs_cut;
        self.repeated_notices += other.repeated_notices;
        for (all, part) in [(&mut self.at_points, other.at_points), (&mut self.docker_at_points, other.docker_at_points)] {
            for (place, times) in part {
                *all.entry(place).or_default() += times;
            }
        }
    }
}

/// Runs the campaign.
///
/// # Errors
/// The first violated invariant after a kill; the server's log is printed. Also if no burst of pushes caused load.
pub async fn run(campaign: Campaign) -> anyhow::Result<Summary> {
    // Only Docker shows what a kill leaves in an engine, so its server has a schedule of its own.
    let decks = [0, 1].map(|number| Arc::new(Mutex::new(KillSchedule::new(campaign.seed.wrapping_add(number)))));
    let share = campaign.kills.div_ceil(DUMMY_SERVERS);
    let shares = [share; DUMMY_SERVERS].into_iter().map(|share| (share, false)).chain([(campaign.docker_kills, true)]);
    let lanes = shares.zip(1..).map(|((kills, is_docker), number)| {
        let (deck, campaign) = (Arc::clone(&decks[usize::from(is_docker)]), campaign.clone());
        async move { SoakServer::open(&campaign, deck, number, is_docker).await?.run_rounds(kills).await }
    });
    let mut whole = Summary { seed: campaign.seed, ..Summary::default() };
    futures::future::try_join_all(lanes).await?.into_iter().for_each(|part| whole.add(part));
    ensure!(whole.bursts < MIN_BURSTS || whole.has_killed_under_load(), "no server was killed under load: {whole:#?}");
    Ok(whole)
}
