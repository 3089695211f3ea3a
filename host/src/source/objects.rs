//! Reads files of a commit from its git objects.

use beespace_core::ids::Sha;
use globset::GlobBuilder;

use super::git::Call;
use super::{Mirror, SourceError};

/// Enough for the names, modes and sizes of about 400,000 files.
const LIST_CAP: u64 = 64 * 1024 * 1024;

/// One entry of a commit's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Relative to the root, with `/` as separator; lossy if it is not UTF-8.
    pub path: String,
    pub kind: EntryKind,
    /// Bytes; 0 for a submodule.
    pub size: u64,
}

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    File,
    Executable,
    Symlink,
    Submodule,
    Directory,
}

impl EntryKind {
    fn of_mode(mode: &str) -> Self {
        match mode {
            "100755" => Self::Executable,
            "120000" => Self::Symlink,
            "160000" => Self::Submodule,
            "040000" => Self::Directory,
            _ => Self::File,
        }
    }

    /// The kind as people read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Executable => "executable file",
            Self::Symlink => "symbolic link",
            Self::Submodule => "submodule",
            Self::Directory => "directory",
        }
    }

    fn is_file(self) -> bool {
        matches!(self, Self::File | Self::Executable)
    }
}

/// A file with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    pub entry: TreeEntry,
    pub bytes: Vec<u8>,
}

/// The files, links and submodules of a commit, sorted by path.
#[derive(Debug, Clone, Default)]
pub struct Tree(Vec<TreeEntry>);

impl Tree {
    /// The entries whose path matches `glob` (`*` stops at `/`, `**` does not) and sorts after `after`, at most `limit`.
    ///
    /// # Errors
    /// [`SourceError::Glob`].
    pub fn matching(&self, glob: &str, after: Option<&str>, limit: usize) -> Result<Vec<TreeEntry>, SourceError> {
        let matcher = GlobBuilder::new(glob)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| SourceError::Glob(format!("{glob:?} is not a valid glob: {error}")))?
            .compile_matcher();
        let before = after.map_or(0, |after| self.0.partition_point(|entry| entry.path.as_str() <= after));
        let rest = self.0.iter().skip(before);
        Ok(rest.filter(|entry| matcher.is_match(&entry.path)).take(limit).cloned().collect())
    }
}

pub(super) struct ListedEntry {
    pub(super) entry: TreeEntry,
    object: String,
}

impl Mirror {
    /// A whole file of at most `cap` bytes.
    ///
    /// # Errors
    /// [`SourceError::NotFound`], [`SourceError::NotAFile`] for links, submodules and directories (a link may point
    /// anywhere, so it is not followed), [`SourceError::TooLarge`], or an internal failure.
    pub async fn read_file(&self, sha: &Sha, path: &str, cap: u64) -> Result<FileContent, SourceError> {
        if path.is_empty() || path.contains('\0') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(SourceError::NotFound);
        }
        let listed = self.find_entries(sha, &[path]).await?.pop().ok_or(SourceError::NotFound)?;
        self.read_entry(listed, cap).await
    }

    /// The file of an entry, as [`Mirror::read_file`] reads it.
    pub(super) async fn read_entry(&self, listed: ListedEntry, cap: u64) -> Result<FileContent, SourceError> {
        let ListedEntry { entry, object } = listed;
        if !entry.kind.is_file() {
            return Err(SourceError::NotAFile { kind: entry.kind.as_str() });
        }
        if entry.size > cap {
            return Err(SourceError::TooLarge { limit: cap });
        }
        let bytes = self.git.run_checked(&self.directory, Call::new(["cat-file", "blob", &object]).cap(cap)).await?;
        Ok(FileContent { entry, bytes })
    }

    /// The tree of a commit.
    ///
    /// # Errors
    /// [`SourceError::TooLarge`] for more files than can be listed, or an internal failure.
    pub async fn tree(&self, sha: &Sha) -> Result<Tree, SourceError> {
        let arguments = ["ls-tree", "-r", "-l", "-z", "--full-tree", "--end-of-options", sha.as_str()];
        let listed = self.git.run_checked(&self.directory, Call::new(arguments).cap(LIST_CAP)).await?;
        let mut all: Vec<TreeEntry> = entries(&listed).map(|listed| listed.entry).collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Tree(all))
    }

    /// The entries at these paths that the commit has, in one call of git.
    pub(super) async fn find_entries(&self, sha: &Sha, paths: &[&str]) -> Result<Vec<ListedEntry>, SourceError> {
        let options = ["ls-tree", "-l", "-z", "--full-tree", "--end-of-options", sha.as_str(), "--"];
        let call = Call::new(options.into_iter().chain(paths.iter().copied()));
        let listed = self.git.run_checked(&self.directory, call).await?;
        Ok(entries(&listed).filter(|listed| paths.contains(&listed.entry.path.as_str())).collect())
    }
}

/// Parses records of the form `<mode> <type> <object> <size>\t<path>\0`.
fn entries(listed: &[u8]) -> impl Iterator<Item = ListedEntry> + '_ {
    listed.split(|byte| *byte == 0).filter_map(|record| {
        let record = String::from_utf8_lossy(record);
        let (about, path) = record.split_once('\t')?;
        let mut fields = about.split_ascii_whitespace();
        let (mode, _kind, object, size) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let entry = TreeEntry { path: path.to_owned(), kind: EntryKind::of_mode(mode), size: size.parse().unwrap_or(0) };
        Some(ListedEntry { entry, object: object.to_owned() })
    })
}
