//! Which paths a push changed. Gogs' own lists are cut at spaces and lack renames and merges, so git tells.

use beespace_core::git_ref::BRANCHES;
use beespace_core::ids::Sha;
use beespace_core::pipeline::when::ChangedPaths;

use super::git::Call;
use super::{Mirror, SourceError};

/// Names of about a million changed files.
const NAMES_CAP: u64 = 64 * 1024 * 1024;

/// A push, as far as the question of its changes goes.
#[derive(Debug, Clone, Copy)]
pub struct Push<'a> {
    /// Where the branch stood; none where it is new.
    pub before: Option<&'a Sha>,
    pub after: &'a Sha,
    /// Short names.
    pub branch: &'a str,
    pub default_branch: &'a str,
}

impl Mirror {
    /// The paths that differ between where the branch stood and where it stands. For a new branch, and where `before` is lost,
    /// since it left the default branch.
    ///
    /// # Errors
    /// [`SourceError`] where the mirror cannot be read.
    pub async fn changed_paths(&self, push: Push<'_>) -> Result<ChangedPaths, SourceError> {
        let base = match push.before {
            Some(before) if self.has_commit(before).await? => Ok(before.clone()),
            Some(before) => self.base(push, &format!("{} is not there any more", before.short())).await?,
            None => self.base(push, "the branch is new").await?,
        };
        match base {
            Ok(base) => self.names(&base, push.after).await,
            Err(reason) => Ok(ChangedPaths::Unknown(reason)),
        }
    }

    /// The commit where the branch left the default branch, or why there is none.
    async fn base(&self, push: Push<'_>, why: &str) -> Result<Result<Sha, String>, SourceError> {
        if push.branch == push.default_branch {
            return Ok(Err(format!("{why}, and it is the default branch")));
        }
        let Some(default) = self.tip(&format!("{BRANCHES}{}", push.default_branch)).await? else {
            return Ok(Err(format!("{why}, and there is no default branch to compare with")));
        };
        let call = Call::new(["merge-base", "--end-of-options", default.as_str(), push.after.as_str()]);
        let ran = self.git.run(&self.directory, call).await?;
        let base = Sha::new(String::from_utf8_lossy(&ran.stdout).trim());
        Ok(base.map_err(|_| format!("{why}, and it has no commit in common with the default branch")))
    }

    async fn names(&self, base: &Sha, after: &Sha) -> Result<ChangedPaths, SourceError> {
        let options = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", "--end-of-options"];
        let arguments = options.into_iter().chain([base.as_str(), after.as_str()]);
        match self.git.must(&self.directory, Call::new(arguments).cap(NAMES_CAP)).await {
            Ok(names) => {
                Ok(ChangedPaths::Known(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(lossy).collect()))
            }
            Err(SourceError::TooLarge { .. }) => Ok(ChangedPaths::Unknown("too many paths changed".to_owned())),
            Err(error) => Err(error),
        }
    }
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
