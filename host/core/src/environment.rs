//! The environment variables that every step gets. One table defines both their values and their documentation.
//!
//! The values reach the container as its environment, never as script text, because an attacker may choose some of them (branch,
//! message, author). Every variable is always set and may be empty, so that scripts work under `set -u`.

pub mod container_plugin;

use std::collections::BTreeMap;

use crate::build::{self, Build, Stage};
use crate::event::PullRequest;
use crate::ids::Sha;
use crate::pipeline::{Action, PullRequestCheckout, matrix, params};
use crate::plan::WORKSPACE;
use crate::status::Status;
use crate::time::Timestamp;

/// One variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    pub name: &'static str,
    /// Meaning of the value, for the documentation.
    pub meaning: &'static str,
    pub example: &'static str,
    /// Computes the value.
    value: fn(&Inputs<'_>) -> String,
}

/// The inputs from which the values are computed.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    pub build: &'a Build,
    pub stage: &'a Stage,
    pub step: &'a build::Step,
    /// [`crate::graph::status_so_far`] at the start of the step.
    pub status_so_far: Status,
    /// Address of the build's page.
    pub build_url: &'a str,
}

/// Longest value in bytes. Linux limits one string of the environment to 128 KiB (`MAX_ARG_STRLEN`), name and NUL included.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// The variables of this step: those of the table, one for each param of the pipeline and each axis of its matrix, and those of
/// [`container_plugin`] if the step uses its image as a plugin.
#[must_use]
pub fn variables(inputs: &Inputs<'_>) -> BTreeMap<String, String> {
    let table = VARIABLES.iter().map(|variable| (variable.name.to_owned(), (variable.value)(inputs)));
    let params = params::values(&inputs.stage.pipeline, &inputs.build.event).into_iter();
    let params = params.map(|(name, value)| (params::variable_name(&name), value));
    let plugin = is_container_plugin(inputs).then(|| container_plugin::variables(inputs)).into_iter().flatten();
    let matrix = inputs.stage.pipeline.cell.iter().map(|(axis, value)| (matrix::variable_name(axis), value.clone()));
    plugin.chain(table.chain(params).chain(matrix).map(|(name, value)| (name, to_env_value(value)))).collect()
}

fn is_container_plugin(inputs: &Inputs<'_>) -> bool {
    let index = usize::from(inputs.step.number.0).checked_sub(1);
    let written = index.and_then(|index| inputs.stage.pipeline.steps.get(index));
    written.is_some_and(|step| matches!(&step.action, Action::Image(action) if action.is_container_plugin()))
}

/// Removes NUL bytes, which an environment cannot hold, and truncates long values.
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

