//! Counts the files and bytes of a commit before git works on them. A few objects can name ten thousand million files, and most
//! commands of git list all of them in memory first; `ls-tree` prints them one after the other.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beespace_core::ids::Sha;
use beespace_core::units::format_size;

use super::git::Call;
use super::{Mirror, SourceError, SourceLimits};

/// Enough for many millions of files on a slow disk.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The longest record, in bytes. Linux has no path of more than 4,096 bytes.
const LONGEST_RECORD: usize = 64 << 10;
/// The most submodules and `.gitattributes` files whose paths are kept.
const MAX_PATHS: usize = 100;
/// The commits whose size is kept in memory.
const CACHED: usize = 128;

/// The size of a commit's tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeSize {
    /// Files and symbolic links.
    pub files: u64,
    /// The bytes of all files.
    pub bytes: u64,
    /// The number of submodules.
    pub submodules: u64,
    /// The number of directories. They have no files of their own to count: a few objects can name any number of empty ones.
    pub directories: u64,
    /// The paths of the first submodules.
    pub(super) submodule_paths: Vec<OsString>,
    /// The paths of the first `.gitattributes` files.
    pub(super) attribute_paths: Vec<OsString>,
}

impl TreeSize {
    /// Counts one record of the form `<mode> <type> <object> <size>\t<path>`.
    fn add(&mut self, record: &[u8]) {
        let Some(tab) = record.iter().position(|byte| *byte == b'\t') else { return };
        let (about, path) = record.split_at(tab);
        let path = OsStr::from_bytes(path.get(1..).unwrap_or_default());
        if about.starts_with(b"160000 ") {
            self.submodules += 1;
            keep(&mut self.submodule_paths, path);
            return;
        }
        if about.starts_with(b"040000 ") {
            self.directories += 1;
            return;
        }
        let size = about.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        let size: u64 = std::str::from_utf8(size).ok().and_then(|size| size.parse().ok()).unwrap_or(0);
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        let is_attributes = about.starts_with(b"100")
            && path.as_bytes().rsplit(|byte| *byte == b'/').next() == Some(b".gitattributes".as_slice());
        if is_attributes {
            keep(&mut self.attribute_paths, path);
        }
    }

    /// The number of entries that count toward `checkout_files`.
    fn entries(&self) -> u64 {
        self.files.saturating_add(self.submodules).saturating_add(self.directories)
    }

    /// An error if a checkout of this size exceeds the limits.
    pub(super) fn check(&self, sha: &Sha, limits: &SourceLimits) -> Result<(), SourceError> {
        if self.bytes <= limits.checkout_bytes {
            return Ok(());
        }
        let (mebibytes, limit) = (self.bytes >> 20, format_size(limits.checkout_bytes));
        let message = format!("the files of {} have {mebibytes} MiB, and `[limits] checkout_bytes` is {limit}", sha.short());
        Err(SourceError::OverLimit(message))
    }
}

fn keep(paths: &mut Vec<OsString>, path: &OsStr) {
    if paths.len() < MAX_PATHS {
        paths.push(path.to_owned());
    }
}

/// The sizes of the last commits. A build asks for its commit's size several times.
pub(super) type SizeCache = Arc<Mutex<HashMap<Sha, Result<Arc<TreeSize>, SourceError>>>>;

impl Mirror {
    /// The size of a commit's tree.
    ///
    /// # Errors
    /// [`SourceError::OverLimit`] for more files than the limit, or an internal failure.
    pub async fn tree_size(&self, sha: &Sha) -> Result<Arc<TreeSize>, SourceError> {
        if let Some(known) = self.sizes.lock().unwrap_or_else(PoisonError::into_inner).get(sha) {
            return known.clone();
        }
        let size = self.count(sha).await.map(Arc::new);
        if size.as_ref().err().is_none_or(SourceError::is_refusal) {
            let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
            if sizes.len() >= CACHED {
                sizes.clear();
            }
            sizes.insert(sha.clone(), size.clone());
        }
        size
    }

    async fn count(&self, sha: &Sha) -> Result<TreeSize, SourceError> {
        let arguments = ["ls-tree", "-r", "-t", "-l", "-z", "--full-tree", "--end-of-options", sha.as_str()];
        let mut counter = Counter { size: TreeSize::default(), rest: Vec::new() };
        let max = self.limits.checkout_files;
        let take = |chunk: &[u8]| counter.take(chunk) && counter.size.entries() <= max;
        let ran = match self.git.stream(&self.directory, Call::new(arguments).timeout(TIMEOUT), take).await {
            // Another attempt would take as long.
            Err(SourceError::TimedOut { .. }) => {
                let message = format!("the files of {} could not be counted in {} s", sha.short(), TIMEOUT.as_secs());
                return Err(SourceError::OverLimit(message));
            }
            ran => ran?,
        };
        match ran {
            Some(ended) => ended.check("git ls-tree").map(|()| counter.size),
            None if counter.rest.len() > LONGEST_RECORD => {
                Err(SourceError::OverLimit(format!("{} has a path of more than {LONGEST_RECORD} bytes", sha.short())))
            }
            None => Err(SourceError::OverLimit(format!(
                "{} has more files and directories than `[limits] checkout_files` ({max})",
                sha.short()
            ))),
        }
    }
}

struct Counter {
    size: TreeSize,
    /// The beginning of the next record.
    rest: Vec<u8>,
}

impl Counter {
    /// Counts the records that end in this chunk. False if a record is too long.
    fn take(&mut self, chunk: &[u8]) -> bool {
        let mut parts = chunk.split(|byte| *byte == 0).peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                // The last part has no end yet.
                self.rest.extend_from_slice(part);
            } else if self.rest.is_empty() {
                self.size.add(part);
            } else {
                self.rest.extend_from_slice(part);
                self.size.add(&self.rest);
                self.rest.clear();
            }
        }
        self.rest.len() <= LONGEST_RECORD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_however_they_are_cut() {
        let object = "0".repeat(40);
        let records: Vec<String> = [
            ("100644 blob", "7", ".gitattributes"),
            ("100755 blob", "     30", "run.sh"),
            ("120000 blob", "5", "link"),
            ("160000 commit", "      -", "module"),
            ("040000 tree", "      -", "a"),
            ("120000 blob", "5", "b/.gitattributes"),
            ("100644 blob", "11", "a/.gitattributes"),
        ]
        .map(|(about, size, path)| format!("{about} {object} {size}\t{path}\0"))
        .into();
        let all = records.concat().into_bytes();
        for cut in 1..all.len() {
            let mut counter = Counter { size: TreeSize::default(), rest: Vec::new() };
            assert!(all.chunks(cut).all(|chunk| counter.take(chunk)));
            let expected = TreeSize {
                files: 5,
                bytes: 58,
                submodules: 1,
                directories: 1,
                submodule_paths: vec!["module".into()],
                attribute_paths: vec![".gitattributes".into(), "a/.gitattributes".into()],
            };
            assert_eq!(counter.size, expected, "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_record_is_refused() {
        let mut counter = Counter { size: TreeSize::default(), rest: Vec::new() };
        assert!(!counter.take(&vec![b'a'; LONGEST_RECORD + 1]));
    }
}
