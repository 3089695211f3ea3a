//! Which commit is the head of a pull request. No payload names it, and Gogs updates `refs/pull/N/head` only after the webhook:
//! measured 70 to 120 ms later, and for some changes never.
//!
//! The tip of the source branch is the expected head if the server can read it. Otherwise the ref itself has to tell.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::PullRequestChange;
use crate::ids::{BuildId, Sha};

/// How long the ref is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A ref that is late for so long is compared with the branch, which may have been deleted.
const LATE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The head that a pull request was built at last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedHead {
    pub sha: Sha,
    /// The build that found it.
    pub build: BuildId,
}

/// The source branch of a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceBranch {
    At(Sha),
    /// Its repository can be read and does not have it.
    Deleted,
    /// The server cannot read its repository.
    Unreadable,
}

/// The facts at one look for the head.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    pub change: PullRequestChange,
    /// The value of `refs/pull/N/head`.
    pub pull_ref: Option<&'a Sha>,
    /// The head that was built last.
    pub recorded: Option<&'a Sha>,
    /// Time since the event was recorded.
    pub waited: Duration,
}

/// The conclusion from a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// The ref has this value, and it is the head.
    Head(Sha),
    /// The ref has this value. Nothing shows that Gogs has updated it.
    Unconfirmed(Sha),
    /// The source branch is here. Gogs has lost the ref, or does not update it any more.
    OnBranchOnly(Sha),
    /// Look again after [`next_look`].
    Wait,
    /// The source branch was deleted: nothing to build.
    BranchDeleted,
    /// Neither the ref nor the branch can be read.
    Missing,
}

/// The time after the event at which the next look is due: at once, then after pauses of 50, 100, 200 ms … 5 s.
#[must_use]
pub fn next_look(waited: Duration) -> Duration {
    let (mut at, mut pause) = (FIRST_PAUSE, FIRST_PAUSE);
    while at <= waited {
        pause = (pause * 2).min(LONGEST_PAUSE);
        at += pause;
    }
    at
}

impl Look<'_> {
    /// Whether the source branch has to be read. While the ref obviously has its old value, the branch would tell nothing.
    #[must_use]
    pub fn needs_branch(&self) -> bool {
        !self.is_stale() || self.waited >= LATE
    }

    /// The head, as far as it is known. `branch` is the source branch if it was read.
    #[must_use]
    pub fn conclude(&self, branch: Option<&SourceBranch>) -> Conclusion {
        let is_over = self.waited >= PATIENCE;
        match (self.pull_ref, branch) {
            (_, Some(SourceBranch::Deleted)) => Conclusion::BranchDeleted,
            (Some(sha), Some(SourceBranch::At(tip))) if sha == tip => Conclusion::Head(sha.clone()),
            (Some(sha), Some(SourceBranch::At(_))) if is_over && !self.is_stale() => Conclusion::Unconfirmed(sha.clone()),
            (_, Some(SourceBranch::At(tip))) if is_over => Conclusion::OnBranchOnly(tip.clone()),
            (Some(sha), Some(SourceBranch::Unreadable)) if !self.is_stale() => Conclusion::Head(sha.clone()),
            (Some(sha), _) if is_over => Conclusion::Unconfirmed(sha.clone()),
            (None, _) if is_over => Conclusion::Missing,
            _ => Conclusion::Wait,
        }
    }

    /// Whether the ref cannot have its new value yet.
    fn is_stale(&self) -> bool {
        self.pull_ref.is_none() || (self.change == PullRequestChange::Synchronized && self.pull_ref == self.recorded)
    }
}

