//! Placeholders for secrets. A placeholder is valid for one call, in header values and in the path and query, and only for the
//! hosts of its secret.

use base64::Engine as _;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Uri};
use wasmtime_wasi_http::Error;
use zeroize::Zeroizing;

use crate::grant::host_matches;
use crate::ports::secrets::SecretValue;

const PREFIX: &str = "beespace-secret:";
/// Masking shorter values would damage ordinary text without protecting anything.
const MIN_MASKED_LEN: usize = 4;

/// The placeholders and masked values of one call.
#[derive(Clone, Default)]
pub(crate) struct Placeholders {
    bound: Vec<(String, SecretValue)>,
    masked: Vec<Zeroizing<String>>,
}

impl Placeholders {
    /// Creates a placeholder with 128 random bits.
    pub(super) fn add(&mut self, secret: &SecretValue) -> Result<String, getrandom::Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let token = format!("{PREFIX}{}", hex::encode(random));
        self.bound.push((token.clone(), secret.clone()));
        Ok(token)
    }

    /// Masks the value and its base64 form in all further output of the plugin.
    pub(super) fn mask_value(&mut self, value: Zeroizing<Vec<u8>>) {
        if value.len() < MIN_MASKED_LEN {
            return;
        }
        self.masked.push(Zeroizing::new(base64::prelude::BASE64_STANDARD_NO_PAD.encode(&value)));
        if let Ok(text) = std::str::from_utf8(&value) {
            self.masked.push(Zeroizing::new(text.to_owned()));
        }
    }

    pub(super) fn mask(&self, text: &str) -> String {
        self.masked.iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), "***"))
    }

    /// Replaces the placeholders by their values. A placeholder whose secret is not bound to `host` rejects the whole request:
    /// sending it unchanged would conceal a mistake or an attack.
    pub(super) fn substitute(&self, headers: &mut HeaderMap, host: &str) -> Result<(), Error> {
        for value in headers.values_mut() {
            let Some(text) = std::str::from_utf8(value.as_bytes()).ok().filter(|text| text.contains(PREFIX)) else {
                continue;
            };
            let substituted = self.substituted(text, host).ok_or(Error::HttpRequestDenied)?;
            *value = HeaderValue::from_bytes(&substituted).map_err(|_| Error::ConfigurationError)?;
            value.set_sensitive(true);
        }
        Ok(())
    }

    /// The same in the path and query. A value may begin with the slash that the path already has, and end with a newline.
    pub(super) fn substitute_path(&self, uri: &mut Uri, host: &str) -> Result<(), Error> {
        let Some(text) = uri.path_and_query().map(PathAndQuery::as_str).filter(|text| text.contains(PREFIX)) else {
            return Ok(());
        };
        let substituted = self.substituted(text, host).ok_or(Error::HttpRequestDenied)?;
        let value = std::str::from_utf8(&substituted).map_err(|_| Error::ConfigurationError)?.trim();
        let path = format!("/{}", value.trim_start_matches('/'));
        let mut parts = std::mem::take(uri).into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| Error::ConfigurationError)?);
        *uri = Uri::from_parts(parts).map_err(|_| Error::ConfigurationError)?;
        Ok(())
    }

    fn substituted(&self, text: &str, host: &str) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
        let mut rest = text;
        while let Some((before, from)) = rest.find(PREFIX).and_then(|at| rest.split_at_checked(at)) {
            let (token, after) = from.split_at_checked(PREFIX.len() + 32)?;
            let (_, secret) = self.bound.iter().find(|(bound, _)| bound == token)?;
            if !secret.hosts.iter().any(|pattern| host_matches(pattern, host)) {
                return None;
            }
            bytes.extend_from_slice(before.as_bytes());
            bytes.extend_from_slice(&secret.value);
            rest = after;
        }
        bytes.extend_from_slice(rest.as_bytes());
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(value: &str, host: &str) -> SecretValue {
        SecretValue { value: Zeroizing::new(value.as_bytes().to_vec()), hosts: vec![host.to_owned()] }
    }

    #[test]
    fn a_placeholder_is_replaced_only_for_hosts_of_its_secret() {
        let mut placeholders = Placeholders::default();
        let token = placeholders.add(&secret("s3cret", "hooks.example")).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}!").parse().unwrap());
        let before = headers.clone();
        assert!(placeholders.substitute(&mut headers, "evil.example").is_err());
        assert_eq!(headers, before);
        placeholders.substitute(&mut headers, "hooks.example").unwrap();
        assert_eq!(headers.get("authorization").unwrap().as_bytes(), b"Bearer s3cret!");
    }

    #[test]
    fn a_path_is_taken_from_a_secret() {
        let path = |value: &str, path: &str, host: &str| {
            let mut placeholders = Placeholders::default();
            let token = placeholders.add(&secret(value, "hooks.example")).unwrap();
            let mut uri: Uri = format!("https://hooks.example{}", path.replace("TOKEN", &token)).parse().unwrap();
            placeholders.substitute_path(&mut uri, host).map(|()| uri.to_string())
        };
        for value in ["/services/T0/B0?x=1", "services/T0/B0?x=1\n"] {
            assert_eq!(path(value, "/TOKEN", "hooks.example").unwrap(), "https://hooks.example/services/T0/B0?x=1");
        }
        assert_eq!(path("T0", "/services/TOKEN/B0", "hooks.example").unwrap(), "https://hooks.example/services/T0/B0");
        assert!(matches!(path("T0", "/TOKEN", "evil.example"), Err(Error::HttpRequestDenied)));
        assert!(matches!(path("two words", "/TOKEN", "hooks.example"), Err(Error::ConfigurationError)));
    }

    #[test]
    fn a_placeholder_of_another_call_is_rejected() {
        let token = Placeholders::default().add(&secret("s3cret", "hooks.example")).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("authorization", token.parse().unwrap());
        assert!(Placeholders::default().substitute(&mut headers, "hooks.example").is_err());
    }

    #[test]
    fn opened_secrets_are_masked_in_plugin_output() {
        let mut placeholders = Placeholders::default();
        placeholders.mask_value(Zeroizing::new(b"s3cret".to_vec()));
        assert_eq!(placeholders.mask("got s3cret (czNjcmV0)"), "got *** (***)");
    }
}
