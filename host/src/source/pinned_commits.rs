//! The commits of builds in the mirror: whether one is there, and the refs that keep it from being garbage-collected when its
//! branch no longer contains it.

use std::fmt::Write as _;
use std::time::Duration;

use beespace_core::build::{Base, Head};
use beespace_core::event::{Claim, MAX_MESSAGE_CHARS, Revision, shorten, tag_ref};
use beespace_core::ids::{BuildId, Sha};
use beespace_core::trust::CommitLocation;

use super::git::Call;
use super::{Mirror, SourceError};

/// Each build has a folder of its own with the refs `head`, `base` and `merge`, so a commit stays until its last build is
/// removed.
const PINS: &str = "refs/beespace/builds";

/// Enough to check that all objects of a large commit are there.
const COMPLETENESS_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Whether the mirror has the commit of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The commit is in the mirror with all of its objects.
    Found(Sha),
    /// The ref has moved to another commit, and the build's commit is no longer available.
    MovedOn { newer: Sha },
    /// Neither the commit nor its ref exists in the mirror.
    Missing,
    /// The tag names a tree, a blob, or an object that is not there.
    NotACommit,
}

impl Mirror {
    /// Looks for the commit of a build that was pushed to `git_ref`.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be read.
    pub async fn find(&self, sha: &Sha, git_ref: &str) -> Result<Lookup, SourceError> {
        if !self.exists() {
            return Ok(Lookup::Missing);
        }
        if self.has_commit(sha).await? {
            return Ok(Lookup::Found(sha.clone()));
        }
        Ok(self.tip(git_ref).await?.map_or(Lookup::Missing, |newer| Lookup::MovedOn { newer }))
    }

    /// Looks for the commit of a tag. `object` is what the tag pointed to when Gogs reported it. A tag that was moved meanwhile
    /// is reported again, so its former commit is built only if the mirror has it.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be read.
    pub async fn find_tag(&self, name: &str, object: Option<&Sha>) -> Result<Lookup, SourceError> {
        if !self.exists() {
            return Ok(Lookup::Missing);
        }
        let tip = self.tip(&tag_ref(name)).await?;
        if let Some(object) = object
            && let Some(commit) = self.peel(object).await?
        {
            return Ok(Lookup::Found(commit));
        }
        match (tip, object) {
            (None, _) => Ok(Lookup::Missing),
            (Some(tip), Some(object)) if tip != *object => Ok(Lookup::MovedOn { newer: tip }),
            (Some(tip), _) => Ok(self.peel(&tip).await?.map_or(Lookup::NotACommit, Lookup::Found)),
        }
    }

    /// Looks for the commit of a started build, as the last fetch left it.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be read.
    pub async fn find_revision(&self, revision: &Revision) -> Result<Lookup, SourceError> {
        match revision {
            Revision::Tag(name) => self.find_tag(name, None).await,
            Revision::Commit(sha) => self.find(sha, &revision.git_ref()).await,
            Revision::Branch(_) if !self.exists() => Ok(Lookup::Missing),
            Revision::Branch(_) => Ok(self.tip(&revision.git_ref()).await?.map_or(Lookup::Missing, Lookup::Found)),
        }
    }

