//! Reads files of a commit from its git objects.

use beespace_core::ids::Sha;
use globset::GlobBuilder;

use super::git::Call;
use super::{Mirror, SourceError};

/// Enough for the names, modes and sizes of about 400,000 files.
const LIST_CAP: u64 = 64 * 1024 * 1024;

/// The most work for one list of files: bytes of paths times wildcards of the glob. The author of a commit may choose both, and
/// a path may take a time in proportion to this product. Five wildcards are possible for the longest list of files.
const MAX_GLOB_WORK: usize = 500_000_000;

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
    /// The entries whose path matches `glob` (`*` stops at `/`, `**` does not) and sorts after `after`, at most `limit`. Ends
    /// early as soon as `is_wanted` is false.
    ///
    /// # Errors
    /// [`SourceError::Glob`] if the glob is invalid, or has too many wildcards for paths of this length;
    /// [`SourceError::Internal`] if the result is no longer wanted.
    pub fn matching(
        &self,
        glob: &str,
        after: Option<&str>,
        limit: usize,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Vec<TreeEntry>, SourceError> {
        let matcher = GlobBuilder::new(glob)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| SourceError::Glob(format!("{glob:?} is not a valid glob: {error}")))?
            .compile_matcher();
        let before = after.map_or(0, |after| self.0.partition_point(|entry| entry.path.as_str() <= after));
        let wildcards = glob.bytes().filter(|byte| b"*?[{,".contains(byte)).count();
        let (mut found, mut work_left) = (Vec::new(), MAX_GLOB_WORK);
        for entry in self.0.iter().skip(before) {
            if found.len() >= limit {
                break;
            }
            if !is_wanted() {
                return Err(SourceError::Internal("the list of files is no longer wanted".to_owned()));
            }
            let Some(rest) = work_left.checked_sub(entry.path.len().saturating_mul(wildcards)) else {
                return Err(SourceError::Glob(format!("{glob:?} has too many wildcards for the files of this commit")));
            };
            work_left = rest;
            if matcher.is_match(&entry.path) {
                found.push(entry.clone());
            }
        }
        Ok(found)
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
        let mut listed = self.list_entries(sha, paths, LIST_CAP).await?;
        listed.retain(|listed| paths.contains(&listed.entry.path.as_str()));
        Ok(listed)
    }

    /// As [`Mirror::find_entries`], and a path that ends with `/` names the entries of that directory.
    pub(super) async fn list_entries(&self, sha: &Sha, paths: &[&str], cap: u64) -> Result<Vec<ListedEntry>, SourceError> {
        let options = ["ls-tree", "-l", "-z", "--full-tree", "--end-of-options", sha.as_str(), "--"];
        let call = Call::new(options.into_iter().chain(paths.iter().copied())).cap(cap);
        Ok(entries(&self.git.run_checked(&self.directory, call).await?).collect())
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn tree(paths: impl IntoIterator<Item = String>) -> Tree {
        Tree(paths.into_iter().map(|path| TreeEntry { path, kind: EntryKind::File, size: 0 }).collect())
    }

    #[test]
    fn the_work_for_a_glob_is_bounded() {
        let many = tree((0..100_000).map(|number| format!("{number:0200}")));
        assert_eq!(many.matching("**/*7{3,4}", None, 3, || true).unwrap().len(), 3);
        let hostile = format!("**/*a{}z*", "?".repeat(240));
        let refused = many.matching(&hostile, None, 3, || true).unwrap_err();
        assert!(matches!(&refused, SourceError::Glob(text) if text.contains("too many wildcards")), "{refused}");
        let few = tree([hostile.replace(['*', '?'], "b"), "b".to_owned()]);
        assert_eq!(few.matching(&hostile, None, 3, || true).unwrap().len(), 1, "few files");
    }

    #[test]
    fn a_search_that_nobody_waits_for_ends() {
        let seen = Cell::new(0);
        let all = tree((0..1_000).map(|number| number.to_string()));
        let is_wanted = || {
            seen.set(seen.get() + 1);
            seen.get() < 10
        };
        assert!(matches!(all.matching("x", None, 3, is_wanted), Err(SourceError::Internal(_))));
        assert_eq!(seen.get(), 10);
    }
}
