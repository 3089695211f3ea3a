//! Restricts the container images that a build may use.
//!
//! The policy is evaluated at `pipeline.admit`, so that a build that cannot run is declined at once with a reason that points
//! into the pipeline. It is evaluated again at `step.admit`, to check the images that a step type or another policy has put into
//! a plan. `manifest.json` describes the settings.

mod decide;
mod glob;
#[path = "../../../host/core/src/image_ref.rs"]
#[expect(unreachable_pub, dead_code, reason = "the host's own parser, so that policy and host never read one text as two images")]
mod image_ref;
mod settings;
mod subject;

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
        let problems = match Settings::read(&config) {
            Ok(settings) => settings.problems(),
            Err(problem) => vec![(String::new(), problem)],
        };
        if problems.is_empty() {
            return Ok(());
        }
        let diagnostic = |(pointer, message)| Diagnostic {
            severity: Severity::High,
            message,
            pointer: Some(pointer),
            file: None,
            line: None,
            column: None,
        };
        Err(problems.into_iter().map(diagnostic).collect())
    }
}

impl policy::Guest for Plugin {
    fn evaluate(request: Request) -> Result<Verdict, String> {
        report_panics();
        let settings = Settings::read(&config::get())?;
        let uses = subject::image_uses(&request.subject.schema, &request.subject.json)?;
        Ok(decide::decide(&settings, &uses))
    }
}

/// Logs the message and place of a panic. The host adds them to its error; without this it knows only that the plugin aborted.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| log::emit(log::Level::Error, &panic.to_string(), &[])));
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Plugin with_types_in bindings);
