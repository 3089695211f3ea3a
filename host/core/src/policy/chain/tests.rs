use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::baseline_policy;
use crate::pipeline::Pipeline;
use crate::plan::StepPlan;
use crate::policy::{Obligation, Severity};

fn plan() -> StepPlan {
    serde_json::from_value(json!({ "step": "test", "containers": [{ "id": "step", "image": "rust:1" }] })).unwrap()
}

fn binding(policy: &str, mode: Mode, mutable: &[&str]) -> Binding {
    let mutable = mutable.iter().map(|grant| grant.parse().unwrap()).collect();
    Binding { policy: policy.to_owned(), component: Digest::of("c"), settings: Digest::of("s"), mode, mutable }
}

fn verdict(outcome: VerdictOutcome) -> Verdict {
    Verdict { outcome, ..Verdict::default() }
}

fn sets(path: &str, value: Value) -> Verdict {
    let patch = PatchOp { op: PatchKind::Add, path: path.to_owned(), value: Some(value) };
    Verdict { patches: vec![patch], ..verdict(VerdictOutcome::Allow) }
}

fn failure() -> EvaluationError {
    EvaluationError { class: ErrorClass::Trap, message: "it trapped".to_owned() }
}

/// Runs the chain with `answer`, which gets the policy's name and the image that it sees.
fn run(
    bindings: &[Binding],
    answer: impl Fn(&str, &str) -> Result<Verdict, EvaluationError>,
) -> (ChainResult<StepPlan>, Vec<String>) {
    let mut asked = Vec::new();
    let mut chain =
        Chain::new(plan(), bindings.to_vec(), |plan| baseline_policy::evaluate(plan, &baseline_policy::StepBounds::default()));
    while let Some(question) = chain.next_evaluation() {
        let seen: StepPlan = serde_json::from_str(&question.document.json).unwrap();
        let name = bindings[question.binding].policy.clone();
        let image = seen.containers[0].image.clone();
        let result = answer(&name, &image);
        asked.push(format!("{name} {image}"));
        chain.record_evaluation(result, Duration::from_micros(10));
    }
    (chain.into_result(), asked)
}

fn error_of(settled: &ChainResult<StepPlan>, policy: &str) -> EvaluationError {
    settled.evaluations.iter().find(|evaluation| evaluation.policy == policy).unwrap().result.clone().unwrap_err()
}

const IMAGE: &str = "/containers/*/image";

#[test]
fn mutators_run_first_see_each_other_and_are_evaluated_again() {
    let bindings = [
        binding("judge", Mode::Enforce, &[]),
        binding("one", Mode::Enforce, &[IMAGE]),
        binding("two", Mode::Enforce, &["/containers/*/env"]),
    ];
    let (settled, asked) = run(&bindings, |name, _| {
        Ok(match name {
            "one" => sets("/containers/0/image", json!("rust:2")),
            "two" => sets("/containers/0/env", json!({"A": "b"})),
            _ => verdict(VerdictOutcome::Abstain),
        })
    });
    assert_eq!(asked, ["one rust:1", "two rust:2", "one rust:2", "two rust:2", "judge rust:2"]);
    assert_eq!(settled.ruling, Ruling::Allowed);
    assert_eq!(settled.subject.containers[0].image, "rust:2");
    assert_ne!(settled.before, settled.subject.digest());
    let names: Vec<&str> = settled.evaluations.iter().map(|evaluation| evaluation.policy.as_str()).collect();
    assert_eq!(names, [BASELINE_POLICY, "judge", "one", "two"]);
    assert_eq!(settled.evaluations[2].applied.len(), 1);
    assert_eq!(settled.evaluations[2].duration_us, 20);
}

#[test]
fn mutators_that_change_nothing_are_evaluated_once() {
    let (settled, asked) =
        run(&[binding("one", Mode::Enforce, &[IMAGE])], |_, _| Ok(sets("/containers/0/image", json!("rust:1"))));
    assert_eq!(asked.len(), 1);
    assert_eq!(settled.before, settled.subject.digest());
}

#[test]
fn the_verdict_of_a_mutator_on_the_final_document_counts() {
    let bindings = [binding("strict", Mode::Enforce, &[IMAGE]), binding("pin", Mode::Enforce, &[IMAGE])];
    let (settled, _) = run(&bindings, |name, image| {
        Ok(match (name, image) {
            ("pin", _) => sets("/containers/0/image", json!("rust:2")),
            (_, "rust:2") => verdict(VerdictOutcome::Allow),
            _ => verdict(VerdictOutcome::Deny),
        })
    });
    assert_eq!(settled.ruling, Ruling::Allowed);
}

#[test]
fn conflicting_mutators_are_both_named() {
    let bindings = [binding("one", Mode::Enforce, &[IMAGE]), binding("two", Mode::Enforce, &[IMAGE])];
    let (settled, _) =
        run(&bindings, |name, _| Ok(sets("/containers/0/image", json!(if name == "one" { "rust:2" } else { "rust:3" }))));
    let error = error_of(&settled, "one");
    assert_eq!(error.class, ErrorClass::Conflict);
    assert_eq!(
        error.message,
        "the policies \"one\" and \"two\" conflict: each changes `/containers/0/image` again after the other"
    );
    assert!(matches!(settled.ruling, Ruling::Denied { .. }));
}

