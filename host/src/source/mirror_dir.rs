//! The directory of a mirror: its creation, cleanup after a killed git, git's garbage collection, and its removal.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use beespace_core::ids::RepositoryId;
use beespace_core::time::Timestamp;

use super::git::Call;
use super::{Mirror, Mirrors, SourceError};

/// The file whose modification time is the end of the last successful fetch.
const FETCHED: &str = "beespace-fetched";
/// The file that exists while the mirror has pins that were removed since the last collection.
const GARBAGE: &str = "beespace-garbage";
/// The pause between the first removed pin and the collection, which repacks the whole mirror.
const COLLECT_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Builds wait a day for their commit, so unreachable objects stay longer than that.
const PRUNE: &str = "--prune=2.days.ago";
/// Enough to repack a large mirror on a slow disk.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// The name of a mirror that is being removed ends with this.
const REMOVED: &str = "removed";

/// The result of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collection {
    /// A build uses the mirror, or waited for it; the next pass tries again.
    InUse,
    /// git decided by the number of loose objects and packs whether to collect.
    Automatic,
    /// The mirror was repacked, because pins had been removed.
    Repacked,
}

impl Mirrors {
    /// The repositories that have a mirror. Completes removals that a crash has interrupted.
    ///
    /// # Errors
    /// [`SourceError`] if the folder of the mirrors cannot be read.
    pub async fn existing(&self) -> Result<Vec<RepositoryId>, SourceError> {
        let root = self.root.clone();
        let listed = tokio::task::spawn_blocking(move || list_mirrors(&root)).await;
        let listed = listed.map_err(|panic| SourceError::Internal(panic.to_string()))?;
        listed.map_err(|error| SourceError::internal(format!("cannot list the mirrors: {error}")))
    }
}

fn list_mirrors(root: &Path) -> std::io::Result<Vec<RepositoryId>> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("git") => ids.extend(path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).map(RepositoryId)),
            Some(REMOVED) => std::fs::remove_dir_all(&path)?,
            _ => {}
        }
    }
    Ok(ids)
}

impl Mirror {
    pub(super) fn exists(&self) -> bool {
        self.directory.join("HEAD").is_file()
    }

    /// Creates the empty mirror under a temporary name and renames it, so that a crash leaves no incomplete mirror.
    pub(super) async fn create(&self) -> Result<(), SourceError> {
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

    /// Removes what a git that was killed may leave: locks, which block every later fetch of their ref, and temporary files,
    /// which git would keep for two weeks. Must not run during a fetch. The locks of pins are left to [`Mirror::pin`], which
    /// may run beside a fetch.
    pub(super) async fn remove_leftovers(&self) {
        let directory = self.directory.clone();
        let removed = tokio::task::spawn_blocking(move || remove_leftovers(&directory)).await.unwrap_or(Ok(()));
        if let Err(error) = removed {
            tracing::warn!(mirror = %self.directory.display(), %error, "could not remove the remains of a failed fetch");
        }
    }

    /// Records that a fetch succeeded.
    pub(super) fn record_fetch(&self) {
        self.touch(FETCHED, File::create(self.directory.join(FETCHED)));
    }

    /// Records that pins were removed.
    pub(super) fn record_garbage(&self) {
        let created = File::create_new(self.directory.join(GARBAGE));
        if created.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
            return;
        }
        self.touch(GARBAGE, created);
    }

    fn touch(&self, name: &str, created: std::io::Result<File>) {
        if let Err(error) = created {
            tracing::warn!(mirror = %self.directory.display(), %error, "could not write the file {name}");
        }
    }

    /// When the last successful fetch ended; none if that is not known.
    #[must_use]
    pub fn last_fetched_at(&self) -> Option<Timestamp> {
        modified(&self.directory.join(FETCHED))
    }

    /// Collects garbage unless a build is being prepared from the mirror, or until one is. A day after pins were removed the
    /// mirror is repacked; otherwise git decides.
    ///
    /// # Errors
    /// [`SourceError`] if git fails.
    pub async fn collect_garbage(&self, now: Timestamp) -> Result<Collection, SourceError> {
        // Before the lock, so that no build can wait for it unheard.
        let is_wanted = self.state.is_wanted.notified();
        let Ok(_alone) = self.state.in_use.try_write() else { return Ok(Collection::InUse) };
        tokio::select! {
            collected = self.collect(now) => collected,
            () = is_wanted => Ok(Collection::InUse),
        }
    }

    async fn collect(&self, now: Timestamp) -> Result<Collection, SourceError> {
        if !self.exists() {
            return Ok(Collection::Automatic);
        }
        self.remove_leftovers().await;
        let garbage = self.directory.join(GARBAGE);
        let is_due = modified(&garbage).is_some_and(|since| now.since(since) >= COLLECT_AFTER);
        let arguments: &[&str] = if is_due { &["gc", "--quiet", PRUNE] } else { &["gc", "--quiet", "--auto"] };
        self.git.run_checked(&self.directory, Call::new(arguments.iter().copied()).timeout(COLLECT_TIMEOUT)).await?;
        if !is_due {
            return Ok(Collection::Automatic);
        }
        let removed = tokio::fs::remove_file(&garbage).await;
        removed.map_err(|error| SourceError::internal(format!("cannot remove {}: {error}", garbage.display())))?;
        Ok(Collection::Repacked)
    }

    /// Removes the mirror unless a build is being prepared from it; returns whether it is gone. The caller makes sure that no
    /// stage needs it.
    ///
    /// # Errors
    /// [`SourceError`] if the folder cannot be removed; the next call of [`Mirrors::existing`] completes the removal.
    pub async fn remove(&self) -> Result<bool, SourceError> {
        let Ok(_alone) = self.state.in_use.try_write() else { return Ok(false) };
        let internal = |error: std::io::Error| SourceError::internal(format!("cannot remove the mirror: {error}"));
        // Renamed first, so that a crash leaves no incomplete mirror under its name.
        let removed = self.directory.with_extension(REMOVED);
        tokio::fs::rename(&self.directory, &removed).await.map_err(internal)?;
        tokio::fs::remove_dir_all(&removed).await.map_err(internal)?;
        *self.last_failure() = None;
        Ok(true)
    }
}

fn modified(path: &Path) -> Option<Timestamp> {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

fn remove_leftovers(mirror: &Path) -> std::io::Result<()> {
    let objects = mirror.join("objects");
    if !objects.is_dir() {
        return Ok(());
    }
    remove_locks(mirror, false)?;
    for refs in ["refs/heads", "refs/tags", "refs/pull"] {
        remove_locks(&mirror.join(refs), true)?;
    }
    for folder in ["", "info", "info/commit-graphs", "pack"] {
        remove_locks(&objects.join(folder), false)?;
    }
    remove_temporary(&objects)
}

/// Removes the lock files of a folder.
fn remove_locks(folder: &Path, is_recursive: bool) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        // No ref has a name that ends with `.lock`.
        match entry.file_type()?.is_dir() {
            true if is_recursive => remove_locks(&entry.path(), true)?,
            false if entry.file_name().to_string_lossy().ends_with(".lock") => std::fs::remove_file(entry.path())?,
            _ => {}
        }
    }
    Ok(())
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
