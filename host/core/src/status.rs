//! The status of steps, stages and builds.

use serde::{Deserialize, Serialize};

/// The status of a step, a stage or a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not started; the reason states what it waits for.
    Pending,
    /// Waits for an approval.
    Blocked,
    Running,
    Success,
    /// The user's own step failed.
    Failure,
    /// A policy or a person refused it before anything ran.
    Declined,
    /// It could not be run; the reason states the cause and the remedy.
    Error,
    /// A person stopped it.
    Killed,
    Skipped,
}

impl Status {
    /// All statuses.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Blocked,
        Self::Running,
        Self::Success,
        Self::Failure,
        Self::Declined,
        Self::Error,
        Self::Killed,
        Self::Skipped,
    ];

    /// The stable name in records, APIs and texts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Blocked => "blocked",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Declined => "declined",
            Self::Error => "error",
            Self::Killed => "killed",
            Self::Skipped => "skipped",
        }
    }

    /// Whether the status is final.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Pending | Self::Blocked | Self::Running)
    }

    /// Precedence when several parts are combined: waiting and running first, then the worst result.
    fn rank(self) -> u8 {
        match self {
            Self::Blocked => 0,
            Self::Running => 1,
            Self::Pending => 2,
            Self::Error => 3,
            Self::Killed => 4,
            Self::Failure => 5,
            Self::Declined => 6,
            Self::Success => 7,
            Self::Skipped => 8,
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status of the whole from those of its counted parts, in any order; `skipped` if there are none.
#[must_use]
pub fn fold(parts: impl IntoIterator<Item = Status>) -> Status {
    parts.into_iter().min_by_key(|status| status.rank()).unwrap_or(Status::Skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fold_does_not_depend_on_order() {
        for a in Status::ALL {
            for b in Status::ALL {
                for c in Status::ALL {
                    assert_eq!(fold([a, b, c]), fold([c, a, b]));
                    assert_eq!(fold([fold([a, b]), c]), fold([a, fold([b, c])]));
                }
            }
        }
    }

    #[test]
    fn unfinished_takes_precedence_over_finished_and_the_worst_wins() {
        assert_eq!(fold([Status::Success, Status::Running, Status::Error]), Status::Running);
        assert_eq!(fold([Status::Pending, Status::Running]), Status::Running);
        assert_eq!(fold([Status::Blocked, Status::Running]), Status::Blocked);
        assert_eq!(fold([Status::Success, Status::Skipped]), Status::Success);
        assert_eq!(fold([Status::Failure, Status::Killed]), Status::Killed);
        assert_eq!(fold([]), Status::Skipped);
    }
}
