//! A pipeline as text, so that a person who approves its digest has read everything that the digest covers.

use std::collections::BTreeMap;
use std::fmt::Display;

use beespace_core::pipeline::{
    Action, Choice, CloneOptions, Conditions, ContainerLimits, DEFAULT_NAME, EnvValue, ImageAction, OnFailure, OtherNetwork,
    Param, ParamKind, Pipeline, PullRequestCheckout, Retry, Setting, Step, UsesAction, When,
};
use beespace_core::plan::Limits;
use beespace_core::schedule::Schedule;
use beespace_core::units::format_duration;

use super::container_text::{limit_lines, pull_line, tmpfs_lines};

/// The pipeline as policies left it, line by line. Each line names its step, or the pipeline. Defaults are left out.
#[must_use]
pub fn pipeline_lines(pipeline: &Pipeline) -> Vec<String> {
    // Every field is named, so that a new one is not forgotten here.
    let Pipeline { name, when, needs, cell, env, timeout, clone, params, schedules, steps, platform, labels, workspace } =
        pipeline;
    let mut lines = Vec::new();
    lines.extend(Some(name).filter(|name| *name != DEFAULT_NAME).map(|name| format!("name {name}")));
    lines.extend(when_lines(when.as_ref()));
    lines.extend((!needs.is_empty()).then(|| format!("needs {}", needs.join(", "))));
    lines.extend(cell.iter().map(|(axis, value)| format!("matrix {axis}={value}")));
    lines.extend(timeout.map(|timeout| format!("timeout {}", format_duration(timeout))));
    lines.extend(platform.iter().map(|platform| format!("platform {platform}")));
    lines.extend(labels.iter().map(|(name, value)| format!("label {name}={value}")));
    lines.extend(workspace.iter().map(|workspace| format!("workspace {workspace}")));
    lines.extend(clone_line(clone));
    lines.extend(params.iter().map(|(name, param)| param_line(name, param)));
    lines.extend(schedules.iter().map(schedule_line));
    lines.extend(env_lines(env));
    let mut lines = prefixed("pipeline", lines);
    let mut previous = None;
    for step in steps {
        lines.extend(prefixed(&step.name, step_lines(step, previous)));
        previous = Some(step.name.as_str());
    }
    lines
}

fn prefixed(name: &str, lines: Vec<String>) -> Vec<String> {
    lines.iter().flat_map(|line| line.lines()).map(|line| format!("{name}: {line}")).collect()
}

fn step_lines(step: &Step, previous: Option<&str>) -> Vec<String> {
    let Step { name: _, action, env, when, needs, timeout, failure, retry } = step;
    let mut lines = match action {
        Action::Image(action) => image_lines(action),
        Action::Uses(UsesAction { plugin, with }) => vec![format!("uses {plugin} with {with}")],
    };
    lines.extend(env_lines(env));
    lines.extend(when_lines(when.as_ref()));
    if needs.iter().map(String::as_str).ne(previous) {
        lines.push(if needs.is_empty() { "needs no other step".to_owned() } else { format!("needs {}", needs.join(", ")) });
    }
    lines.extend(timeout.map(|timeout| format!("timeout {}", format_duration(timeout))));
    lines.extend(retry.iter().map(retry_line));
    match failure {
        OnFailure::Fail => {}
        OnFailure::Ignore => lines.push("failure ignore".to_owned()),
        OnFailure::Cancel => lines.push("failure cancel".to_owned()),
    }
    lines
}

fn retry_line(retry: &Retry) -> String {
    let Retry { max, on, backoff } = retry;
    let on: Vec<&str> = on.iter().map(|result| result.as_str()).collect();
    let backoff = backoff.map_or(String::new(), |backoff| format!(" with backoff {}", format_duration(backoff)));
    format!("retry {max} times on {}{backoff}", on.join(", "))
}

fn image_lines(action: &ImageAction) -> Vec<String> {
    let ImageAction { image, pull, run, entrypoint, args, workdir, .. } = action;
    let mut lines = vec![format!("image {image}")];
    lines.extend(pull.map(pull_line));
    for (name, words) in [("entrypoint", entrypoint), ("args", args)] {
        lines.extend(words.iter().map(|words| format!("{name} {words:?}")));
    }
    lines.extend(workdir.iter().map(|workdir| format!("workdir {workdir}")));
    lines.extend(container_lines(action));
    lines.extend(run.iter().flatten().flat_map(|entry| entry.lines()).map(|line| format!("$ {line}")));
    lines
}

