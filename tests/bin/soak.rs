//! Kills servers for as long as requested. Started by `tests/soak`.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use beespace_tests::crash_soak::{self, Campaign, kill};
use clap::Parser;

/// With this many kills on Docker every fail point is hit.
const ENOUGH_FOR_COVERAGE: usize = 200;

#[derive(Debug, Parser)]
struct Arguments {
    /// Number of kills; a quarter of them with Docker
    #[arg(long, default_value_t = 1000)]
    kills: usize,
    /// Seed of an earlier run, to repeat its order
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    println!("seed {seed}");
    let program = std::env::current_exe()?.with_file_name("beespace-under-test");
    let docker_kills = arguments.kills / 4;
    let campaign = Campaign {
        program: program.to_str().context("the path of the program is not UTF-8")?.to_owned(),
        seed,
        kills: arguments.kills - docker_kills,
        docker_kills,
    };
    let began = Instant::now();
    let summary = crash_soak::run(campaign).await?;
    let missed: Vec<String> =
        kill::fail_points().into_iter().filter(|point| !summary.docker_at_points.contains_key(point)).collect();
    ensure!(
        missed.is_empty() || docker_kills < ENOUGH_FOR_COVERAGE,
        "with Docker no server was killed at {missed:?}: {summary:?}"
    );
    let (kills, bursts, seconds) = (summary.kills, summary.bursts, began.elapsed().as_secs());
    println!(
        "{kills} kills in {seconds} s, {bursts} of them in a burst of pushes, and nothing was lost, done twice or left over"
    );
    println!("{}", serde_json::to_string(&summary)?);
    Ok(())
}
