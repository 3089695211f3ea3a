//! The baseline policy: built-in rules that every plan must meet and that no plugin can override. It is evaluated before the
//! other policies and again after their patches.
//!
//! They deny privileged containers, devices and the network of the engine's machine; a [`StepPlan`] cannot express host paths.
//! They protect the host, its engine and other builds. They do not restrict what users do inside their
//! containers.

mod container;
mod dependencies;
mod mount;
mod untrusted;

pub use mount::is_mountable;
pub use untrusted::withheld_secrets;

use std::collections::BTreeSet;

use crate::plan::{Container, Limits, StepPlan};
use crate::policy::{Finding, Severity, Verdict, VerdictOutcome};
use crate::trust::Trust;

/// Most containers of one plan.
pub const MAX_CONTAINERS: usize = 64;

/// Most bytes of a plan's document, scripts and state included.
pub const MAX_PLAN_BYTES: usize = 2 << 20;

/// Most findings that are reported.
const MAX_FINDINGS: usize = 100;

/// The limits of what a step of a build may request.
#[derive(Debug, Clone, Default)]
pub struct StepBounds {
    /// Maximum per container; a limit that is `None` is not capped by the instance.
    pub limits: Limits,
    /// Names of the secrets that the pipeline passed to this step.
    pub secrets: BTreeSet<String>,
    /// The trust in the code of the build.
    pub trust: Trust,
}

/// Collects the findings.
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, rule: &str, pointer: String, message: String, remedy: &str) {
        if self.0.len() < MAX_FINDINGS {
            self.0.push(Finding {
                rule_id: format!("beespace/baseline/{rule}"),
                severity: Severity::High,
                message,
                pointer: Some(pointer),
                help_url: None,
                remedy: Some(remedy.to_owned()),
            });
        }
    }
}

/// Allows the plan, or denies it with all findings. A plan that is allowed may have findings, too: what its steps do not get.
#[must_use]
pub fn evaluate(plan: &StepPlan, bounds: &StepBounds) -> Verdict {
    let mut findings = Findings(Vec::new());
    check_size(plan, &mut findings);
    // A plan that is too large is not checked in detail.
    if findings.0.is_empty() {
        dependencies::check(plan, &mut findings);
        for (index, container) in plan.containers.iter().enumerate() {
            let site = LocatedContainer { container, pointer: format!("/containers/{index}") };
            container::check(&site, bounds, &mut findings);
            mount::check(&site, bounds, &mut findings);
        }
    }
    if findings.0.is_empty() {
        let findings = untrusted::findings(plan, bounds);
        return Verdict { outcome: VerdictOutcome::Allow, findings, ..Verdict::default() };
    }
    Verdict { outcome: VerdictOutcome::Deny, findings: findings.0, ..Verdict::default() }
}

/// A container and its JSON pointer in the plan.
struct LocatedContainer<'a> {
    container: &'a Container,
    pointer: String,
}

impl LocatedContainer<'_> {
    fn pointer_to(&self, path: &str) -> String {
        format!("{}/{path}", self.pointer)
    }
}

fn check_size(plan: &StepPlan, findings: &mut Findings) {
    let containers = plan.containers.len();
    if containers > MAX_CONTAINERS {
        let message = format!("The plan has {containers} containers; at most {MAX_CONTAINERS} are allowed");
        findings.add("too-many-containers", "/containers".to_owned(), message, "Split the step");
        return;
    }
    let bytes = plan.document().json.len();
    if bytes > MAX_PLAN_BYTES {
        let message = format!("The plan has {bytes} bytes; at most {MAX_PLAN_BYTES} are allowed");
        findings.add("plan-too-large", String::new(), message, "Keep long scripts and data in files of the repository");
    }
}

#[cfg(test)]
mod tests;