/// The container of a step, apart from its image and program.
fn container_lines(action: &ImageAction) -> Vec<String> {
    // Every field is named, so that a new one is not forgotten here.
    let ImageAction {
        image: _,
        pull: _,
        run: _,
        entrypoint: _,
        args: _,
        workdir: _,
        shell,
        settings,
        user,
        limits,
        network,
        privileged,
        devices,
        tmpfs,
    } = action;
    let mut lines = Vec::new();
    lines.extend(shell.iter().map(|shell| format!("shell {}", shell.join(" "))));
    lines.extend(settings.iter().flatten().map(|(name, setting)| match setting {
        Setting::Value(value) => format!("setting {name}={value}"),
        Setting::FromSecret(secret) => format!("secret {secret} as setting {name}"),
    }));
    lines.extend(user.iter().map(|user| format!("user {user}")));
    let ContainerLimits { cpu_millis, memory_bytes, pids } = *limits;
    lines.extend(limit_lines(&Limits { cpu_millis, memory_bytes, pids, timeout_seconds: None }));
    lines.extend(network.map(|network| match network {
        OtherNetwork::None => "no network".to_owned(),
        OtherNetwork::Host => "network of the engine's machine".to_owned(),
    }));
    lines.extend(privileged.then(|| "privileged".to_owned()));
    lines.extend(devices.iter().map(|device| format!("device {device}")));
    lines.extend(tmpfs_lines(tmpfs));
    lines
}

fn env_lines(env: &BTreeMap<String, EnvValue>) -> Vec<String> {
    let line = |(name, value): (&String, &EnvValue)| match value {
        EnvValue::Text(text) => format!("env {name}={text}"),
        EnvValue::FromSecret(secret) => format!("secret {secret} as env {name}"),
    };
    env.iter().map(line).collect()
}

fn schedule_line(schedule: &Schedule) -> String {
    let Schedule { name, cron, zone, branch: _, params, enabled: _ } = schedule;
    let params: Vec<String> = params.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    format!("schedule {name}: {cron} ({zone}){}", params.concat())
}

fn param_line(name: &str, param: &Param) -> String {
    let Param { kind, default, about } = param;
    let kind = match kind {
        ParamKind::String => "string".to_owned(),
        ParamKind::Number => "number".to_owned(),
        ParamKind::Bool => "bool".to_owned(),
        ParamKind::Choice { options } => format!("one of {}", options.join(", ")),
    };
    let default = default.as_ref().map_or_else(|| "required".to_owned(), |default| format!("default {default:?}"));
    let about = about.as_ref().map_or_else(String::new, |about| format!(" ({about})"));
    format!("param {name}: {kind}, {default}{about}")
}

fn clone_line(clone: &CloneOptions) -> Option<String> {
    let CloneOptions { enabled, depth, pull_request } = clone;
    if !enabled {
        return Some("no clone".to_owned());
    }
    let history = (*depth != CloneOptions::default().depth).then(|| match depth {
        0 => "the whole history".to_owned(),
        depth => format!("{depth} commits of history"),
    });
    let merge = (*pull_request == PullRequestCheckout::Merge).then(|| "pull requests merged into their target".to_owned());
    let parts: Vec<String> = history.into_iter().chain(merge).collect();
    (!parts.is_empty()).then(|| format!("clone with {}", parts.join(" and ")))
}

/// One line for each alternative.
fn when_lines(when: Option<&When>) -> Vec<String> {
    when.map_or(Vec::new(), |When(alternatives)| alternatives.iter().map(|one| format!("when {}", conditions(one))).collect())
}

fn conditions(all: &Conditions) -> String {
    let Conditions { event, branch, tag, git_ref, paths, target, cron, status } = all;
    let names = [("branch", branch), ("tag", tag), ("ref", git_ref), ("paths", paths), ("target", target), ("cron", cron)];
    let names = names.into_iter().map(|(name, value)| choice(name, value.as_ref()));
    let all = std::iter::once(choice("event", event.as_ref())).chain(names).chain([choice("status", status.as_ref())]);
    all.flatten().collect::<Vec<String>>().join(" and ")
}

