//! Every path of ours, built in one place and percent-encoded once.

use beespace_core::ids::{RepositoryName, StageNumber, StepNumber};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but what RFC 3986 calls unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where the API begins.
pub const API: &str = "/api/v1";

/// One segment of a path, or one value of a query.
#[must_use]
pub fn encode(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
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

/// A build's page.
#[must_use]
pub fn build(name: &RepositoryName, number: u64) -> String {
    format!("{}/{number}", repository(name))
}

/// Where people outside look at a build; the repository's page while it has no number.
#[must_use]
pub fn build_url(public_url: &url::Url, build: &beespace_core::build::Build) -> String {
    let name = &build.event.repository.name;
    let path = build.number.map_or_else(|| repository(name), |number| self::build(name, number));
    format!("{}{path}", public_url.as_str().trim_end_matches('/'))
}

/// The page of a step's log.
#[must_use]
pub fn step(name: &RepositoryName, number: u64, stage: StageNumber, step: StepNumber) -> String {
    format!("{}/{stage}/{step}", build(name, number))
}

/// A repository in the API.
#[must_use]
pub fn api_repository(name: &RepositoryName) -> String {
    format!("{API}/repositories/{}/{}", encode(name.owner()), encode(name.name()))
}

/// A build in the API.
#[must_use]
pub fn api_build(name: &RepositoryName, number: u64) -> String {
    format!("{}/builds/{number}", api_repository(name))
}

/// A step's log in the API.
#[must_use]
pub fn api_log(name: &RepositoryName, number: u64, stage: StageNumber, step: StepNumber) -> String {
    format!("{}/stages/{stage}/steps/{step}/log", api_build(name, number))
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
    fn paths_are_encoded_once() {
        let name = RepositoryName::new("acme", "app.js").unwrap();
        assert_eq!(step(&name, 7, StageNumber(1), StepNumber(2)), "/acme/app.js/7/1/2");
        assert_eq!(login("/a/b?c=d"), "/-/login?next=%2Fa%2Fb%3Fc%3Dd");
    }
}
