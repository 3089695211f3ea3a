//! The commit of a build: fetched into the mirror, pinned, and asked about. What only Gogs, or room on the disk, can mend is waited for.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use beespace_core::build::{Base, Build, Head};
use beespace_core::event::Cause;
use beespace_core::ids::Sha;
use beespace_core::reason::Reason;
use beespace_core::status::Status;
use beespace_core::trigger;
use beespace_wasm::{BoxFuture, SourceEntry, SourceFiles, SourceKind};
use tokio::sync::Mutex;
use url::Url;

use crate::app::App;
use crate::clock::now;
use crate::source::{self, Checkout, CheckoutRequest, EntryKind, Mirror, Pin, SourceError, Tree};
use crate::store::repository::Repositories as _;
use crate::worker::Trouble;

/// Where a pipeline file may lie.
pub const PIPELINE_FILE: &str = ".beespace.yml";
/// And where several will.
const PIPELINE_FOLDER: &str = ".beespace/*.yml";
/// Bytes of it at most (rule 8 of the pipeline file).
const PIPELINE_FILE_BYTES: u64 = 256 << 10;
/// How long a build waits for Gogs, or for room, before it is given up.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A commit that is here to stay.
#[derive(Debug)]
pub struct Commit {
    pub head: Head,
    mirror: Mirror,
}

/// What became of looking for it.
#[derive(Debug)]
pub enum Resolved {
    Commit(Box<Commit>),
    /// The build ends here.
    Over(Status, Reason),
    /// It asked not to be built.
    Ignored(Reason),
}

/// A file as it was read, or why what lies there cannot be read.
#[derive(Debug)]
pub struct File {
    pub path: String,
    pub bytes: Vec<u8>,
}

/// Finds the build's commit.
///
/// # Errors
/// [`Trouble::CallKind`] while Gogs cannot give it, or there is no room for it; the build shows why.
pub async fn resolve(app: &App, build: &Build) -> Result<Resolved, Trouble> {
    let mirror = app.mirrors.of(build.event.repository.id);
    match find_commit(app, build, &mirror).await {
        Ok(resolved) => Ok(resolved),
        Err(error) if error.waits() => wait_or_give_up(app, build, &error).await,
        Err(error) => Err(Trouble::Failed(error.into())),
    }
}

async fn find_commit(app: &App, build: &Build, mirror: &Mirror) -> Result<Resolved, SourceError> {
    let (sha, git_ref) = (build.event.sha(), build.event.git_ref());
    let fetched = mirror.fetch(&clone_url(app, build), &app.forge.access()).await;
    let pin = match mirror.pin(sha, &git_ref).await {
        // A commit that is here already is built while Gogs is away.
        Ok(Pin::Found) => Pin::Found,
        other => {
            fetched?;
            other?
        }
    };
    match pin {
        Pin::Found => {}
        Pin::MovedOn { newer } => return Ok(Resolved::Over(Status::Skipped, moved_on(&git_ref, sha, &newer))),
        Pin::Missing => return Err(SourceError::ForgeAway(format!("it does not give {} yet", sha.short()))),
    }
    let ((message, author), base) = tokio::try_join!(mirror.message(sha), base(mirror, build))?;
    // A person who restarts a build wants it, whatever the message says.
    if let Some(word) = trigger::skip_directive(&message).filter(|_| build.restart_of.is_none()) {
        return Ok(Resolved::Ignored(trigger::skip_reason(word)));
    }
    let head = Head { sha: sha.clone(), message, author, base };
    Ok(Resolved::Commit(Box::new(Commit { head, mirror: mirror.clone() })))
}

/// Where git finds the build's repository by its present name: it may be called otherwise since the event, and Gogs knows no old names.
fn clone_url(app: &App, build: &Build) -> Url {
    let told = &build.event.repository;
    let known = app.store.read().and_then(|read| read.repository(told.id)).ok().flatten();
    app.forge.clone_url(known.as_ref().map_or(&told.name, |known| &known.name))
}

fn moved_on(git_ref: &str, sha: &Sha, newer: &Sha) -> Reason {
    let message =
        format!("{git_ref} moved on to {} before {} could be fetched, and Gogs gives it no more", newer.short(), sha.short());
    Reason::new("moved-on", message)
}

/// Shows the reason on the build and says when to try again; after a day the build ends.
async fn wait_or_give_up(app: &App, build: &Build, error: &SourceError) -> Result<Resolved, Trouble> {
    let waited = now().since(build.created_at);
    if waited > MAX_WAIT {
        return Ok(Resolved::Over(Status::Error, error.retries_exhausted_reason(MAX_WAIT)));
    }
    // As old a wait, as long a pause: 1 s at first, 10 minutes at most.
    let attempt = (waited.as_secs().max(1).ilog2() / 2 + 1).min(6);
    let pause = beespace_core::time::backoff(attempt);
    let mut reason = error.reason();
    reason.message = format!("{}; next try in {} s", reason.message, pause.as_secs());
    app.store.set_waiting_reason(build.id, reason).await?;
    Err(Trouble::Wait { until: now() + pause })
}

