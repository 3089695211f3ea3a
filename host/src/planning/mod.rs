//! From a pipeline to approved step plans. Preparing a build and running a stage both plan, so planning sits below both.
//!
//! | file | does |
//! |---|---|
//! | [`stage`] | plans a whole stage: the pipeline, then each of its steps |
//! | [`values`] | puts the values of the build into a pipeline |
//! | [`step`] | plans one step: from the pipeline file, or by its step type |
//! | [`plan_budget`] | bounds the plans of a build |
//! | [`round`] | admits a further round of a step type |
//! | [`admit`] | evaluates the policies about one subject and records the decision |
//! | [`labels`] | reads the labels of a pull request |
//! | [`previous`] | finds the stage that policies compare with |
//! | [`reevaluate`] | plans again when policies have changed since the approval was requested |

pub mod admit;
pub mod labels;
mod plan_budget;
pub mod previous;
pub mod reevaluate;
pub mod round;
pub mod stage;
pub mod step;
mod values;

pub use admit::denied_reason;
pub use labels::with_present_labels;
pub use plan_budget::PlanBudget;
pub use stage::plan_stage;
pub use step::step_input;
pub use values::with_values;
