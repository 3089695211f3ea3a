//! The state of a delivery as text.

use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;

use crate::store::delivery::DeliveryOutcome;

/// Why nothing is built for events that never build anything.
const NEVER_BUILT: [ReasonCode; 5] = [
    ReasonCode::BranchCreated,
    ReasonCode::RefDeleted,
    ReasonCode::NothingToBuild,
    ReasonCode::TestDelivery,
    ReasonCode::DuplicatePush,
];

/// Whether a delivery was ignored because its event never builds anything. Another attempt would be ignored again, and in a list
/// it would hide the push that somebody looks for.
#[must_use]
pub fn is_never_built(reason: &Reason) -> bool {
    NEVER_BUILT.iter().any(|code| reason.code == *code)
}

/// Whether another attempt could have another result.
#[must_use]
pub fn is_worth_a_retry(outcome: &DeliveryOutcome) -> bool {
    match outcome {
        DeliveryOutcome::Waiting | DeliveryOutcome::Built(_) => false,
        DeliveryOutcome::Ignored(reason) => !is_never_built(reason),
        DeliveryOutcome::DeadLetter(_) => true,
    }
}

/// The outcome of a delivery as text: the state, and the reason if there is one.
#[must_use]
pub fn outcome_label(outcome: &DeliveryOutcome) -> (&'static str, Option<String>) {
    let reason = match outcome {
        DeliveryOutcome::Waiting | DeliveryOutcome::Built(_) => None,
        DeliveryOutcome::Ignored(reason) | DeliveryOutcome::DeadLetter(reason) => Some(reason.to_string()),
    };
    (outcome.kind().as_str(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_builds_is_not_worth_a_retry() {
        let ignored = |code| DeliveryOutcome::Ignored(Reason::new(code, "why"));
        assert!(!is_worth_a_retry(&ignored(ReasonCode::BranchCreated)));
        assert!(is_worth_a_retry(&ignored(ReasonCode::NoPipelineFile)));
        assert!(is_worth_a_retry(&DeliveryOutcome::DeadLetter(Reason::new(ReasonCode::BranchCreated, "why"))));
        assert!(!is_worth_a_retry(&DeliveryOutcome::Waiting));
    }
}
