//! What the admin lets one binding reach. Everything not named here is not linked, or refused at the call.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The grants of one binding. The default grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Where `wasi:http` may send; empty: it is not linked.
    pub egress: Vec<EgressRule>,
    /// Names of the secrets it may open; empty: `secrets` is not linked.
    pub secrets: BTreeSet<String>,
    /// It may see their values. A grant of its own, so that it can be denied and audited alone.
    pub secrets_reveal: bool,
    /// A small durable memory of its own.
    pub kv: bool,
}

/// One place to which requests may go: exactly this scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    pub scheme: EgressScheme,
    /// Lower case, without a trailing dot: `hooks.example`, `*.hooks.example` (any name below it), or an address.
    pub host: String,
    pub port: u16,
    /// Which addresses the name may stand for.
    #[serde(default)]
    pub class: AddressClass,
}

/// How to speak to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressScheme {
    Http,
    Https,
}

impl EgressScheme {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// How far an address is from the internet. A rule lets through its own class and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressClass {
    /// Reachable for everybody.
    #[default]
    Public,
    /// The company's own network: RFC 1918, RFC 6598, unique local IPv6.
    Private,
    /// This machine.
    Loopback,
}

/// Why a text is no egress rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no place to send to: {why}; write https://HOST or https://HOST:PORT")]
pub struct InvalidEgress {
    pub text: String,
    pub why: &'static str,
}

impl EgressRule {
    /// Reads `https://host[:port]`.
    ///
    /// # Errors
    /// [`InvalidEgress`] where the text has another scheme, a user, a path or a query, or where the host is a bare `*`.
    pub fn parse(text: &str, class: AddressClass) -> Result<Self, InvalidEgress> {
        let refuse = |why| InvalidEgress { text: text.to_owned(), why };
        let uri: http::Uri = text.parse().map_err(|_| refuse("it is not a URL"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => EgressScheme::Http,
            Some("https") => EgressScheme::Https,
            _ => return Err(refuse("the scheme is neither http nor https")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("there is no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("there is a user in it"));
        }
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err(refuse("there is a path in it, which cannot be granted"));
        }
        let host = normalize_host(authority.host());
        if host.is_empty() || host == "*" || host.trim_start_matches("*.").contains('*') {
            return Err(refuse("a `*` may only stand for the first label"));
        }
        Ok(Self { scheme, host, port: authority.port_u16().unwrap_or(scheme.default_port()), class })
    }

    /// Whether a request to this place is covered. `host` is in the form of [`normalize_host`].
    pub(crate) fn covers(&self, scheme: EgressScheme, host: &str, port: u16) -> bool {
        self.scheme == scheme && self.port == port && host_matches(&self.host, host)
    }
}

impl std::fmt::Display for EgressRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

/// The one form in which host names are compared: lower case, no brackets, no dot at the end.
pub(crate) fn normalize_host(host: &str) -> String {
    host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

/// `pattern` is a name, or `*.` and a name, which stands for every name below it (and not for that name itself).
pub(crate) fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_one_place() {
        let rule = EgressRule::parse("https://Hooks.Example.:8443", AddressClass::Public).unwrap();
        assert_eq!(rule.to_string(), "https://hooks.example:8443");
        assert!(rule.covers(EgressScheme::Https, "hooks.example", 8443));
        assert!(!rule.covers(EgressScheme::Http, "hooks.example", 8443));
        assert!(!rule.covers(EgressScheme::Https, "hooks.example", 443));
        for text in ["ftp://a", "https://u@a", "https://a/b", "https://*", "https://a.*.b", "a"] {
            assert!(EgressRule::parse(text, AddressClass::Public).is_err(), "{text}");
        }
    }

    #[test]
    fn a_star_stands_for_names_below_only() {
        assert!(host_matches("*.example.com", "a.example.com"));
        assert!(!host_matches("*.example.com", "example.com"));
        assert!(!host_matches("*.example.com", ".example.com"));
        assert!(!host_matches("*.example.com", "badexample.com"));
    }
}
