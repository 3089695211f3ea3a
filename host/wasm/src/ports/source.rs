//! The files of the commit.

use super::BoxFuture;

/// The type of a path in the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    File,
    Executable,
    Symlink,
    Submodule,
}

/// One path in the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEntry {
    pub path: String,
    pub kind: SourceKind,
    pub size: u64,
}

/// Why the files of the commit could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("the commit has no such file")]
    NotFound,
    #[error("reading the file is not allowed")]
    Denied,
    #[error("the file is too large")]
    TooLarge,
    /// An internal error. The text is passed to the plugin.
    #[error("{0}")]
    Unavailable(String),
}

/// The files of one commit. Results must not change during a build.
pub trait SourceFiles: Send + Sync {
    /// Lists at most 1,000 paths that match the glob and come after `after`, sorted.
    fn list_paths<'a>(&'a self, glob: &'a str, after: Option<&'a str>) -> BoxFuture<'a, Result<Vec<SourceEntry>, SourceError>>;

    /// Reads at most `length` bytes from `offset`, none at the end of the file. Symlinks are not followed.
    fn read<'a>(&'a self, path: &'a str, offset: u64, length: u32) -> BoxFuture<'a, Result<Vec<u8>, SourceError>>;
}
