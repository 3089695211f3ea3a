//! Fetches from the forge: one at a time per mirror, and one for all builds that waited when it began.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::git::{Call, Reach};
use super::{Mirror, Mirrors, SourceError};

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
        let arguments = [
            "fetch",
            "--quiet",
            "--prune",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            // Garbage is collected later, when no build waits for it.
            "--no-auto-maintenance",
            "--end-of-options",
            url.as_str(),
            "+refs/heads/*:refs/heads/*",
            "+refs/tags/*:refs/tags/*",
        ];
        let call = Call::new(arguments).reach(Reach::Forge).authorization(access.header());
        let call = call.timeout(limits.total).silence(limits.silence);
        let ran = self.git.run(&self.directory, call).await?;
        if ran.code == Some(0) {
            self.record_fetch();
            return Ok(());
        }
        Err(SourceError::from_fetch_stderr(&ran.stderr, limits.silence))
    }

    /// Why the last fetch failed; none if it succeeded, and before the first fetch of this process.
    #[must_use]
    pub fn last_fetch_failure(&self) -> Option<SourceError> {
        self.last_failure().clone()
    }
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
