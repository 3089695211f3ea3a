//! A notice, `beespace.notice/v1`: a fact for people that a notifier sends. Includes its retry rules.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::build::{Build, Stage};
use crate::digest::Document;
use crate::event::{Event, PullRequest, shorten};
use crate::ids::{BuildId, NoticeId};
use crate::reason::Reason;
use crate::time::{Timestamp, backoff};

/// Attempts with an unknown outcome (trap, timeout, crash) after which a notice becomes a dead letter.
pub const MAX_UNKNOWN_OUTCOMES: u32 = 5;
/// How long a notice is retried before it becomes a dead letter.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// The longest reason in the subject of a notice, in characters.
const MAX_REASON_CHARS: usize = 2_000;
/// Minimum delay of a retry that a notifier requests.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Name of the schema of a notice's subject document.
pub const SCHEMA: &str = "beespace.notice/v1";

/// The fact that a notice reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NoticeKind {
    #[serde(rename = "build.finished")]
    BuildFinished,
    #[serde(rename = "approval.requested")]
    ApprovalRequested,
}

impl NoticeKind {
    /// The stable name in records, APIs and texts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuildFinished => "build.finished",
            Self::ApprovalRequested => "approval.requested",
        }
    }
}

/// One notice for one notifier binding: a row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub id: NoticeId,
    pub kind: NoticeKind,
    pub build: BuildId,
    /// Name of the binding that sends it.
    pub binding: String,
    /// Notices of one thread and one binding are sent one at a time, in the order of `sequence`.
    pub thread: String,
    pub sequence: u64,
    /// Identical for all attempts, so that the receiver can drop duplicates.
    pub idempotency_key: String,
    pub subject: Document,
    pub state: NoticeState,
    /// Start of the current retry period: the creation of the notice, or the last time that it was queued again.
    pub retrying_since: Timestamp,
    /// Number of attempts that have begun since it was last queued.
    pub attempts: u32,
    /// Number of attempts before that.
    #[serde(default)]
    pub earlier_attempts: u32,
    /// Number of attempts with an unknown outcome (trap, timeout, crash).
    pub unknown_outcomes: u32,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    pub next_attempt_at: Timestamp,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// The delivery state of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeState {
    Pending,
    Sent,
    /// No longer retried automatically; a person can queue it again.
    DeadLetter,
    /// Waits, in its order in the thread, because its binding is misconfigured and suspended.
    Suspended,
}

/// The outcome of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptOutcome {
    Sent,
    /// Certainly not delivered. `after` is the minimum delay of the next attempt, if the notifier requested one.
    Retry {
        after: Option<Duration>,
        why: String,
    },
    /// Failed permanently; not retried.
    Permanent(String),
    /// The notifier reports that its binding is misconfigured. Refusals of notices about several builds prove it
    /// ([`crate::notifier_refusals`]); until then the notice is retried.
    Refused(String),
    /// The binding is misconfigured: none of its notices can be delivered.
    Misconfigured(String),
    /// It is unknown whether the notice was delivered.
    Unknown(String),
}

impl Notice {
    /// Counts an attempt before it begins. Its outcome counts as unknown until it is recorded, so that an attempt that crashes
    /// the process counts too.
    pub fn begin_attempt(&mut self) {
        self.attempts += 1;
        self.unknown_outcomes += 1;
    }

    /// The number of all attempts, however often the notice was queued again.
    #[must_use]
    pub fn total_attempts(&self) -> u32 {
        self.earlier_attempts.saturating_add(self.attempts)
    }

    /// Whether the limit of attempts with an unknown outcome is reached.
    #[must_use]
    pub fn has_no_attempts_left(&self) -> bool {
        self.unknown_outcomes >= MAX_UNKNOWN_OUTCOMES
    }

