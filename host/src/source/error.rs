//! Errors of the source phase, and whether a retry helps.

use std::time::Duration;

use beespace_core::ids::RepositoryId;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::sanitize;
use beespace_core::units::format_size;

/// Why something about a commit is not available.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Gogs does not respond, or responds with an internal error.
    #[error("Gogs cannot be reached: {0}")]
    ForgeUnreachable(String),
    /// Gogs sent nothing for so long that the fetch was aborted.
    #[error("Gogs sent nothing for {} s, so the fetch was aborted", after.as_secs())]
    Silent { after: Duration },
    /// Gogs no longer accepts the token (401). Contains Gogs' own sentence, which may be empty.
    #[error("Gogs rejects the token{}", quoted(.0))]
    TokenRejected(String),
    /// Gogs does not let the token's user fetch (403). Contains Gogs' own sentence, which may be empty.
    #[error("Gogs does not let the token's user fetch the repository{}", quoted(.0))]
    FetchForbidden(String),
    /// Gogs' own setting forbids git over HTTP for everyone. Contains Gogs' own sentence.
    #[error("git over HTTP is disabled in Gogs{}", quoted(.0))]
    HttpGitDisabled(String),
    /// A fetch succeeded, but brought neither the commit nor its ref.
    #[error("{git_ref} does not exist in Gogs, and commit {commit} cannot be fetched without it")]
    CommitMissing { git_ref: String, commit: String },
    /// The repository does not exist in Gogs, or is hidden from the token's user.
    #[error("Gogs does not find the repository: {0}")]
    RepositoryGone(String),
    /// The name belongs to another repository than the one that is built.
    #[error("in Gogs {name} is now repository {found}, and this build belongs to repository {expected}")]
    OtherRepository { name: String, expected: RepositoryId, found: RepositoryId },
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
    /// The commit exceeds a limit of the configuration. The text names both.
    #[error("{0}")]
    OverLimit(String),
    /// Git needs more memory than the configuration allows it, in bytes.
    #[error("{what} needs more than {} of memory", format_size(*limit))]
    OutOfMemory { what: String, limit: u64 },
    /// A signal ended git.
    #[error("{what} was killed by signal {signal}")]
    Killed { what: String, signal: i32 },
    /// An invalid glob.
    #[error("{0}")]
    Glob(String),
    /// The disk of the data directory is full.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// The disk has no room for a checkout, which was therefore not begun.
    #[error("{0}")]
    NoRoom(String),
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
            Self::ForgeUnreachable(_)
                | Self::Silent { .. }
                | Self::TokenRejected(_)
                | Self::FetchForbidden(_)
                | Self::HttpGitDisabled(_)
                | Self::CommitMissing { .. }
                | Self::RepositoryGone(_)
                | Self::TimedOut { .. }
                | Self::DiskFull(_)
                | Self::NoRoom(_)
        )
    }

    /// Whether the commit or the repository itself is refused, so that no attempt can succeed before it or the configuration
    /// changes.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::OverLimit(_) | Self::OutOfMemory { .. } | Self::OtherRepository { .. })
    }

    /// The error and its remedy, for people.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let (code, help) = match self {
            Self::ForgeUnreachable(_) | Self::TimedOut { .. } => (
                ReasonCode::WaitingForGogs,
                "the build continues by itself when Gogs responds; `beespace doctor` reports why this server cannot reach Gogs",
            ),
            Self::Silent { .. } => (
                ReasonCode::WaitingForGogs,
                "Gogs may need long to pack a large repository: every further attempt waits four times as long; if it never \
                 begins to send, see the log of Gogs",
            ),
            Self::FetchForbidden(_) => (ReasonCode::GogsRefused, "in Gogs, give the token's user read access to the repository"),
            Self::HttpGitDisabled(_) => (
                ReasonCode::HttpGitDisabled,
                "in the section `[repository]` of Gogs' app.ini, set `DISABLE_HTTP_GIT = false`, and restart Gogs",
            ),
            Self::CommitMissing { .. } => {
                (ReasonCode::WaitingForSource, "if the branch was deleted, the build is skipped within minutes")
            }
            Self::TokenRejected(_) => (
                ReasonCode::TokenRefused,
                "create a new token in Gogs (Your Settings, Applications), write it to the file named by `gogs.token_file`, and \
                 restart the server",
            ),
            Self::RepositoryGone(_) => (
                ReasonCode::RepositoryGone,
                "if the repository was renamed, push again; otherwise grant the token's user access in Gogs",
            ),
            Self::OtherRepository { .. } => (
                ReasonCode::OtherRepository,
                "if the repository was renamed, push to it so that the server learns its new name, and run `beespace build \
                 restart`; if it was deleted, run `beespace repo disable`",
            ),
            Self::TooLarge { .. } => (ReasonCode::SourceTooLarge, "reduce its size"),
            Self::OverLimit(_) => {
                (ReasonCode::SourceTooLarge, "if the commit is meant to be this large, ask an administrator to raise that limit")
            }
            Self::OutOfMemory { .. } => (
                ReasonCode::SourceTooLarge,
                "if the repository is meant to be this large, ask an administrator to raise `[limits] git_memory`",
            ),
            Self::Killed { .. } => (
                ReasonCode::SourceFailed,
                "the system kills programs when it is short of memory: see the system's log, and give the machine more memory or \
                 lower `[engine] capacity`",
            ),
            Self::NotFound => (ReasonCode::NoSuchFile, "check the path, including upper and lower case"),
            Self::NotAFile { .. } => (ReasonCode::NotAFile, "commit a regular file at this path"),
            Self::Glob(_) => (ReasonCode::InvalidGlob, "check the brackets of the glob"),
            Self::DiskFull(_) | Self::NoRoom(_) => {
                (ReasonCode::DiskFull, "free disk space under `data.dir`; the build then continues by itself")
            }
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
            Self::TokenRejected(_) | Self::FetchForbidden(_) | Self::HttpGitDisabled(_) | Self::RepositoryGone(_) => {
                self.reason().help.unwrap_or_default()
            }
            Self::DiskFull(_) | Self::NoRoom(_) => "free disk space under `data.dir`".to_owned(),
            _ => "check with `beespace doctor` that this server can reach Gogs".to_owned(),
        };
        let message = format!("the commit could not be fetched within {} h: {self}", after.as_secs() / 3_600);
        Reason::new(ReasonCode::SourceTimeout, message).help(format!("{remedy}; then run `beespace build restart`"))
    }

    /// Classifies git's error output (`LC_ALL=C`) after a failed fetch. `silence`: the limit that was in force.
    pub(super) fn from_fetch_stderr(stderr: &str, silence: Duration) -> Self {
        let has = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
        let summary = summary_line(stderr);
        let own = Self::internal(stderr.to_owned());
        if matches!(own, Self::DiskFull(_)) {
            // git then also reports that the remote end hung up, which is only a consequence.
            Self::DiskFull(summary)
        } else if has(&["Operation too slow"]) {
            // git then also reports that the remote end hung up.
            Self::Silent { after: silence }
        } else if has(&["by HTTP protocol is disabled"]) {
            Self::HttpGitDisabled(remote_sentence(stderr))
        } else if has(&["returned error: 403"]) {
            Self::FetchForbidden(remote_sentence(stderr))
        } else if has(&["Authentication failed", "could not read Username", "returned error: 401"]) {
            // git's own text mentions prompts and user names, which do not apply here.
            Self::TokenRejected(remote_sentence(stderr))
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

/// The text that the remote end sent, on one line, shortened, and without characters that a terminal would interpret.
fn remote_sentence(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("remote: ")).map(str::trim).collect();
    lines.join(" ").chars().filter(|c| !sanitize::is_unsafe(*c)).take(300).collect()
}

/// Gogs' own sentence at the end of a message.
fn quoted(sentence: &str) -> String {
    if sentence.is_empty() { String::new() } else { format!(": {sentence}") }
}

/// The most informative line, shortened, and without characters that a terminal would interpret.
fn summary_line(stderr: &str) -> String {
    let after = |prefix: &str| stderr.lines().find_map(|line| line.strip_prefix(prefix));
    let line = after("fatal: ").or_else(|| after("error: ")).or_else(|| stderr.lines().last()).unwrap_or_default();
    line.chars().filter(|c| !sanitize::is_unsafe(*c)).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_last_retry_the_reason_does_not_promise_to_continue() {
        for error in [
            SourceError::ForgeUnreachable("refused".to_owned()),
            SourceError::TokenRejected(String::new()),
            SourceError::FetchForbidden("User permission denied".to_owned()),
            SourceError::HttpGitDisabled("disabled".to_owned()),
            SourceError::Silent { after: Duration::from_secs(60) },
            SourceError::CommitMissing { git_ref: "refs/heads/a".to_owned(), commit: "527a3eb".to_owned() },
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
        let of = |text: &str| SourceError::from_fetch_stderr(text, Duration::from_secs(60));
        assert!(matches!(of("fatal: Authentication failed for 'http://x/'"), SourceError::TokenRejected(_)));
        assert!(matches!(
            of("fatal: could not read Username for 'http://x': terminal prompts disabled"),
            SourceError::TokenRejected(_)
        ));
        let forbidden =
            "remote: User permission denied\nfatal: unable to access 'http://x/': The requested URL returned error: 403";
        assert_eq!(of(forbidden), SourceError::FetchForbidden("User permission denied".to_owned()));
        let switched_off = "remote: Interacting with repositories by HTTP protocol is disabled\n\
                            fatal: unable to access 'http://x/': The requested URL returned error: 403";
        let reason = of(switched_off).reason();
        assert_eq!(reason.code, ReasonCode::HttpGitDisabled);
        assert!(reason.message.ends_with(": Interacting with repositories by HTTP protocol is disabled"), "{reason}");
        assert!(reason.help.unwrap().contains("DISABLE_HTTP_GIT"));
        let silent = "error: RPC failed; curl 28 Operation too slow. Less than 1 bytes/sec transferred the last 60 seconds\n\
                      fatal: the remote end hung up unexpectedly";
        assert_eq!(of(silent), SourceError::Silent { after: Duration::from_secs(60) });
        assert!(matches!(of("remote: x\nfatal: repository 'http://x/' not found"), SourceError::RepositoryGone(_)));
        let unreachable = "fatal: unable to access 'http://x/': Failed to connect to x port 1: Connection refused";
        assert!(matches!(of(unreachable), SourceError::ForgeUnreachable(_)));
        assert!(matches!(
            of("fatal: unable to access 'http://x/': The requested URL returned error: 502"),
            SourceError::ForgeUnreachable(_)
        ));
        let locked =
            "error: cannot lock ref 'refs/heads/a': File exists.\n\nAnother git process …\nremove the file manually to continue.";
        assert_eq!(of(locked), SourceError::Internal("cannot lock ref 'refs/heads/a': File exists.".to_owned()));
        let full = "fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output\nerror: early EOF";
        assert_eq!(of(full), SourceError::DiskFull("write error: No space left on device".to_owned()));
    }

    #[test]
    fn terminal_escapes_are_removed_from_gits_output() {
        let of = |text: &str| SourceError::from_fetch_stderr(text, Duration::from_secs(60));
        let stderr =
            "remote: x\u{1b}[2J\r\nfatal: unable to access 'http://x/\u{1b}]0;title\u{7}\u{9b}2J': Connection refused\r\n";
        let summary = "unable to access 'http://x/]0;title2J': Connection refused";
        assert_eq!(of(stderr), SourceError::ForgeUnreachable(summary.to_owned()));
        assert_eq!(of("cells\u{1b}[2J\0\r\u{7}\u{202e}"), SourceError::Internal("cells[2J".to_owned()));
    }
}
