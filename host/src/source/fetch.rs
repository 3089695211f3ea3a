//! Fetches from the forge: one at a time per mirror, and one for all builds that waited when it began.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use beespace_core::git_ref::BRANCHES;
use beespace_core::ids::Sha;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::git::{Call, Git, Reach};
use super::{Mirror, Mirrors, SourceError};

/// The longest fetch of a pull request.
const PULL_FETCH_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Enough for Gogs to list the branches of a repository.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// The credentials for a fetch from the forge.
#[derive(Debug, Clone)]
pub struct ForgeCredentials {
    token: SecretString,
}

impl ForgeCredentials {
    #[must_use]
    pub fn token(token: SecretString) -> Self {
        Self { token }
    }

    /// The token as user name, which every version of Gogs accepts; as password it works only since 0.13.
    fn header(&self) -> SecretString {
        let pair = format!("{}:x-oauth-basic", self.token.expose_secret());
        format!("Basic {}", STANDARD.encode(pair)).into()
    }
}

/// The time limits of a fetch. Gogs is silent while it packs a large repository, and starts again after a fetch that was
/// aborted. So both limits grow with each fetch in a row that exceeded one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchLimits {
    /// The longest time without a byte from Gogs. Whole seconds, at least one.
    pub silence: Duration,
    /// The longest duration of the whole fetch.
    pub total: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { silence: Duration::from_secs(60), total: Duration::from_secs(15 * 60) }
    }
}

impl FetchLimits {
    /// The longest limit of a fetch, whatever the number of its predecessors.
    const LONGEST: Duration = Duration::from_secs(4 * 60 * 60);

    /// The limits after `exceeded` fetches in a row that exceeded them.
    fn grown(self, exceeded: u32) -> Self {
        let total = self.total.saturating_mul(2_u32.saturating_pow(exceeded)).min(Self::LONGEST);
        Self { silence: self.silence.saturating_mul(4_u32.saturating_pow(exceeded)).min(total), total }
    }
}

/// The state of the fetches of one mirror.
#[derive(Debug, Default)]
pub(super) struct FetchHistory {
    /// The number of the last fetch that ended; the first one has the number 1.
    number: u64,
    /// The result of that fetch.
    result: Option<SourceError>,
    /// The number of fetches in a row that exceeded a limit.
    exceeded: u32,
    /// Whether the last fetch ended by itself and succeeded. Otherwise it may have left locks and temporary files.
    is_clean: bool,
}

impl Mirror {
    /// Updates the mirror's branches and tags from the forge. All branches are fetched: Gogs serves only commits that are the tip
    /// of a ref, and the base of a new branch is found through the default branch. A caller that waits for a running fetch
    /// shares the next one with all others that wait.
    ///
    /// `origin` is the clone URL. It is awaited immediately before the fetch that uses it, by one of the callers that share it.
    ///
    /// # Errors
    /// That of `origin`; any [`SourceError`] that [is retryable](SourceError::is_retryable), or an internal failure.
    pub async fn fetch(
        &self,
        origin: impl Future<Output = Result<Url, SourceError>>,
        access: &ForgeCredentials,
    ) -> Result<(), SourceError> {
        let _in_use = self.hold().await;
        let begun = self.state.fetches_begun.load(Ordering::Acquire);
        let mut history = self.state.fetches.lock().await;
        if history.number > begun {
            return history.result.clone().map_or(Ok(()), Err);
        }
        let number = self.state.fetches_begun.fetch_add(1, Ordering::AcqRel) + 1;
        if !std::mem::take(&mut history.is_clean) {
            self.remove_leftovers().await;
        }
        let limits = self.fetch_limits.grown(history.exceeded);
        let result = self.fetch_within(limits, origin, access).await;
        history.is_clean = result.is_ok();
        history.exceeded = match &result {
            Err(SourceError::Silent { .. } | SourceError::TimedOut { .. }) => history.exceeded.saturating_add(1),
            _ => 0,
        };
        if let Err(error) = &result {
            // Builds whose commit is here go on without the fetch, so nothing else would report the failure.
            tracing::warn!(mirror = %self.directory.display(), %error, "a fetch failed");
            // The fetch may have filled the disk, and every other build waits for that space.
            self.remove_leftovers().await;
        }
        history.number = number;
        history.result = result.clone().err();
        *self.last_failure() = result.clone().err();
        result
    }

