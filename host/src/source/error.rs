//! Errors of the source phase, and whether a retry helps.

use std::time::Duration;

use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::sanitize;

/// Why something about a commit is not available.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Gogs does not respond, or responds with an internal error.
    #[error("Gogs cannot be reached: {0}")]
    ForgeUnreachable(String),
    /// Gogs no longer accepts the token.
    #[error("Gogs rejects the token")]
    TokenRejected,
    /// The repository does not exist in Gogs, or is hidden from the token's user.
    #[error("Gogs does not find the repository: {0}")]
    RepositoryGone(String),
    /// A call of git exceeded its timeout.
    #[error("{what} took longer than {} s", after.as_secs())]
    TimedOut { what: String, after: Duration },
    /// The output of git or a file exceeds its limit.
    #[error("larger than {limit} bytes")]
    TooLarge { limit: u64 },
    /// The commit has nothing at this path.
    #[error("no such file")]
    NotFound,
    /// The commit has something else than a file at this path, whose content must not be mistaken for a file's.
    #[error("the path is a {kind}, not a file")]
    NotAFile { kind: &'static str },
    /// An invalid glob.
    #[error("{0}")]
    Glob(String),
    /// The disk of the data directory is full.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// An internal failure: no git, a damaged mirror.
    #[error("{0}")]
    Internal(String),
}

impl SourceError {
    /// An internal failure with the text of git or the system. Both report a full disk with the same text.
    pub(super) fn internal(text: String) -> Self {
        if ["No space left on device", "Disk quota exceeded"].iter().any(|full| text.contains(full)) {
            Self::DiskFull(text)
        } else {
            Self::Internal(text)
        }
    }

    /// Whether a later attempt may succeed by itself. What it waits for is Gogs or disk space, so attempts are not counted.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::ForgeUnreachable(_) | Self::TokenRejected | Self::RepositoryGone(_) | Self::TimedOut { .. } | Self::DiskFull(_)
        )
    }

    /// The error and its remedy, for people.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let (code, help) = match self {
            Self::ForgeUnreachable(_) | Self::TimedOut { .. } => (
                ReasonCode::WaitingForGogs,
                "the build continues by itself when Gogs responds; `beespace doctor` reports why this server cannot reach Gogs",
            ),
            Self::TokenRejected => (
                ReasonCode::TokenRefused,
                "create a new token in Gogs (Your Settings, Applications), write it to the file named by `gogs.token_file`, and \
                 restart the server",
            ),
            Self::RepositoryGone(_) => (
                ReasonCode::RepositoryGone,
                "if the repository was renamed, push again; otherwise grant the token's user access in Gogs",
            ),
            Self::TooLarge { .. } => (ReasonCode::SourceTooLarge, "reduce its size"),
            Self::NotFound => (ReasonCode::NoSuchFile, "check the path, including upper and lower case"),
            Self::NotAFile { .. } => (ReasonCode::NotAFile, "commit a regular file at this path"),
            Self::Glob(_) => (ReasonCode::InvalidGlob, "check the brackets of the glob"),
            Self::DiskFull(_) => (ReasonCode::DiskFull, "free disk space under `data.dir`; the build then continues by itself"),
            Self::Internal(_) => {
                (ReasonCode::SourceFailed, "see the server's log; the server needs git, and a data directory of its own")
            }
        };
        Reason::new(code, self.to_string()).help(help)
    }

    /// The error and its remedy after the last retry: the build no longer continues by itself.
    #[must_use]
    pub fn retries_exhausted_reason(&self, after: Duration) -> Reason {
        let remedy = match self {
            Self::TokenRejected | Self::RepositoryGone(_) => self.reason().help.unwrap_or_default(),
            Self::DiskFull(_) => "free disk space under `data.dir`".to_owned(),
            _ => "check with `beespace doctor` that this server can reach Gogs".to_owned(),
        };
        let message = format!("the commit could not be fetched within {} h: {self}", after.as_secs() / 3_600);
        Reason::new(ReasonCode::SourceTimeout, message).help(format!("{remedy}; then run `beespace build restart`"))
    }

    /// Classifies git's error output (`LC_ALL=C`) after a failed fetch.
    pub(super) fn from_fetch_stderr(stderr: &str) -> Self {
        let has = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
        let summary = summary_line(stderr);
        let own = Self::internal(stderr.to_owned());
        if matches!(own, Self::DiskFull(_)) {
            // git then also reports that the remote end hung up, which is only a consequence.
            Self::DiskFull(summary)
        } else if has(&["Authentication failed", "could not read Username", "returned error: 401", "returned error: 403"]) {
            // git's own text mentions prompts and user names, which do not apply here.
            Self::TokenRejected
        } else if has(&["' not found", "returned error: 404"]) {
            Self::RepositoryGone(summary)
        } else if has(&[
            "unable to access",
            "Connection",
            "connection",
            "timed out",
            "early EOF",
            "hung up",
            "RPC failed",
            "protocol error",
        ]) {
            Self::ForgeUnreachable(summary)
        } else {
            Self::Internal(summary)
        }
    }
}

