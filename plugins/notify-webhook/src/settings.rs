//! The settings of the binding.

use serde::Deserialize;

/// The settings, described in `manifest.json`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) url: Url,
    pub(crate) secret: String,
}

/// The parts of a URL that a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) is_https: bool,
    /// The host, with a port if the URL has one.
    pub(crate) authority: String,
    pub(crate) path_with_query: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    url: String,
    secret: String,
}

impl Settings {
    /// Parses the settings. The error is a JSON pointer into them and a message.
    pub(crate) fn read(json: &str) -> Result<Self, (String, String)> {
        let raw: Raw =
            serde_json::from_str(json).map_err(|error| (String::new(), format!("the settings are invalid: {error}")))?;
        let url = Url::read(&raw.url).map_err(|problem| ("/url".to_owned(), format!("{:?} {problem}", raw.url)))?;
        Ok(Self { url, secret: raw.secret })
    }
}

impl Url {
    fn read(text: &str) -> Result<Self, &'static str> {
        let (is_https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("must begin with https:// or http://"),
        };
        if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err("has characters that must be percent-encoded");
        }
        if text.contains('#') {
            return Err("has a fragment, which is never sent");
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() {
            return Err("has no host");
        }
        if authority.contains('@') {
            return Err("contains a user or a password; store the secret with `beespace secret set` instead");
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { is_https, authority: authority.to_owned(), path_with_query: format!("{slash}{path}") })
    }
}

impl std::fmt::Display for Url {
    /// Shows scheme and host only, because the path of a webhook is often a credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.is_https { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_its_parts() {
        for (text, authority, path) in [
            ("https://hooks.example.org", "hooks.example.org", "/"),
            ("https://hooks.example.org:8443/a/b?c=d", "hooks.example.org:8443", "/a/b?c=d"),
            ("http://[::1]:9000?x", "[::1]:9000", "/?x"),
        ] {
            let url = Url::read(text).unwrap();
            assert_eq!((url.authority.as_str(), url.path_with_query.as_str()), (authority, path));
        }
    }

    #[test]
    fn invalid_urls_are_refused() {
        for text in ["ftp://x", "https://", "https://u:p@x", "https://x/#a", "https://x/a b", "https://x/ü", "x"] {
            assert!(Url::read(text).is_err(), "{text}");
        }
    }
}
