//! The decision whether an event may be built at all, `build.admit`. It is made before a pipeline file is read, so its subject is
//! the event and the trust in its code.

use serde::{Deserialize, Serialize};

use crate::build::Build;
use crate::digest::Document;
use crate::event::EventKind;
use crate::ids::{Sha, StageNumber};
use crate::policy::{Decision, Denial, Finding, Ruling, Severity, Subject};
use crate::trust::Trust;

/// Name of the schema of the subject.
pub const SCHEMA: &str = "beespace.build/v1";

/// The obligation to run the pipeline files of the target branch instead of those of the commit.
pub const PIPELINE_FROM_TARGET: &str = "beespace.pipeline-from-target";

/// The stage of decisions about a whole build; the first stage has the number 1.
pub const WHOLE_BUILD: StageNumber = StageNumber(0);

/// The subject of `build.admit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSubject {
    pub event: EventKind,
    /// Full name, `refs/pull/7/head`.
    pub git_ref: String,
    /// Short name of the branch that is built, for a pull request of its target.
    pub branch: Option<String>,
    pub commit: Option<Sha>,
    pub trust: Trust,
}

impl BuildSubject {
    #[must_use]
    pub fn of(build: &Build) -> Self {
        Self {
            event: build.event.kind(),
            git_ref: build.event.git_ref(),
            branch: build.event.branch_or_target().map(str::to_owned),
            commit: build.sha().cloned(),
            trust: build.trust(),
        }
    }
}

impl Subject for BuildSubject {
    fn subject_document(&self) -> Document {
        Document::new(SCHEMA, &serde_json::to_value(self).unwrap_or_default())
    }
}

/// The decision with approvals turned into denials: before the pipeline is known, a person would not see what would run.
#[must_use]
pub fn without_approvals(mut decision: Decision) -> Decision {
    if let Ruling::NeedsApproval { requirements } = &decision.ruling {
        let denial = |policy: &String| Denial {
            policy: policy.clone(),
            finding: Finding {
                rule_id: "beespace/approval-of-a-build".to_owned(),
                severity: Severity::High,
                message: format!("The policy {policy:?} requires an approval at build.admit, where nobody can give it"),
                pointer: None,
                help_url: None,
                remedy: Some("The policy has to require it at pipeline.admit".to_owned()),
            },
        };
        let by = requirements.iter().map(|requirement| denial(&requirement.policy)).collect();
        decision.ruling = Ruling::Denied { by };
    }
    decision
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::ids::{BuildId, DecisionId, StageId};
    use crate::policy::{
        ApprovalRequirement, ErrorClass, Evaluation, EvaluationError, Mode, Obligation, Point, Verdict, VerdictOutcome,
    };
    use crate::time::Timestamp;

    fn decision(ruling: Ruling, evaluations: Vec<Evaluation>) -> Decision {
        Decision {
            id: DecisionId(uuid::Uuid::nil()),
            point: Point::BuildAdmit,
            stage: StageId { build: BuildId(uuid::Uuid::nil()), stage: WHOLE_BUILD },
            step: None,
            subject_before: Digest::of(""),
            subject: Digest::of(""),
            evaluations,
            ruling,
            rules: None,
            decided_at: Timestamp(0),
        }
    }

    #[test]
    fn an_approval_of_a_build_is_a_denial_that_names_the_policy() {
        let requirement = ApprovalRequirement {
            policy: "early".to_owned(),
            groups: Vec::new(),
            min_approvers: 1,
            forbid_author: false,
            ttl_seconds: None,
            reason: String::new(),
        };
        let asked = decision(Ruling::NeedsApproval { requirements: vec![requirement] }, Vec::new());
        let Ruling::Denied { by } = without_approvals(asked).ruling else { panic!("not denied") };
        assert_eq!((by.len(), by[0].policy.as_str()), (1, "early"));
        assert_eq!(without_approvals(decision(Ruling::Allowed, Vec::new())).ruling, Ruling::Allowed);
    }

    #[test]
    fn an_obligation_counts_if_its_policy_is_enforced() {
        let obligation = Obligation { id: PIPELINE_FROM_TARGET.to_owned(), params: String::new(), mandatory: true };
        let verdict = Verdict { outcome: VerdictOutcome::Allow, obligations: vec![obligation], ..Verdict::default() };
        let evaluation = |mode, result| Evaluation {
            policy: "forks".to_owned(),
            component: None,
            settings: None,
            mode,
            result,
            applied: Vec::new(),
            duration_us: 0,
        };
        let obliges = |mode| decision(Ruling::Allowed, vec![evaluation(mode, Ok(verdict.clone()))]).obliges(PIPELINE_FROM_TARGET);
        assert!(obliges(Mode::Enforce) && !obliges(Mode::Warn) && !obliges(Mode::Shadow));
        let failed = EvaluationError { class: ErrorClass::Trap, message: String::new() };
        assert!(!decision(Ruling::Allowed, vec![evaluation(Mode::Enforce, Err(failed))]).obliges(PIPELINE_FROM_TARGET));
    }
}