/// The pipeline file of the commit; none where there is none, a reason where something else lies there.
///
/// # Errors
/// Trouble with the mirror.
pub async fn pipeline_file(commit: &Commit) -> Result<Option<Result<File, Reason>>, Trouble> {
    match commit.mirror.read_file(&commit.head.sha, PIPELINE_FILE, PIPELINE_FILE_BYTES).await {
        Ok(read) => Ok(Some(Ok(File { path: PIPELINE_FILE.to_owned(), bytes: read.bytes }))),
        Err(SourceError::NotFound) => Ok(None),
        Err(error @ (SourceError::NotAFile { .. } | SourceError::TooLarge { .. })) => {
            let mut reason = error.reason();
            reason.message = format!("{PIPELINE_FILE}: {}", reason.message);
            Ok(Some(Err(reason)))
        }
        Err(error) => Err(Trouble::Failed(error.into())),
    }
}

/// Whether the commit has several pipeline files in the folder for them.
pub async fn has_pipeline_folder(commit: &Commit) -> bool {
    let found = commit.mirror.tree(&commit.head.sha).await.and_then(|tree| tree.matching(PIPELINE_FOLDER, None, 1));
    found.is_ok_and(|entries| !entries.is_empty())
}

async fn base(mirror: &Mirror, build: &Build) -> Result<Base, SourceError> {
    let Cause::Push(push) = &build.event.cause;
    let push = source::PushRange {
        before: push.before.as_ref(),
        left_at: push.last_known_tip.as_ref(),
        after: &push.after,
        branch: &push.branch,
        default_branch: &build.event.repository.default_branch,
    };
    mirror.base(push).await
}

/// A working tree of the commit, for the workspace of a stage.
///
/// # Errors
/// [`SourceError::DiskFull`], [`SourceError::TimedOut`], or trouble with the mirror.
pub async fn checkout(app: &App, build: &Build, sha: &Sha, depth: u32) -> Result<Checkout, SourceError> {
    let origin = clone_url(app, build);
    let branch = build.event.branch().unwrap_or(&build.event.repository.default_branch);
    let request = CheckoutRequest { sha, branch, depth: NonZeroU32::new(depth), origin: &origin };
    let scratch = app.config.data.dir.join("scratch");
    app.mirrors.of(build.event.repository.id).checkout(request, &scratch).await
}

/// The files of a commit, for step types.
#[derive(Debug)]
pub struct CommitFiles {
    mirror: Mirror,
    sha: Sha,
    /// Listed when it is asked for first: a plugin asks page by page, and several do.
    tree: Mutex<Option<Arc<Tree>>>,
}

impl CommitFiles {
    #[must_use]
    pub fn of(mirror: Mirror, build: &Build) -> Arc<Self> {
        let sha = build.head.as_ref().map_or_else(|| build.event.sha(), |head| &head.sha);
        Arc::new(Self { mirror, sha: sha.clone(), tree: Mutex::default() })
    }

    /// The list of them, from git or from whoever has asked before.
    ///
    /// # Errors
    /// As [`Mirror::tree`].
    pub async fn tree(&self) -> Result<Arc<Tree>, SourceError> {
        let mut tree = self.tree.lock().await;
        if let Some(tree) = &*tree {
            return Ok(Arc::clone(tree));
        }
        let listed = Arc::new(self.mirror.tree(&self.sha).await?);
        Ok(Arc::clone(tree.insert(listed)))
    }

    /// Lets go of the list, which may be long, unless somebody is asking for it.
    pub fn drop_tree(&self) {
        if let Ok(mut tree) = self.tree.try_lock() {
            *tree = None;
        }
    }
}

/// Bytes of a file that a step type may read.
const STEP_FILE_BYTES: u64 = 16 << 20;
/// Entries of one page.
const PAGE: usize = 1_000;

impl SourceFiles for CommitFiles {
    fn list_paths<'a>(
        &'a self,
        glob: &'a str,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<SourceEntry>, beespace_wasm::SourceError>> {
        Box::pin(async move {
            let entries = self.tree().await.and_then(|tree| tree.matching(glob, after, PAGE)).map_err(plugin_error)?;
            Ok(entries.into_iter().filter_map(plugin_entry).collect())
        })
    }

    fn read<'a>(&'a self, path: &'a str, offset: u64, length: u32) -> BoxFuture<'a, Result<Vec<u8>, beespace_wasm::SourceError>> {
        Box::pin(async move {
            let file = self.mirror.read_file(&self.sha, path, STEP_FILE_BYTES).await.map_err(plugin_error)?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.bytes.len());
            let end = start.saturating_add(length as usize).min(file.bytes.len());
            Ok(file.bytes.get(start..end).unwrap_or_default().to_vec())
        })
    }
}

/// A directory is none of the files.
fn plugin_entry(entry: source::TreeEntry) -> Option<SourceEntry> {
    let kind = match entry.kind {
        EntryKind::File => SourceKind::File,
        EntryKind::Executable => SourceKind::Executable,
        EntryKind::Symlink => SourceKind::Symlink,
        EntryKind::Submodule => SourceKind::Submodule,
        EntryKind::Directory => return None,
    };
    Some(SourceEntry { path: entry.path, kind, size: entry.size })
}

fn plugin_error(error: SourceError) -> beespace_wasm::SourceError {
    match error {
        SourceError::NotFound => beespace_wasm::SourceError::NotFound,
        SourceError::NotAFile { .. } => beespace_wasm::SourceError::Denied,
        SourceError::TooLarge { .. } => beespace_wasm::SourceError::TooLarge,
        other => beespace_wasm::SourceError::Unavailable(other.to_string()),
    }
}