#[test]
fn a_mutator_that_conflicts_with_itself_is_named_alone() {
    let (settled, _) =
        run(&[binding("one", Mode::Enforce, &[IMAGE])], |_, image| Ok(sets("/containers/0/image", json!(format!("{image}x")))));
    let error = error_of(&settled, "one");
    assert_eq!(
        (error.class, error.message.as_str()),
        (ErrorClass::Conflict, "the policy \"one\" changes `/containers/0/image` in every evaluation")
    );
}

#[test]
fn invalid_patches_are_denials_that_name_the_policy() {
    for (grants, patch) in [
        (&[][..], sets("/containers/0/image", json!("x"))),
        (&[IMAGE][..], sets("/containers/0/env", json!({"A": "b"}))),
        (&[IMAGE][..], sets("/containers/1/image", json!("x"))),
        (&[IMAGE][..], sets("/containers/0/image", json!(7))),
        (&["/containers"][..], sets("/containers/0/banana", json!(true))),
    ] {
        let (settled, _) = run(&[binding("bad", Mode::Enforce, grants)], |_, _| Ok(patch.clone()));
        assert_eq!(error_of(&settled, "bad").class, ErrorClass::Patch, "{patch:?}");
        let Ruling::Denied { by } = settled.ruling else { panic!("{patch:?}") };
        assert_eq!(by[0].policy, "bad");
        assert!(by[0].finding.message.contains("bad") && by[0].finding.message.contains("patch"), "{}", by[0].finding.message);
        assert_eq!(settled.subject, plan());
    }
}

#[test]
fn a_patch_that_breaks_the_needs_of_steps_is_a_denial_with_the_reason() {
    let steps = json!([
        { "name": "build", "action": { "kind": "image", "image": "rust:1" }, "needs": [] },
        { "name": "test", "action": { "kind": "image", "image": "rust:1" }, "needs": ["build"] },
    ]);
    let pipeline: Pipeline = serde_json::from_value(json!({ "name": "main", "steps": steps })).unwrap();
    for (path, value, why) in [
        ("/steps/0/needs", json!(["test"]), "step `build` depends on itself through `needs`"),
        ("/steps/0/needs", json!(["lint"]), "no step is named `lint`"),
        ("/steps/0/name", json!("test"), "two steps are named `test`"),
    ] {
        let bindings = vec![binding("bad", Mode::Enforce, &["/steps"])];
        let mut chain = Chain::new(pipeline.clone(), bindings, |_: &Pipeline| verdict(VerdictOutcome::Allow));
        while chain.next_evaluation().is_some() {
            chain.record_evaluation(Ok(sets(path, value.clone())), Duration::ZERO);
        }
        let settled = chain.into_result();
        assert_eq!(settled.subject, pipeline);
        let Ruling::Denied { by } = settled.ruling else { panic!("{path} {value}") };
        assert!(by[0].policy == "bad" && by[0].finding.message.contains(why), "{}", by[0].finding.message);
    }
}

#[test]
fn the_baseline_policy_is_evaluated_before_policies_and_after_their_patches() {
    let mut broken = plan();
    broken.containers[0].image = "Not An Image".to_owned();
    let chain = Chain::new(broken, vec![binding("one", Mode::Enforce, &[])], |plan| {
        baseline_policy::evaluate(plan, &baseline_policy::StepBounds::default())
    });
    assert!(chain.next_evaluation().is_none());
    let settled = chain.into_result();
    let Ruling::Denied { by } = &settled.ruling else { panic!() };
    assert_eq!((by.len(), by[0].policy.as_str(), settled.evaluations.len()), (1, BASELINE_POLICY, 1));

    let (settled, _) =
        run(&[binding("one", Mode::Enforce, &[IMAGE])], |_, _| Ok(sets("/containers/0/image", json!("Not An Image"))));
    let Ruling::Denied { by } = &settled.ruling else { panic!() };
    assert_eq!(by[0].policy, BASELINE_POLICY);
    assert_eq!(settled.evaluations.len(), 2);
}

#[test]
fn an_unsupported_mandatory_obligation_is_a_denial() {
    for mandatory in [true, false] {
        let obligation = Obligation { id: "acme.watch".to_owned(), params: String::new(), mandatory };
        let verdict = Verdict { obligations: vec![obligation], ..verdict(VerdictOutcome::Allow) };
        let (settled, _) = run(&[binding("one", Mode::Enforce, &[])], |_, _| Ok(verdict.clone()));
        assert_eq!(settled.ruling == Ruling::Allowed, !mandatory);
    }
}

#[test]
fn a_failure_in_the_first_phase_remains_after_the_second() {
    let bindings = [binding("shaky", Mode::Enforce, &[IMAGE]), binding("pin", Mode::Enforce, &[IMAGE])];
    let (settled, _) = run(&bindings, |name, image| match (name, image) {
        ("pin", _) => Ok(sets("/containers/0/image", json!("rust:2"))),
        (_, "rust:1") => Err(failure()),
        _ => Ok(verdict(VerdictOutcome::Allow)),
    });
    assert_eq!(error_of(&settled, "shaky").class, ErrorClass::Trap);
    assert!(matches!(settled.ruling, Ruling::Denied { .. }));
}

