//! SHA-256 digests that identify everything that contributed to a decision.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A SHA-256 digest, written `sha256:<hex>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

/// The text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: expected 64 hex digits with an optional prefix `sha256:`")]
pub struct InvalidDigest(pub String);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(sha2::Sha256::digest(bytes.as_ref()).into())
    }

    /// The digest of several parts. Each part is preceded by its length, so that different lists never have the same digest.
    #[must_use]
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = sha2::Sha256::new();
        for part in parts {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// The digest of a value's canonical JSON (RFC 8785), independent of the order of keys.
    #[must_use]
    pub fn of_json(value: &serde_json::Value) -> Self {
        Self::of(canonical_json(value))
    }

    /// 64 hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl std::str::FromStr for Digest {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| InvalidDigest(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Canonical JSON (RFC 8785): keys in the order of their UTF-16 code units, no whitespace, shortest numbers. The only numbers in
/// our documents are integers, for which `serde_json` already writes the canonical form.
#[must_use]
pub fn canonical_json(value: &serde_json::Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &serde_json::Value, out: &mut String) {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                if let Some(value) = map.get(key) {
                    write_canonical(value, out);
                }
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

/// A JSON text and the name of its schema, as plugins receive it and records keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// For example `beespace.pipeline/v1`.
    pub schema: String,
    /// Canonical JSON.
    pub json: String,
}

impl Document {
    /// The canonical form of `value` under the name of a schema.
    #[must_use]
    pub fn new(schema: &str, value: &serde_json::Value) -> Self {
        Self { schema: schema.to_owned(), json: canonical_json(value) }
    }

    /// Digest of the JSON text.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_does_not_change_a_digest() {
        let a = serde_json::json!({"b": [1, {"d": null, "c": "é"}], "a": true});
        let b = serde_json::json!({"a": true, "b": [1, {"c": "é", "d": null}]});
        assert_eq!(canonical_json(&a), r#"{"a":true,"b":[1,{"c":"é","d":null}]}"#);
        assert_eq!(Digest::of_json(&a), Digest::of_json(&b));
    }

    #[test]
    fn parts_are_not_confused() {
        assert_ne!(Digest::of_parts([b"ab".as_slice(), b"c"]), Digest::of_parts([b"a".as_slice(), b"bc"]));
    }

    #[test]
    fn a_digest_reads_what_it_writes() {
        let digest = Digest::of("x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("sha256:12".parse::<Digest>().is_err());
    }
}
