//! The baseline: the time that the engine and git need without Beespace.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use beespace_tests::docker;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

fn run(image: &str, script: &str) -> Command {
    let mut command = Command::new("docker");
    command.args(["--host", docker::HOST, "run", "--rm", image, "sh", "-ec", script]).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// From `docker run` to the first line of output.
pub(crate) async fn first_line(image: &str) -> Result<Duration> {
    let begin = Instant::now();
    let mut child = run(image, "echo here").spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    lines.next_line().await?.context("the container printed nothing")?;
    let took = begin.elapsed();
    child.wait().await?;
    Ok(took)
}

/// A complete clone into an empty directory.
pub(crate) async fn clone(url: &str) -> Result<Duration> {
    let folder = tempfile::tempdir()?;
    let begin = Instant::now();
    let status =
        Command::new("git").args(["clone", "--quiet", "--depth", "50", url, "."]).current_dir(folder.path()).status().await?;
    anyhow::ensure!(status.success(), "git clone failed");
    Ok(begin.elapsed())
}

/// A container whose output is read and discarded.
pub(crate) async fn discard_output(image: &str, script: &str) -> Result<Duration> {
    let begin = Instant::now();
    let status = run(image, script).stdout(Stdio::null()).status().await?;
    anyhow::ensure!(status.success(), "the container failed");
    Ok(begin.elapsed())
}