/// The most informative line, shortened, and without characters that a terminal would interpret.
fn summary_line(stderr: &str) -> String {
    let line = stderr.lines().find(|line| line.starts_with("fatal: ")).or_else(|| stderr.lines().last()).unwrap_or_default();
    let line = line.strip_prefix("fatal: ").unwrap_or(line);
    line.chars().filter(|c| !sanitize::is_unsafe(*c)).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_last_retry_the_reason_does_not_promise_to_continue() {
        for error in [
            SourceError::ForgeUnreachable("refused".to_owned()),
            SourceError::TokenRejected,
            SourceError::RepositoryGone("404".to_owned()),
            SourceError::TimedOut { what: "a fetch".to_owned(), after: Duration::from_secs(60) },
            SourceError::DiskFull("No space left on device".to_owned()),
        ] {
            assert!(error.is_retryable());
            let text = error.retries_exhausted_reason(Duration::from_secs(24 * 3_600)).to_string();
            assert!(
                text.contains(&format!("the commit could not be fetched within 24 h: {error}"))
                    && text.contains("`beespace build restart`"),
                "{text}"
            );
            assert!(!text.contains("by itself"), "{text}");
        }
    }

    #[test]
    fn gits_error_output_is_classified() {
        let of = |text: &str| SourceError::from_fetch_stderr(text);
        assert!(matches!(of("fatal: Authentication failed for 'http://x/'"), SourceError::TokenRejected));
        assert!(matches!(
            of("fatal: could not read Username for 'http://x': terminal prompts disabled"),
            SourceError::TokenRejected
        ));
        assert!(matches!(of("remote: x\nfatal: repository 'http://x/' not found"), SourceError::RepositoryGone(_)));
        let unreachable = "fatal: unable to access 'http://x/': Failed to connect to x port 1: Connection refused";
        assert!(matches!(of(unreachable), SourceError::ForgeUnreachable(_)));
        assert!(matches!(
            of("fatal: unable to access 'http://x/': The requested URL returned error: 502"),
            SourceError::ForgeUnreachable(_)
        ));
        assert!(matches!(of("error: cannot lock ref"), SourceError::Internal(_)));
        let full = "fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output\nerror: early EOF";
        assert_eq!(of(full), SourceError::DiskFull("write error: No space left on device".to_owned()));
    }

    #[test]
    fn terminal_escapes_are_removed_from_gits_output() {
        let stderr =
            "remote: x\u{1b}[2J\r\nfatal: unable to access 'http://x/\u{1b}]0;title\u{7}\u{9b}2J': Connection refused\r\n";
        let summary = "unable to access 'http://x/]0;title2J': Connection refused";
        assert_eq!(SourceError::from_fetch_stderr(stderr), SourceError::ForgeUnreachable(summary.to_owned()));
        assert_eq!(
            SourceError::from_fetch_stderr("cells\u{1b}[2J\0\r\u{7}\u{202e}"),
            SourceError::Internal("cells[2J".to_owned())
        );
    }
}
