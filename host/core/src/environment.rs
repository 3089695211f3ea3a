//! The variables that every step gets: one table, which is their documentation and their source.
//!
//! They reach the container as its environment, never as text of a script: what a stranger chose (branch, message, author) is in
//! them as data. Each is always set, empty where there is nothing to say, so that a script under `set -u` needs no case for it.

use std::collections::BTreeMap;

use crate::build::{self, Build, Stage};
use crate::plan::WORKSPACE;
use crate::status::Status;
use crate::time::Timestamp;

/// One variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    pub name: &'static str,
    /// What it holds, for the documentation.
    pub meaning: &'static str,
    pub example: &'static str,
    /// Where the value comes from.
    value: fn(&Inputs<'_>) -> String,
}

/// What the values are taken from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub build: &'a Build,
    pub stage: &'a Stage,
    pub step: &'a build::Step,
    /// [`crate::graph::status_so_far`] when the step starts.
    pub status_so_far: Status,
    /// Where people look at the build.
    pub build_url: &'a str,
}

/// Longest value in bytes. Linux gives a program at most 128 KiB in one string (`MAX_ARG_STRLEN`), name and NUL included.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// What this step gets.
#[must_use]
pub fn variables(given: &Inputs<'_>) -> BTreeMap<String, String> {
    VARIABLES.iter().map(|variable| (variable.name.to_owned(), to_env_value((variable.value)(given)))).collect()
}

/// An environment holds no NUL, and no endless text.
fn to_env_value(mut value: String) -> String {
    value.retain(|character| character != '\0');
    value.truncate(value.floor_char_boundary(MAX_VALUE_BYTES));
    value
}

fn seconds(time: Option<Timestamp>) -> String {
    time.map(|time| (time.0 / 1_000).to_string()).unwrap_or_default()
}

