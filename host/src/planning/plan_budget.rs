//! Bounds the plans of a build. A plan has a copy of the variables of its pipeline, so a short file with many steps could need
//! gigabytes.

use std::sync::atomic::{AtomicUsize, Ordering};

use beespace_core::plan::StepPlan;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;

/// Most bytes of the plans of all stages of a build, as JSON.
const MAX_BYTES: usize = 32 << 20;

/// What the plans of a build may still need.
#[derive(Debug)]
pub struct PlanBudget(AtomicUsize);

impl Default for PlanBudget {
    fn default() -> Self {
        Self(AtomicUsize::new(MAX_BYTES))
    }
}

impl PlanBudget {
    /// Takes the size of a plan from the budget. Once a plan does not fit, no later one fits either.
    ///
    /// # Errors
    /// The reason why the step is not planned.
    pub(super) fn take(&self, plan: &StepPlan) -> Result<(), Reason> {
        let bytes = serde_json::to_vec(plan).map_or(0, |json| json.len());
        let take = |left: usize| Some(left.saturating_sub(bytes));
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or_default();
        if bytes < before {
            return Ok(());
        }
        let message = format!("the plans of the build need more than {} MiB", MAX_BYTES >> 20);
        let help = "reduce the number of steps, or the text in `env` of the pipeline, which every step gets";
        Err(Reason::new(ReasonCode::PlansTooLarge, message).help(help))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plans_beyond_the_budget_are_refused_and_so_are_all_later_ones() {
        let plan = |bytes: usize| -> StepPlan {
            let container =
                json!({ "id": "a", "image": "x", "limits": {}, "network": "build_default", "env": { "A": "x".repeat(bytes) } });
            serde_json::from_value(json!({ "step": "a", "containers": [container] })).unwrap()
        };
        let budget = PlanBudget::default();
        assert_eq!(budget.take(&plan(MAX_BYTES / 2)), Ok(()));
        let refused = budget.take(&plan(MAX_BYTES / 2)).unwrap_err();
        assert_eq!(refused.message, "the plans of the build need more than 32 MiB");
        assert!(budget.take(&plan(1)).is_err());
    }
}
