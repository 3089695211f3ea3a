//! Builders of this server's URLs. Each path is built here, and percent-encoded once.
//!
//! The functions return paths as the router knows them. Clients need those of [`Urls`]: if `server.public_url` has a path, such
//! as `https://example.org/ci`, every path of the server is below it. The proxy may pass that path on or strip it; [`strip_base`]
//! removes one that was passed on.

use std::fmt;
use std::str::FromStr;

use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use beespace_core::build::Build;
use beespace_core::ids::{BuildId, RepositoryName, StageNumber, StepNumber};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything except the unreserved characters of RFC 3986.
const PERCENT_ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path prefix of the API.
pub const API_PREFIX: &str = "/api/v1";
/// The page of deliveries.
pub const DELIVERIES: &str = "/-/deliveries";
/// The page of notices.
pub const NOTICES: &str = "/-/notices";
/// The stream of live changes.
const EVENTS: &str = "/api/v1/events";

/// Encodes one segment of a path or one value of a query.
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

/// A build as URLs name it: by its number, or by its id until it has one. The id stays valid.
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

/// Why a text is not a build key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a build: use its number or its id")]
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

/// The public URL of a build's page.
#[must_use]
pub fn build_url(public_url: &url::Url, build: &Build) -> String {
    let path = self::build(&build.event.repository.name, BuildKey::of(build));
    format!("{}{path}", public_url.as_str().trim_end_matches('/'))
}

/// The page of a step and its log.
#[must_use]
pub fn step(name: &RepositoryName, key: BuildKey, stage: StageNumber, step: StepNumber) -> String {
    format!("{}/{stage}/{step}", build(name, key))
}

/// The API path of a repository.
#[must_use]
pub fn api_repository(name: &RepositoryName) -> String {
    format!("{API_PREFIX}/repositories/{}/{}", encode(name.owner()), encode(name.name()))
}

/// The API path of a build.
#[must_use]
pub fn api_build(name: &RepositoryName, key: BuildKey) -> String {
    format!("{}/builds/{key}", api_repository(name))
}

/// The API path of a step's log.
#[must_use]
pub fn api_log(name: &RepositoryName, key: BuildKey, stage: StageNumber, step: StepNumber) -> String {
    format!("{}/stages/{stage}/steps/{step}/log", api_build(name, key))
}

/// The path after a sign-in, as the router knows it: `next` if it is a path on this server that no browser can read as another
/// server's URL, otherwise `/`.
#[must_use]
pub fn safe_next(next: &str) -> &str {
    let is_path = next.starts_with('/') && !next.starts_with("//");
    let is_plain = next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if is_path && is_plain { next } else { "/" }
}

/// The path below which a server is reached: that of a URL without the slash at its end, so it is empty for most servers.
#[must_use]
pub fn base_path(url: &url::Url) -> &str {
    url.path().trim_end_matches('/')
}

/// A request's URI without the base path, for the router; `None` if the proxy has stripped it already.
#[must_use]
pub fn strip_base(uri: &Uri, base: &str) -> Option<Uri> {
    let rest = uri.path().strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    let path = if rest.is_empty() { "/" } else { rest };
    let path_and_query = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Uri::from_parts(parts).ok()
}

/// The URLs of this server as clients see them: absolute paths below the path of `server.public_url`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Urls {
    base: String,
}

impl Urls {
    #[must_use]
    pub fn new(public_url: &url::Url) -> Self {
        Self { base: base_path(public_url).to_owned() }
    }

    /// A path of the router as clients see it.
    #[must_use]
    pub fn below_base(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The list of all builds. Every other path begins with this one.
    #[must_use]
    pub fn home(&self) -> String {
        self.below_base("/")
    }

    /// See [`owner`].
    #[must_use]
    pub fn owner(&self, owner: &str) -> String {
        self.below_base(&self::owner(owner))
    }

    /// See [`repository`].
    #[must_use]
    pub fn repository(&self, name: &RepositoryName) -> String {
        self.below_base(&self::repository(name))
    }

    /// The page of a build.
    #[must_use]
    pub fn build(&self, build: &Build) -> String {
        self.below_base(&self::build(&build.event.repository.name, BuildKey::of(build)))
    }

    /// See [`step`].
    #[must_use]
    pub fn step(&self, name: &RepositoryName, key: BuildKey, stage: StageNumber, step: StepNumber) -> String {
        self.below_base(&self::step(name, key, stage, step))
    }

    /// See [`api_log`].
    #[must_use]
    pub fn api_log(&self, name: &RepositoryName, key: BuildKey, stage: StageNumber, step: StepNumber) -> String {
        self.below_base(&self::api_log(name, key, stage, step))
    }

    /// The stream of all changes.
    #[must_use]
    pub fn events(&self) -> String {
        self.below_base(EVENTS)
    }

    /// The sign-in page that leads back to `path`, a path of the router.
    #[must_use]
    pub fn login(&self, path: &str) -> String {
        self.below_base(&format!("/-/login?next={}", encode(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_redirects_to_this_server_only() {
        for hostile in ["//evil", "/\\evil", "https:evil", "https://evil", "/a\r\nSet-Cookie: x", "", "a", "/ä", "/\t/evil"] {
            assert_eq!(safe_next(hostile), "/", "{hostile:?}");
        }
        for good in ["/", "/acme/app/3?x=1#L4", "/-/deliveries"] {
            assert_eq!(safe_next(good), good);
        }
    }

    #[test]
    fn a_build_key_is_a_number_or_an_id() {
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
        assert_eq!(Urls::default().login("/a/b?c=d"), "/-/login?next=%2Fa%2Fb%3Fc%3Dd");
    }

    #[test]
    fn a_base_path_precedes_every_path_once() {
        for (public_url, home, owner) in [
            ("https://ci.example.org", "/", "/acme"),
            ("https://example.org/ci", "/ci/", "/ci/acme"),
            ("https://example.org/a/ci/", "/a/ci/", "/a/ci/acme"),
        ] {
            let urls = Urls::new(&public_url.parse().unwrap());
            assert_eq!((urls.home().as_str(), urls.owner("acme").as_str()), (home, owner));
        }
    }

    #[test]
    fn a_base_path_that_the_proxy_passed_on_is_stripped() {
        let strip = |uri: &str, base: &str| strip_base(&uri.parse().unwrap(), base).map(|uri| uri.to_string());
        assert_eq!(strip("/ci/acme/app?a=1", "/ci").as_deref(), Some("/acme/app?a=1"));
        assert_eq!(strip("/ci", "/ci").as_deref(), Some("/"));
        assert_eq!(strip("/ci/", "/ci").as_deref(), Some("/"));
        assert_eq!(strip("http://host/ci/x", "/ci").as_deref(), Some("http://host/x"));
        for already in ["/", "/cinema/app", "/acme/ci"] {
            assert_eq!(strip(already, "/ci"), None, "{already}");
        }
    }
}
