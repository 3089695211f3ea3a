//! Objections of policies in mode `warn`: people see them, but they have no effect.

use std::fmt;

use beespace_core::policy::{Decision, Evaluation, Mode, Severity, Verdict, VerdictOutcome};

const WOULD_REQUIRE_APPROVAL: &str = "would require approval";

/// One objection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyWarning {
    /// Name of the binding.
    pub policy: String,
    /// What the verdict would do in mode `enforce`, after the policy's name: `would deny this`.
    pub effect: &'static str,
    pub message: String,
    pub remedy: Option<String>,
}

/// `policy "images" would deny this: Image "x" is not allowed (Use another image)`
impl fmt::Display for PolicyWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {:?} {}: {}", self.policy, self.effect, self.message)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, " ({remedy})"))
    }
}

/// The objections in the decisions about a build, each once: a policy that is asked about the pipeline and about each step may
/// repeat itself.
#[must_use]
pub fn of_decisions(decisions: &[Decision]) -> Vec<PolicyWarning> {
    let mut warnings: Vec<PolicyWarning> = Vec::new();
    let evaluations = decisions.iter().flat_map(|decision| &decision.evaluations);
    for evaluation in evaluations.filter(|evaluation| evaluation.mode == Mode::Warn) {
        let Ok(verdict) = &evaluation.result else { continue };
        for warning in of_verdict(evaluation, verdict) {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
    warnings
}

fn of_verdict(evaluation: &Evaluation, verdict: &Verdict) -> Vec<PolicyWarning> {
    let (effect, objects) = match verdict.outcome {
        VerdictOutcome::Deny => ("would deny this", true),
        VerdictOutcome::RequireApproval => (WOULD_REQUIRE_APPROVAL, true),
        VerdictOutcome::Allow | VerdictOutcome::Abstain => ("warns", false),
    };
    let warning = |effect: &'static str, message: &str, remedy: Option<&String>| PolicyWarning {
        policy: evaluation.policy.clone(),
        effect,
        message: Some(message).filter(|message| !message.is_empty()).unwrap_or("the policy gave no reason").to_owned(),
        remedy: remedy.cloned(),
    };
    let findings = verdict.findings.iter().filter(|finding| objects || finding.severity > Severity::Info);
    let mut warnings: Vec<PolicyWarning> =
        findings.map(|finding| warning(effect, &finding.message, finding.remedy.as_ref())).collect();
    // Required approvals count with every outcome but a denial.
    let approvals = verdict.approvals.iter().filter(|_| verdict.outcome != VerdictOutcome::Deny);
    warnings.extend(approvals.map(|asked| warning(WOULD_REQUIRE_APPROVAL, &asked.reason, None)));
    if warnings.is_empty() && objects {
        warnings.push(warning(effect, "", None));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use beespace_core::digest::Digest;
    use beespace_core::ids::{BuildId, DecisionId, StageId, StageNumber};
    use beespace_core::policy::{Finding, Point, Ruling};
    use beespace_core::time::Timestamp;

    use super::*;

    fn decision(mode: Mode, verdict: Verdict) -> Decision {
        let evaluation = Evaluation {
            policy: "images".to_owned(),
            component: None,
            settings: None,
            mode,
            result: Ok(verdict),
            applied: Vec::new(),
            duration_us: 1,
        };
        Decision {
            id: DecisionId(uuid::Uuid::nil()),
            point: Point::StepAdmit,
            stage: StageId { build: BuildId(uuid::Uuid::nil()), stage: StageNumber(1) },
            step: Some("test".to_owned()),
            subject_before: Digest::of("plan"),
            subject: Digest::of("plan"),
            evaluations: vec![evaluation],
            ruling: Ruling::Allowed,
            rules: None,
            decided_at: Timestamp(0),
        }
    }

    fn verdict(outcome: VerdictOutcome, severity: Severity) -> Verdict {
        let finding = Finding {
            rule_id: "policy-images/not-allowed".to_owned(),
            severity,
            message: "Image \"x\" is not allowed".to_owned(),
            pointer: None,
            help_url: None,
            remedy: Some("Use another image".to_owned()),
        };
        Verdict { outcome, findings: vec![finding], ..Verdict::default() }
    }

    #[test]
    fn an_objection_in_mode_warn_is_listed_once_and_other_modes_are_not() {
        let denial = || verdict(VerdictOutcome::Deny, Severity::High);
        let decisions = [
            decision(Mode::Warn, denial()),
            decision(Mode::Warn, denial()),
            decision(Mode::Shadow, denial()),
            decision(Mode::Enforce, denial()),
            decision(Mode::Warn, verdict(VerdictOutcome::Allow, Severity::Info)),
        ];
        let texts: Vec<String> = of_decisions(&decisions).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["policy \"images\" would deny this: Image \"x\" is not allowed (Use another image)"]);
    }

    #[test]
    fn a_verdict_without_a_reason_is_still_shown() {
        let silent = Verdict { outcome: VerdictOutcome::RequireApproval, ..Verdict::default() };
        let texts: Vec<String> = of_decisions(&[decision(Mode::Warn, silent)]).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["policy \"images\" would require approval: the policy gave no reason"]);
    }
}
