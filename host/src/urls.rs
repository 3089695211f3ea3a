//! Every path of ours, built in one place and percent-encoded once.

use std::fmt;
use std::str::FromStr;

use beespace_core::build::Build;
use beespace_core::ids::{BuildId, RepositoryName, StageNumber, StepNumber};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but what RFC 3986 calls unreserved.
const PERCENT_ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where the API begins.
pub const API_PREFIX: &str = "/api/v1";

/// One segment of a path, or one value of a query.
#[must_use]
pub fn encode(segment: &str) -> String {
    utf8_percent_encode(segment, PERCENT_ENCODED).to_string()
}

/// An owner's page.
#[must_use]
pub fn owner(owner: &str) -> String {
    format!("/{}", encode(owner))
}

/// A repository's page.
#[must_use]
pub fn repository(name: &RepositoryName) -> String {
    format!("/{}/{}", encode(name.owner()), encode(name.name()))
}

/// How an address names a build: by its number, or by its id while it has none. The id is good for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildKey {
    Number(u64),
    Id(BuildId),
}

impl BuildKey {
    #[must_use]
    pub fn of(build: &Build) -> Self {
        build.number.map_or(Self::Id(build.id), Self::Number)
    }
}

impl fmt::Display for BuildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// Why a text names no build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no build: expected its number, or its id")]
pub struct InvalidBuildKey(String);

impl FromStr for BuildKey {
    type Err = InvalidBuildKey;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = || text.parse().map(Self::Id).map_err(|_| InvalidBuildKey(text.to_owned()));
        text.parse().map(Self::Number).or_else(|_| id())
    }
}

/// A build's page.
#[must_use]
pub fn build(name: &RepositoryName, key: BuildKey) -> String {
    format!("{}/{key}", repository(name))
}

/// Where people outside look at a build.
#[must_use]
pub fn build_url(public_url: &url::Url, build: &Build) -> String {
    let path = self::build(&build.event.repository.name, BuildKey::of(build));
    format!("{}{path}", public_url.as_str().trim_end_matches('/'))
}

/// The page of a step's log.
#[must_use]
pub fn step(name: &RepositoryName, key: BuildKey, stage: StageNumber, step: StepNumber) -> String {
    format!("{}/{stage}/{step}", build(name, key))
}

/// A repository in the API.
#[must_use]
pub fn api_repository(name: &RepositoryName) -> String {
    format!("{API_PREFIX}/repositories/{}/{}", encode(name.owner()), encode(name.name()))
}

/// A build in the API.
#[must_use]
pub fn api_build(name: &RepositoryName, key: BuildKey) -> String {
    format!("{}/builds/{key}", api_repository(name))
}

/// A step's log in the API.
#[must_use]
pub fn api_log(name: &RepositoryName, key: BuildKey, stage: StageNumber, step: StepNumber) -> String {
    format!("{}/stages/{stage}/steps/{step}/log", api_build(name, key))
}

/// Where sign-in leads back to `path`.
#[must_use]
pub fn login(path: &str) -> String {
    format!("/-/login?next={}", encode(path))
}

/// Where a sign-in may lead: a path on this server and nothing that a browser could take for another one.
#[must_use]
pub fn safe_next(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//");
    let is_plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if is_path && is_plain { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_leads_to_this_server_only() {
        for hostile in ["//evil", "/\\evil", "https:evil", "https://evil", "/a\r\nSet-Cookie: x", "", "a", "/ä", "/\t/evil"] {
            assert_eq!(safe_next(hostile), "/", "{hostile:?}");
        }
        for good in ["/", "/acme/app/3?x=1#L4", "/-/deliveries"] {
            assert_eq!(safe_next(good), good);
        }
    }

    #[test]
    fn a_build_is_named_by_number_or_id() {
        for text in ["7", "0198c0de-0000-7000-8000-000000000001"] {
            assert_eq!(text.parse::<BuildKey>().unwrap().to_string(), text);
        }
        for odd in ["", "-1", "seven", "0198c0de"] {
            assert!(odd.parse::<BuildKey>().is_err(), "{odd}");
        }
    }

    #[test]
    fn paths_are_encoded_once() {
        let name = RepositoryName::new("acme", "app.js").unwrap();
        assert_eq!(step(&name, BuildKey::Number(7), StageNumber(1), StepNumber(2)), "/acme/app.js/7/1/2");
        assert_eq!(login("/a/b?c=d"), "/-/login?next=%2Fa%2Fb%3Fc%3Dd");
    }
}
