//! The decision.

use crate::bindings::beespace::plugin::types::{Context, Trust};
use crate::bindings::exports::beespace::plugin::policy::{Approval, Obligation, Outcome, Verdict};
use crate::settings::{PipelineFile, Settings};

const PIPELINE_FROM_TARGET: &str = "beespace.pipeline-from-target";

/// Abstains from trusted code. Whatever is not `trusted` counts as untrusted.
pub(crate) fn decide(settings: &Settings, point: &str, context: &Context) -> Verdict {
    match (context.trust, point) {
        (Trust::Trusted, _) => verdict(Outcome::Abstain),
        (_, "build.admit") => admit_build(settings),
        (_, "pipeline.admit") => require_approval(settings, context),
        _ => verdict(Outcome::Abstain),
    }
}

/// The pipeline of untrusted code is that of its target, whatever the event: otherwise a manual build of a fork's commit would
/// run the fork's pipeline. Without a target it is that of the default branch.
fn admit_build(settings: &Settings) -> Verdict {
    let is_obliged = settings.pipeline_file == PipelineFile::Target;
    let obligation = || Obligation { id: PIPELINE_FROM_TARGET.to_owned(), params: String::new(), mandatory: true };
    Verdict { obligations: is_obliged.then(obligation).into_iter().collect(), ..verdict(Outcome::Allow) }
}

fn require_approval(settings: &Settings, context: &Context) -> Verdict {
    let commit = context.commit.get(..7).unwrap_or(&context.commit);
    let subject = match &context.pull_request {
        Some((number, _)) => format!("commit {commit} of pull request #{number}"),
        None => format!("commit {commit}"),
    };
    let approval = Approval {
        groups: settings.groups.clone(),
        min_approvers: 1,
        forbid_author: false,
        ttl_seconds: None,
        reason: format!("{subject} is in no branch and no tag of {}/{}", context.owner, context.repo),
    };
    Verdict { approvals: vec![approval], ..verdict(Outcome::RequireApproval) }
}

fn verdict(outcome: Outcome) -> Verdict {
    Verdict { outcome, findings: Vec::new(), patches: Vec::new(), approvals: Vec::new(), obligations: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::beespace::plugin::types::{Actor, ActorKind};

    fn context(trust: Trust, pull_request: Option<u64>) -> Context {
        Context {
            invocation_id: String::new(),
            event: "pull_request".to_owned(),
            owner: "acme".to_owned(),
            repo: "app".to_owned(),
            git_ref: "refs/pull/7/head".to_owned(),
            commit: "95a2db4f0c3e7d5b1a6f8e9d2c4b6a8f0e1d3c5b".to_owned(),
            pull_request: pull_request.map(|number| (number, "refs/heads/main".to_owned())),
            build_number: None,
            actor: Actor {
                kind: ActorKind::User,
                id: "gogs:1".to_owned(),
                name: "eve".to_owned(),
                groups: Vec::new(),
                on_behalf_of: None,
            },
            author: None,
            trust,
            now_ms: 0,
            labels: Vec::new(),
        }
    }

    fn decided(settings: &str, point: &str, context: &Context) -> Verdict {
        decide(&Settings::read(settings).unwrap(), point, context)
    }

    #[test]
    fn trusted_code_is_left_to_others() {
        for point in ["build.admit", "pipeline.admit", "step.admit"] {
            let verdict = decided("{}", point, &context(Trust::Trusted, Some(7)));
            assert_eq!(
                (verdict.outcome, verdict.approvals.len(), verdict.obligations.len()),
                (Outcome::Abstain, 0, 0),
                "{point}"
            );
        }
    }

    #[test]
    fn untrusted_code_runs_the_pipeline_of_its_target_unless_the_settings_say_head() {
        for trust in [Trust::Untrusted, Trust::Restricted] {
            for (settings, pull, obligations) in [
                ("{}", Some(7), 1),
                (r#"{"pipeline_file": "target"}"#, Some(7), 1),
                (r#"{"pipeline_file": "head"}"#, Some(7), 0),
                ("{}", None, 1),
                (r#"{"pipeline_file": "head"}"#, None, 0),
            ] {
                let verdict = decided(settings, "build.admit", &context(trust, pull));
                assert_eq!((verdict.outcome, verdict.obligations.len()), (Outcome::Allow, obligations), "{settings}");
                assert!(verdict.obligations.iter().all(|one| one.mandatory && one.id == PIPELINE_FROM_TARGET));
            }
        }
    }

    #[test]
    fn a_person_has_to_approve_untrusted_code_whatever_its_event() {
        for (pull, reason) in [
            (Some(7), "commit 95a2db4 of pull request #7 is in no branch and no tag of acme/app"),
            (None, "commit 95a2db4 is in no branch and no tag of acme/app"),
        ] {
            let verdict = decided(r#"{"groups": ["maintainers"]}"#, "pipeline.admit", &context(Trust::Untrusted, pull));
            let [approval] = verdict.approvals.as_slice() else { panic!("{pull:?}") };
            assert_eq!((verdict.outcome, approval.reason.as_str()), (Outcome::RequireApproval, reason));
            assert_eq!((approval.min_approvers, approval.groups.as_slice()), (1, &["maintainers".to_owned()][..]));
        }
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(Settings::read(r#"{"pipeline_file": "both"}"#).is_err() && Settings::read(r#"{"pipelines": 1}"#).is_err());
    }
}
