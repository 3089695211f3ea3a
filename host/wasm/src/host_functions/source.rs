//! `beespace:plugin/source`: the files of the commit that is built, as git has them.

use crate::bindings::step::beespace::plugin::source;
use crate::host_functions::BoxFuture;
use crate::state::State;

/// Paths of one page of a listing.
pub(crate) const MAX_PAGE_PATHS: usize = 1_000;
/// Bytes of one read.
pub(crate) const MAX_READ: u32 = 1 << 20;

/// What a path of the commit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    File,
    Executable,
    Symlink,
    Submodule,
}

/// One path of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEntry {
    pub path: String,
    pub kind: SourceKind,
    pub size: u64,
}

/// Why the files of the commit could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("there is no such file in the commit")]
    NotFound,
    #[error("it may not be read")]
    Denied,
    #[error("it is too large")]
    TooLarge,
    /// Our own trouble; the text goes to the plugin.
    #[error("{0}")]
    Unavailable(String),
}

/// The files of one commit. Answers must not change while a build lasts.
pub trait SourceFiles: Send + Sync {
    /// Paths that match the glob, sorted, after `after`, at most 1,000.
    fn list_paths<'a>(&'a self, glob: &'a str, after: Option<&'a str>) -> BoxFuture<'a, Result<Vec<SourceEntry>, SourceError>>;

    /// At most `length` bytes from `offset`; none at the end. No symlink is followed.
    fn read<'a>(&'a self, path: &'a str, offset: u64, length: u32) -> BoxFuture<'a, Result<Vec<u8>, SourceError>>;
}

impl From<SourceError> for source::SourceError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::NotFound => Self::NotFound,
            SourceError::Denied => Self::Denied,
            SourceError::TooLarge => Self::TooLarge,
            SourceError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

fn entry(entry: SourceEntry) -> source::Entry {
    let kind = match entry.kind {
        SourceKind::File => source::EntryKind::File,
        SourceKind::Executable => source::EntryKind::Executable,
        SourceKind::Symlink => source::EntryKind::Symlink,
        SourceKind::Submodule => source::EntryKind::Submodule,
    };
    source::Entry { path: entry.path, kind, size: entry.size }
}

impl source::Host for State {
    async fn list_paths(
        &mut self,
        glob: String,
        after: Option<String>,
    ) -> wasmtime::Result<Result<Vec<source::Entry>, source::SourceError>> {
        let Some(files) = &self.capabilities.source else {
            return Ok(Err(source::SourceError::Denied));
        };
        let listed = files.list_paths(&glob, after.as_deref()).await;
        Ok(listed.map(|entries| entries.into_iter().take(MAX_PAGE_PATHS).map(entry).collect()).map_err(Into::into))
    }

    async fn read(&mut self, path: String, offset: u64, length: u32) -> wasmtime::Result<Result<Vec<u8>, source::SourceError>> {
        let Some(files) = &self.capabilities.source else {
            return Ok(Err(source::SourceError::Denied));
        };
        Ok(files.read(&path, offset, length.min(MAX_READ)).await.map_err(Into::into))
    }
}
