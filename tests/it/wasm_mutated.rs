//! Truncated and mutated components: each is a load error with a reason, or a plugin that stays within its budgets.

use std::sync::Arc;

use beespace_core::digest::Document;
use beespace_core::plan::StepPlan;
use beespace_core::policy::{ErrorClass, Point};
use beespace_core::{pipeline, plan};
use beespace_tests::guest_build;
use beespace_tests::seeded_rng::SeededRng;
use beespace_wasm::{
    BindingSpec, BoxFuture, Host, Limits, LoadError, PlanError, PluginError, PolicyRequest, RoundEnd, SourceEntry, SourceError,
    SourceFiles, SourceKind, StepInput,
};

use crate::plugins::component;

/// Each case is compiled, which takes most of the time.
const CASES: usize = 24;

fn settings() -> serde_json::Value {
    serde_json::json!({ "registries": ["registry.example"] })
}

/// A commit with one file.
struct OneFile;

impl SourceFiles for OneFile {
    fn list_paths<'a>(&'a self, _glob: &'a str, after: Option<&'a str>) -> BoxFuture<'a, Result<Vec<SourceEntry>, SourceError>> {
        let entry = SourceEntry { path: "keys/deploy.pem".to_owned(), kind: SourceKind::File, size: 1_700 };
        Box::pin(async move { Ok(if after.is_none() { vec![entry] } else { Vec::new() }) })
    }

    fn read<'a>(&'a self, _path: &'a str, _offset: u64, _length: u32) -> BoxFuture<'a, Result<Vec<u8>, SourceError>> {
        Box::pin(async { Err(SourceError::Denied) })
    }
}

/// Loads a component and, if that succeeds, calls it. `Err` is the reason why it was not loaded.
async fn live(host: &Host, name: &str, bytes: Vec<u8>) -> Result<(), LoadError> {
    if name == "plugins/policy-images" { policy_lives(host, bytes).await } else { step_type_lives(host, bytes).await }
}

async fn policy_lives(host: &Host, bytes: Vec<u8>) -> Result<(), LoadError> {
    let policy = host.load_policy(bytes, BindingSpec::new("hurt", settings(), Limits::policy())).await?;
    for (point, schema) in [(Point::PipelineAdmit, pipeline::SCHEMA), (Point::StepAdmit, plan::SCHEMA)] {
        let subject = serde_json::json!({ "steps": [{ "name": "a", "image": "busybox" }] });
        let request = PolicyRequest {
            point,
            context: guest_build::context(),
            event: Document::new("beespace.event/v1", &serde_json::json!({})),
            subject: Document::new(schema, &subject),
            previous: None,
        };
        if let Err(error) = policy.evaluate(request).await.result {
            check_call("policy", &error);
        }
    }
    Ok(())
}

async fn step_type_lives(host: &Host, bytes: Vec<u8>) -> Result<(), LoadError> {
    let spec = BindingSpec::new("hurt", serde_json::json!({}), Limits::step_type());
    let step_type = host.load_step_type(bytes, spec).await?;
    let event = serde_json::json!({ "commits": [{ "sha": "ab".repeat(20), "message": "wip" }] });
    let input = StepInput {
        step: "rules".to_owned(),
        context: guest_build::context(),
        event: Document::new("beespace.event/v1", &event),
        params: serde_json::json!({ "commit_message": "^fix: ", "forbid": ["**/*.pem"], "max_file_size": "1kB" }),
        upstream: Vec::new(),
        secret_names: Vec::new(),
        source: Arc::new(OneFile),
    };
    let plan = step_type.make_plan(input.clone()).await.result.unwrap_or_else(|error| {
        if let PlanError::Plugin(error) = error {
            check_call("step", &error);
        }
        StepPlan::default()
    });
    for end in [RoundEnd::Exited(Vec::new()), RoundEnd::Cancelled] {
        if let Err(error) = step_type.react(input.clone(), &plan, end).await.result {
            check_call("step", &error);
        }
    }
    Ok(())
}

/// Checks that are valid for every failed call.
fn check_call(kind: &str, error: &PluginError) {
    assert!(error.message.starts_with(&format!(r#"{kind} "hurt" ("#)), "{error}");
    assert_ne!(error.class, ErrorClass::Internal, "not an internal error: {error}");
}

/// Checks that are valid for every load error.
fn check(error: &LoadError, case: &str) {
    let message = error.to_string();
    assert!(message.starts_with(r#"plugin "hurt": "#), "{case}: {message}");
    assert!(message.len() < 4_096 && !message.chars().any(char::is_control), "{case}: {message:?}");
    assert!(!matches!(error.failure, beespace_wasm::LoadFailure::Internal(_)), "{case}: not an internal error: {message}");
    assert!(!message.contains("the compiler failed"), "{case}: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_component_is_refused_wherever_it_was_cut() {
    let host = guest_build::host();
    let mut rng = SeededRng::from_env();
    for name in ["plugins/policy-images", "plugins/step-check"] {
        let whole = component(name);
        for _ in 0..CASES {
            let length = rng.index(whole.len());
            let case = format!("seed {}, {name} cut to {length}", rng.seed);
            let error = live(&host, name, whole[..length].to_vec()).await.err().unwrap_or_else(|| panic!("{case}: loaded"));
            check(&error, &case);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutated_component_is_refused_or_stays_within_its_budgets() {
    let host = guest_build::host();
    let mut rng = SeededRng::from_env();
    let mut refused = 0;
    for name in ["plugins/policy-images", "plugins/step-check"] {
        let whole = component(name);
        for case in 0..CASES {
            let mut bytes = whole.clone();
            for _ in 0..=rng.index(3) {
                let at = rng.index(bytes.len());
                bytes[at] = u8::try_from(rng.index(256)).unwrap();
            }
            let case = format!("seed {}, {name}, case {case}", rng.seed);
            if let Err(error) = live(&host, name, bytes).await {
                check(&error, &case);
                refused += 1;
            }
        }
    }
    println!("{refused} of {} were refused", 2 * CASES);
    // The host still works.
    live(&host, "plugins/policy-images", component("plugins/policy-images")).await.unwrap();
    live(&host, "plugins/step-check", component("plugins/step-check")).await.unwrap();
}
