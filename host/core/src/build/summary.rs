//! The summary of a stage. A build with many stages derives its status from summaries, because whole stages are large.

use super::{Round, Stage, Step};
use crate::pipeline::Pipeline;
use crate::plan::StepPlan;

impl Stage {
    /// The parts on which the status of its build depends: without plans, and with its blocked steps only.
    #[must_use]
    pub fn summary(&self) -> Self {
        let light = |(step, round): (&Step, &Round)| Step {
            status: step.status,
            reason: step.reason.clone(),
            round: Some(Round {
                number: round.number,
                is_cleanup: round.is_cleanup,
                ..Round::first(StepPlan::default(), round.decision)
            }),
            ..Step::pending(step.number, step.name.clone())
        };
        let (name, cell) = (self.pipeline.name.clone(), self.pipeline.cell.clone());
        let steps = self.blocked_steps().map(light).collect();
        Self {
            status: self.status,
            reason: self.reason.clone(),
            needs: self.needs.clone(),
            starts_on: self.starts_on,
            waits_for_needs: self.waits_for_needs,
            approvals: self.approvals.clone(),
            cancel_requested: self.cancel_requested.clone(),
            started_at: self.started_at,
            finished_at: self.finished_at,
            ..Self::pending(self.id(), Pipeline { name, cell, ..Pipeline::default() }, None, steps, self.created_at)
        }
    }
}
