//! An example to start from: a policy that lets steps use secrets on the repository's default branch only.

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

/// The part of the event that this policy reads.
#[derive(Deserialize)]
struct Event {
    default_branch: String,
}

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
    let Event { default_branch } = read(&request.event.json)?;
    let plan: Plan = read(&request.subject.json)?;
    let opens_none = plan.containers.iter().all(|container| container.secrets.is_empty());
    let git_ref = request.ctx.git_ref;
    if opens_none || git_ref == format!("refs/heads/{default_branch}") {
        return Ok(verdict(Outcome::Abstain, Vec::new()));
    }
    let message = format!("step {} uses a secret, and {git_ref} is not the default branch", plan.step);
    let remedy = format!("give the step a `when: {{ branch: {default_branch} }}`");
    Ok(verdict(Outcome::Deny, vec![finding(message, remedy)]))
}

/// Reads a document of the request. An error is a denial with this reason.
fn read<'j, T: Deserialize<'j>>(json: &'j str) -> Result<T, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

/// Logs the message and place of a panic. The host adds them to its error; without this it knows only that the plugin aborted.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| log::emit(log::Level::Error, &panic.to_string(), &[])));
}

fn verdict(outcome: Outcome, findings: Vec<Finding>) -> Verdict {
    Verdict { outcome, findings, patches: Vec::new(), approvals: Vec::new(), obligations: Vec::new() }
}

fn finding(message: String, remedy: String) -> Finding {
    let rule_id = "example/secrets-on-main".to_owned();
    Finding { rule_id, severity: Severity::High, message, pointer: None, help_url: None, remedy: Some(remedy) }
}

impl lifecycle::Guest for SecretsOnMain {
    fn validate_config(_config: String) -> Result<(), Vec<Diagnostic>> {
        Ok(())
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(SecretsOnMain with_types_in bindings);
