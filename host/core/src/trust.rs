//! Trust in the code of a build. Trust belongs to the code, not to the person who caused the event: whoever restarts the build of
//! a fork's commit does not make that commit trustworthy.
//!
//! Code is trusted if a branch or tag of the repository reaches it when it is recorded, because only people with write access can
//! put it there. The ref of a pull request does not count, because everybody may open one. The pull request of a fork is never
//! trusted, whatever reaches its commit: a stranger chooses which commit it proposes and to which branch, and could choose an old
//! commit, or one that was merged together with its own revert.

use serde::{Deserialize, Serialize};

use crate::event::Event;

/// How far the code of a build is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Code of a fork, or of a commit that is in no branch and no tag. The default, so that a missing value never grants trust.
    #[default]
    Untrusted,
    /// Code that somebody with write access has put into the repository.
    Trusted,
}

/// Where the commit of a build is when the build is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitLocation {
    /// A branch or a tag of the repository reaches it.
    BranchOrTag,
    /// No branch and no tag reaches it: only the ref of a pull request, or none.
    Elsewhere,
}

impl Trust {
    /// The trust in the code of an event. `repeated` is the trust in the build that this one repeats: a repetition has more trust
    /// only if the commit has reached a branch or a tag since.
    #[must_use]
    pub fn of_code(event: &Event, location: CommitLocation, repeated: Option<Self>) -> Self {
        match location {
            _ if !Self::depends_on_location(event) => Self::Untrusted,
            CommitLocation::BranchOrTag => Self::Trusted,
            CommitLocation::Elsewhere => repeated.unwrap_or_default(),
        }
    }

    /// Whether the location of the commit matters: the pull request of a fork is untrusted wherever its commit is.
    #[must_use]
    pub fn depends_on_location(event: &Event) -> bool {
        event.pull_request().is_none_or(|pull| !pull.is_from_fork(event.repository.id))
    }

    /// Whether steps get the values of secrets. No configuration and no approval changes this.
    #[must_use]
    pub fn permits_secrets(self) -> bool {
        self == Self::Trusted
    }

    /// Whether what the configuration opens on the host (paths, devices, privileges) is open for the build, and whether it shares
    /// caches with trusted builds. No configuration and no approval changes this.
    #[must_use]
    pub fn permits_grants(self) -> bool {
        self == Self::Trusted
    }

    /// The stable name in records, APIs and texts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Trusted => "trusted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_BASE: CommitLocation = CommitLocation::BranchOrTag;
    const OUTSIDE: CommitLocation = CommitLocation::Elsewhere;

    fn event(cause: serde_json::Value) -> Event {
        serde_json::from_value(serde_json::json!({
            "repository": {
                "id": 4, "name": { "owner": "acme", "name": "app" }, "default_branch": "main", "is_private": false, "html_url": ""
            },
            "sender": { "id": 1, "login": "ada" },
            "cause": cause,
        }))
        .unwrap()
    }

    /// One event of each origin. The fields of the sender are no input, so it cannot matter who sent it.
    fn events() -> Vec<(Event, bool)> {
        let pull = |change: &str, source: u64| {
            let source = serde_json::json!({ "id": source, "name": { "owner": "eve", "name": "app" } });
            event(
                serde_json::json!({ "kind": "pull_request", "number": 7, "change": change, "title": "", "target_branch": "main",
                "source_branch": "topic", "source": source }),
            )
        };
        let after = "ab".repeat(20);
        vec![
            (
                event(serde_json::json!({ "kind": "push", "branch": "main", "before": null, "after": after, "commits": [],
                "compare_url": null })),
                true,
            ),
            (event(serde_json::json!({ "kind": "tag", "name": "v1", "object": null })), true),
            (
                event(serde_json::json!({ "kind": "release", "tag": "v1", "title": "", "notes": "", "is_prerelease": false })),
                true,
            ),
            (pull("opened", 4), true),
            (pull("closed", 4), true),
            (pull("opened", 9), false),
            (pull("closed", 9), false),
        ]
    }

    #[test]
    fn only_code_of_the_repository_gets_secrets_and_grants() {
        for (event, may_be_trusted) in events() {
            for (location, expected) in [(IN_BASE, may_be_trusted), (OUTSIDE, false)] {
                let trust = Trust::of_code(&event, location, None);
                assert_eq!((trust.permits_secrets(), trust.permits_grants()), (expected, expected), "{event:?} {location:?}");
            }
        }
    }

    #[test]
    fn a_repetition_has_more_trust_only_if_the_commit_has_reached_a_branch_since() {
        for (event, may_be_trusted) in events() {
            let again = |location, repeated| Trust::of_code(&event, location, Some(repeated)) == Trust::Trusted;
            assert!(!again(OUTSIDE, Trust::Untrusted), "{event:?}");
            assert_eq!(again(IN_BASE, Trust::Untrusted), may_be_trusted, "{event:?}");
            // Its branch was deleted meanwhile, but the code is the same.
            assert_eq!(again(OUTSIDE, Trust::Trusted), may_be_trusted, "{event:?}");
        }
    }

    #[test]
    fn a_missing_value_grants_nothing() {
        assert_eq!(Trust::default(), Trust::Untrusted);
        assert!(!Trust::default().permits_secrets() && !Trust::default().permits_grants());
    }
}
