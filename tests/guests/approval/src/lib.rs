//! A policy that wants a person to approve every pipeline called `deploy`.

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
        let pipeline: Value = serde_json::from_str(&request.subject.json).map_err(|error| error.to_string())?;
        let is_deploy = pipeline.get("name").and_then(Value::as_str) == Some("deploy");
        let approval = Approval {
            groups: Vec::new(),
            min_approvers: 1,
            forbid_author: false,
            ttl_seconds: Some(3600),
            reason: "it changes what people use".into(),
        };
        Ok(Verdict {
            outcome: if is_deploy { Outcome::RequireApproval } else { Outcome::Abstain },
            findings: Vec::new(),
            patches: Vec::new(),
            approvals: if is_deploy { vec![approval] } else { Vec::new() },
            obligations: Vec::new(),
        })
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Plugin with_types_in bindings);
