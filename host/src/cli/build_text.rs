//! `beespace build show`: a build with its stages and steps as text.

use std::collections::BTreeSet;

use beespace_core::reason::Reason;
use beespace_core::sanitize;
use beespace_core::time::Timestamp;
use beespace_core::trust::Trust;

use super::build_common::{build_name, exit_for_status, short_sha};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::times::{duration, timestamp};
use super::{Context, print_stdout, table};
use crate::api::dto::{ApprovalBody, BuildBody, StageBody, StepBody};
use crate::clock::now;
use crate::view::time;
use crate::view::trust::{HEAD_NOT_CONFIRMED, UNTRUSTED};

/// Prints a build. The exit code is that of its status.
///
/// # Errors
/// [`Failure`] if stdout is closed.
pub(super) fn show(context: &Context, client: &Client, build: &BuildBody) -> Result<Exit, Failure> {
    if context.output == Output::Json {
        table::print_json(build)?;
    } else {
        print_stdout(&Text::of(build, &client.page_url(&build.href), now()).lines.join("\n"))?;
    }
    Ok(exit_for_status(&build.status))
}

/// The lines so far. A reason that a line above contains is not repeated: a stage has the reason of its step, and a build that of
/// its stage.
struct Text {
    lines: Vec<String>,
    now: Timestamp,
}

impl Text {
    fn of(build: &BuildBody, page: &str, now: Timestamp) -> Self {
        let mut text = Self { lines: Vec::new(), now };
        text.build(build, page);
        for stage in &build.stages {
            text.stage(stage, &build.stages);
        }
        text
    }

    fn build(&mut self, build: &BuildBody, page: &str) {
        let took = suffix(&duration(build.started_at.as_deref(), build.finished_at.as_deref(), self.now));
        self.line(&format!("{}  {}{took}  {}", build_name(build), build.status, build.title));
        self.line(&format!("{} by {}  {page}", short_sha(build), build.actor));
        if let Some(restarted) = &build.restarts_label {
            self.line(&format!("  restart of {restarted}"));
        }
        if let Some(pull) = &build.pull_request {
            self.line(&format!("  pull request {} → {}  {}", pull.source_label, pull.target_branch, pull.url));
            if let (Some(merge), Some(target)) = (&pull.merge_sha, &pull.merge_target_sha) {
                self.line(&format!("  merged into {target} as {merge}"));
            }
            if !pull.is_head_confirmed {
                self.line(&format!("  head not confirmed: {HEAD_NOT_CONFIRMED}"));
            }
        }
        if let Some(from) = &build.pipeline_from {
            self.line(&format!("  pipeline from {from}"));
        }
        if build.trust.as_deref() == Some(Trust::Untrusted.as_str()) {
            self.line(&format!("  untrusted: {UNTRUSTED}"));
        }
        if let Some(reason) = &build.reason {
            self.line(&format!("  {reason}"));
        }
        for diagnostic in &build.diagnostics {
            self.line(&format!("  {diagnostic}"));
        }
        for warning in &build.warnings {
            self.line(&format!("  warning: {warning}"));
        }
    }

    fn stage(&mut self, stage: &StageBody, all: &[StageBody]) {
        let took = suffix(&duration(stage.started_at.as_deref(), stage.finished_at.as_deref(), self.now));
        let reason = self.new_reason(stage.reason.as_ref());
        self.lines.push(String::new());
        self.line(&format!("{}  {}{took}{reason}", stage.title(), stage.status));
        let needed = all.iter().filter(|other| stage.needs.contains(&other.number)).map(|other| other.name.as_str());
        let needed: BTreeSet<&str> = needed.collect();
        if !needed.is_empty() {
            self.line(&format!("  needs {}", needed.into_iter().collect::<Vec<_>>().join(", ")));
        }
        for approval in &stage.approvals {
            self.approval(approval);
        }
        for step in &stage.steps {
            self.step(step);
        }
    }

