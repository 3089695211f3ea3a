//! What the host makes of all verdicts: deny-overrides, and nothing but a verdict counts as a yes.

use super::{
    ApprovalRequirement, Denial, ErrorClass, Evaluation, EvaluationError, Finding, Mode, Ruling, Severity, Verdict,
    VerdictOutcome,
};

/// The answer to a set of evaluations, whatever their order:
///
/// 1. an enforcing policy denies, or has given no verdict: denied, by all of them;
/// 2. else someone asks for approval: all of what is asked for must be met;
/// 3. else allowed. `abstain` counts for nothing.
///
/// Policies that only warn or shadow change nothing.
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

/// Findings above `info`; where a policy denies without any, one that says so: a denial is never without words.
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
        message: format!("The policy {policy:?} denies this and gives no reason"),
        pointer: None,
        help_url: None,
        remedy: Some("Ask whoever looks after that policy".to_owned()),
    }]
}

/// Trouble of a policy, as the reason of a denial.
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

/// What one verdict asks of people. Requirements count wherever a policy wrote them, and `require-approval` without any asks for
/// one person: read the other way, a slip of the policy's author would be a yes.
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
    /// The stable word for it, as records and metrics have it.
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

    /// What follows from it where the binding has this mode, what can be done, and by whom.
    #[must_use]
    pub fn remedy(self, mode: Mode) -> String {
        let consequence = match mode {
            Mode::Enforce => "Nothing runs without its verdict".to_owned(),
            Mode::Warn | Mode::Shadow => format!("Its mode is `{}`, so nothing waits for it", mode.as_str()),
        };
        format!("{consequence}. {}", self.advice(mode))
    }

    fn advice(self, mode: Mode) -> &'static str {
        match self {
            Self::Timeout | Self::Memory | Self::LogBudget | Self::OutputTooLarge | Self::Trap | Self::StackOverflow => {
                match mode {
                    Mode::Enforce => "Report it to its author; an administrator can bind it with mode `warn` meanwhile",
                    Mode::Warn | Mode::Shadow => "Report it to its author",
                }
            }
            Self::PluginError | Self::Malformed | Self::Patch => {
                "An administrator should check the policy's settings and grants, and report it to its author"
            }
            Self::Obligation => {
                "A newer Beespace may know what the policy asks for; an administrator can change the policy's settings"
            }
            Self::Conflict => "An administrator has to change the settings or the grants of these policies so that they agree",
            Self::Incompatible | Self::Capability => {
                "An administrator has to install a version of the policy that fits this Beespace"
            }
            Self::Busy => "Restart the build",
            Self::Internal => "Restart the build; where it happens again, the server's log says more",
        }
    }
}
