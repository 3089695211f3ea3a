//! Fetches from the forge, and pins the commit of a build.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use beespace_core::event::Claim;
use beespace_core::ids::Sha;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::git::{Call, Reach};
use super::{Mirror, SourceError};

/// Enough for the first fetch of a large repository over a slow connection.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The refs that keep commits of builds from being garbage-collected when their branch no longer contains them.
const PINS: &str = "refs/beespace/builds";

/// The credentials for a fetch from the forge.
#[derive(Debug, Clone)]
pub struct ForgeCredentials {
    token: SecretString,
}

impl ForgeCredentials {
    #[must_use]
    pub fn token(token: SecretString) -> Self {
        Self { token }
    }

    /// The token as user name, which every version of Gogs accepts; as password it works only since 0.13.
    fn header(&self) -> SecretString {
        let pair = format!("{}:x-oauth-basic", self.token.expose_secret());
        format!("Basic {}", STANDARD.encode(pair)).into()
    }
}

/// Whether the mirror has the commit of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// The commit is in the mirror and pinned.
    Found,
    /// The ref has moved to another commit, and the build's commit is no longer available.
    MovedOn { newer: Sha },
    /// Neither the commit nor its ref exists in the mirror.
    Missing,
}

impl Mirror {
    /// Updates the mirror's branches from the forge. All branches are fetched: Gogs serves only commits that are the tip of
    /// a ref, and the base of a new branch is found through the default branch.
    ///
    /// # Errors
    /// [`SourceError::ForgeUnreachable`], [`SourceError::TokenRejected`], [`SourceError::RepositoryGone`], or an internal
    /// failure.
    pub async fn fetch(&self, url: &Url, access: &ForgeCredentials) -> Result<(), SourceError> {
        let _guard = self.lock.lock().await;
        self.create().await?;
        let arguments = [
            "fetch",
            "--quiet",
            "--prune",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--end-of-options",
            url.as_str(),
            "+refs/heads/*:refs/heads/*",
        ];
        let call = Call::new(arguments).reach(Reach::Forge).authorization(access.header()).timeout(FETCH_TIMEOUT);
        let ran = self.git.run(&self.directory, call).await;
        if !ran.as_ref().is_ok_and(|ran| ran.code == Some(0)) {
            // The fetch may have filled the disk, and every other build waits for that space.
            self.remove_leftovers().await;
        }
        let ran = ran?;
        if ran.code == Some(0) { Ok(()) } else { Err(SourceError::from_fetch_stderr(&ran.stderr)) }
    }

    /// Removes the temporary files of an interrupted fetch, which git would keep for two weeks. Must not run during a fetch.
    async fn remove_leftovers(&self) {
        let objects = self.directory.join("objects");
        let removed = tokio::task::spawn_blocking(move || remove_temporary(&objects)).await.unwrap_or(Ok(()));
        if let Err(error) = removed {
            tracing::warn!(mirror = %self.directory.display(), %error, "could not remove the temporary files of a failed fetch");
        }
    }

    /// Pins `sha` if the mirror has it: the commit then stays, even if `git_ref` moves or disappears.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be read.
    pub async fn pin(&self, sha: &Sha, git_ref: &str) -> Result<Pin, SourceError> {
        if !self.exists() {
            return Ok(Pin::Missing);
        }
        if self.has_commit(sha).await? {
            self.add_pin_ref(sha).await?;
            return Ok(Pin::Found);
        }
        Ok(self.tip(git_ref).await?.map_or(Pin::Missing, |newer| Pin::MovedOn { newer }))
    }

    /// Keeps a commit from being garbage-collected.
    pub(super) async fn add_pin_ref(&self, sha: &Sha) -> Result<(), SourceError> {
        let pin = format!("{PINS}/{sha}");
        self.git.run_checked(&self.directory, Call::new(["update-ref", "--end-of-options", &pin, sha.as_str()])).await.map(drop)
    }

    /// A commit's message and its author as the commit claims it.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror does not have the commit.
    pub async fn commit_message(&self, sha: &Sha) -> Result<(String, Claim), SourceError> {
        let format = "--format=tformat:%an%x00%ae%x00%B";
        let arguments = ["show", "--no-patch", "--no-notes", "--encoding=UTF-8", format, "--end-of-options", sha.as_str()];
        let output = self.git.run_checked(&self.directory, Call::new(arguments).cap(8 * 1024 * 1024)).await?;
        let output = String::from_utf8_lossy(&output);
        let mut parts = output.splitn(3, '\0');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let author = Claim { name: part(), email: part() };
        Ok((part().trim_end_matches('\n').to_owned(), author))
    }

    /// The commit that a ref of the mirror points to.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be read.
    pub async fn tip(&self, git_ref: &str) -> Result<Option<Sha>, SourceError> {
        if !beespace_core::git_ref::is_well_formed(git_ref) {
            return Ok(None);
        }
        let call = Call::new(["show-ref", "--verify", "--hash", "--end-of-options", git_ref]);
        let ran = self.git.run(&self.directory, call).await?;
        Ok(Sha::new(String::from_utf8_lossy(&ran.stdout).trim()).ok())
    }

    /// Whether the mirror has a commit with all of its objects: an interrupted fetch may have left the commit object alone.
    pub(super) async fn has_commit(&self, sha: &Sha) -> Result<bool, SourceError> {
        // Everything that branches reach is complete: git updates them after all objects have arrived.
        let arguments = ["rev-list", "--objects", "--quiet", "--not", "--branches", "--not", "--end-of-options", sha.as_str()];
        let ran = self.git.run(&self.directory, Call::new(arguments).timeout(FETCH_TIMEOUT)).await?;
        Ok(ran.code == Some(0))
    }

    pub(super) fn exists(&self) -> bool {
        self.directory.join("HEAD").is_file()
    }

    /// Creates the empty mirror under a temporary name and renames it, so that a crash leaves no incomplete mirror.
    async fn create(&self) -> Result<(), SourceError> {
        if self.exists() {
            return Ok(());
        }
        let internal = |error: std::io::Error| SourceError::internal(format!("cannot create the mirror: {error}"));
        let new = self.directory.with_extension("new");
        if tokio::fs::try_exists(&new).await.map_err(internal)? {
            tokio::fs::remove_dir_all(&new).await.map_err(internal)?;
        }
        tokio::fs::create_dir_all(&new).await.map_err(internal)?;
        self.git.run_checked(&new, Call::new(["init", "--quiet", "--bare", "--template=", "--initial-branch=main"])).await?;
        // Set in the mirror's own configuration: git does not pass our configuration to the program that serves a fetch
        // from disk.
        self.git.run_checked(&new, Call::new(["config", "uploadpack.allowAnySHA1InWant", "true"])).await?;
        tokio::fs::rename(&new, &self.directory).await.map_err(internal)
    }
}

/// Removes git's temporary files below an objects folder.
fn remove_temporary(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let is_temporary = entry.file_name().to_string_lossy().starts_with("tmp_");
        match (entry.file_type()?.is_dir(), is_temporary) {
            (true, true) => std::fs::remove_dir_all(entry.path())?,
            (true, false) => remove_temporary(&entry.path())?,
            (false, true) => std::fs::remove_file(entry.path())?,
            (false, false) => {}
        }
    }
    Ok(())
}