/// Whether the head is built already, so that an event which brings no commit builds nothing: a redelivery, or a tag with the
/// name of the branch. Whoever reopens a pull request wants its build.
#[must_use]
pub fn is_built_already(change: PullRequestChange, head: &Sha, build: BuildId, recorded: Option<&RecordedHead>) -> bool {
    let repeats = matches!(change, PullRequestChange::Opened | PullRequestChange::Synchronized);
    repeats && recorded.is_some_and(|recorded| recorded.sha == *head && recorded.build != build)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(digit: &str) -> Sha {
        Sha::new(&digit.repeat(40)).unwrap()
    }

    const SOON: Duration = Duration::from_millis(150);

    fn look<'a>(change: PullRequestChange, pull_ref: Option<&'a Sha>, recorded: Option<&'a Sha>, waited: Duration) -> Look<'a> {
        Look { change, pull_ref, recorded, waited }
    }

    #[test]
    fn looks_are_due_after_pauses_that_double_up_to_five_seconds() {
        let mut at = Duration::ZERO;
        let mut due = Vec::new();
        while at < PATIENCE {
            at = next_look(at);
            due.push(at.as_millis());
        }
        assert_eq!(due[..9], [50, 150, 350, 750, 1_550, 3_150, 6_350, 11_350, 16_350]);
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] <= 5_000), "{due:?}");
    }

    #[test]
    fn the_ref_is_the_head_when_it_equals_the_branch() {
        use PullRequestChange::{Opened, Reopened, Synchronized};
        let (old, new) = (sha("a"), sha("b"));
        let tip = SourceBranch::At(new.clone());
        for (change, recorded) in [(Opened, None), (Synchronized, Some(&old)), (Reopened, Some(&old)), (Reopened, Some(&new))] {
            let fresh = look(change, Some(&new), recorded, SOON);
            assert!(fresh.needs_branch());
            assert_eq!(fresh.conclude(Some(&tip)), Conclusion::Head(new.clone()), "{change:?}");
            assert_eq!(look(change, None, recorded, SOON).conclude(None), Conclusion::Wait, "{change:?}");
            // The ref has a value, but an older one: the branch tells.
            assert_eq!(look(change, Some(&sha("c")), recorded, SOON).conclude(Some(&tip)), Conclusion::Wait, "{change:?}");
        }
        let stale = look(Synchronized, Some(&old), Some(&old), SOON);
        assert!(!stale.needs_branch());
        assert_eq!(stale.conclude(None), Conclusion::Wait);
        assert!(look(Synchronized, Some(&old), Some(&old), LATE).needs_branch(), "the branch may have been deleted");
    }

    #[test]
    fn without_the_branch_a_pushed_ref_has_to_change_and_others_are_taken_as_they_are() {
        use PullRequestChange::{Opened, Reopened, Synchronized};
        let (old, new) = (sha("a"), sha("b"));
        let unreadable = Some(&SourceBranch::Unreadable);
        let conclude = |change, pull_ref, waited| look(change, Some(pull_ref), Some(&old), waited).conclude(unreadable);
        assert_eq!(conclude(Opened, &new, SOON), Conclusion::Head(new.clone()));
        assert_eq!(conclude(Reopened, &old, SOON), Conclusion::Head(old.clone()));
        assert_eq!(conclude(Synchronized, &new, SOON), Conclusion::Head(new.clone()));
        assert_eq!(conclude(Synchronized, &old, SOON), Conclusion::Wait);
        assert_eq!(conclude(Synchronized, &old, PATIENCE), Conclusion::Unconfirmed(old.clone()));
        assert_eq!(look(Opened, None, None, PATIENCE).conclude(unreadable), Conclusion::Missing);
    }

    #[test]
    fn after_a_minute_the_ref_is_built_unconfirmed_and_a_lost_ref_is_replaced_by_the_branch() {
        use PullRequestChange::{Opened, Synchronized};
        let (old, new, tip) = (sha("a"), sha("b"), sha("c"));
        let at = Some(&SourceBranch::At(tip.clone()));
        assert_eq!(look(Opened, Some(&new), None, PATIENCE).conclude(at), Conclusion::Unconfirmed(new.clone()));
        assert_eq!(look(Opened, None, None, PATIENCE).conclude(at), Conclusion::OnBranchOnly(tip.clone()));
        assert_eq!(look(Synchronized, Some(&old), Some(&old), PATIENCE).conclude(at), Conclusion::OnBranchOnly(tip.clone()));
        for pull_ref in [None, Some(&old)] {
            let deleted = look(Synchronized, pull_ref, Some(&old), LATE).conclude(Some(&SourceBranch::Deleted));
            assert_eq!(deleted, Conclusion::BranchDeleted);
        }
    }

    #[test]
    fn a_head_is_built_once_unless_the_pull_request_is_reopened() {
        let [one, other] = [1, 2].map(|number| BuildId(uuid::Uuid::from_u128(number)));
        let recorded = RecordedHead { sha: sha("a"), build: one };
        let built = |change, head: &Sha, build| is_built_already(change, head, build, Some(&recorded));
        assert!(built(PullRequestChange::Synchronized, &sha("a"), other) && built(PullRequestChange::Opened, &sha("a"), other));
        assert!(!built(PullRequestChange::Synchronized, &sha("a"), one), "the same build, which was interrupted");
        assert!(
            !built(PullRequestChange::Synchronized, &sha("b"), other) && !built(PullRequestChange::Reopened, &sha("a"), other)
        );
    }
}