    /// Records the outcome of the attempt that [`Notice::begin_attempt`] counted. `jitter`, from 0 to 1, spreads the retries,
    /// so that a service that recovers does not receive the whole backlog at once.
    pub fn record_outcome(&mut self, attempt: AttemptOutcome, now: Timestamp, jitter: f64) {
        if !matches!(attempt, AttemptOutcome::Unknown(_)) {
            self.unknown_outcomes = self.unknown_outcomes.saturating_sub(1);
        }
        let is_old = now.since(self.retrying_since) > MAX_AGE;
        let (state, requested, why) = match attempt {
            AttemptOutcome::Sent => (NoticeState::Sent, None, None),
            AttemptOutcome::Permanent(why) => (NoticeState::DeadLetter, None, Some(why)),
            AttemptOutcome::Misconfigured(why) => (NoticeState::Suspended, None, Some(why)),
            AttemptOutcome::Retry { why, .. } | AttemptOutcome::Refused(why) if is_old => {
                (NoticeState::DeadLetter, None, Some(why))
            }
            AttemptOutcome::Unknown(why) if self.has_no_attempts_left() => (NoticeState::DeadLetter, None, Some(why)),
            AttemptOutcome::Retry { after, why } => (NoticeState::Pending, after, Some(why)),
            AttemptOutcome::Unknown(why) | AttemptOutcome::Refused(why) => (NoticeState::Pending, None, Some(why)),
        };
        self.state = state;
        self.last_error = why;
        match state {
            NoticeState::Pending => self.next_attempt_at = now + retry_delay(self.attempts, requested, jitter),
            NoticeState::Sent | NoticeState::DeadLetter => self.finished_at = Some(now),
            NoticeState::Suspended => {}
        }
    }

    /// Queues the notice again with new attempts.
    pub fn requeue(&mut self, now: Timestamp) {
        self.state = NoticeState::Pending;
        self.earlier_attempts = self.total_attempts();
        (self.attempts, self.unknown_outcomes) = (0, 0);
        (self.retrying_since, self.next_attempt_at) = (now, now);
        self.finished_at = None;
    }
}

/// The delay before the next attempt. Our own backoff is shortened by up to a half. A delay that the notifier requests
/// (`Retry-After`) is never shortened, only lengthened by up to a quarter.
fn retry_delay(attempt: u32, requested: Option<Duration>, jitter: f64) -> Duration {
    let jitter = jitter.clamp(0.0, 1.0);
    match requested {
        Some(requested) => requested.clamp(MIN_RETRY_AFTER, MAX_AGE).mul_f64(1.0 + jitter / 4.0),
        None => backoff(attempt).mul_f64(0.5 + jitter / 2.0),
    }
}

impl NoticeState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Sent, Self::DeadLetter, Self::Suspended];

    /// The state with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// The stable name in records, APIs and texts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::DeadLetter => "dead_letter",
            Self::Suspended => "suspended",
        }
    }
}

/// The receipt that a notifier returned for a thread. With it the notifier can edit an earlier message instead of sending a new
/// one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub external_id: String,
    pub url: Option<String>,
    pub state: Vec<u8>,
}

/// The subject document of a notice, `beespace.notice/v1`. It contains no addresses; the host adds them when it sends the notice.
#[must_use]
pub fn subject_document(kind: NoticeKind, build: &Build, stages: &[Stage]) -> Document {
    let event = &build.event;
    let stages: Vec<_> = stages
        .iter()
        .map(|stage| {
            let steps: Vec<_> = stage
                .steps
                .iter()
                .map(|step| {
                    let reason = reason_text(step.reason.as_ref());
                    serde_json::json!({ "name": step.name, "status": step.status, "reason": reason })
                })
                .collect();
            serde_json::json!({
                "number": stage.number,
                "name": stage.pipeline.name,
                "status": stage.display_status(),
                "reason": reason_text(stage.reason.as_ref()),
                "steps": steps,
            })
        })
        .collect();
    let subject = serde_json::json!({
        "kind": kind,
        "build": {
            "id": build.id,
            "number": build.number,
            "status": build.status,
            "reason": reason_text(build.reason.as_ref()),
            "created_at_ms": build.created_at,
            "started_at_ms": build.started_at,
            "finished_at_ms": build.finished_at,
            "stages": stages,
        },
        "repository": { "id": event.repository.id, "owner": event.repository.name.owner(), "name": event.repository.name.name() },
        "event": event.kind(),
        "ref": event.git_ref(),
        "tag": event.tag(),
        "pull_request": event.pull_request().map(|pull| pull_request_json(pull, event)),
        "target": event.target(),
        "schedule": event.schedule(),
        "sha": build.sha(),
        "message": build.head.as_ref().map(|head| head.message.as_str()),
        "author": build.head.as_ref().map(|head| &head.author),
        "actor": { "id": event.sender.stable_id(), "name": event.sender.login },
    });
    Document::new(SCHEMA, &subject)
}

