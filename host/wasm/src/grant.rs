//! Grants: what the admin allows one binding to reach. Everything else is not linked, or is refused at the call.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The grants of one binding. The default grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Destinations of `wasi:http`. If the list is empty, `wasi:http` is not linked.
    pub egress: Vec<EgressRule>,
    /// Names of the secrets that the plugin may open. If the set is empty, `secrets` is not linked.
    pub secrets: BTreeSet<String>,
    /// Whether the plugin may see the values of the secrets. A separate grant, so that it can be denied and audited separately.
    pub secrets_reveal: bool,
    /// Whether the plugin gets a small durable key-value store.
    pub kv: bool,
}

/// One permitted destination of requests: exactly this scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    pub scheme: EgressScheme,
    /// Lower case, without a trailing dot: `hooks.example`, `*.hooks.example` (any name below it), or an IP address.
    pub host: String,
    pub port: u16,
    /// The class of addresses to which the name may resolve.
    #[serde(default)]
    pub class: AddressClass,
}

/// The URL scheme of a destination.
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

/// The class of an IP address. A rule permits its own class only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressClass {
    /// Reachable from the internet.
    #[default]
    Public,
    /// A private network: RFC 1918, RFC 6598, unique local IPv6.
    Private,
    /// This machine.
    Loopback,
}

impl AddressClass {
    /// The word for this class in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Loopback => "loopback",
        }
    }
}

/// A grant that a plugin needs and its binding lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeededGrant {
    Hosts,
    Secrets,
    SecretsReveal,
    Kv,
}

impl NeededGrant {
    /// The key of `grants` in the configuration.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Secrets => "secrets",
            Self::SecretsReveal => "secrets_reveal",
            Self::Kv => "kv",
        }
    }

    /// What the plugin does with the grant: `to send requests`.
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            Self::Hosts => "to send requests",
            Self::Secrets => "to use secrets",
            Self::SecretsReveal => "to read the values of secrets",
            Self::Kv => "to store data between calls",
        }
    }

    /// The line of the configuration; none if the configuration cannot grant it yet.
    pub(crate) fn example(self) -> Option<&'static str> {
        match self {
            Self::Hosts => Some("hosts = [\"https://HOST\"]"),
            Self::Secrets => Some("secrets = [\"NAME\"]"),
            Self::SecretsReveal => None,
            Self::Kv => Some("kv = true"),
        }
    }
}

/// A text that is not an egress rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid destination: {why}; write https://HOST or https://HOST:PORT")]
pub struct InvalidEgress {
    pub text: String,
    pub why: &'static str,
}

impl EgressRule {
    /// Reads `https://host[:port]`.
    ///
    /// # Errors
    /// [`InvalidEgress`] if the text has another scheme, user information, a path or a query, or if the host is a bare `*`.
    pub fn parse(text: &str, class: AddressClass) -> Result<Self, InvalidEgress> {
        let refuse = |why| InvalidEgress { text: text.to_owned(), why };
        let uri: http::Uri = text.parse().map_err(|_| refuse("it is not a URL"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => EgressScheme::Http,
            Some("https") => EgressScheme::Https,
            _ => return Err(refuse("the scheme is neither http nor https")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("it contains a user name"));
        }
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err(refuse("it contains a path, which cannot be granted"));
        }
        let host = normalize_host(authority.host());
        if host.is_empty() || host == "*" || host.trim_start_matches("*.").contains('*') {
            return Err(refuse("`*` is allowed only as the first label"));
        }
        Ok(Self { scheme, host, port: authority.port_u16().unwrap_or(scheme.default_port()), class })
    }

    /// Whether the rule permits a request to this destination. `host` has the form of [`normalize_host`].
    pub(crate) fn covers(&self, scheme: EgressScheme, host: &str, port: u16) -> bool {
        self.scheme == scheme && self.port == port && host_matches(&self.host, host)
    }
}

impl std::fmt::Display for EgressRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

/// Normalizes a host name for comparison: lower case, no brackets, no trailing dot.
pub(crate) fn normalize_host(host: &str) -> String {
    host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()
}

/// Matches a host against `pattern`: a name, or `*.` and a name, which matches every name below it but not that name itself.
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
    fn a_rule_covers_one_destination() {
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
    fn a_star_matches_only_names_below() {
        assert!(host_matches("*.example.com", "a.example.com"));
        assert!(!host_matches("*.example.com", "example.com"));
        assert!(!host_matches("*.example.com", ".example.com"));
        assert!(!host_matches("*.example.com", "badexample.com"));
    }
}
