//! The builds that people and schedules start, without an event of Gogs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::git_ref::{BRANCHES, TAGS};
use crate::ids::Sha;

/// The values that whoever starts a build gives to the params of its pipelines, by name; untrusted text.
pub type GivenParams = BTreeMap<String, String>;

/// A run that a person started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manual {
    pub revision: Revision,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: GivenParams,
}

/// The revision that a person or a schedule has chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revision {
    /// The commit that this branch (short name) points to at the fetch.
    Branch(String),
    /// The commit that this tag (short name) names at the fetch.
    Tag(String),
    /// This commit, on no branch in particular.
    Commit(Sha),
}

/// A successful build whose commit is built again for a target: a promotion, or a rollback to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// For example `production`; see [`is_target_name`].
    pub target: String,
    /// The number of that build.
    pub of: u64,
    pub commit: Sha,
    /// Full name of the ref of that build.
    pub git_ref: String,
    /// Short name of its branch.
    pub branch: Option<String>,
    /// Short name of its tag.
    pub tag: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: GivenParams,
}

/// A run that a schedule started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cron {
    /// The name of the schedule.
    pub schedule: String,
    /// The branch, whose newest commit is built.
    pub revision: Revision,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: GivenParams,
}

/// Whether a target can have this name: 1 to 100 letters, digits, `.`, `_`, `-` and `/`.
#[must_use]
pub fn is_target_name(name: &str) -> bool {
    (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
}

impl Revision {
    /// Full name of the ref; the commit itself if there is no ref.
    #[must_use]
    pub fn git_ref(&self) -> String {
        match self {
            Self::Branch(name) => format!("{BRANCHES}{name}"),
            Self::Tag(name) => format!("{TAGS}{name}"),
            Self::Commit(sha) => sha.to_string(),
        }
    }

    /// Short name of the branch, if it is one.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        match self {
            Self::Branch(name) => Some(name),
            Self::Tag(_) | Self::Commit(_) => None,
        }
    }

    /// Short name of the tag, if it is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::Tag(name) => Some(name),
            Self::Branch(_) | Self::Commit(_) => None,
        }
    }

    /// The commit, if it is known before the fetch.
    #[must_use]
    pub fn commit(&self) -> Option<&Sha> {
        match self {
            Self::Commit(sha) => Some(sha),
            Self::Branch(_) | Self::Tag(_) => None,
        }
    }
}

impl std::fmt::Display for Revision {
    /// `branch main`, as messages name it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Branch(name) => write!(f, "branch {name:?}"),
            Self::Tag(name) => write!(f, "tag {name:?}"),
            Self::Commit(sha) => write!(f, "commit {}", sha.short()),
        }
    }
}
