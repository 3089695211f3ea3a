//! The filter of a list of builds by status.

use std::fmt;
use std::str::FromStr;

use beespace_core::status::Status;

/// The builds that a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatusFilter {
    #[default]
    All,
    One(Status),
    /// Every build that ran, or should have run, without success: `failure`, `error` and `killed`.
    Failed,
}

/// The name of [`StatusFilter::Failed`] in URLs.
pub const FAILED: &str = "failed";

impl StatusFilter {
    /// The statuses, each with an index of its own; `None` stands for the index of all builds.
    pub(super) fn statuses(self) -> Vec<Option<Status>> {
        match self {
            Self::All => vec![None],
            Self::One(status) => vec![Some(status)],
            Self::Failed => [Status::Failure, Status::Error, Status::Killed].map(Some).to_vec(),
        }
    }
}

/// As in URLs; empty for all builds.
impl fmt::Display for StatusFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            Self::One(status) => status.fmt(f),
            Self::Failed => f.write_str(FAILED),
        }
    }
}

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a status: use `{FAILED}` for failure, error and killed together, or one of \
         {known}", known = Status::ALL.map(Status::as_str).join(", "))]
pub struct InvalidStatusFilter {
    text: String,
}

impl FromStr for StatusFilter {
    type Err = InvalidStatusFilter;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let one = || Status::ALL.into_iter().find(|status| status.as_str() == text).map(Self::One);
        let failed = (text == FAILED).then_some(Self::Failed);
        failed.or_else(one).ok_or_else(|| InvalidStatusFilter { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_round_trips_through_its_url_form() {
        for filter in Status::ALL.map(StatusFilter::One).into_iter().chain([StatusFilter::Failed]) {
            assert_eq!(filter.to_string().parse(), Ok(filter));
        }
        assert_eq!(StatusFilter::All.to_string(), "");
        let error = "bad".parse::<StatusFilter>().unwrap_err().to_string();
        assert!(error.contains("`failed`") && error.contains("killed"), "{error}");
    }
}