fn choice<T: Display>(name: &str, choice: Option<&Choice<T>>) -> Option<String> {
    let Choice { include, exclude } = choice?;
    let included = include.iter().map(ToString::to_string);
    let excluded = exclude.iter().map(|one| format!("!{one}"));
    Some(format!("{name} [{}]", included.chain(excluded).collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use beespace_core::pipeline;

    use super::*;

    #[test]
    fn everything_that_a_pipeline_contains_is_shown() {
        let text = r#"
name: test
when: { event: [push, cron], branch: [main, "!old"] }
timeout: 30m
platform: linux/amd64
labels: { gpu: "true" }
workspace: /go/src/app
clone: { depth: 1 }
env: { LEVEL: high, TOKEN: { from_secret: token } }
params: { level: { type: choice, options: [low, high], default: low, about: "how loud" }, note: {} }
schedules: [{ name: nightly, cron: "0 3 * * *", zone: Europe/Berlin, params: { level: high } }]
steps:
  - name: build
    image: rust:1.95
    pull: always
    run: [cargo build, "cargo test\ncargo doc"]
    workdir: web
    timeout: 5m
  - name: check
    uses: checker
    with: { level: 2 }
    needs: []
    when: [{ status: failure }, { paths: "src/**" }]
    failure: ignore
  - name: tool
    image: tool
    entrypoint: [tool]
    args: [--fast]
    needs: [build]
    env: { KEY: { from_secret: deploy } }
    user: "1000"
    limits: { cpu: 0.5, memory: 1GiB, pids: 9 }
    settings: { tags: [a, b], token: { from_secret: hub } }
    network: none
    privileged: true
    devices: [/dev/kvm]
    tmpfs: { /tmp: 1MiB, /run/x: 2MiB }
  - name: strict
    image: bash
    shell: bash -eo pipefail
    run: a | b
    retry: { max: 2, on: [error, timeout], backoff: 5s }
"#;
        let lines = pipeline_lines(&pipeline::read("f", text.as_bytes()).unwrap().pipeline);
        let expected = [
            "pipeline: name test",
            "pipeline: when event [push, cron] and branch [main, !old]",
            "pipeline: timeout 30m",
            "pipeline: platform linux/amd64",
            "pipeline: label gpu=true",
            "pipeline: workspace /go/src/app",
            "pipeline: clone with 1 commits of history",
            "pipeline: param level: one of low, high, default \"low\" (how loud)",
            "pipeline: param note: string, required",
            "pipeline: schedule nightly: 0 3 * * * (Europe/Berlin) level=high",
            "pipeline: env LEVEL=high",
            "pipeline: secret token as env TOKEN",
            "build: image rust:1.95",
            "build: pull always",
            "build: workdir web",
            "build: $ cargo build",
            "build: $ cargo test",
            "build: $ cargo doc",
            "build: timeout 5m",
            "check: uses checker with {\"level\":2}",
            "check: when status [failure]",
            "check: when paths [src/**]",
            "check: needs no other step",
            "check: failure ignore",
            "tool: image tool",
            "tool: entrypoint [\"tool\"]",
            "tool: args [\"--fast\"]",
            "tool: setting tags=[\"a\",\"b\"]",
            "tool: secret hub as setting token",
            "tool: user 1000",
            "tool: limit: 500 thousandths of a CPU",
            "tool: limit: 1GiB of memory",
            "tool: limit: 9 processes",
            "tool: no network",
            "tool: privileged",
            "tool: device /dev/kvm",
            "tool: tmpfs /run/x of 2MiB",
            "tool: tmpfs /tmp of 1MiB",
            "tool: secret deploy as env KEY",
            "tool: needs build",
            "strict: image bash",
            "strict: shell bash -eo pipefail",
            "strict: $ a | b",
            "strict: retry 2 times on error, timeout with backoff 5s",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn defaults_are_left_out() {
        let text = "steps: [{name: a, image: x}, {name: b, image: y}]";
        let pipeline = pipeline::read("f", text.as_bytes()).unwrap().pipeline;
        assert_eq!(pipeline_lines(&pipeline), ["a: image x", "b: image y"]);
    }
}
