//! Tokens that stand for secrets. One holds for one call, in header values, towards the hosts its secret is bound to.

use base64::Engine as _;
use http::{HeaderMap, HeaderValue};
use wasmtime_wasi_http::Error;
use zeroize::Zeroizing;

use crate::grant::host_matches;
use crate::host_functions::secrets::SecretValue;

const PREFIX: &str = "beespace-secret:";
/// Shorter values would turn ordinary text into stars, and protect nothing.
const MIN_MASKED_LEN: usize = 4;

/// The secrets of one call.
#[derive(Clone, Default)]
pub(crate) struct Placeholders {
    bound: Vec<(String, SecretValue)>,
    masked: Vec<Zeroizing<String>>,
}

impl Placeholders {
    /// A fresh token of 128 random bits.
    pub(super) fn add(&mut self, secret: &SecretValue) -> Result<String, getrandom::Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let token = format!("{PREFIX}{}", hex::encode(random));
        self.bound.push((token.clone(), secret.clone()));
        Ok(token)
    }

    /// Hides the value, and its base64 form, in what the plugin says from now on.
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

    /// Puts the values in the place of their tokens. A token towards a host that its secret is not bound to refuses the whole
    /// request: it would arrive as nonsense, and hide a mistake or an attempt.
    pub(super) fn substitute(&self, headers: &mut HeaderMap, host: &str) -> Result<(), Error> {
        for value in headers.values_mut() {
            let Some(text) = std::str::from_utf8(value.as_bytes()).ok().filter(|text| text.contains(PREFIX)) else {
                continue;
            };
            let swapped = self.substituted(text, host).ok_or(Error::HttpRequestDenied)?;
            *value = HeaderValue::from_bytes(&swapped).map_err(|_| Error::ConfigurationError)?;
            value.set_sensitive(true);
        }
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
    fn a_token_becomes_its_secret_only_where_the_secret_is_bound() {
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
    fn a_token_of_another_call_is_refused() {
        let token = Placeholders::default().add(&secret("s3cret", "hooks.example")).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("authorization", token.parse().unwrap());
        assert!(Placeholders::default().substitute(&mut headers, "hooks.example").is_err());
    }

    #[test]
    fn opened_secrets_do_not_show_in_what_a_plugin_says() {
        let mut placeholders = Placeholders::default();
        placeholders.mask_value(Zeroizing::new(b"s3cret".to_vec()));
        assert_eq!(placeholders.mask("got s3cret (czNjcmV0)"), "got *** (***)");
    }
}