const fn variable(
    name: &'static str,
    example: &'static str,
    meaning: &'static str,
    value: fn(&Inputs<'_>) -> String,
) -> Variable {
    Variable { name, meaning, example, value }
}

/// All of them, in the order of the documentation.
pub const VARIABLES: &[Variable] = &[
    variable("CI", "true", "always true: every CI server sets it", |_| "true".to_owned()),
    variable("BEESPACE", "true", "always true: this CI server is Beespace", |_| "true".to_owned()),
    variable("BEESPACE_EVENT", "push", "what happened, in the words of `when.event`", |given| {
        given.build.event.kind().as_str().to_owned()
    }),
    variable("BEESPACE_REPO", "acme/app", "the repository as people say it", |given| {
        given.build.event.repository.name.to_string()
    }),
    variable("BEESPACE_REPO_OWNER", "acme", "the user or organisation that owns the repository", |given| {
        given.build.event.repository.name.owner().to_owned()
    }),
    variable("BEESPACE_REPO_NAME", "app", "the repository without its owner", |given| {
        given.build.event.repository.name.name().to_owned()
    }),
    variable("BEESPACE_REPO_ID", "17", "the number that Gogs knows the repository by: stays when it is renamed", |given| {
        given.build.event.repository.id.to_string()
    }),
    variable("BEESPACE_REPO_URL", "https://git.example.org/acme/app", "where people look at the repository", |given| {
        given.build.event.repository.html_url.clone()
    }),
    variable("BEESPACE_REPO_PRIVATE", "false", "whether the repository is private: true or false", |given| {
        given.build.event.repository.is_private.to_string()
    }),
    variable("BEESPACE_DEFAULT_BRANCH", "main", "the repository's default branch", |given| {
        given.build.event.repository.default_branch.clone()
    }),
    variable("BEESPACE_REF", "refs/heads/feature/x", "full name of the ref that is built", |given| given.build.event.git_ref()),
    variable("BEESPACE_BRANCH", "feature/x", "the branch that is built; empty for an event without one", |given| {
        given.build.event.branch().unwrap_or_default().to_owned()
    }),
    variable("BEESPACE_SHA", "95a2db4f0c3e7d5b1a6f8e9d2c4b6a8f0e1d3c5b", "the commit that is built", |given| {
        sha(given.build).to_owned()
    }),
    variable("BEESPACE_SHORT_SHA", "95a2db4", "its first seven digits", |given| sha(given.build).chars().take(7).collect()),
    variable("BEESPACE_BEFORE", "1f7e2d9c…", "where the ref stood before; empty for a new branch", |given| {
        given.build.before().map(ToString::to_string).unwrap_or_default()
    }),
    variable("BEESPACE_MESSAGE", "Fix the build", "the commit's whole message, cut at 64 KiB", |given| {
        given.build.head.as_ref().map(|head| head.message.clone()).unwrap_or_default()
    }),
    variable("BEESPACE_AUTHOR_NAME", "Maya Lind", "who wrote the commit, as the commit says: a claim, never a proof", |given| {
        given.build.head.as_ref().map(|head| head.author.name.clone()).unwrap_or_default()
    }),
    variable("BEESPACE_AUTHOR_EMAIL", "maya@example.org", "the author's address, as the commit says", |given| {
        given.build.head.as_ref().map(|head| head.author.email.clone()).unwrap_or_default()
    }),
    variable("BEESPACE_ACTOR", "maya", "login of the person who caused the build, as Gogs vouches for it", |given| {
        given.build.event.sender.login.clone()
    }),
    variable("BEESPACE_BUILD_ID", "0198a9c2-…", "the build's id: unique on this instance", |given| given.build.id.to_string()),
    variable("BEESPACE_BUILD_NUMBER", "42", "the build's number in its repository", |given| {
        given.build.number.map(|number| number.to_string()).unwrap_or_default()
    }),
    variable("BEESPACE_BUILD_URL", "https://ci.example.org/acme/app/42", "where people look at the build", |given| {
        given.build_url.to_owned()
    }),
    variable("BEESPACE_BUILD_STATUS", "success", "how the stage stands as the step starts: success or failure", |given| {
        given.status_so_far.as_str().to_owned()
    }),
    variable("BEESPACE_STARTED", "1767225600", "when the build started: seconds since 1970-01-01 UTC", |given| {
        seconds(given.build.started_at.or(Some(given.build.created_at)))
    }),
    variable("BEESPACE_STAGE", "test", "name of the pipeline", |given| given.stage.pipeline.name.clone()),
    variable("BEESPACE_STAGE_NUMBER", "1", "its place in the build, from 1", |given| given.stage.number.to_string()),
    variable("BEESPACE_STEP", "unit tests", "name of the step", |given| given.step.name.clone()),
    variable("BEESPACE_STEP_NUMBER", "3", "its place in the pipeline, from 1", |given| given.step.number.to_string()),
    variable("BEESPACE_ATTEMPT", "1", "how often the step has been begun, this time included", |given| {
        given.step.attempt.to_string()
    }),
    variable("BEESPACE_WORKSPACE", "/workspace", "the directory with the sources", |_| WORKSPACE.to_owned()),
];

/// The commit that is built: as git resolved it, or else as the event names it.
fn sha(build: &Build) -> &str {
    build.head.as_ref().map_or(build.event.sha(), |head| &head.sha).as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn build() -> Build {
        serde_json::from_value(json!({
            "id": "01890000-0000-7000-8000-000000000001", "number": 42, "delivery": null, "restart_of": null,
            "event": {
                "repository": {
                    "id": 17, "name": {"owner": "acme", "name": "app"}, "default_branch": "main", "is_private": true,
                    "html_url": "https://git.example.org/acme/app"
                },
                "sender": {"id": 7, "login": "maya"},
                "cause": {
                    "kind": "push", "branch": "$(rm -rf /)", "before": null, "after": "ab".repeat(20),
                    "commits": [], "compare_url": null
                }
            },
            "status": "running", "reason": null, "file": null, "phase": "run",
            "head": {"sha": "cd".repeat(20), "message": format!("a\0b{}", "ü".repeat(40_000)), "author": {"name": "M", "email": "m@x"},
                "base": {"commit": "ef".repeat(20)}},
            "created_at": 5_000, "started_at": 7_999, "finished_at": null
        }))
        .unwrap()
    }

    fn stage(build: &Build) -> Stage {
        serde_json::from_value(json!({
            "build": build.id, "number": 1, "status": "running", "reason": null, "decision": null,
            "remarks": [], "approvals": [], "approval_wait_ms": 0,
            "pipeline": {"name": "test", "steps": []},
            "steps": [{"number": 3, "name": "unit tests", "status": "pending", "reason": null, "round": null, "attempt": 2,
                       "remarks": [], "exits": [], "findings": [],
                       "started_at": null, "finished_at": null}],
            "created_at": 0, "started_at": null, "finished_at": null
        }))
        .unwrap()
    }

    fn all() -> BTreeMap<String, String> {
        let build = build();
        let stage = stage(&build);
        let url = "https://ci.example.org/acme/app/42";
        variables(&Inputs { build: &build, stage: &stage, step: &stage.steps[0], status_so_far: Status::Failure, build_url: url })
    }

    #[test]
    fn a_step_gets_exactly_what_the_table_says() {
        let given = all();
        assert_eq!(given.len(), VARIABLES.len(), "a name is in the table twice");
        for variable in VARIABLES {
            assert!(given.contains_key(variable.name));
            assert!(variable.name == "CI" || variable.name.starts_with("BEESPACE"), "{}: a pipeline may set it", variable.name);
            assert!(!variable.meaning.is_empty() && !variable.example.is_empty());
        }
    }

    #[test]
    fn values_are_those_of_the_build() {
        let given = all();
        for (name, value) in [
            ("CI", "true"),
            ("BEESPACE_REPO", "acme/app"),
            ("BEESPACE_REF", "refs/heads/$(rm -rf /)"),
            ("BEESPACE_BRANCH", "$(rm -rf /)"),
            ("BEESPACE_SHORT_SHA", "cdcdcdc"),
            ("BEESPACE_BEFORE", ""),
            ("BEESPACE_BUILD_NUMBER", "42"),
            ("BEESPACE_BUILD_STATUS", "failure"),
            ("BEESPACE_STARTED", "7"),
            ("BEESPACE_STEP_NUMBER", "3"),
            ("BEESPACE_ATTEMPT", "2"),
        ] {
            assert_eq!(given[name], value, "{name}");
        }
    }

    #[test]
    fn a_value_holds_no_nul_and_ends_between_characters() {
        let message = &all()["BEESPACE_MESSAGE"];
        assert!(message.starts_with("abü") && message.ends_with('ü'));
        assert!(message.len() <= MAX_VALUE_BYTES && message.len() > MAX_VALUE_BYTES - 4);
    }
}
