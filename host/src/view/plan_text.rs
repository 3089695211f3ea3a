//! A plan as text, so that a person who approves a digest has read its content.

use beespace_core::build::Stage;
use beespace_core::pipeline::{Action, Pipeline};
use beespace_core::plan::{Container, MountSource, Network, SecretTarget, StepPlan};
use beespace_core::policy::approval::PendingApproval;
use beespace_core::script::script;

use super::container_text::{limit_lines, pull_line, tmpfs_lines};
use super::pipeline_text::pipeline_lines;

/// The plan that an approval allows to run, line by line.
#[must_use]
pub fn approval_lines(stage: &Stage, approval: &PendingApproval) -> Vec<String> {
    let rounds = stage.steps.iter().filter_map(|step| step.round.as_ref());
    match rounds.into_iter().find(|round| round.decision == approval.decision) {
        Some(round) => step_lines(&round.plan, &stage.pipeline),
        None if stage.decision == Some(approval.decision) => pipeline_lines(&stage.pipeline),
        // A later plan has replaced this one.
        None => Vec::new(),
    }
}

fn step_lines(plan: &StepPlan, pipeline: &Pipeline) -> Vec<String> {
    let written = pipeline.steps.iter().find(|step| step.name == plan.step).and_then(|step| match &step.action {
        Action::Image(action) => action.run.as_deref(),
        Action::Uses(_) => None,
    });
    let mut lines: Vec<String> = Some(&plan.summary).filter(|summary| !summary.is_empty()).cloned().into_iter().collect();
    for part in &plan.containers {
        push_container_lines(part, written, &mut lines);
    }
    if plan.containers.is_empty() {
        lines.push("no container".to_owned());
    }
    lines
}

fn push_container_lines(container: &Container, written: Option<&[String]>, lines: &mut Vec<String>) {
    let service = if container.service { " as a service" } else { "" };
    lines.push(format!("image {}{service}", container.image));
    lines.extend(container.pull.map(pull_line));
    for (name, arguments) in [("entrypoint", &container.entrypoint), ("args", &container.args)] {
        lines.extend(arguments.iter().map(|arguments| format!("{name} {arguments:?}")));
    }
    lines.extend(container.user.iter().map(|user| format!("user {user}")));
    lines.extend(container.workdir.iter().map(|workdir| format!("workdir {workdir}")));
    lines.extend(container.env.iter().map(|(name, value)| format!("env {name}={value}")));
    lines.extend(container.secrets.iter().map(|mount| match &mount.target {
        SecretTarget::Env(name) => format!("secret {} as env {name}", mount.secret),
        SecretTarget::File(path) => format!("secret {} as file {path}", mount.secret),
    }));
    lines.extend(container.mounts.iter().map(|mount| match &mount.source {
        MountSource::Workspace => format!("workspace at {}", mount.path),
        MountSource::Cache { key, .. } => format!("cache {key} at {}", mount.path),
        MountSource::Volume(name) => format!("volume {name} at {}", mount.path),
    }));
    lines.extend(limit_lines(&container.limits));
    if !container.needs.is_empty() {
        lines.push(format!("after {}", container.needs.join(", ")));
    }
    match container.network {
        Network::None => lines.push("no network".to_owned()),
        Network::EgressAllowList => lines.push("network: allow-listed hosts only".to_owned()),
        Network::Host => lines.push("network of the engine's machine".to_owned()),
        Network::BuildDefault => {}
    }
    lines.extend(container.privileged.then(|| "privileged".to_owned()));
    lines.extend(container.devices.iter().map(|device| format!("device {device}")));
    lines.extend(tmpfs_lines(&container.tmpfs));
    lines.extend(container.shell.iter().map(|shell| format!("shell {}", shell.join(" "))));
    let Some(text) = &container.script else { return };
    // The generated script also echoes each command. Show the commands of the pipeline file if the script was generated from
    // them.
    let same = written.filter(|run| script(run) == *text).map(|run| run.join("\n"));
    lines.extend(same.as_ref().unwrap_or(text).lines().map(|line| format!("$ {line}")));
}

#[cfg(test)]
mod tests {
    use beespace_core::pipeline;

    use super::*;

    fn pipeline() -> Pipeline {
        let text = "steps: [{name: a, image: x, run: [cargo build, cargo test], env: {K: v, T: {from_secret: token}}}]";
        pipeline::read("f", text.as_bytes()).unwrap().pipeline
    }

    fn plan(pipeline: &Pipeline) -> StepPlan {
        let Action::Image(action) = &pipeline.steps[0].action else { panic!() };
        beespace_core::plan::plan_image_step(pipeline, &pipeline.steps[0], action)
    }

    #[test]
    fn a_plan_shows_the_commands_of_the_pipeline_file() {
        let pipeline = pipeline();
        let lines = step_lines(&plan(&pipeline), &pipeline);
        assert_eq!(lines, ["image x", "env K=v", "secret token as env T", "$ cargo build", "$ cargo test"]);
    }

    #[test]
    fn a_changed_script_is_shown_as_it_is() {
        let pipeline = pipeline();
        let mut plan = plan(&pipeline);
        plan.containers[0].script = Some("cargo publish\n".to_owned());
        assert_eq!(step_lines(&plan, &pipeline).last().map(String::as_str), Some("$ cargo publish"));
    }
}
