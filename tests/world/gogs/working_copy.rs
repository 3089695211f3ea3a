//! Pushes files as a developer would, with this machine's git.

use std::path::Path;
use std::process::Stdio;

use super::state::Repo;

/// A clone in a temporary directory.
#[derive(Debug)]
pub struct WorkingCopy {
    folder: tempfile::TempDir,
    remote: String,
}

/// git with nothing of this machine's configuration.
pub(super) fn command(directory: &Path, home: &Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("git");
    command.current_dir(directory).env_clear();
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
        .env("HOME", home)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Ada Lovelace").env(format!("GIT_{who}_EMAIL"), "ada@example.com");
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl WorkingCopy {
    pub(super) fn new(url: &str, token: &str, repo: &Repo) -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary directory: {error}"));
        let remote =
            format!("{}/{}/{}.git", url.replacen("://", &format!("://{token}:x-oauth-basic@"), 1), repo.owner, repo.name);
        Self { folder, remote }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs git there and returns what it said, without the line's end.
    ///
    /// # Panics
    /// Where git does not succeed.
    pub async fn git(&self, arguments: &[&str]) -> String {
        let output = command(self.path(), self.path()).args(arguments).output().await;
        let output = output.unwrap_or_else(|error| panic!("git cannot be started: {error}"));
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Stands on the branch as the forge has it; on a new one, that begins where the default branch stands, where it has none.
    pub async fn open(&self, branch: &str) {
        self.git(&["init", "--quiet", "--template=", "--initial-branch=work"]).await;
        self.git(&["fetch", "--quiet", &self.remote, "+refs/heads/*:refs/remotes/origin/*"]).await;
        let known = self.git(&["for-each-ref", "--format=%(refname)", "refs/remotes/origin/"]).await;
        let own = format!("refs/remotes/origin/{branch}");
        let start = [own.as_str(), "refs/remotes/origin/master", "refs/remotes/origin/main"];
        if let Some(start) = start.into_iter().find(|start| known.lines().any(|line| line == *start)) {
            self.git(&["reset", "--quiet", "--hard", start]).await;
        }
    }

    /// # Panics
    /// Where a file cannot be written.
    pub fn write(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = self.path().join(name);
            let folder = path.parent().unwrap_or_else(|| self.path());
            let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text));
            written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    /// Commits everything, also where nothing changed.
    pub async fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]).await;
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]).await;
        self.git(&["rev-parse", "HEAD"]).await
    }

    /// Pushes these refspecs.
    pub async fn push(&self, refspecs: &[&str]) {
        let arguments: Vec<&str> = ["push", "--quiet", &self.remote].into_iter().chain(refspecs.iter().copied()).collect();
        self.git(&arguments).await;
    }
}