/// All variables, in the order of the documentation.
pub const VARIABLES: &[Variable] = &[
    variable("CI", "true", "always true, as on every CI server, unless `env` overrides it", |_| "true".to_owned()),
    variable("BEESPACE", "true", "always true: this CI server is Beespace", |_| "true".to_owned()),
    variable("BEESPACE_EVENT", "push", "kind of the event, as in `when.event`", |inputs| {
        inputs.build.event.kind().as_str().to_owned()
    }),
    variable("BEESPACE_REPO", "acme/app", "full name of the repository", |inputs| inputs.build.event.repository.name.to_string()),
    variable("BEESPACE_REPO_OWNER", "acme", "user or organisation that owns the repository", |inputs| {
        inputs.build.event.repository.name.owner().to_owned()
    }),
    variable("BEESPACE_REPO_NAME", "app", "name of the repository without its owner", |inputs| {
        inputs.build.event.repository.name.name().to_owned()
    }),
    variable("BEESPACE_REPO_ID", "17", "Gogs' numeric id of the repository; it survives renames", |inputs| {
        inputs.build.event.repository.id.to_string()
    }),
    variable("BEESPACE_REPO_URL", "https://git.example.org/acme/app", "URL of the repository's page in Gogs", |inputs| {
        inputs.build.event.repository.html_url.clone()
    }),
    variable("BEESPACE_REPO_PRIVATE", "false", "whether the repository is private: true or false", |inputs| {
        inputs.build.event.repository.is_private.to_string()
    }),
    variable("BEESPACE_DEFAULT_BRANCH", "main", "the repository's default branch", |inputs| {
        inputs.build.event.repository.default_branch.clone()
    }),
    variable("BEESPACE_REF", "refs/heads/feature/x", "full name of the ref that is built", |inputs| inputs.build.event.git_ref()),
    variable(
        "BEESPACE_BRANCH",
        "feature/x",
        "the branch that is built, for a pull request its target; empty for a tag",
        |inputs| inputs.build.event.branch_or_target().unwrap_or_default().to_owned(),
    ),
    variable("BEESPACE_TAG", "v1.2.0", "the tag that is built; empty for an event without one", |inputs| {
        inputs.build.event.tag().unwrap_or_default().to_owned()
    }),
    variable("BEESPACE_PULL_REQUEST", "7", "number of the pull request; empty for other events", |inputs| {
        pull_request(inputs, |pull| pull.number.to_string())
    }),
    variable("BEESPACE_PULL_REQUEST_TITLE", "Fix the build", "its title; empty for other events", |inputs| {
        pull_request(inputs, |pull| pull.title.clone())
    }),
    variable("BEESPACE_TARGET_BRANCH", "main", "the branch that a pull request is to be merged into", |inputs| {
        pull_request(inputs, |pull| pull.target_branch.clone())
    }),
    variable("BEESPACE_SOURCE_BRANCH", "feature/x", "the branch that a pull request proposes", |inputs| {
        pull_request(inputs, |pull| pull.source_branch.clone())
    }),
    variable("BEESPACE_SOURCE_REPO", "maya/app", "the repository of that branch; empty if it was deleted", |inputs| {
        pull_request(inputs, |pull| pull.source.as_ref().map(|source| source.name.to_string()).unwrap_or_default())
    }),
    variable(
        "BEESPACE_BASE_SHA",
        "1f7e2d9c…",
        "the commit with which the changed paths are compared, for a pull request the merge base with its target; empty if there \
         is none",
        |inputs| inputs.build.base().map(ToString::to_string).unwrap_or_default(),
    ),
    variable("BEESPACE_TARGET", "production", "target of a promotion or rollback; empty for other events", |inputs| {
        inputs.build.event.target().unwrap_or_default().to_owned()
    }),
    variable("BEESPACE_CRON", "nightly", "name of the schedule that started the build; else empty", |inputs| {
        inputs.build.event.schedule().unwrap_or_default().to_owned()
    }),
    variable("BEESPACE_PARENT_NUMBER", "41", "number of the build that is promoted or rolled back to; else empty", |inputs| {
        inputs.build.event.deployment().map(|deployment| deployment.of.to_string()).unwrap_or_default()
    }),
    variable(
        "BEESPACE_MERGE_SHA",
        "8f0e1d3c…",
        "the merge that is checked out, with `clone: { pull_request: merge }`",
        |inputs| {
            let merge =
                inputs.build.merge.as_ref().filter(|_| inputs.stage.pipeline.clone.pull_request == PullRequestCheckout::Merge);
            merge.map(|merge| merge.commit.to_string()).unwrap_or_default()
        },
    ),
    variable("BEESPACE_SHA", "95a2db4f0c3e7d5b1a6f8e9d2c4b6a8f0e1d3c5b", "the commit that is built", |inputs| {
        sha(inputs.build).to_owned()
    }),
    variable("BEESPACE_SHORT_SHA", "95a2db4", "the first seven digits of the commit", |inputs| {
        sha(inputs.build).chars().take(7).collect()
    }),
    variable("BEESPACE_BEFORE", "1f7e2d9c…", "the commit that the ref pointed to before; empty for a new branch", |inputs| {
        inputs.build.before().map(ToString::to_string).unwrap_or_default()
    }),
    variable("BEESPACE_MESSAGE", "Fix the build", "the whole commit message, truncated at 64 KiB", |inputs| {
        inputs.build.head.as_ref().map(|head| head.message.clone()).unwrap_or_default()
    }),
    variable(
        "BEESPACE_AUTHOR_NAME",
        "Maya Lind",
        "name of the commit's author as stated in the commit; not verified",
        |inputs| inputs.build.head.as_ref().map(|head| head.author.name.clone()).unwrap_or_default(),
    ),
    variable(
        "BEESPACE_AUTHOR_EMAIL",
        "maya@example.org",
        "email of the commit's author as stated in the commit; not verified",
        |inputs| inputs.build.head.as_ref().map(|head| head.author.email.clone()).unwrap_or_default(),
    ),
    variable("BEESPACE_ACTOR", "maya", "login of the user who caused the build; verified by Gogs or by this server", |inputs| {
        inputs.build.event.sender.login.clone()
    }),
    variable("BEESPACE_BUILD_ID", "0198a9c2-…", "the build's id: unique on this instance", |inputs| {
        inputs.build.id.to_string()
    }),
    variable("BEESPACE_BUILD_NUMBER", "42", "the build's number in its repository", |inputs| {
        inputs.build.number.map(|number| number.to_string()).unwrap_or_default()
    }),
    variable("BEESPACE_BUILD_URL", "https://ci.example.org/acme/app/42", "URL of the build's page", |inputs| {
        inputs.build_url.to_owned()
    }),
    variable("BEESPACE_BUILD_STATUS", "success", "status of the stage when the step starts: success or failure", |inputs| {
        inputs.status_so_far.as_str().to_owned()
    }),
    variable("BEESPACE_STARTED", "1767225600", "start of the build in seconds since 1970-01-01 UTC", |inputs| {
        seconds(inputs.build.started_at.or(Some(inputs.build.created_at)))
    }),
    variable("BEESPACE_STAGE", "test", "name of the pipeline", |inputs| inputs.stage.pipeline.name.clone()),
    variable("BEESPACE_STAGE_NUMBER", "1", "number of the stage in the build, from 1", |inputs| inputs.stage.number.to_string()),
    variable("BEESPACE_STEP", "unit tests", "name of the step", |inputs| inputs.step.name.clone()),
    variable("BEESPACE_STEP_NUMBER", "3", "number of the step in the pipeline, from 1", |inputs| inputs.step.number.to_string()),
    variable("BEESPACE_ATTEMPT", "1", "number of the current attempt at the step, from 1", |inputs| {
        inputs.step.attempt.to_string()
    }),
    variable("BEESPACE_WORKSPACE", "/workspace", "the directory with the sources", |inputs| workspace(inputs).to_owned()),
];

