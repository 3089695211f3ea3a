//! A policy that requires approval for every pipeline named `deploy` and every plan with a script that contains `publish`.

#[allow(clippy::all, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "policy-plugin" });
}

use bindings::exports::beespace::plugin::lifecycle::{self, Diagnostic};
use bindings::exports::beespace::plugin::policy::{self, Approval, Outcome, Request, Verdict};
use serde_json::Value;

struct Plugin;

impl lifecycle::Guest for Plugin {
    fn validate_config(_config: String) -> Result<(), Vec<Diagnostic>> {
        Ok(())
    }
}

impl policy::Guest for Plugin {
    fn evaluate(request: Request) -> Result<Verdict, String> {
        let subject: Value = serde_json::from_str(&request.subject.json).map_err(|error| error.to_string())?;
        let is_deploy = subject.get("name").and_then(Value::as_str) == Some("deploy");
        let containers = subject.get("containers").and_then(Value::as_array).into_iter().flatten();
        let mut scripts = containers.filter_map(|container| container.get("script")?.as_str());
        let needs_approval = is_deploy || scripts.any(|script| script.contains("publish"));
        let approval = Approval {
            groups: Vec::new(),
            min_approvers: 1,
            forbid_author: false,
            ttl_seconds: Some(3600),
            reason: "it changes what people use".into(),
        };
        Ok(Verdict {
            outcome: if needs_approval { Outcome::RequireApproval } else { Outcome::Abstain },
            findings: Vec::new(),
            patches: Vec::new(),
            approvals: if needs_approval { vec![approval] } else { Vec::new() },
            obligations: Vec::new(),
        })
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Plugin with_types_in bindings);
