//! The settings of the binding.

use serde::Deserialize;

/// The settings, described in `manifest.json`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) url: Url,
    pub(crate) secret: String,
    /// The secret that holds the path and query of the URL.
    pub(crate) path_secret: Option<String>,
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
    path_secret: Option<String>,
}

impl Settings {
    /// Parses the settings. The error is a JSON pointer into them and a message.
    pub(crate) fn read(json: &str) -> Result<Self, (String, String)> {
        let raw: Raw =
            serde_json::from_str(json).map_err(|error| (String::new(), format!("the settings are invalid: {error}")))?;
        let url = Url::read(&raw.url).map_err(|problem| ("/url".to_owned(), format!("{:?} {problem}", raw.url)))?;
        if raw.path_secret.is_some() && url.path_with_query != "/" {
            let message = "has a path, but `path_secret` names a secret with the path: set `url` to scheme and host only";
            return Err(("/url".to_owned(), message.to_owned()));
        }
        Ok(Self { url, secret: raw.secret, path_secret: raw.path_secret })
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
    fn a_path_is_either_in_the_url_or_in_a_secret() {
        let read = |url: &str| Settings::read(&format!(r#"{{"url": "{url}", "secret": "a", "path_secret": "b"}}"#));
        assert_eq!(read("https://x.example").unwrap().path_secret.as_deref(), Some("b"));
        assert_eq!(read("https://x.example/hook").unwrap_err().0, "/url");
    }

    #[test]
    fn invalid_urls_are_refused() {
        for text in ["ftp://x", "https://", "https://u:p@x", "https://x/#a", "https://x/a b", "https://x/ü", "x"] {
            assert!(Url::read(text).is_err(), "{text}");
        }
    }
}
