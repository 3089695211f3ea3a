//! What went wrong with a source, and whether waiting helps.

use std::time::Duration;

use beespace_core::reason::Reason;
use beespace_core::sanitize;

use crate::disk::DISK_FULL;

/// Why a question about a commit has no answer now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Gogs does not answer, or answers with trouble of its own.
    #[error("Gogs cannot be reached: {0}")]
    ForgeAway(String),
    /// Gogs does not take the token any more.
    #[error("Gogs does not take the token")]
    TokenRejected,
    /// Gogs knows no such repository, or hides it from the token's user.
    #[error("Gogs shows no such repository: {0}")]
    RepositoryGone(String),
    /// It took too long.
    #[error("{what} took longer than {} s", after.as_secs())]
    TimedOut { what: String, after: Duration },
    /// There is more than may be read at once.
    #[error("larger than {limit} bytes")]
    TooLarge { limit: u64 },
    /// Nothing is there under this path.
    #[error("no such file")]
    NotFound,
    /// Something is there that is no file: its content is not to be taken for one.
    #[error("it is a {kind}, not a file")]
    NotAFile { kind: &'static str },
    /// A glob that cannot be read.
    #[error("{0}")]
    Glob(String),
    /// No room for it under the data directory.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// Our own trouble: no git, a damaged mirror.
    #[error("{0}")]
    Trouble(String),
}

impl SourceError {
    /// Our own trouble, in git's or the system's words: both say alike that the disk is full.
    pub(super) fn trouble(words: String) -> Self {
        if ["No space left on device", "Disk quota exceeded"].iter().any(|full| words.contains(full)) {
            Self::DiskFull(words)
        } else {
            Self::Trouble(words)
        }
    }

    /// Whether the same may work later as it is: what it waits for is Gogs, or room, so attempts do not count.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(
            self,
            Self::ForgeAway(_) | Self::TokenRejected | Self::RepositoryGone(_) | Self::TimedOut { .. } | Self::DiskFull(_)
        )
    }

    /// For people: what happened and what to do.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let (code, help) = match self {
            Self::ForgeAway(_) | Self::TimedOut { .. } => (
                "waiting-for-gogs",
                "it goes on by itself once Gogs answers; `beespace doctor` says what keeps this server from it",
            ),
            Self::TokenRejected => (
                "token-refused",
                "make a new token in Gogs (Your Settings, Applications), put it into the file of `gogs.token_file`, and restart the server",
            ),
            Self::RepositoryGone(_) => {
                ("repository-gone", "if it was renamed, push once more; otherwise give the token's user access in Gogs")
            }
            Self::TooLarge { .. } => ("source-too-large", "make it smaller"),
            Self::NotFound => ("no-such-file", "look at its path, upper and lower case included"),
            Self::NotAFile { .. } => ("not-a-file", "commit a file of its own in its place"),
            Self::Glob(_) => ("invalid-glob", "look at its brackets"),
            Self::DiskFull(_) => (DISK_FULL, "make room under `data.dir`; it goes on by itself"),
            Self::Trouble(_) => ("source-trouble", "the server's log says more; it needs git, and a data directory of its own"),
        };
        Reason::new(code, self.to_string()).help(help)
    }

    /// For people, where nobody waits any longer: nothing goes on by itself now.
    #[must_use]
    pub fn retries_exhausted_reason(&self, after: Duration) -> Reason {
        let cure = match self {
            Self::TokenRejected | Self::RepositoryGone(_) => self.reason().help.unwrap_or_default(),
            Self::DiskFull(_) => "make room under `data.dir`".to_owned(),
            _ => "see that Gogs runs and answers this server, as `beespace doctor` tells".to_owned(),
        };
        let message = format!("given up after {} h: {self}", after.as_secs() / 3_600);
        Reason::new("gave-up-waiting", message).help(format!("{cure}; then `beespace build restart` builds it once more"))
    }

    /// Reads git's words (`LC_ALL=C`) about a fetch that failed.
    pub(super) fn from_fetch_stderr(stderr: &str) -> Self {
        let has = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
        let said = summary_line(stderr);
        let own = Self::trouble(stderr.to_owned());
        if matches!(own, Self::DiskFull(_)) {
            // git then speaks of the other end, too, which it has hung up on.
            Self::DiskFull(said)
        } else if has(&["Authentication failed", "could not read Username", "returned error: 401", "returned error: 403"]) {
            // git tells of prompts and of users that nobody asked it for.
            Self::TokenRejected
        } else if has(&["' not found", "returned error: 404"]) {
            Self::RepositoryGone(said)
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
            Self::ForgeAway(said)
        } else {
            Self::Trouble(said)
        }
    }
}

/// The line that tells most, short, and without what a terminal would obey.
fn summary_line(stderr: &str) -> String {
    let line = stderr.lines().find(|line| line.starts_with("fatal: ")).or_else(|| stderr.lines().last()).unwrap_or_default();
    let line = line.strip_prefix("fatal: ").unwrap_or(line);
    line.chars().filter(|c| !sanitize::is_unsafe(*c)).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_up_does_not_promise_to_go_on() {
        for error in [
            SourceError::ForgeAway("refused".to_owned()),
            SourceError::TokenRejected,
            SourceError::RepositoryGone("404".to_owned()),
            SourceError::TimedOut { what: "a fetch".to_owned(), after: Duration::from_secs(60) },
            SourceError::DiskFull("No space left on device".to_owned()),
        ] {
            assert!(error.waits());
            let told = error.retries_exhausted_reason(Duration::from_secs(24 * 3_600)).to_string();
            assert!(
                told.contains(&format!("given up after 24 h: {error}")) && told.contains("`beespace build restart`"),
                "{told}"
            );
            assert!(!told.contains("by itself"), "{told}");
        }
    }

    #[test]
    fn gits_words_are_understood() {
        let of = |text: &str| SourceError::from_fetch_stderr(text);
        assert!(matches!(of("fatal: Authentication failed for 'http://x/'"), SourceError::TokenRejected));
        assert!(matches!(
            of("fatal: could not read Username for 'http://x': terminal prompts disabled"),
            SourceError::TokenRejected
        ));
        assert!(matches!(of("remote: x\nfatal: repository 'http://x/' not found"), SourceError::RepositoryGone(_)));
        let away = "fatal: unable to access 'http://x/': Failed to connect to x port 1: Connection refused";
        assert!(matches!(of(away), SourceError::ForgeAway(_)));
        assert!(matches!(
            of("fatal: unable to access 'http://x/': The requested URL returned error: 502"),
            SourceError::ForgeAway(_)
        ));
        assert!(matches!(of("error: cannot lock ref"), SourceError::Trouble(_)));
        let full = "fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output\nerror: early EOF";
        assert_eq!(of(full), SourceError::DiskFull("write error: No space left on device".to_owned()));
    }

    #[test]
    fn of_gits_words_a_terminal_obeys_none() {
        let away = "remote: x\u{1b}[2J\r\nfatal: unable to access 'http://x/\u{1b}]0;title\u{7}\u{9b}2J': Connection refused\r\n";
        let said = "unable to access 'http://x/]0;title2J': Connection refused";
        assert_eq!(SourceError::from_fetch_stderr(away), SourceError::ForgeAway(said.to_owned()));
        assert_eq!(
            SourceError::from_fetch_stderr("cells\u{1b}[2J\0\r\u{7}\u{202e}"),
            SourceError::Trouble("cells[2J".to_owned())
        );
    }
}