    /// The commit that an object is, or that an annotated tag names; none if it is something else or not complete in the mirror.
    async fn peel(&self, object: &Sha) -> Result<Option<Sha>, SourceError> {
        let commit = format!("{object}^{{commit}}");
        let call = Call::new(["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]);
        let ran = self.git.run(&self.directory, call).await?;
        let Ok(commit) = Sha::new(String::from_utf8_lossy(&ran.stdout).trim()) else { return Ok(None) };
        Ok(if self.has_commit(&commit).await? { Some(commit) } else { None })
    }

    /// Keeps the two commits of a build until [`Mirror::unpin`], even if their branch moves or disappears.
    ///
    /// # Errors
    /// [`SourceError`] if the refs cannot be written.
    pub async fn pin(&self, build: BuildId, head: &Head) -> Result<(), SourceError> {
        let _in_use = self.hold().await;
        self.add_pin(build, "head", &head.sha).await?;
        match &head.base {
            Base::Commit(base) => self.add_pin(build, "base", base).await,
            Base::Unknown(_) => Ok(()),
        }
    }

    /// Keeps the merge that a build checks out until [`Mirror::unpin`].
    pub(super) async fn pin_merge(&self, build: BuildId, merge: &Sha) -> Result<(), SourceError> {
        let _in_use = self.hold().await;
        self.add_pin(build, "merge", merge).await
    }

    async fn add_pin(&self, build: BuildId, role: &str, sha: &Sha) -> Result<(), SourceError> {
        let pin = format!("{PINS}/{build}/{role}");
        // Only the task that prepares the build writes this ref, so a lock is left over from a git that was killed.
        let lock = self.directory.join(format!("{pin}.lock"));
        if let Err(error) = tokio::fs::remove_file(&lock).await
            && error.kind() != std::io::ErrorKind::NotFound
            && error.kind() != std::io::ErrorKind::NotADirectory
        {
            return Err(SourceError::internal(format!("cannot remove {}: {error}", lock.display())));
        }
        self.git.run_checked(&self.directory, Call::new(["update-ref", "--end-of-options", &pin, sha.as_str()])).await.map(drop)
    }

    /// Releases the commits of builds that are removed. git's next collection removes their objects, unless something else
    /// reaches them.
    ///
    /// # Errors
    /// [`SourceError`] if the refs cannot be removed.
    pub async fn unpin(&self, builds: &[BuildId]) -> Result<(), SourceError> {
        // A fetch removes refs, too, and both lock the file of packed refs.
        let _no_fetch = self.state.fetches.lock().await;
        if !self.exists() {
            return Ok(());
        }
        let mut deletions = String::new();
        for build in builds {
            for role in ["head", "base", "merge"] {
                // Writing to a string cannot fail. A ref that does not exist is no error.
                let _ = writeln!(deletions, "delete {PINS}/{build}/{role}");
            }
        }
        let call = Call::new(["update-ref", "--stdin"]).input(deletions);
        self.git.run_checked(&self.directory, call).await?;
        self.record_garbage();
        Ok(())
    }

    /// The beginning of a commit's message, and its author as the commit claims it.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror does not have the commit.
    pub async fn commit_message(&self, sha: &Sha) -> Result<(String, Claim), SourceError> {
        let format = "--format=tformat:%an%x00%ae%x00%B";
        let arguments = ["show", "--no-patch", "--no-notes", "--encoding=UTF-8", format, "--end-of-options", sha.as_str()];
        let output = self.git.run_checked(&self.directory, Call::new(arguments).cap(8 * 1024 * 1024)).await?;
        let output = String::from_utf8_lossy(&output);
        let mut parts = output.splitn(3, '\0');
        let mut part = || parts.next().unwrap_or_default();
        let author = Claim::shortened(part(), part());
        Ok((shorten(part().trim_end_matches('\n'), MAX_MESSAGE_CHARS), author))
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

    /// Where a commit of the mirror is. The refs of pull requests and the pins of builds do not count.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror does not have the commit.
    pub async fn location(&self, sha: &Sha) -> Result<CommitLocation, SourceError> {
        // Prints the commit unless a branch or tag reaches it.
        let unreached = ["--max-count=1", "--not", "--branches", "--tags", "--not", "--end-of-options", sha.as_str()];
        let call = Call::new(std::iter::once("rev-list").chain(unreached)).timeout(COMPLETENESS_TIMEOUT);
        let listed = self.git.run_checked(&self.directory, call).await?;
        Ok(if listed.is_empty() { CommitLocation::BranchOrTag } else { CommitLocation::Elsewhere })
    }

    /// Whether the mirror has a commit with all of its objects: an interrupted fetch may have left the commit object alone.
    pub(super) async fn has_commit(&self, sha: &Sha) -> Result<bool, SourceError> {
        // Everything that branches and tags reach is complete: git updates them after all objects have arrived.
        let reached = ["--not", "--branches", "--tags", "--not", "--end-of-options", sha.as_str()];
        let arguments = ["rev-list", "--objects", "--quiet"].into_iter().chain(reached);
        let ran = self.git.run(&self.directory, Call::new(arguments).timeout(COMPLETENESS_TIMEOUT)).await?;
        Ok(ran.code == Some(0))
    }
}
