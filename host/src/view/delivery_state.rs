//! The state of a delivery as text.

use crate::store::delivery::DeliveryOutcome;

/// The outcome of a delivery as text: the state, and the reason if there is one.
#[must_use]
pub fn outcome_label(outcome: &DeliveryOutcome) -> (&'static str, Option<String>) {
    match outcome {
        DeliveryOutcome::Waiting => ("waiting", None),
        DeliveryOutcome::Built(_) => ("built", None),
        DeliveryOutcome::Ignored(reason) => ("ignored", Some(reason.to_string())),
        DeliveryOutcome::DeadLetter(reason) => ("dead_letter", Some(reason.to_string())),
    }
}
