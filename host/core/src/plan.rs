//! The plan of a step, `beespace.step-plan/v1`: its resolved work, with everything that an engine needs and nothing specific to
//! Docker.
//!
//! A plan has the same form whether the pipeline file describes the container or a step type creates the plan, so that policies
//! treat both alike.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Document};
use crate::image_ref::ImageRef;
use crate::pipeline::{
    EnvValue, ImageAction, OtherNetwork, Pipeline, Pull, Setting, Step, setting_variable, setting_variable_of_drone,
};
use crate::policy::Subject;
use crate::script::script;
use crate::units::{format_cpus, format_size};

/// Name of the schema of a plan.
pub const SCHEMA: &str = "beespace.step-plan/v1";

/// Directory of the sources in every container, and the default working directory.
pub const WORKSPACE: &str = "/workspace";

/// The work of a step in one round. A plan without containers finishes at once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StepPlan {
    /// The step's name in the pipeline.
    pub step: String,
    /// The step type that created the plan; `None` for an `image:` step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<String>,
    pub containers: Vec<Container>,
    /// Text for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// The state of the step type, returned to it after the round: base64, at most 64 KiB decoded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
}

impl StepPlan {
    /// The document that policies evaluate.
    #[must_use]
    pub fn document(&self) -> Document {
        Document::new(SCHEMA, &serde_json::to_value(self).unwrap_or_default())
    }

    /// The digest of the document. Approvals are bound to it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.document().digest()
    }
}

impl Subject for StepPlan {
    fn subject_document(&self) -> Document {
        self.document()
    }
}

/// Most characters of a container's id, which becomes part of a name in the engine.
const CONTAINER_ID_CHARS: usize = 63;

/// Whether a text is a valid container id: 1 to 63 of a-z, 0-9 and `-`, beginning with a letter or digit. Ids become part of
/// names and labels in engines.
#[must_use]
pub fn is_container_id(text: &str) -> bool {
    (1..=CONTAINER_ID_CHARS).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
}

/// The id of the only container of an `image:` step.
pub const IMAGE_CONTAINER: &str = "step";

/// The plan of an `image:` step: one container. Variables of the step take precedence over those of the pipeline.
#[must_use]
pub fn plan_image_step(pipeline: &Pipeline, step: &Step, action: &ImageAction) -> StepPlan {
    let (env, secrets) = variables(pipeline, step, action);
    let mut container = Container {
        id: IMAGE_CONTAINER.to_owned(),
        image: action.image.clone(),
        pull: action.pull,
        entrypoint: action.entrypoint.clone(),
        args: action.args.clone(),
        script: action.run.as_deref().map(script),
        shell: action.shell.clone(),
        env,
        secrets,
        workdir: action.workdir.as_deref().map(|directory| resolve_workdir(pipeline, directory)),
        user: action.user.clone(),
        mounts: Vec::new(),
        limits: Limits {
            cpu_millis: action.limits.cpu_millis,
            memory_bytes: action.limits.memory_bytes,
            pids: action.limits.pids,
            timeout_seconds: timeout_of(step),
        },
        network: match action.network {
            Some(OtherNetwork::None) => Network::None,
            Some(OtherNetwork::Host) => Network::Host,
            None => Network::default(),
        },
        privileged: action.privileged,
        devices: action.devices.clone(),
        tmpfs: action.tmpfs.clone(),
        needs: Vec::new(),
        service: false,
    };
    place_workspace(&mut container, pipeline);
    StepPlan { step: step.name.clone(), containers: vec![container], ..StepPlan::default() }
}

/// Mounts the sources in the directory that the pipeline names, which is then the working directory, too.
fn place_workspace(container: &mut Container, pipeline: &Pipeline) {
    let Some(workspace) = pipeline.workspace.as_deref().filter(|workspace| *workspace != WORKSPACE) else { return };
    if !container.mounts.iter().any(|mount| mount.path == workspace) {
        container.mounts.push(Mount { source: MountSource::Workspace, path: workspace.to_owned(), read_only: false });
    }
    container.workdir.get_or_insert_with(|| workspace.to_owned());
}

/// The variables of an `image:` step and its secrets. Those of the step take precedence over those of the pipeline, and settings
/// over both.
fn variables(pipeline: &Pipeline, step: &Step, action: &ImageAction) -> (BTreeMap<String, String>, Vec<SecretMount>) {
    let mut values: BTreeMap<String, EnvValue> = pipeline.env.clone();
    values.extend(step.env.clone());
    for (name, setting) in action.settings.iter().flatten() {
        match setting {
            Setting::FromSecret(secret) => {
                values.insert(setting_variable(name), EnvValue::FromSecret(secret.clone()));
            }
            Setting::Value(_) => {
                let names = [Some(setting_variable(name)), setting_variable_of_drone(name)];
                let text = setting.text();
                values.extend(names.into_iter().flatten().filter_map(|name| Some((name, EnvValue::Text(text.clone()?)))));
            }
        }
    }
    let (mut env, mut secrets) = (BTreeMap::new(), Vec::new());
    for (name, value) in values {
        match value {
            EnvValue::Text(text) => {
                env.insert(name, text);
            }
            EnvValue::FromSecret(secret) => secrets.push(SecretMount { secret, target: SecretTarget::Env(name) }),
        }
    }
    (env, secrets)
}

