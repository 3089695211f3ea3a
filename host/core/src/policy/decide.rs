//! Combines all verdicts into one ruling: a denial overrides everything, and only a verdict can allow.

use super::{
    ApprovalRequirement, Denial, ErrorClass, Evaluation, EvaluationError, Finding, Mode, Ruling, Severity, Verdict,
    VerdictOutcome,
};

/// The ruling for a set of evaluations, independent of their order:
///
/// 1. If an enforcing policy denies or gives no verdict, the ruling is a denial with the findings of all such policies.
/// 2. Otherwise, if a policy requires approval, all requirements must be met.
/// 3. Otherwise the ruling allows. `abstain` has no effect.
///
/// Policies in the modes `warn` and `shadow` have no effect.
#[must_use]
pub fn decide(evaluations: &[Evaluation]) -> Ruling {
    let counting = || evaluations.iter().filter(|evaluation| evaluation.mode == Mode::Enforce);
    let by: Vec<Denial> = counting().flat_map(denials).collect();
    if !by.is_empty() {
        return Ruling::Denied { by };
    }
    let requirements: Vec<ApprovalRequirement> = counting().flat_map(requirements).collect();
    if requirements.is_empty() { Ruling::Allowed } else { Ruling::NeedsApproval { requirements } }
}

fn denials(evaluation: &Evaluation) -> Vec<Denial> {
    let findings = match &evaluation.result {
        Err(error) => vec![finding_of_error(&evaluation.policy, error)],
        Ok(verdict) if verdict.outcome == VerdictOutcome::Deny => reasons(&evaluation.policy, verdict),
        Ok(_) => return Vec::new(),
    };
    findings.into_iter().map(|finding| Denial { policy: evaluation.policy.clone(), finding }).collect()
}

/// The findings above `info`. A policy that denies without a finding gets a generic one, so that every denial has a reason.
fn reasons(policy: &str, verdict: &Verdict) -> Vec<Finding> {
    let worst = verdict.findings.iter().filter(|finding| finding.severity > Severity::Info);
    let found: Vec<Finding> = worst.cloned().collect();
    if !found.is_empty() {
        return found;
    }
    if !verdict.findings.is_empty() {
        return verdict.findings.clone();
    }
    vec![Finding {
        rule_id: "beespace/denied-without-reason".to_owned(),
        severity: Severity::High,
        message: format!("The policy {policy:?} denied this without a reason"),
        pointer: None,
        help_url: None,
        remedy: Some("Ask the maintainer of the policy".to_owned()),
    }]
}

/// The failure of a policy as the reason of a denial.
fn finding_of_error(policy: &str, error: &EvaluationError) -> Finding {
    let message = format!("The policy {policy:?} gave no verdict ({}): {}", error.class.as_str(), error.message);
    Finding {
        rule_id: format!("beespace/policy-error/{}", error.class.as_str()),
        severity: Severity::High,
        message,
        pointer: None,
        help_url: None,
        remedy: Some(error.class.remedy(Mode::Enforce)),
    }
}

/// The approvals that one verdict requires. Requirements count with every outcome, and `require-approval` without requirements
/// requires one person. Otherwise a mistake of the policy's author would allow the subject.
fn requirements(evaluation: &Evaluation) -> Vec<ApprovalRequirement> {
    let Ok(verdict) = &evaluation.result else { return Vec::new() };
    let named = |mut requirement: ApprovalRequirement| {
        requirement.policy.clone_from(&evaluation.policy);
        requirement.min_approvers = requirement.min_approvers.max(1);
        requirement
    };
    if verdict.approvals.is_empty() && verdict.outcome == VerdictOutcome::RequireApproval {
        let anyone = ApprovalRequirement {
            policy: String::new(),
            groups: Vec::new(),
            min_approvers: 1,
            forbid_author: false,
            ttl_seconds: None,
            reason: String::new(),
        };
        return vec![named(anyone)];
    }
    verdict.approvals.iter().cloned().map(named).collect()
}

impl ErrorClass {
    /// The stable name in records and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::LogBudget => "log-budget",
            Self::OutputTooLarge => "output-too-large",
            Self::Trap => "trap",
            Self::StackOverflow => "stack-overflow",
            Self::PluginError => "plugin-error",
            Self::Incompatible => "incompatible",
            Self::Capability => "capability",
            Self::Busy => "busy",
            Self::Patch => "patch",
            Self::Obligation => "obligation",
            Self::Conflict => "conflict",
            Self::Malformed => "malformed",
            Self::Internal => "internal",
        }
    }

    /// The consequence of the failure for a binding with this mode, and the remedy.
    #[must_use]
    pub fn remedy(self, mode: Mode) -> String {
        let consequence = match mode {
            Mode::Enforce => "Nothing runs without a verdict of this policy".to_owned(),
            Mode::Warn | Mode::Shadow => format!("The policy's mode is `{}`, so the failure has no effect", mode.as_str()),
        };
        format!("{consequence}. {}", self.advice(mode))
    }

    fn advice(self, mode: Mode) -> &'static str {
        match self {
            Self::Timeout | Self::Memory | Self::LogBudget | Self::OutputTooLarge | Self::Trap | Self::StackOverflow => {
                match mode {
                    Mode::Enforce => {
                        "Report the failure to the policy's author; meanwhile an administrator can set its mode to `warn`"
                    }
                    Mode::Warn | Mode::Shadow => "Report the failure to the policy's author",
                }
            }
            Self::PluginError | Self::Malformed | Self::Patch => {
                "An administrator should check the policy's settings and grants, and report the failure to its author"
            }
            Self::Obligation => "A newer Beespace may support the obligation; an administrator can change the policy's settings",
            Self::Conflict => "An administrator has to change the settings or grants of these policies to resolve the conflict",
            Self::Incompatible | Self::Capability => {
                "An administrator has to install a version of the policy that is compatible with this Beespace"
            }
            Self::Busy => "Restart the build",
            Self::Internal => "Restart the build; if the failure persists, see the server's log",
        }
    }
}
