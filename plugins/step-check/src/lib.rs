//! A step without a container. It checks for forbidden, required and oversized files, and the messages of the pushed commits.
//!
//! Its plan is empty, so the step ends in its first round. A pipeline lists the checks in `with`; `manifest.json` describes the
//! keys.

mod check;
mod push;
mod rules;
#[path = "../../../host/core/src/units.rs"]
#[expect(
    unreachable_pub,
    dead_code,
    reason = "the host's own parser of sizes, so that `5MiB` has one meaning everywhere; durations are unused"
)]
mod units;

#[allow(clippy::all, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "step-plugin" });
}

use bindings::beespace::plugin::exec_types::Plan;
use bindings::beespace::plugin::log;
use bindings::beespace::plugin::source::{self, SourceError};
use bindings::beespace::plugin::types::{Diagnostic, Severity};
use bindings::exports::beespace::plugin::lifecycle;
use bindings::exports::beespace::plugin::step::{self, Directive, Event, Input, Outcome, ResultStatus};
use check::File;
use plugin_allocator as _;
use rules::Rules;

struct Plugin;

impl lifecycle::Guest for Plugin {
    /// Accepts every configuration: there are no instance settings, and the schema refuses any.
    fn validate_config(_config: String) -> Result<(), Vec<Diagnostic>> {
        Ok(())
    }
}

impl step::Guest for Plugin {
    fn make_plan(input: Input) -> Result<Plan, Vec<Diagnostic>> {
        report_panics();
        let rules = Rules::read(&input.params).map_err(|problem| {
            let (pointer, message) = problem;
            vec![Diagnostic { severity: Severity::High, message, pointer: Some(pointer), file: None, line: None, column: None }]
        })?;
        Ok(Plan { containers: Vec::new(), artifacts: Vec::new(), summary: rules.summary(), state: Vec::new() })
    }

    fn react(input: Input, _state: Vec<u8>, event: Event) -> Result<Directive, String> {
        report_panics();
        if matches!(event, Event::Cancelled) {
            return Ok(Directive::Done(outcome(ResultStatus::Skipped, "Cancelled before the checks ran".to_owned())));
        }
        let rules = Rules::read(&input.params).map_err(|(pointer, message)| format!("`with{pointer}`: {message}"))?;
        let push = push::Push::read(&input.event.json)?;
        let problems = check::problems(&rules, &push, list)?;
        let status = if problems.is_empty() { ResultStatus::Success } else { ResultStatus::Failure };
        let message = check::message(problems.len(), check::unchecked(&rules, &push));
        let outputs = serde_json::json!({ "problems": problems.len() }).to_string();
        Ok(Directive::Done(Outcome { outputs, findings: check::findings(problems), ..outcome(status, message) }))
    }
}

/// Logs the message and place of a panic. The host adds them to its error; without this it knows only that the plugin aborted.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| log::emit(log::Level::Error, &panic.to_string(), &[])));
}

fn outcome(status: ResultStatus, message: String) -> Outcome {
    Outcome { status, outputs: "{}".to_owned(), findings: Vec::new(), message }
}

/// Lists all files of the commit that match, page by page.
fn list(glob: &str) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = source::list_paths(glob, after.as_deref()).map_err(|error| match error {
            SourceError::Unavailable(why) => format!("the files of the commit are unavailable: {why}"),
            SourceError::TooLarge => format!("{glob:?} is too long or matches too many files"),
            SourceError::NotFound | SourceError::Denied => format!("listing the files that match {glob:?} is not allowed"),
        })?;
        let Some(last) = page.last() else { return Ok(files) };
        after = Some(last.path.clone());
        files.extend(page.into_iter().map(|entry| File { path: entry.path, size: entry.size }));
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Plugin with_types_in bindings);
