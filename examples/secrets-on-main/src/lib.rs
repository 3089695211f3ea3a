//! An example to start from: a policy that lets steps use secrets on the main branch only.

#[allow(clippy::all, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "policy-plugin" });
}

use bindings::beespace::plugin::log;
use bindings::beespace::plugin::types::{Finding, Severity};
use bindings::exports::beespace::plugin::lifecycle::{self, Diagnostic};
use bindings::exports::beespace::plugin::policy::{self, Outcome, Request, Verdict};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The parts of a step's plan that this policy reads.
#[derive(Deserialize)]
struct Plan {
    step: String,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    secrets: Vec<IgnoredAny>,
}

struct SecretsOnMain;

impl policy::Guest for SecretsOnMain {
    fn evaluate(request: Request) -> Result<Verdict, String> {
        report_panics();
        evaluate(request)
    }
}

fn evaluate(request: Request) -> Result<Verdict, String> {
    let plan: Plan = serde_json::from_str(&request.subject.json).map_err(|error| error.to_string())?;
    let opens_none = plan.containers.iter().all(|container| container.secrets.is_empty());
    if opens_none || request.ctx.git_ref == "refs/heads/main" {
        return Ok(verdict(Outcome::Abstain, Vec::new()));
    }
    let message = format!("step {} uses a secret, and {} is not main", plan.step, request.ctx.git_ref);
    Ok(verdict(Outcome::Deny, vec![finding(message, "give the step a `when: { branch: main }`")]))
}

/// Logs the message and place of a panic. The host adds them to its error; without this it knows only that the plugin aborted.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| log::emit(log::Level::Error, &panic.to_string(), &[])));
}

fn verdict(outcome: Outcome, findings: Vec<Finding>) -> Verdict {
    Verdict { outcome, findings, patches: Vec::new(), approvals: Vec::new(), obligations: Vec::new() }
}

fn finding(message: String, remedy: &str) -> Finding {
    let rule_id = "example/secrets-on-main".to_owned();
    Finding { rule_id, severity: Severity::High, message, pointer: None, help_url: None, remedy: Some(remedy.to_owned()) }
}

impl lifecycle::Guest for SecretsOnMain {
    fn validate_config(_config: String) -> Result<(), Vec<Diagnostic>> {
        Ok(())
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(SecretsOnMain with_types_in bindings);
