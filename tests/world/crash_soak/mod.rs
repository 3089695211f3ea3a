//! Servers that are killed again and again, around all that they do, and a look at what stands afterwards.
//!
//! | file | holds |
//! |---|---|
//! | [`blow`] | ways to die |
//! | [`chance`] | numbers that follow from a seed |
//! | `lane` | one server: pushes, deaths, starts |
//! | `load` | pushes that come all at once |
//! | `look` | what is to be found when it is quiet again |

pub mod chance;
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

/// Servers beside each other, as they mostly wait.
const DUMMY_SERVERS: usize = 3;

/// Builds that a server has begun and not ended are a load from so many on.
const LOADED_BUILDS: usize = 5;

/// So many deaths in bursts do not all come before or after the load.
const MIN_BURSTS: usize = 8;

/// How often servers are to be killed.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The command line.
    pub program: String,
    pub seed: u64,
    /// With the dummy engine, at least.
    pub kills: usize,
    /// With Docker, at least.
    pub docker_kills: usize,
}

/// What happened; nothing of it is a fault, for those are errors.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    pub seed: u64,
    pub kills: usize,
    pub docker_kills: usize,
    /// Deaths besides these, of servers that had nothing more to do: they never came to where they were to die.
    pub idle_kills: usize,
    /// Deaths at each fail point; the others came from outside.
    pub at_points: BTreeMap<String, usize>,
    /// Those of servers with Docker.
    pub docker_at_points: BTreeMap<String, usize>,
    /// Those of bursts included.
    pub pushes: usize,
    /// Deaths in the middle of a burst of pushes.
    pub bursts: usize,
    /// Builds that were begun and not over at these deaths, all together.
    pub unfinished: usize,
    /// The same at one of them, at most.
    pub most_unfinished: usize,
    /// Builds that ran beside each other at one of them, at most.
    pub most_running: usize,
    /// Deliveries that nobody confirmed, and that Gogs sent again.
    pub redelivered: usize,
    pub successful_builds: usize,
    /// Builds that ended because a container of theirs was lost with the engine, and that say so.
    pub lost_builds: usize,
    /// Logs that were cut in the middle of a frame.
    pub logs_cut: usize,
    /// Notices that arrived more than once, each time with the same key.
    pub repeated_notices: usize,
}

impl Summary {
    /// Whether some server died with much in hand.
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

/// Kills servers as often as wanted.
///
/// # Errors
/// The first thing that is not as it should be after a kill; the error has the server's log. Bursts of pushes that were no load.
pub async fn run(campaign: Campaign) -> anyhow::Result<Summary> {
    // What a death can leave in an engine is to be seen with Docker alone, so that one has a deck of its own.
    let decks = [0, 1].map(|number| Arc::new(Mutex::new(KillSchedule::new(campaign.seed.wrapping_add(number)))));
    let share = campaign.kills.div_ceil(DUMMY_SERVERS);
    let shares = [share; DUMMY_SERVERS].into_iter().map(|share| (share, false)).chain([(campaign.docker_kills, true)]);
    let lanes = shares.zip(1..).map(|((kills, is_docker), number)| {
        let (deck, campaign) = (Arc::clone(&decks[usize::from(is_docker)]), campaign.clone());
        async move { SoakServer::open(&campaign, deck, number, is_docker).await?.run_rounds(kills).await }
    });
    let mut whole = Summary { seed: campaign.seed, ..Summary::default() };
    futures::future::try_join_all(lanes).await?.into_iter().for_each(|part| whole.add(part));
    ensure!(whole.bursts < MIN_BURSTS || whole.has_killed_under_load(), "no server died with much in hand: {whole:#?}");
    Ok(whole)
}
