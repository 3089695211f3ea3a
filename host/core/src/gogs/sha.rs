//! Deserializers for git object ids (SHA) in payloads: 40 hex digits, or one of the two values that Gogs uses for "none".

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::ids::Sha;

/// Zeros (a new or a deleted ref) and the empty text (tags of a mirror, branches in `create`) become `None`.
pub(super) fn sha_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Sha>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let sha = Sha::new(&text).map_err(D::Error::custom)?;
    Ok((!sha.is_zero()).then_some(sha))
}

/// Like [`sha_or_none`], for a field that may be missing or `null`.
pub(super) fn optional_sha<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Sha>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    sha_or_none(serde::de::value::StringDeserializer::new(text))
}
