//! Gets what the forge has, and pins the commit of a build.

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

/// A first fetch of a large repository through a slow line.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Where commits of builds are kept from being collected when their branch goes another way.
const PINS: &str = "refs/beespace/builds";

/// Who asks the forge.
#[derive(Debug, Clone)]
pub struct ForgeCredentials {
    token: SecretString,
}

impl ForgeCredentials {
    #[must_use]
    pub fn token(token: SecretString) -> Self {
        Self { token }
    }

    /// The token as user name: every version of Gogs takes that; as password only those since 0.13.
    fn header(&self) -> SecretString {
        let pair = format!("{}:x-oauth-basic", self.token.expose_secret());
        format!("Basic {}", STANDARD.encode(pair)).into()
    }
}

/// Whether the commit of a build is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// It is, and stays.
    Found,
    /// The ref went on and its old commit is gone.
    MovedOn { newer: Sha },
    /// Neither the commit nor its ref is there.
    Missing,
}

impl Mirror {
    /// Makes the mirror's branches those of the forge. Everything is fetched, because Gogs gives no commit that is not the tip of a
    /// ref, and because questions about a new branch need the default branch too.
    ///
    /// # Errors
    /// [`SourceError::ForgeUnreachable`], [`SourceError::TokenRejected`], [`SourceError::RepositoryGone`], or our own trouble.
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
            // It may have filled the disk, and everybody else waits for that room.
            self.remove_leftovers().await;
        }
        let ran = ran?;
        if ran.code == Some(0) { Ok(()) } else { Err(SourceError::from_fetch_stderr(&ran.stderr)) }
    }

    /// Removes what a fetch that did not end leaves behind: git keeps it for two weeks. Not while one goes on.
    async fn remove_leftovers(&self) {
        let objects = self.directory.join("objects");
        let removed = tokio::task::spawn_blocking(move || remove_temporary(&objects)).await.unwrap_or(Ok(()));
        if let Err(error) = removed {
            tracing::warn!(mirror = %self.directory.display(), %error, "what a fetch has left cannot be removed");
        }
    }

    /// Whether `sha` is here; if it is, it stays, whatever becomes of `git_ref`.
    ///
    /// # Errors
    /// [`SourceError`] where the mirror cannot be read.
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

    /// Keeps a commit from being collected.
    pub(super) async fn add_pin_ref(&self, sha: &Sha) -> Result<(), SourceError> {
        let pin = format!("{PINS}/{sha}");
        self.git.run_checked(&self.directory, Call::new(["update-ref", "--end-of-options", &pin, sha.as_str()])).await.map(drop)
    }

    /// What git knows of a commit: its message and who it says wrote it.
    ///
    /// # Errors
    /// [`SourceError`] where the commit is not here.
    pub async fn message(&self, sha: &Sha) -> Result<(String, Claim), SourceError> {
        let format = "--format=tformat:%an%x00%ae%x00%B";
        let arguments = ["show", "--no-patch", "--no-notes", "--encoding=UTF-8", format, "--end-of-options", sha.as_str()];
        let told = self.git.run_checked(&self.directory, Call::new(arguments).cap(8 * 1024 * 1024)).await?;
        let told = String::from_utf8_lossy(&told);
        let mut parts = told.splitn(3, '\0');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let author = Claim { name: part(), email: part() };
        Ok((part().trim_end_matches('\n').to_owned(), author))
    }

    /// Where a ref stands in the mirror.
    ///
    /// # Errors
    /// [`SourceError`] where the mirror cannot be read.
    pub async fn tip(&self, git_ref: &str) -> Result<Option<Sha>, SourceError> {
        if !beespace_core::git_ref::is_well_formed(git_ref) {
            return Ok(None);
        }
        let call = Call::new(["show-ref", "--verify", "--hash", "--end-of-options", git_ref]);
        let ran = self.git.run(&self.directory, call).await?;
        Ok(Sha::new(String::from_utf8_lossy(&ran.stdout).trim()).ok())
    }

    /// Whether a commit is here with all that belongs to it: a fetch that did not end may have left the commit alone.
    pub(super) async fn has_commit(&self, sha: &Sha) -> Result<bool, SourceError> {
        // What branches lead to is whole: git updates them when everything is here.
        let arguments = ["rev-list", "--objects", "--quiet", "--not", "--branches", "--not", "--end-of-options", sha.as_str()];
        let ran = self.git.run(&self.directory, Call::new(arguments).timeout(FETCH_TIMEOUT)).await?;
        Ok(ran.code == Some(0))
    }

    pub(super) fn exists(&self) -> bool {
        self.directory.join("HEAD").is_file()
    }

    /// Makes the empty mirror beside its place and moves it there whole, so that a crash leaves none that is half made.
    async fn create(&self) -> Result<(), SourceError> {
        if self.exists() {
            return Ok(());
        }
        let trouble = |error: std::io::Error| SourceError::trouble(format!("the mirror cannot be made: {error}"));
        let new = self.directory.with_extension("new");
        if tokio::fs::try_exists(&new).await.map_err(trouble)? {
            tokio::fs::remove_dir_all(&new).await.map_err(trouble)?;
        }
        tokio::fs::create_dir_all(&new).await.map_err(trouble)?;
        self.git.run_checked(&new, Call::new(["init", "--quiet", "--bare", "--template=", "--initial-branch=main"])).await?;
        // In the mirror's own file: git does not hand our configuration to the program that serves a fetch from this disk.
        self.git.run_checked(&new, Call::new(["config", "uploadpack.allowAnySHA1InWant", "true"])).await?;
        tokio::fs::rename(&new, &self.directory).await.map_err(trouble)
    }
}

/// Removes git's temporary files below a folder of objects.
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
