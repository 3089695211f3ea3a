//! The response of a step type after a round: another round, or the conclusion of its step.

use serde::{Deserialize, Serialize};

use crate::plan::StepPlan;
use crate::policy::Finding;
use crate::status::Status;

/// A step type's request after a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// Another round. Its plan must pass `step.admit` too.
    Run(StepPlan),
    /// The step is finished.
    Done(Conclusion),
}

/// How a step type ends its step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclusion {
    /// `success`, `failure` or `skipped`.
    pub status: Status,
    /// Values that later steps may read.
    pub outputs: serde_json::Map<String, serde_json::Value>,
    pub findings: Vec<Finding>,
    /// Text for people.
    pub message: String,
}
