//! Components of ours, cut and with bytes changed: each is a load error that says why, or a plugin that keeps to its budgets.

use beespace_core::digest::Document;
use beespace_core::policy::Point;
use beespace_core::{pipeline, plan};
use beespace_wasm::{BindingSpec, Host, Limits, LoadError, PolicyRequest};

use crate::chance::Chance;
use crate::guests;
use crate::plugins::component;

/// Each compiles anew, which is what takes the time.
const CASES: usize = 24;

fn settings() -> serde_json::Value {
    serde_json::json!({ "registries": ["registry.example"] })
}

/// Loads it as what it was and, where it loads, asks it. `Err` is why it was not loaded.
async fn live(host: &Host, name: &str, bytes: Vec<u8>) -> Result<(), LoadError> {
    if name != "plugins/policy-images" {
        let spec = BindingSpec::new("hurt", serde_json::json!({}), Limits::step_type());
        return host.load_step_type(bytes, spec).await.map(drop);
    }
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
            assert!(error.message.starts_with(r#"policy "hurt" ("#), "{error}");
        }
    }
    Ok(())
}

/// What holds for every reason not to load.
fn check(error: &LoadError, case: &str) {
    let said = error.to_string();
    assert!(said.starts_with(r#"plugin "hurt": "#), "{case}: {said}");
    assert!(said.len() < 4_096 && !said.chars().any(char::is_control), "{case}: {said:?}");
    assert!(!matches!(error.failure, beespace_wasm::LoadFailure::Internal(_)), "{case}: it is no fault of ours: {said}");
    assert!(!said.contains("the compiler stopped"), "{case}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_component_is_refused_wherever_it_was_cut() {
    let host = guests::host();
    let mut chance = Chance::new();
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
    let mut chance = Chance::new();
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