fn pull_request_json(pull: &PullRequest, event: &Event) -> serde_json::Value {
    serde_json::json!({
        "number": pull.number,
        "title": pull.title,
        "target_branch": pull.target_branch,
        "source_branch": pull.source_branch,
        "source_repository": pull.source.as_ref().map(|source| source.name.to_string()),
        "url": pull.page(&event.repository),
    })
}

/// A reason may quote much of a pipeline file, a build may have hundreds of steps, and each notifier stores the subject.
fn reason_text(reason: Option<&Reason>) -> Option<String> {
    reason.map(|reason| shorten(&reason.to_string(), MAX_REASON_CHARS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason_code::ReasonCode;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn notice() -> Notice {
        Notice {
            id: NoticeId(uuid::Uuid::nil()),
            kind: NoticeKind::BuildFinished,
            build: BuildId(uuid::Uuid::nil()),
            binding: "hook".to_owned(),
            thread: "build/7".to_owned(),
            sequence: 1,
            idempotency_key: "0123".to_owned(),
            subject: Document::new(SCHEMA, &serde_json::Value::Null),
            state: NoticeState::Pending,
            retrying_since: NOW,
            attempts: 0,
            earlier_attempts: 0,
            unknown_outcomes: 0,
            last_error: None,
            next_attempt_at: NOW,
            created_at: NOW,
            finished_at: None,
        }
    }

    fn busy(after: Option<Duration>) -> AttemptOutcome {
        AttemptOutcome::Retry { after, why: "busy".to_owned() }
    }

    #[test]
    fn a_long_reason_is_shortened() {
        let reason = Reason::new(ReasonCode::WhenMismatch, "x".repeat(1 << 20));
        assert_eq!(reason_text(Some(&reason)).unwrap().chars().count(), MAX_REASON_CHARS + 1);
    }

    #[test]
    fn a_requested_delay_is_never_shortened() {
        let minute = Duration::from_secs(60);
        for jitter in [0.0, 0.5, 1.0] {
            let mut notice = notice();
            notice.begin_attempt();
            notice.record_outcome(busy(Some(minute)), NOW, jitter);
            assert_eq!(notice.state, NoticeState::Pending);
            let pause = notice.next_attempt_at.since(NOW);
            assert!(pause >= minute && pause <= minute.mul_f64(1.25), "{pause:?}");
        }
    }

    #[test]
    fn delays_grow_are_spread_and_end() {
        for (attempt, longest) in [(1, 1), (2, 4), (3, 16), (4, 64), (5, 256), (6, 600), (60, 600)] {
            let longest = Duration::from_secs(longest);
            assert_eq!(retry_delay(attempt, None, 1.0), longest, "attempt {attempt}");
            assert_eq!(retry_delay(attempt, None, 0.0), longest / 2, "attempt {attempt}");
        }
        let mut old = notice();
        old.begin_attempt();
        old.record_outcome(busy(None), NOW + MAX_AGE + Duration::from_secs(1), 0.0);
        assert_eq!((old.state, old.last_error.as_deref()), (NoticeState::DeadLetter, Some("busy")));
    }

    #[test]
    fn the_fifth_unknown_outcome_is_the_last() {
        let mut notice = notice();
        for attempt in 1..=MAX_UNKNOWN_OUTCOMES {
            assert!(!notice.has_no_attempts_left(), "before attempt {attempt}");
            notice.begin_attempt();
            // A known outcome in between changes nothing.
            notice.record_outcome(busy(None), NOW, 0.0);
            notice.begin_attempt();
            notice.record_outcome(AttemptOutcome::Unknown("it trapped".to_owned()), NOW, 0.0);
        }
        assert_eq!(notice.state, NoticeState::DeadLetter);
        let mut crashed = self::notice();
        (0..MAX_UNKNOWN_OUTCOMES).for_each(|_| crashed.begin_attempt());
        assert!(crashed.has_no_attempts_left(), "attempts that crashed the process count as well");
        crashed.requeue(NOW);
        assert!(!crashed.has_no_attempts_left());
    }

    #[test]
    fn a_notice_that_is_queued_again_keeps_the_number_of_its_attempts() {
        let mut notice = notice();
        for _ in 0..3 {
            notice.begin_attempt();
            notice.record_outcome(busy(None), NOW, 0.0);
        }
        notice.requeue(NOW);
        assert_eq!((notice.attempts, notice.total_attempts()), (0, 3), "the delays begin anew");
        notice.begin_attempt();
        assert_eq!(notice.total_attempts(), 4);
    }
}