/// A text about the pull request of the build; empty if the event is another one.
fn pull_request(inputs: &Inputs<'_>, text: fn(&PullRequest) -> String) -> String {
    inputs.build.event.pull_request().map(text).unwrap_or_default()
}

fn workspace<'a>(inputs: &Inputs<'a>) -> &'a str {
    inputs.stage.pipeline.workspace.as_deref().unwrap_or(WORKSPACE)
}

/// The commit that is built: as resolved by git, otherwise as named by the event.
fn sha(build: &Build) -> &str {
    build.sha().map_or("", Sha::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pipeline::is_reserved_variable;

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
            "head": {"sha": "cd".repeat(20), "message": format!("a\0b{}", "ü".repeat(40_000)),
                "author": {"name": "M", "email": "m@x"},
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
    fn a_step_gets_exactly_the_variables_of_the_table() {
        let inputs = all();
        assert_eq!(inputs.len(), VARIABLES.len(), "a name is in the table twice");
        for variable in VARIABLES {
            assert!(inputs.contains_key(variable.name));
            assert!(variable.name == "CI" || is_reserved_variable(variable.name), "{}: a pipeline may set it", variable.name);
            assert!(!variable.meaning.is_empty() && !variable.example.is_empty());
        }
    }

    #[test]
    fn the_values_come_from_the_build() {
        let inputs = all();
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
            assert_eq!(inputs[name], value, "{name}");
        }
    }

    #[test]
    fn a_container_plugin_also_gets_the_variables_of_drone_and_woodpecker() {
        let (build, mut stage) = (build(), stage(&build()));
        let text = b"steps: [{name: a, image: x, run: y}, {name: b, image: x, run: y}, {name: c, image: x, settings: {a: b}}]";
        stage.pipeline = crate::pipeline::read("f", text).unwrap().pipeline;
        let url = "https://ci.example.org/acme/app/42";
        let variables = |stage: &Stage| {
            let inputs = Inputs { build: &build, stage, step: &stage.steps[0], status_so_far: Status::Failure, build_url: url };
            variables(&inputs)
        };
        let plugin = variables(&stage);
        for (name, value) in [
            ("DRONE_REPO", "acme/app"),
            ("CI_REPO_NAME", "app"),
            ("DRONE_BUILD_STATUS", "failure"),
            ("DRONE_BUILD_NUMBER", "42"),
            ("DRONE_SYSTEM_HOST", "ci.example.org"),
            ("CI_FORGE_URL", "https://git.example.org"),
            ("DRONE_COMMIT_BRANCH", "$(rm -rf /)"),
            ("BEESPACE_BUILD_NUMBER", "42"),
        ] {
            assert_eq!(plugin[name], value, "{name}");
        }
        for absent in ["DRONE_TAG", "DRONE_SEMVER", "DRONE_SEMVER_ERROR", "DRONE_COMMIT_BEFORE", "DRONE_FAILED_STEPS"] {
            assert!(!plugin.contains_key(absent), "{absent}");
        }
        stage.pipeline.steps.pop();
        assert!(!variables(&stage).contains_key("DRONE"), "a step with a script");
    }

    #[test]
    fn a_value_has_no_nul_and_is_truncated_between_characters() {
        let message = &all()["BEESPACE_MESSAGE"];
        assert!(message.starts_with("abü") && message.ends_with('ü'));
        assert!(message.len() <= MAX_VALUE_BYTES && message.len() > MAX_VALUE_BYTES - 4);
    }
}
