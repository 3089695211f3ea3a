//! Components of ours, cut and with bytes changed: each is a load error that says why, or a plugin that keeps to its budgets.

use std::sync::Arc;

use beespace_core::digest::Document;
use beespace_core::plan::StepPlan;
use beespace_core::policy::{ErrorClass, Point};
use beespace_core::{pipeline, plan};
use beespace_wasm::{
    BindingSpec, BoxFuture, Host, Limits, LoadError, PlanError, PluginError, PolicyRequest, RoundEnd, SourceEntry, SourceError,
    SourceFiles, SourceKind, StepInput,
};

use crate::guests;
use crate::plugins::component;
use crate::seeded_rng::SeededRng;

/// Each compiles anew, which is what takes the time.
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

/// Loads it as what it was and, where it loads, asks it. `Err` is why it was not loaded.
async fn live(host: &Host, name: &str, bytes: Vec<u8>) -> Result<(), LoadError> {
    if name == "plugins/policy-images" { policy_lives(host, bytes).await } else { step_type_lives(host, bytes).await }
}

async fn policy_lives(host: &Host, bytes: Vec<u8>) -> Result<(), LoadError> {
    let policy = host.load_policy(bytes, BindingSpec::new("hurt", settings(), Limits::policy())).await?;
    for (point, schema) in [(Point::PipelineAdmit, pipeline::SCHEMA), (Point::StepAdmit, plan::SCHEMA)] {
        let subject = serde_json::json!({ "steps": [{ "name": "a", "image": "busybox" }] });
        let request = PolicyRequest {
            point,
            context: guests::context(),
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
        context: guests::context(),
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

/// What holds for every call that gave no answer.
fn check_call(kind: &str, error: &PluginError) {
    assert!(error.message.starts_with(&format!(r#"{kind} "hurt" ("#)), "{error}");
    assert_ne!(error.class, ErrorClass::Internal, "it is no fault of ours: {error}");
}

/// What holds for every reason not to load.
fn check(error: &LoadError, case: &str) {
    let said = error.to_string();
    assert!(said.starts_with(r#"plugin "hurt": "#), "{case}: {said}");
    assert!(said.len() < 4_096 && !said.chars().any(char::is_control), "{case}: {said:?}");
    assert!(!matches!(error.failure, beespace_wasm::LoadFailure::Internal(_)), "{case}: it is no fault of ours: {said}");
    assert!(!said.contains("the compiler failed"), "{case}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_component_is_refused_wherever_it_was_cut() {
    let host = guests::host();
    let mut chance = SeededRng::new();
    for name in ["plugins/policy-images", "plugins/step-check"] {
        let whole = component(name);
        for _ in 0..CASES {
            let length = chance.below(whole.len());
            let case = format!("seed {}, {name} cut to {length}", chance.seed);
            let error = live(&host, name, whole[..length].to_vec()).await.err().unwrap_or_else(|| panic!("{case}: loaded"));
            check(&error, &case);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_with_changed_bytes_is_refused_or_keeps_to_its_budgets() {
    let host = guests::host();
    let mut chance = SeededRng::new();
    let mut refused = 0;
    for name in ["plugins/policy-images", "plugins/step-check"] {
        let whole = component(name);
        for case in 0..CASES {
            let mut bytes = whole.clone();
            for _ in 0..=chance.below(3) {
                let at = chance.below(bytes.len());
                bytes[at] = u8::try_from(chance.below(256)).unwrap();
            }
            let case = format!("seed {}, {name}, case {case}", chance.seed);
            if let Err(error) = live(&host, name, bytes).await {
                check(&error, &case);
                refused += 1;
            }
        }
    }
    println!("{refused} of {} were refused", 2 * CASES);
    // The host is as good as before.
    live(&host, "plugins/policy-images", component("plugins/policy-images")).await.unwrap();
    live(&host, "plugins/step-check", component("plugins/step-check")).await.unwrap();
}
