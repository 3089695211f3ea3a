//! Trust in the code of a build. Trust belongs to the code, not to the person who caused the event: whoever restarts the build of
//! a fork's commit does not make that commit trustworthy.
//!
//! Code is trusted if only people with write access to the repository can have put it there: a verified push or tag, or a commit
//! that a branch or tag of the repository reaches. A pull request's own ref does not count, because everybody may open one.

use serde::{Deserialize, Serialize};

use crate::event::EventKind;

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
    /// The trust in the code of an event of this kind. `repeated` is the trust in the build that this one repeats: a repetition
    /// has more trust only if the commit has reached a branch or a tag since.
    #[must_use]
    pub fn of_code(kind: EventKind, location: CommitLocation, repeated: Option<Self>) -> Self {
        match (location, repeated) {
            (CommitLocation::BranchOrTag, _) => Self::Trusted,
            (CommitLocation::Elsewhere, Some(repeated)) => repeated,
            (CommitLocation::Elsewhere, None) if Self::depends_on_location(kind) => Self::Untrusted,
            (CommitLocation::Elsewhere, None) => Self::Trusted,
        }
    }

    /// Whether the location of the commit matters: the code of a verified push or tag is trusted wherever it is now.
    #[must_use]
    pub fn depends_on_location(kind: EventKind) -> bool {
        !matches!(kind, EventKind::Push | EventKind::Tag)
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

    /// Every kind of event, with the place of its commit. Who sent the event is no argument of [`Trust::of_code`], so it cannot
    /// matter.
    #[test]
    fn only_code_of_the_repository_gets_secrets_and_grants() {
        for kind in EventKind::ALL {
            let is_verified = [EventKind::Push, EventKind::Tag].contains(&kind);
            for (location, expected) in [(IN_BASE, true), (OUTSIDE, is_verified)] {
                let trust = Trust::of_code(kind, location, None);
                assert_eq!((trust.permits_secrets(), trust.permits_grants()), (expected, expected), "{kind} {location:?}");
            }
        }
    }

    #[test]
    fn a_repetition_has_more_trust_only_if_the_commit_has_reached_a_branch_since() {
        for kind in EventKind::ALL {
            let again = |location, repeated| Trust::of_code(kind, location, Some(repeated));
            assert_eq!(again(OUTSIDE, Trust::Untrusted), Trust::Untrusted, "{kind}");
            assert_eq!(again(IN_BASE, Trust::Untrusted), Trust::Trusted, "{kind}");
            // Its branch was deleted meanwhile, but the code is the same.
            assert_eq!(again(OUTSIDE, Trust::Trusted), Trust::Trusted, "{kind}");
        }
    }

    #[test]
    fn a_missing_value_grants_nothing() {
        assert_eq!(Trust::default(), Trust::Untrusted);
        assert!(!Trust::default().permits_secrets() && !Trust::default().permits_grants());
    }
}
