//! The parts of a commit that a checkout leaves out: submodules and Git LFS objects.

use std::ffi::OsString;

use beespace_core::ids::Sha;
use beespace_core::sanitize;

use super::git::Call;
use super::{Mirror, SourceError};

/// The submodules that are listed by their paths.
const LISTED: usize = 5;

/// The parts of a commit that its checkout leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The first submodules.
    submodules: Vec<String>,
    /// The number of further submodules.
    more_submodules: u64,
    /// Whether attributes mark files as Git LFS objects.
    has_lfs: bool,
}

impl LeftOut {
    /// One sentence for each kind, for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.submodules.is_empty() {
            let mut names: Vec<String> = self.submodules.iter().map(|path| format!("`{path}`")).collect();
            if self.more_submodules > 0 {
                names.push(format!("{} more", self.more_submodules));
            }
            lines.push(format!("Submodules are not fetched, so their directories are empty: {}.", names.join(", ")));
        }
        if self.has_lfs {
            lines.push(
                "Git LFS objects are not fetched: files with `filter=lfs` in `.gitattributes` contain pointers.".to_owned(),
            );
        }
        lines
    }
}

impl Mirror {
    /// The parts of a commit that its checkout leaves out.
    ///
    /// # Errors
    /// As [`Mirror::tree_size`].
    pub async fn left_out(&self, sha: &Sha) -> Result<LeftOut, SourceError> {
        let size = self.tree_size(sha).await?;
        let paths = size.submodule_paths.iter().take(LISTED);
        let submodules: Vec<String> = paths.map(|path| sanitize::line(&path.to_string_lossy())).collect();
        let more_submodules = size.submodules.saturating_sub(submodules.len() as u64);
        let has_lfs = self.has_lfs(sha, &size.attribute_paths).await?;
        Ok(LeftOut { submodules, more_submodules, has_lfs })
    }

    /// Whether one of these files of a commit has an attribute of Git LFS.
    async fn has_lfs(&self, sha: &Sha, attributes: &[OsString]) -> Result<bool, SourceError> {
        if attributes.is_empty() {
            return Ok(false);
        }
        let search = ["grep", "--quiet", "--fixed-strings", "--threads=1", "-e", "filter=lfs", sha.as_str(), "--"];
        let arguments = search.into_iter().map(OsString::from).chain(attributes.iter().cloned());
        Ok(self.git.run(&self.directory, Call::new(arguments)).await?.code == Some(0))
    }
}
