//! The system's git, isolated from the configuration of the user who runs the tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// The refs of a repository, each with the object that it points to.
pub(super) type Refs = BTreeMap<String, String>;

/// A git command that reads only the configuration of the repository and never prompts.
pub(super) fn command(home: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end.
///
/// # Errors
/// git cannot be started or fails; the error contains git's output.
pub(super) async fn output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.output().await.context("git could not be started: is it installed and in PATH?")?;
    if !output.status.success() {
        let arguments: Vec<_> = command.as_std().get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        bail!("git {}: {}\n{}", arguments.join(" "), output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(output.stdout)
}

/// Like [`output`], for output of one line.
pub(super) async fn line(command: &mut Command) -> anyhow::Result<String> {
    Ok(String::from_utf8(output(command).await?)?.trim_end().to_owned())
}

/// Creates an empty bare repository.
pub(super) async fn init_bare(home: &Path, repository: &Path, default_branch: &str) -> anyhow::Result<()> {
    let mut init = command(home);
    init.args(["init", "--quiet", "--bare", "--template=", "--initial-branch", default_branch]).arg(repository);
    output(&mut init).await.map(drop)
}

/// Every ref of a bare repository.
pub(super) async fn refs(home: &Path, repository: &Path) -> anyhow::Result<Refs> {
    let mut list = command(home);
    list.arg("-C").arg(repository).args(["for-each-ref", "--format=%(objectname) %(refname)"]);
    let text = String::from_utf8(output(&mut list).await?)?;
    Ok(text.lines().filter_map(|line| line.split_once(' ')).map(|(sha, name)| (name.to_owned(), sha.to_owned())).collect())
}
