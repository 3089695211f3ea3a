//! The values of options and arguments. An invalid one is refused before any request, with the values that are valid.

use beespace_core::digest::{Digest, InvalidDigest};
use beespace_core::ids::{DeliveryId, NoticeId};
use beespace_core::notice::NoticeState;
use beespace_core::status::Status;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser};

use crate::api::pagination::MAX_LIMIT;
use crate::api::secret::is_secret_name;
use crate::store::delivery::OutcomeKind;
use crate::store::status_filter::FAILED;

/// The length of a list.
pub(super) fn limit() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MAX_LIMIT as u64)
}

/// The statuses of builds, and `failed` for all that failed.
pub(super) fn build_status() -> PossibleValuesParser {
    PossibleValuesParser::new(Status::ALL.map(Status::as_str).into_iter().chain([FAILED]))
}

pub(super) fn notice_state() -> PossibleValuesParser {
    PossibleValuesParser::new(NoticeState::ALL.map(NoticeState::as_str))
}

pub(super) fn delivery_outcome() -> PossibleValuesParser {
    PossibleValuesParser::new(OutcomeKind::ALL.map(OutcomeKind::as_str))
}

pub(super) fn notice_id(text: &str) -> Result<NoticeId, String> {
    text.parse().map_err(|_| "not the id of a notice; `beespace notice list` shows the ids".to_owned())
}

pub(super) fn delivery_id(text: &str) -> Result<DeliveryId, String> {
    text.parse().map_err(|_| "not the id of a delivery; `beespace delivery list` shows the ids".to_owned())
}

pub(super) fn digest(text: &str) -> Result<Digest, InvalidDigest> {
    text.parse()
}

pub(super) fn secret_name(text: &str) -> Result<String, &'static str> {
    let valid = is_secret_name(text).then(|| text.to_owned());
    valid.ok_or("the name of a secret has 1 to 100 letters, digits, `_`, `-` or `.`")
}