#[test]
fn an_incomplete_chain_is_a_denial() {
    let chain = Chain::new(plan(), vec![binding("one", Mode::Enforce, &[])], |_| verdict(VerdictOutcome::Allow));
    assert!(matches!(chain.into_result().ruling, Ruling::Denied { .. }));
}

#[test]
fn an_approval_without_details_is_required_and_names_the_policy() {
    let (settled, _) = run(&[binding("careful", Mode::Enforce, &[])], |_, _| Ok(verdict(VerdictOutcome::RequireApproval)));
    let Ruling::NeedsApproval { requirements } = settled.ruling else { panic!() };
    assert_eq!((requirements[0].policy.as_str(), requirements[0].min_approvers), ("careful", 1));
}

#[test]
fn a_denial_without_findings_gets_a_generic_one() {
    let (settled, _) = run(&[binding("mute", Mode::Enforce, &[])], |_, _| Ok(verdict(VerdictOutcome::Deny)));
    let Ruling::Denied { by } = settled.ruling else { panic!() };
    assert!(by[0].finding.message.contains("mute") && by[0].finding.severity > Severity::Info);
}

fn any_answer() -> impl Strategy<Value = Result<Verdict, EvaluationError>> {
    prop_oneof![
        Just(Ok(verdict(VerdictOutcome::Abstain))),
        Just(Ok(verdict(VerdictOutcome::Allow))),
        Just(Ok(verdict(VerdictOutcome::RequireApproval))),
        Just(Ok(verdict(VerdictOutcome::Deny))),
        Just(Ok(sets("/containers/0/image", json!("rust:2")))),
        Just(Err(failure())),
    ]
}

fn any_binding() -> impl Strategy<Value = (Mode, bool, Result<Verdict, EvaluationError>)> {
    (prop_oneof![Just(Mode::Enforce), Just(Mode::Warn), Just(Mode::Shadow)], any::<bool>(), any_answer())
}

/// Evaluates bindings that return the same result in every phase.
fn decide_all(parts: &[(Mode, bool, Result<Verdict, EvaluationError>)]) -> ChainResult<StepPlan> {
    let name = |index: usize| format!("p{index}");
    let bindings: Vec<Binding> = parts
        .iter()
        .enumerate()
        .map(|(index, part)| binding(&name(index), part.0, if part.1 { &[IMAGE] } else { &[] }))
        .collect();
    run(&bindings, |policy, _| parts[policy[1..].parse::<usize>().unwrap()].2.clone()).0
}

/// A ruling reduced to its kind and the number of its entries.
fn kind(ruling: &Ruling) -> (&'static str, usize) {
    match ruling {
        Ruling::Allowed => ("allowed", 0),
        Ruling::NeedsApproval { requirements } => ("approval", requirements.len()),
        Ruling::Denied { by } => ("denied", by.len()),
    }
}

proptest! {
    #[test]
    fn the_order_of_validators_does_not_change_the_ruling(
        parts in prop::collection::vec(any_binding(), 0..6),
        turn in 0usize..6,
    ) {
        let parts: Vec<_> = parts.into_iter().map(|(mode, _, answer)| (mode, false, answer)).collect();
        let mut turned = parts.clone();
        turned.rotate_left(turn.min(parts.len()));
        prop_assert_eq!(kind(&decide_all(&parts).ruling), kind(&decide_all(&turned).ruling));
        turned.reverse();
        prop_assert_eq!(kind(&decide_all(&parts).ruling), kind(&decide_all(&turned).ruling));
    }

    #[test]
    fn policies_that_do_not_enforce_have_no_effect(parts in prop::collection::vec(any_binding(), 0..6)) {
        let enforcing: Vec<_> = parts.iter().filter(|(mode, ..)| *mode == Mode::Enforce).cloned().collect();
        let (all, only) = (decide_all(&parts), decide_all(&enforcing));
        prop_assert_eq!(kind(&all.ruling), kind(&only.ruling));
        prop_assert_eq!(all.subject, only.subject);
        for evaluation in all.evaluations.iter().filter(|evaluation| evaluation.mode != Mode::Enforce) {
            prop_assert!(evaluation.applied.is_empty());
        }
    }

    #[test]
    fn a_failure_of_an_enforcing_policy_never_allows(parts in prop::collection::vec(any_binding(), 1..6)) {
        let has_trouble = parts.iter().any(|(mode, _, answer)| *mode == Mode::Enforce && answer.is_err());
        let settled = decide_all(&parts);
        if has_trouble {
            prop_assert_eq!(kind(&settled.ruling).0, "denied");
        }
        if settled.ruling == Ruling::Allowed {
            prop_assert!(settled.evaluations.iter().filter(|e| e.mode == Mode::Enforce).all(|e| e.result.is_ok()));
        }
    }
}