    async fn fetch_within(
        &self,
        limits: FetchLimits,
        origin: impl Future<Output = Result<Url, SourceError>>,
        access: &ForgeCredentials,
    ) -> Result<(), SourceError> {
        self.create().await?;
        let url = origin.await?;
        let refs = ["--prune", "--end-of-options", url.as_str(), "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        fetch_refs(&self.git, &self.directory, limits, access, &refs).await?;
        self.record_fetch();
        Ok(())
    }

    /// Fetches the head of a pull request, whose objects strangers choose: in a process of its own and with narrower limits, so
    /// that it delays and fails no other build. A ref that does not exist is no error.
    ///
    /// # Errors
    /// As [`Mirror::fetch`].
    pub async fn fetch_pull_request(&self, url: &Url, access: &ForgeCredentials, number: u64) -> Result<(), SourceError> {
        // A pattern, because git fails if a ref that is named in full does not exist.
        self.fetch_of_stranger(url, access, &format!("+refs/pull/{number}/*:refs/pull/{number}/*")).await
    }

    /// Fetches a branch of a fork for a pull request whose ref Gogs has lost, with the same limits. `url` belongs to the fork,
    /// and `branch` is well-formed.
    ///
    /// # Errors
    /// As [`Mirror::fetch`].
    pub async fn fetch_branch_of_fork(
        &self,
        url: &Url,
        access: &ForgeCredentials,
        branch: &str,
        number: u64,
    ) -> Result<(), SourceError> {
        self.fetch_of_stranger(url, access, &format!("+{BRANCHES}{branch}:refs/pull/{number}/head")).await
    }

    async fn fetch_of_stranger(&self, url: &Url, access: &ForgeCredentials, refspec: &str) -> Result<(), SourceError> {
        let _in_use = self.hold().await;
        // Not the lock of the other fetches: a slow pull request must not delay a push.
        let _alone = self.state.pull_fetches.lock().await;
        self.create().await?;
        let mut git = self.git.clone();
        git.memory /= 2;
        let limits = FetchLimits { total: PULL_FETCH_TIMEOUT, ..self.fetch_limits };
        fetch_refs(&git, &self.directory, limits, access, &["--end-of-options", url.as_str(), refspec]).await
    }

    /// Removes the ref of a pull request: the pins of its builds keep what they need, and everything else is garbage.
    ///
    /// # Errors
    /// [`SourceError`] if the ref cannot be removed.
    pub async fn forget_pull_request(&self, number: u64) -> Result<(), SourceError> {
        // Removing a ref locks the file of packed refs, as a fetch does. The fetch of a pull request may take minutes, so the
        // lock that pushes need is taken after it.
        let _alone = self.state.pull_fetches.lock().await;
        let _no_fetch = self.state.fetches.lock().await;
        if !self.exists() {
            return Ok(());
        }
        let call = Call::new(["update-ref", "--stdin"]).input(format!("delete refs/pull/{number}/head\n"));
        self.git.run_checked(&self.directory, call).await.map(drop)
    }

    /// The refs with these full names as the forge has them now, without those that do not exist.
    ///
    /// # Errors
    /// As [`Mirror::fetch`].
    pub async fn remote_refs(
        &self,
        url: &Url,
        access: &ForgeCredentials,
        names: &[String],
    ) -> Result<BTreeMap<String, Sha>, SourceError> {
        let root = self.directory.parent().unwrap_or(&self.directory);
        let internal = |error: std::io::Error| SourceError::internal(format!("cannot create {}: {error}", root.display()));
        tokio::fs::create_dir_all(root).await.map_err(internal)?;
        let options = ["ls-remote", "--quiet", "--end-of-options", url.as_str()].map(str::to_owned);
        let call = Call::new(options.into_iter().chain(names.iter().cloned()));
        let call = call.reach(Reach::Forge).authorization(access.header()).timeout(LIST_TIMEOUT);
        let ran = self.git.run(root, call).await?;
        if ran.code != Some(0) {
            return Err(SourceError::from_fetch_stderr(&ran.stderr, LIST_TIMEOUT));
        }
        let listed = String::from_utf8_lossy(&ran.stdout);
        // git lists every ref whose name ends like one of these.
        let refs = listed.lines().filter_map(|line| line.split_once('\t')).filter(|(_, name)| names.iter().any(|it| it == name));
        Ok(refs.filter_map(|(sha, name)| Some((name.to_owned(), Sha::new(sha).ok()?))).collect())
    }

    /// Why the last fetch failed; none if it succeeded, and before the first fetch of this process.
    #[must_use]
    pub fn last_fetch_failure(&self) -> Option<SourceError> {
        self.last_failure().clone()
    }
}

/// Runs `git fetch` with these arguments after the options that all fetches have.
async fn fetch_refs(
    git: &Git,
    directory: &Path,
    limits: FetchLimits,
    access: &ForgeCredentials,
    arguments: &[&str],
) -> Result<(), SourceError> {
    let options = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--no-recurse-submodules",
        // Garbage is collected later, when no build waits for it.
        "--no-auto-maintenance",
    ];
    let call = Call::new(options.iter().chain(arguments).copied()).reach(Reach::Forge);
    let call = call.authorization(access.header()).timeout(limits.total).silence(limits.silence);
    let ran = git.run(directory, call).await?;
    if ran.code == Some(0) { Ok(()) } else { Err(SourceError::from_fetch_stderr(&ran.stderr, limits.silence)) }
}

impl Mirrors {
    /// Asks the forge for the refs of a repository as a fetch would, and fetches nothing.
    ///
    /// # Errors
    /// As [`Mirror::fetch`].
    pub async fn check_remote(&self, url: &Url, access: &ForgeCredentials) -> Result<(), SourceError> {
        let internal = |error: std::io::Error| SourceError::internal(format!("cannot create {}: {error}", self.root.display()));
        tokio::fs::create_dir_all(&self.root).await.map_err(internal)?;
        let call = Call::new(["ls-remote", "--quiet", "--end-of-options", url.as_str(), "HEAD"]);
        let call = call.reach(Reach::Forge).authorization(access.header()).timeout(LIST_TIMEOUT);
        let ran = self.git.run(&self.root, call).await?;
        if ran.code == Some(0) { Ok(()) } else { Err(SourceError::from_fetch_stderr(&ran.stderr, LIST_TIMEOUT)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_grow_with_each_fetch_that_exceeds_them_and_stay_bounded() {
        let grown = |exceeded| FetchLimits::default().grown(exceeded);
        let seconds = |exceeded| (grown(exceeded).silence.as_secs(), grown(exceeded).total.as_secs() / 60);
        assert_eq!([0, 1, 2, 3].map(seconds), [(60, 15), (240, 30), (960, 60), (3_840, 120)]);
        // After four attempts silence is no longer a reason to break a fetch off.
        assert_eq!(grown(5), FetchLimits { silence: FetchLimits::LONGEST, total: FetchLimits::LONGEST });
        assert_eq!(grown(u32::MAX), grown(5));
    }
}
