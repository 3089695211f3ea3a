//! The wall clock. Nothing else reads it: everything that decides gets the time as an argument.

use std::time::SystemTime;

use beespace_core::time::Timestamp;

/// The present time.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
