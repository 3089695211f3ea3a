//! Decides about untrusted code, such as the pull requests of forks.
//!
//! At `build.admit` the policy obliges the host to read the pipeline from the target branch, so that a stranger's change cannot
//! choose what runs. At `pipeline.admit` it requires an approval: then the person who approves sees the scripts. Each commit has
//! a build of its own, so each needs an approval of its own. Trusted code is none of its business.

mod decide;
mod settings;

#[allow(clippy::all, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "policy-plugin" });
}

use bindings::beespace::plugin::types::Severity;
use bindings::beespace::plugin::{config, log};
use bindings::exports::beespace::plugin::lifecycle::{self, Diagnostic};
use bindings::exports::beespace::plugin::policy::{self, Request, Verdict};
use plugin_allocator as _;
use settings::Settings;

struct Plugin;

impl lifecycle::Guest for Plugin {
    fn validate_config(config: String) -> Result<(), Vec<Diagnostic>> {
        let problem = |message| Diagnostic {
            severity: Severity::High,
            message,
            pointer: Some(String::new()),
            file: None,
            line: None,
            column: None,
        };
        Settings::read(&config).map(drop).map_err(|message| vec![problem(message)])
    }
}

impl policy::Guest for Plugin {
    fn evaluate(request: Request) -> Result<Verdict, String> {
        report_panics();
        let settings = Settings::read(&config::get())?;
        Ok(decide::decide(&settings, &request.point, &request.ctx))
    }
}

/// Logs the message and place of a panic. The host adds them to its error; without this it knows only that the plugin aborted.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| log::emit(log::Level::Error, &panic.to_string(), &[])));
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Plugin with_types_in bindings);
