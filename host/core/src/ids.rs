//! Ids, each with a type of its own. The host generates the random ones (UUIDv7); core never creates an id.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    )+};
}

uuid_ids! {
    /// One stored delivery. This is not the id that Gogs sends, because that header is not signed.
    DeliveryId,
    /// One build. People use `owner/name#number`; rows, paths and labels use this id.
    BuildId,
    /// One stored decision.
    DecisionId,
    /// One notice for one notifier binding.
    NoticeId,
}

/// Gogs' numeric id of a repository. It survives renames and transfers, so rows and paths on disk use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RepositoryId(pub u64);

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a stage in its build, from 1, in the order of the pipeline file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StageNumber(pub u16);

/// The number of a step in its stage, from 1, in the order of the pipeline file. 0 is the host's own clone step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepNumber(pub u16);

impl StepNumber {
    /// The host's own step that copies the sources into the workspace.
    pub const CLONE: Self = Self(0);
}

impl fmt::Display for StageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for StepNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One stage of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StageId {
    pub build: BuildId,
    pub stage: StageNumber,
}

impl fmt::Display for StageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.build, self.stage)
    }
}

/// One attempt at one step: the key of its log and its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepId {
    pub build: BuildId,
    pub stage: StageNumber,
    pub step: StepNumber,
    /// From 1; a retry increments it.
    pub attempt: u16,
}

impl StepId {
    /// The stage the step belongs to.
    #[must_use]
    pub fn stage_id(self) -> StageId {
        StageId { build: self.build, stage: self.stage }
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.build, self.stage, self.step, self.attempt)
    }
}

/// The full name of a repository, `owner/name`. Both parts are restricted to what Gogs allows, because they become part of paths
/// and URLs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RepositoryName {
    owner: String,
    name: String,
}

/// The text is not a repository name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a repository name: expected OWNER/NAME of letters, digits, `.`, `_` and `-`, not starting with `-` or `.`")]
pub struct InvalidRepositoryName(pub String);

impl RepositoryName {
    /// Checks both parts: `[A-Za-z0-9_.-]{1,100}`, no leading `-`, not `.` or `..`. (Until 0.14.3 Gogs accepted `..` in its API.)
    ///
    /// # Errors
    /// [`InvalidRepositoryName`] with the offending text.
    pub fn new(owner: &str, name: &str) -> Result<Self, InvalidRepositoryName> {
        if is_slug(owner) && is_slug(name) {
            Ok(Self { owner: owner.to_owned(), name: name.to_owned() })
        } else {
            Err(InvalidRepositoryName(format!("{owner}/{name}")))
        }
    }

    /// The user or organisation that owns the repository.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The name without the owner.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn is_slug(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !text.starts_with('-')
        && text != "."
        && text != ".."
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl std::str::FromStr for RepositoryName {
    type Err = InvalidRepositoryName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (owner, name) = text.split_once('/').ok_or_else(|| InvalidRepositoryName(text.to_owned()))?;
        Self::new(owner, name)
    }
}

/// A full git object id, 40 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha(String);

/// The text is not a git object id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a commit id: expected 40 hex digits")]
pub struct InvalidSha(pub String);

impl Sha {
    /// # Errors
    /// [`InvalidSha`] unless `text` is 40 hex digits; upper case becomes lower case.
    pub fn new(text: &str) -> Result<Self, InvalidSha> {
        if text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(InvalidSha(text.to_owned()))
        }
    }

    /// Whether this is git's id for "no commit" (the `before` of a new branch, the `after` of a deleted one).
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.bytes().all(|b| b == b'0')
    }

    /// The 40 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first seven digits, for display.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..7).unwrap_or(&self.0)
    }
}

impl fmt::Display for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Sha {
    type Error = InvalidSha;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<Sha> for String {
    fn from(sha: Sha) -> Self {
        sha.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_repository_names_are_refused() {
        for text in ["../x", "a/..", "-a/b", "a/-b", "a", "a/b c", "a/b/c", "/b", "a/", "a/ü"] {
            assert!(text.parse::<RepositoryName>().is_err(), "{text}");
        }
        assert_eq!("acme/app.js".parse::<RepositoryName>().unwrap().to_string(), "acme/app.js");
    }

    #[test]
    fn a_sha_is_forty_hex_digits() {
        assert!(Sha::new("--upload-pack=x").is_err());
        assert!(Sha::new(&"0".repeat(40)).unwrap().is_zero());
        assert_eq!(Sha::new(&"AB".repeat(20)).unwrap().short(), "abababa");
    }
}
