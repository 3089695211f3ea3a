//! The files in `examples/` are valid.

use std::path::{Path, PathBuf};

use beespace::config::Config;
use beespace_core::digest::Document;
use beespace_core::environment::{self, Variable};
use beespace_core::policy::{Point, VerdictOutcome};
use beespace_core::{pipeline, plan};
use beespace_tests::guest_build;
use beespace_wasm::PolicyRequest;
use serde_json::json;

use crate::plugins;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples")
}

#[test]
fn the_configuration_with_every_key_is_read() {
    let text = std::fs::read_to_string(examples().join("beespace.toml")).unwrap();
    // The token is in a file on the server's machine.
    let text = text.lines().filter(|line| !line.starts_with("token_file")).collect::<Vec<_>>().join("\n");
    let env = [("BEESPACE_GOGS__TOKEN".to_owned(), "0".repeat(40))];
    let loaded = Config::read(&text, None, env).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let config = loaded.config;
    assert_eq!((config.policies.len(), config.steps.len(), config.notifiers.len()), (2, 1, 1));
}

/// `UPDATE=1 cargo test --workspace --test it examples` writes it.
#[test]
fn the_documented_variables_are_those_that_steps_receive() {
    let mut text =
        "# Variables of a step\n\nEvery step gets all of these environment variables; a variable without a value is empty.\n\
`env` in the pipeline file may override `CI`. `BEESPACE` and all names that begin with `BEESPACE_` are reserved.\n\n\
| variable | meaning | example |\n|---|---|---|\n"
            .to_owned();
    for Variable { name, meaning, example, .. } in environment::VARIABLES {
        let example = if example.is_empty() { String::new() } else { format!("`{example}`") };
        text += &format!("| `{name}` | {meaning} | {example} |\n");
    }
    let path = examples().join("variables.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text);
}

#[test]
fn every_example_pipeline_is_valid() {
    let mut count = 0;
    for entry in std::fs::read_dir(examples().join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        let read = pipeline::read(&path.to_string_lossy(), &std::fs::read(&path).unwrap());
        assert!(read.is_ok(), "{read:#?}");
        count += 1;
    }
    assert!(count > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_policy_restricts_secrets_to_the_default_branch() {
    let policy = guest_build::load_policy(&guest_build::host(), plugins::component("examples/secrets-on-main")).await.unwrap();
    assert!(policy.applies_at(Point::StepAdmit) && !policy.applies_at(Point::PipelineAdmit));
    let with = json!([{ "secret": "token", "target": { "env": "TOKEN" } }]);
    for (git_ref, secrets, outcome) in [
        ("refs/heads/master", &with, VerdictOutcome::Abstain),
        ("refs/heads/main", &with, VerdictOutcome::Deny),
        ("refs/heads/feature", &with, VerdictOutcome::Deny),
        ("refs/heads/feature", &json!([]), VerdictOutcome::Abstain),
    ] {
        let plan = json!({ "step": "release", "containers": [{ "id": "step", "image": "rust:1.95", "secrets": secrets }] });
        let plan: plan::StepPlan = serde_json::from_value(plan).unwrap();
        let mut context = guest_build::context();
        git_ref.clone_into(&mut context.git_ref);
        let request = PolicyRequest {
            point: Point::StepAdmit,
            context,
            event: Document::new("beespace.event/v1", &json!({ "default_branch": "master" })),
            subject: Document::new(plan::SCHEMA, &serde_json::to_value(&plan).unwrap()),
            previous: None,
        };
        let verdict = policy.evaluate(request).await.result.unwrap();
        assert_eq!(verdict.outcome, outcome, "{git_ref} {secrets}: {verdict:?}");
        assert_eq!(verdict.findings.len(), usize::from(outcome == VerdictOutcome::Deny));
    }
}

#[test]
fn the_policy_in_the_readme_is_the_example_policy() {
    let shown = std::fs::read_to_string(examples().join("../README.md")).unwrap();
    let (_, shown) = shown.split_once("```rust\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let source = std::fs::read_to_string(examples().join("secrets-on-main/src/lib.rs")).unwrap();
    assert!(source.contains(shown), "{shown}");
}
