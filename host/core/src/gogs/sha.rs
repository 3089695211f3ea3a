//! Object names in payloads: 40 hex digits, or one of Gogs' two ways to say "none".

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::ids::Sha;

/// Zeros (a new or a deleted ref) and the empty text (mirrors' tags, branches in `create`) are `None`.
pub(super) fn sha_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Sha>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let sha = Sha::new(&text).map_err(D::Error::custom)?;
    Ok((!sha.is_zero()).then_some(sha))
}

/// As [`sha_or_none`], where the field may be missing or `null`.
pub(super) fn optional_sha<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Sha>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    sha_or_none(serde::de::value::StringDeserializer::new(text))
}
