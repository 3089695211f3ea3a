//! `beespace:plugin/source`: the files of the commit, as stored in git.

use crate::bindings::step::beespace::plugin::source;
use crate::ports::source::{SourceEntry, SourceError, SourceKind};
use crate::state::State;

/// Maximum number of paths in one page of a listing.
pub(crate) const MAX_PAGE_PATHS: usize = 1_000;
/// Maximum number of bytes of one read.
pub(crate) const MAX_READ: u32 = 1 << 20;

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
        let Some(files) = &self.resources.source else {
            return Ok(Err(source::SourceError::Denied));
        };
        let listed = files.list_paths(&glob, after.as_deref()).await;
        Ok(listed.map(|entries| entries.into_iter().take(MAX_PAGE_PATHS).map(entry).collect()).map_err(Into::into))
    }

    async fn read(&mut self, path: String, offset: u64, length: u32) -> wasmtime::Result<Result<Vec<u8>, source::SourceError>> {
        let Some(files) = &self.resources.source else {
            return Ok(Err(source::SourceError::Denied));
        };
        Ok(files.read(&path, offset, length.min(MAX_READ)).await.map_err(Into::into))
    }
}