    fn approval(&mut self, approval: &ApprovalBody) {
        for given in &approval.given {
            let at = timestamp(&given.at).map_or_else(String::new, |at| format!(", {}", time::ago(at, self.now)));
            let reason = given.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            self.line(&format!("  {} was approved by {}{at}{reason}", approval.description, given.by));
        }
        if approval.missing.is_empty() {
            return;
        }
        self.line(&format!("  {} is waiting for approval: {}", approval.description, approval.missing.join("; ")));
        for line in approval.runs.iter().chain([&approval.subject]) {
            self.line(&format!("    {line}"));
        }
    }

    fn step(&mut self, step: &StepBody) {
        let took = duration(step.started_at.as_deref(), step.finished_at.as_deref(), self.now);
        let reason = self.new_reason(step.reason.as_ref());
        let ignored = if step.failure_ignored { "  (ignored: `failure: ignore`)" } else { "" };
        self.line(&format!("  {:>2}  {:<8}  {took:>12}  {}{reason}{ignored}", step.number, step.status, step.name));
        for remark in &step.remarks {
            self.line(&format!("{:29}{remark}", ""));
        }
        for image in &step.images {
            let digest = image.digest.as_ref().map_or_else(String::new, |digest| format!(" @ {digest}"));
            self.line(&format!("{:29}{}{digest}", "", image.reference));
        }
    }

    /// A reason to append to a line; empty if it is shown already.
    fn new_reason(&self, reason: Option<&Reason>) -> String {
        let text = reason.map_or_else(String::new, |reason| sanitize::line(&reason.to_string()));
        if self.lines.iter().any(|line| line.contains(&text)) { String::new() } else { suffix(&text) }
    }

    fn line(&mut self, text: &str) {
        self.lines.push(sanitize::line(text));
    }
}

