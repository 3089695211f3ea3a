//! The files of a commit as step types read them, through the host functions of the plugin interface.

use std::sync::Arc;

use beespace_core::build::Build;
use beespace_core::ids::Sha;
use beespace_wasm::{BoxFuture, SourceEntry, SourceFiles, SourceKind};
use tokio::sync::Mutex;

use super::objects::{EntryKind, Tree, TreeEntry};
use super::{Mirror, SourceError};

/// The largest file that a step type may read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Entries per page.
const PAGE: usize = 1_000;

/// The files of a commit.
#[derive(Debug)]
pub struct CommitFiles {
    mirror: Mirror,
    /// None before the commit is fetched.
    sha: Option<Sha>,
    /// Listed at the first request and then shared: a plugin requests page by page, and several plugins do.
    tree: Mutex<Option<Arc<Tree>>>,
}

impl CommitFiles {
    #[must_use]
    pub fn of(mirror: Mirror, build: &Build) -> Arc<Self> {
        Arc::new(Self { mirror, sha: build.sha().cloned(), tree: Mutex::default() })
    }

    /// The list of files, from git or from memory.
    ///
    /// # Errors
    /// As [`Mirror::tree`].
    pub async fn tree(&self) -> Result<Arc<Tree>, SourceError> {
        let mut tree = self.tree.lock().await;
        if let Some(tree) = &*tree {
            return Ok(Arc::clone(tree));
        }
        let listed = Arc::new(self.mirror.tree(self.sha()?).await?);
        Ok(Arc::clone(tree.insert(listed)))
    }

    fn sha(&self) -> Result<&Sha, SourceError> {
        self.sha.as_ref().ok_or_else(|| SourceError::Internal("the commit is not fetched yet".to_owned()))
    }

    /// Frees the list, which may be long, unless a request is waiting for it.
    pub fn drop_tree(&self) {
        if let Ok(mut tree) = self.tree.try_lock() {
            *tree = None;
        }
    }
}

impl SourceFiles for CommitFiles {
    fn list_paths<'a>(
        &'a self,
        glob: &'a str,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<SourceEntry>, beespace_wasm::SourceError>> {
        Box::pin(async move {
            let tree = self.tree().await.map_err(plugin_error)?;
            let (glob, after) = (glob.to_owned(), after.map(str::to_owned));
            // A long list takes tens of milliseconds, during which a thread for guests would serve no other call.
            // If the plugin's call exceeds its time limit, this future is dropped and the search ends, too.
            let waits = Arc::new(());
            let is_awaited = Arc::downgrade(&waits);
            let is_wanted = move || is_awaited.strong_count() > 0;
            let found = tokio::task::spawn_blocking(move || tree.matching(&glob, after.as_deref(), PAGE, is_wanted)).await;
            drop(waits);
            let entries = found.map_err(|error| beespace_wasm::SourceError::Unavailable(error.to_string()))?;
            Ok(entries.map_err(plugin_error)?.into_iter().filter_map(plugin_entry).collect())
        })
    }

    fn read<'a>(&'a self, path: &'a str, offset: u64, length: u32) -> BoxFuture<'a, Result<Vec<u8>, beespace_wasm::SourceError>> {
        Box::pin(async move {
            let sha = self.sha().map_err(plugin_error)?;
            let file = self.mirror.read_file(sha, path, MAX_FILE_BYTES).await.map_err(plugin_error)?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.bytes.len());
            let end = start.saturating_add(length as usize).min(file.bytes.len());
            Ok(file.bytes.get(start..end).unwrap_or_default().to_vec())
        })
    }
}

/// The entry in the plugin interface; none for a directory, which is not a file.
fn plugin_entry(entry: TreeEntry) -> Option<SourceEntry> {
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

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::source::Mirrors;

    #[test]
    fn a_list_is_searched_on_a_blocking_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let mirror = Mirrors::new("mirrors".into(), "home".into(), None).of(beespace_core::ids::RepositoryId(1));
            let sha = Sha::new(&"ab".repeat(20)).unwrap();
            let files = CommitFiles { mirror, sha: Some(sha), tree: Mutex::new(Some(Arc::default())) };
            let (release, released) = std::sync::mpsc::channel::<()>();
            let occupies = tokio::task::spawn_blocking(move || released.recv());
            let mut listing = files.list_paths("**", None);
            assert!((&mut listing).now_or_never().is_none(), "the only blocking thread is occupied");
            release.send(()).unwrap();
            assert_eq!(listing.await.unwrap(), []);
            occupies.await.unwrap().unwrap();
        });
    }
}
