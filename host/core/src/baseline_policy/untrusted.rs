//! The rule for untrusted code: its steps get their secrets as empty values. It denies nothing, so that the build of a fork runs
//! all that needs no secret, and nothing opens it: neither the configuration nor an approval.

use std::collections::BTreeSet;

use super::StepBounds;
use crate::plan::StepPlan;
use crate::policy::{Finding, Severity};
use crate::reason::Reason;
use crate::trust::Trust;

const RULE: &str = "beespace/baseline/untrusted-secret";
const REMEDY: &str = "somebody with write access can push the commit to a branch of the repository";

/// One finding for each secret that the steps of untrusted code request.
pub(super) fn findings(plan: &StepPlan, bounds: &StepBounds) -> Vec<Finding> {
    let mounts = plan.containers.iter().enumerate().flat_map(|(index, container)| {
        let mounts = container.secrets.iter().enumerate();
        mounts.map(move |(number, mount)| (format!("/containers/{index}/secrets/{number}/secret"), mount))
    });
    let is_withheld = !bounds.trust.permits_secrets();
    mounts
        .filter(|_| is_withheld)
        .map(|(pointer, mount)| Finding {
            rule_id: RULE.to_owned(),
            severity: Severity::Info,
            message: message(&[mount.secret.as_str()]),
            pointer: Some(pointer),
            help_url: None,
            remedy: Some(REMEDY.to_owned()),
        })
        .collect()
}

/// The text of a step about secrets that its pipeline names and that untrusted code does not get.
#[must_use]
pub fn withheld_secrets(trust: Trust, secrets: &BTreeSet<String>) -> Option<Reason> {
    let names: Vec<&str> = secrets.iter().map(String::as_str).collect();
    let is_withheld = !names.is_empty() && !trust.permits_secrets();
    is_withheld.then(|| Reason::from_rule(RULE, format!("{} [{RULE}]", message(&names))).help(REMEDY))
}

fn message(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    let subject = if names.len() == 1 { "secret" } else { "secrets" };
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{subject} {} {verb} withheld and empty: the code is untrusted", quoted.join(", "))
}
