//! The merge of a pull request into its target, made in the mirror without a working tree.

use beespace_core::build::Merge;
use beespace_core::ids::{BuildId, Sha};

use super::commit::FetchedCommit;
use super::git::Call;
use super::{Mirror, SourceError};

/// Enough for the names of all files that conflict.
const CONFLICTS_CAP: u64 = 4 << 20;

/// The result of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeOutcome {
    Merged(Merge),
    /// The paths that both sides changed in different ways.
    Conflict(Vec<String>),
}

impl FetchedCommit {
    /// Merges the commit into `target` and keeps the merge as long as the build.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be read or written.
    pub async fn merge_into(&self, target: &Sha, build: BuildId) -> Result<MergeOutcome, SourceError> {
        let outcome = self.mirror.merge(target, &self.head.sha).await?;
        if let MergeOutcome::Merged(merge) = &outcome {
            self.mirror.pin_merge(build, &merge.commit).await?;
        }
        Ok(outcome)
    }
}

impl Mirror {
    /// Merges `head` into `target` as `git merge` would, with a merge commit even if the target is an ancestor.
    ///
    /// # Errors
    /// [`SourceError`] if the mirror cannot be read or written.
    pub async fn merge(&self, target: &Sha, head: &Sha) -> Result<MergeOutcome, SourceError> {
        let arguments = ["merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", target.as_str(), head.as_str()];
        let ran = self.git.run(&self.directory, Call::new(arguments).cap(CONFLICTS_CAP)).await?;
        let mut texts = ran.stdout.split(|byte| *byte == 0).filter(|text| !text.is_empty());
        let tree = texts.next().map(|tree| String::from_utf8_lossy(tree).into_owned()).unwrap_or_default();
        match ran.code {
            Some(0) => {}
            Some(1) => {
                let mut paths: Vec<String> = texts.map(|path| String::from_utf8_lossy(path).into_owned()).collect();
                paths.dedup();
                return Ok(MergeOutcome::Conflict(paths));
            }
            _ => ran.check("git merge-tree")?,
        }
        let message = format!("Merge {head} into {target}");
        let arguments = ["commit-tree", "-p", target.as_str(), "-p", head.as_str(), "-m", message.as_str(), tree.as_str()];
        let call = Call::new(arguments).setting("user.name", "Beespace").setting("user.email", "beespace@localhost");
        let commit = self.git.run_checked(&self.directory, call).await?;
        let commit = Sha::new(String::from_utf8_lossy(&commit).trim());
        let commit = commit.map_err(|_| SourceError::Internal("git did not print the id of the merge".to_owned()))?;
        Ok(MergeOutcome::Merged(Merge { commit, target: target.clone() }))
    }
}