fn suffix(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("  {text}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A build of one stage with a clone and a test that ended this way.
    fn build(status: &str, reason: &str, step_reason: &str) -> BuildBody {
        let at = |second: u32| format!("2026-01-01T10:00:{second:02}.000Z");
        let step = |number: u16, name: &str, status: &str, reason: Option<&str>, from: u32, to: u32| {
            let reason = reason.map(|message| json!({ "code": "x", "message": message, "parts": [] }));
            json!({ "number": number, "name": name, "status": status, "reason": reason, "remarks": [], "attempt": 1,
                "exit_code": null, "started_at": at(from), "finished_at": at(to) })
        };
        let reason = json!({ "code": "x", "message": reason, "parts": [] });
        let steps = [step(0, "clone", "success", None, 1, 2), step(1, "test", status, Some(step_reason), 2, 14)];
        let stage = json!({ "number": 1, "name": "default", "status": status, "reason": reason, "remarks": [], "steps": steps,
            "approvals": [], "started_at": at(1), "finished_at": at(14) });
        let body = json!({ "id": "0198c0de-0000-7000-8000-000000000001", "repository": "ada/hive", "number": 7, "status": status,
            "reason": reason, "event": "push", "branch": "main", "sha": "95a2db4c0ffee", "title": "Fill cells", "actor": "ada",
            "author": null, "restarts": null, "created_at": at(0), "started_at": at(1), "finished_at": at(14),
            "href": "/ada/hive/7",
            "stages": [stage] });
        serde_json::from_value(body).unwrap()
    }

    #[test]
    fn a_failed_build_shows_durations_and_the_reason_with_the_step_once() {
        let failed = build("failure", "step test: the program exited with code 1", "the program exited with code 1");
        let text = Text::of(&failed, "http://ci/ada/hive/7", Timestamp(0)).lines.join("\n");
        assert_eq!(
            text,
            "ada/hive #7  failure  13 s  Fill cells\n95a2db4 by ada  http://ci/ada/hive/7\n  step test: the program exited with \
             code 1\n\ndefault  failure  13 s\n   0  success          1.0 s  clone\n   1  failure           12 s  test"
        );
    }

    #[test]
    fn a_step_shows_the_digests_of_its_images() {
        let mut build = build("success", "", "");
        let image = |digest: Option<&str>| json!({ "reference": "rust:1.95", "digest": digest });
        build.stages[0].steps[1].images = serde_json::from_value(json!([image(Some("sha256:0a")), image(None)])).unwrap();
        let lines = Text::of(&build, "", Timestamp(0)).lines;
        let shown: Vec<&str> = lines.iter().map(|line| line.trim()).filter(|line| line.starts_with("rust")).collect();
        assert_eq!(shown, ["rust:1.95 @ sha256:0a", "rust:1.95"]);
    }

    #[test]
    fn an_untrusted_build_and_the_secrets_that_a_step_does_not_get_are_shown() {
        let mut build = build("success", "", "");
        build.trust = Some("untrusted".to_owned());
        let remark = json!({ "code": "x", "message": "secret \"token\" is withheld" });
        build.stages[0].steps[1].remarks = serde_json::from_value(json!([remark])).unwrap();
        let text = Text::of(&build, "", Timestamp(0)).lines.join("\n");
        assert!(
            text.contains("\n  untrusted: its commit is in no branch") && text.contains("secret \"token\" is withheld"),
            "{text}"
        );
    }

    #[test]
    fn warnings_approvals_and_ignored_failures_are_shown() {
        let mut build = build("success", "", "the program exited with code 9");
        build.warnings = vec!["policy \"images\" would deny this: no".to_owned()];
        let given = json!({ "by": "admin", "at": "2026-01-01T10:00:00.000Z", "reason": "looks fine" });
        build.stages[0].approvals = serde_json::from_value(json!([{ "subject": "sha256:0a", "description": "the pipeline",
            "runs": [], "reasons": [], "approved_by": ["admin"], "given": [given], "missing": [] }]))
        .unwrap();
        build.stages[0].steps[1].failure_ignored = true;
        let now = timestamp("2026-01-01T10:02:00.000Z").unwrap();
        let lines = Text::of(&build, "", now).lines;
        for line in [
            "  warning: policy \"images\" would deny this: no",
            "  the pipeline was approved by admin, 2 minutes ago: looks fine",
            "   1  success           12 s  test  the program exited with code 9  (ignored: `failure: ignore`)",
        ] {
            assert!(lines.iter().any(|shown| shown == line), "{line}: {lines:#?}");
        }
    }

    #[test]
    fn a_restart_names_the_build_that_it_repeats() {
        let mut build = build("success", "", "");
        build.restarts_label = Some("ada/hive #1".to_owned());
        let lines = Text::of(&build, "", Timestamp(0)).lines;
        assert!(lines.iter().any(|line| line == "  restart of ada/hive #1"), "{lines:?}");
    }

    #[test]
    fn a_stage_names_its_cell_and_what_it_needs() {
        let mut build = build("success", "", "");
        let lint = build.stages[0].clone();
        let cell = std::collections::BTreeMap::from([("rust".to_owned(), "1.10".to_owned())]);
        build.stages.push(StageBody { number: 2, name: "test".to_owned(), needs: vec![1], matrix: cell, ..lint });
        let lines = Text::of(&build, "", Timestamp(0)).lines;
        let at = lines.iter().position(|line| line.starts_with("test (rust=1.10)  success")).unwrap();
        assert_eq!(lines[at + 1], "  needs default");
    }

    #[test]
    fn control_characters_are_replaced() {
        let mut hostile = build("failure", "a\u{1b}[2Jb", "c");
        hostile.title = "\u{1b}]0;x\u{7}".to_owned();
        let lines = Text::of(&hostile, "", Timestamp(0)).lines;
        assert!(!lines.concat().chars().any(sanitize::is_unsafe), "{lines:?}");
    }
}