/// Resolves a directory of the file against the workspace: `web` and `./web/` are in the workspace, `/tmp/` is `/tmp`.
fn resolve_workdir(pipeline: &Pipeline, directory: &str) -> String {
    let base = if directory.starts_with('/') { "" } else { pipeline.workspace.as_deref().unwrap_or(WORKSPACE) };
    let parts = directory.split('/').filter(|part| !matches!(*part, "" | "."));
    let path = parts.fold(base.to_owned(), |path, part| format!("{path}/{part}"));
    if path.is_empty() { "/".to_owned() } else { path }
}

/// Applies the settings of a `uses:` step in the file to every container that its step type planned: the `timeout` is an upper
/// limit, and the texts in `env` are added. Variables that the step type set itself take precedence.
pub fn apply_file_settings(plan: &mut StepPlan, pipeline: &Pipeline, step: &Step) {
    for container in &mut plan.containers {
        let limits = &mut container.limits;
        limits.timeout_seconds = limits.timeout_seconds.into_iter().chain(timeout_of(step)).min();
        place_workspace(container, pipeline);
        for (name, value) in step.env.iter().chain(&pipeline.env) {
            if let EnvValue::Text(text) = value {
                container.env.entry(name.clone()).or_insert_with(|| text.clone());
            }
        }
    }
}

fn timeout_of(step: &Step) -> Option<u32> {
    step.timeout.map(|timeout| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX))
}

/// One container of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Unique inside the plan. An `image:` step has one, named `step`.
    pub id: String,
    pub image: String,
    /// `None`: the default of the reference, see [`Pull::of`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<Pull>,
    /// `None`: the image's own entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `None`: the image's own command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// A shell script that is written to a file and run with `sh -e`; excludes `entrypoint` and `args`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// The shell that runs the script, with its options; `None`: `/bin/sh -e`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Variables that the user or the step type set. `CI` and `BEESPACE_*` are added when the container is created
    /// ([`crate::environment`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretMount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub network: Network,
    /// Without the restrictions of a container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Paths of devices of the engine's machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Directories in memory with their sizes in bytes; `None`: no limit but that of the container's memory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, Option<u64>>,
    /// Ids of the containers that must exit with 0 before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The container runs beside the others and is stopped when they have finished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub service: bool,
}

impl Container {
    /// When the image is pulled. The baseline policy refuses a text that is not a reference.
    #[must_use]
    pub fn pull(&self) -> Pull {
        self.pull.unwrap_or_else(|| self.image.parse().map_or(Pull::IfAbsent, |image| Pull::of(&image)))
    }

    /// The normal form of its image reference. `None` for a text that is not one, which the baseline policy refuses.
    #[must_use]
    pub fn image_reference(&self) -> Option<String> {
        self.image.parse().ok().map(|image: ImageRef| image.normalized())
    }
}

/// A secret by name. Its value is added only in the engine, never in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretMount {
    pub secret: String,
    pub target: SecretTarget,
}

/// Where a container gets a secret: the name of a variable, or the absolute path of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretTarget {
    Env(String),
    File(String),
}

/// A mount of a container: its source, and the absolute path in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub source: MountSource,
    pub path: String,
    #[serde(default)]
    pub read_only: bool,
}

/// The source of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// The stage's workspace.
    Workspace,
    /// A cache by key, with fallback keys.
    Cache { key: String, restore_keys: Vec<String> },
    /// A volume of an earlier container of the same step.
    Volume(String),
}

/// Resource limits; the instance's default applies to a limit that is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
}

impl Limits {
    /// Lowers every limit to that of `most`. Returns the old and the new value of each one that was above it, for people.
    pub fn lower_to(&mut self, most: &Self) -> Vec<String> {
        let mut lowered = Vec::new();
        let cpus = |millis: u64| u32::try_from(millis).map_or_else(|_| millis.to_string(), format_cpus);
        lowered.extend(lower("cpu", &mut self.cpu_millis, most.cpu_millis, cpus));
        lowered.extend(lower("memory", &mut self.memory_bytes, most.memory_bytes, format_size));
        lowered.extend(lower("pids", &mut self.pids, most.pids, |pids| pids.to_string()));
        lowered
    }

    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

fn lower<N: Copy + Ord + Into<u64>>(
    name: &str,
    limit: &mut Option<N>,
    most: Option<N>,
    show: impl Fn(u64) -> String,
) -> Option<String> {
    let (asked, most) = ((*limit)?, most?);
    if asked <= most {
        return None;
    }
    *limit = Some(most);
    Some(format!("`{name}` of {} is lowered to {}", show(asked.into()), show(most.into())))
}

/// The network access of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    None,
    EgressAllowList,
    /// The stage's own network.
    #[default]
    BuildDefault,
    /// The network of the engine's machine.
    Host,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_lowered_and_never_raised() {
        let mut limits = Limits { cpu_millis: Some(4_000), memory_bytes: Some(1 << 30), ..Limits::default() };
        let most = Limits { cpu_millis: Some(1_500), memory_bytes: Some(4 << 30), pids: Some(512), ..Limits::default() };
        assert_eq!(limits.lower_to(&most), ["`cpu` of 4 is lowered to 1.5"]);
        assert_eq!(limits, Limits { cpu_millis: Some(1_500), memory_bytes: Some(1 << 30), ..Limits::default() });
        assert_eq!(limits.lower_to(&Limits::default()), [""; 0]);
    }
}
