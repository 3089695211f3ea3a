//! Which container images a build may use.
//!
//! Asked at `pipeline.admit`, so that a build that cannot run is declined at once and the reason points into the pipeline, and at
//! `step.admit`, so that what a step type or another policy made of it is judged too. The settings are in `manifest.json`.

mod decide;
mod glob;
#[path = "../../../host/core/src/image_ref.rs"]
#[expect(unreachable_pub, dead_code, reason = "the host's own parser: policy and host never take one text for two images")]
mod image;
mod settings;
mod subject;

#[allow(clippy::all, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "policy-plugin" });
}

use bindings::beespace::plugin::config;
use bindings::beespace::plugin::types::Severity;
use bindings::exports::beespace::plugin::lifecycle::{self, Diagnostic};
use bindings::exports::beespace::plugin::policy::{self, Request, Verdict};
use heap as _;
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
        let settings = Settings::read(&config::get())?;
        let uses = subject::image_uses(&request.subject.schema, &request.subject.json)?;
        Ok(decide::decide(&settings, &uses))
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Plugin with_types_in bindings);
