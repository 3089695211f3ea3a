//! The pipeline file and its normal form, `beespace.pipeline/v1`. The reader and converters produce the normal form, policies
//! evaluate it, and plans are made from it.

mod check_texts;
mod command;
mod container;
mod container_keys;
mod decode;
mod diagnostics;
mod env;
pub mod eval_when;
mod files;
mod keywords;
pub mod matrix;
mod needs;
pub mod params;
mod parse_matrix;
mod parse_params;
mod parse_schedules;
mod parse_when;
mod patterns;
mod placement;
mod read;
pub mod reference;
mod retry;
mod set;
mod spans;
mod step;
mod substitute;
pub mod substitution;
mod yaml;
mod yaml_error;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Document;
use crate::event::EventKind;
use crate::image_ref::ImageRef;
use crate::policy::Subject;
use crate::schedule::Schedule;
use crate::status::Status;

pub use self::container::{ContainerLimits, OtherNetwork, Setting, is_user, setting_variable, setting_variable_of_drone};
pub use self::env::is_reserved_variable;
pub use self::files::{DEFAULT_NAME, FILE_NAMES, FOLDER, MAX_ALL_BYTES, MAX_FILES, SourceFile, select_files};
pub use self::matrix::{Cell, MAX_CELLS};
pub use self::params::{Param, ParamKind};
pub use self::placement::{Available, no_engine_for};
pub use self::retry::{MAX_RETRIES, Retry, RetryOn};
pub use self::set::{MAX_ALL_STEPS, MAX_STAGES, ParsedPipeline, read, read_files};
pub use self::spans::{Place, Spans};
pub use self::step::MAX_STEPS;
pub use self::substitute::substitute;
pub use self::yaml::{MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_TEXT};

/// Name of the schema of the normal form.
pub const SCHEMA: &str = "beespace.pipeline/v1";

/// One pipeline: a definition, not an execution.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pipeline {
    /// Text for people, unique in the build. Without a `name`, the stem of its file in [`FOLDER`], or [`DEFAULT_NAME`].
    pub name: String,
    /// `None`: the pipeline runs for [`eval_when::DEFAULT_EVENTS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// Names of the pipelines of the build that must finish first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The values of its cell by the names of their axes; empty without a matrix.
    #[serde(default, rename = "matrix", skip_serializing_if = "BTreeMap::is_empty")]
    pub cell: Cell,
    /// Variables of every step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvValue>,
    /// Timeout of the whole stage; `None`: the instance's default.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "seconds")]
    pub timeout: Option<Duration>,
    /// The platform that the engine must have, `linux/arm64`; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The labels that the engine must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The directory with the sources in every container; `None`: [`crate::plan::WORKSPACE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    #[serde(default)]
    pub clone: CloneOptions,
    /// The values that whoever starts a build may choose, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Param>,
    /// When builds of the default branch start by themselves. They are read on the default branch only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<Schedule>,
    pub steps: Vec<Step>,
}

/// How the sources are cloned into the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneOptions {
    /// If false, the workspace starts empty.
    pub enabled: bool,
    /// Number of commits of history; 0 for the whole history.
    pub depth: u32,
    /// The commit that a build of a pull request checks out.
    #[serde(default, skip_serializing_if = "PullRequestCheckout::is_head")]
    pub pull_request: PullRequestCheckout,
}

/// The commit that a build of a pull request checks out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestCheckout {
    /// Its head.
    #[default]
    Head,
    /// The merge of its head into the target, made by this server.
    Merge,
}

impl PullRequestCheckout {
    fn is_head(&self) -> bool {
        *self == Self::Head
    }
}

impl Default for CloneOptions {
    fn default() -> Self {
        Self { enabled: true, depth: 50, pull_request: PullRequestCheckout::Head }
    }
}

/// The smallest unit of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Unique in its pipeline; text for people.
    pub name: String,
    pub action: Action,
    /// Takes precedence over the variables of the pipeline.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// Names of the steps that must finish first. The reader fills in the preceding step if the file has no `needs`.
    pub needs: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "seconds")]
    pub timeout: Option<Duration>,
    #[serde(default)]
    pub failure: OnFailure,
    /// `None`: one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// The action of a step: exactly one of `image:` and `uses:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// A container that the file describes.
    Image(ImageAction),
    /// A step type: a plugin creates the plan.
    Uses(UsesAction),
}

/// A container that the pipeline file describes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageAction {
    pub image: String,
    /// `None`: the default of the reference, see [`Pull::of`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<Pull>,
    /// The entries of one script (an entry may have several lines); `None`: the image's own command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The shell that runs the script, with its options; `None`: `/bin/sh -e`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Settings of a container plugin, by name. `None`: the step is not one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<BTreeMap<String, Setting>>,
    /// `None`: the image's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "ContainerLimits::is_empty")]
    pub limits: ContainerLimits,
    /// `None`: the network of the stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<OtherNetwork>,
    /// Without the restrictions of a container. The baseline policy denies it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Devices of the engine's machine. The baseline policy denies them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Directories in memory with their sizes in bytes; `None`: no limit but that of the container's memory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, Option<u64>>,
}

impl ImageAction {
    /// Whether the image is used as a plugin: it has settings, or runs its own program. Such programs read the variables of
    /// Drone and Woodpecker.
    #[must_use]
    pub fn is_container_plugin(&self) -> bool {
        self.settings.is_some() || (self.run.is_none() && self.entrypoint.is_none() && self.args.is_none())
    }
}

/// When an image is pulled from its registry. A build asks at most once per reference: all of its steps run the same image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// In every build, even if the engine has an image of this name. If the registry cannot be reached, the step ends in `error`.
    Always,
    /// If the engine has no image of this name.
    IfAbsent,
    /// Never: the engine must have the image.
    Never,
}

impl Pull {
    /// The default of a reference: `Always` if it has the tag `latest` or neither tag nor digest, otherwise `IfAbsent`.
    #[must_use]
    pub fn of(image: &ImageRef) -> Self {
        if image.is_latest() { Self::Always } else { Self::IfAbsent }
    }
}

/// A step type with its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsesAction {
    /// The name under which the instance provides the step type.
    pub plugin: String,
    /// The `with:` block as JSON; `{}` if there is none.
    pub with: serde_json::Value,
}

/// The effect of a failed step on the rest of its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Steps without `status` in their `when` are skipped; the stage fails.
    #[default]
    Fail,
    /// The failure is shown, but not counted.
    Ignore,
    /// Running siblings are killed.
    Cancel,
}

/// A value in `env`: text, or the name of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvValue {
    Text(String),
    FromSecret(String),
}

/// Alternatives; at least one must be met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct When(pub Vec<Conditions>);

/// Conditions; all that are present must be met.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Conditions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Choice<EventKind>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Choice<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Choice<String>>,
    /// Full names, `refs/tags/v1`.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub git_ref: Option<Choice<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Choice<String>>,
    /// Targets of promotions and rollbacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Choice<String>>,
    /// Names of schedules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<Choice<String>>,
    /// In a step: `success` (no counted failure so far) and `failure` (a counted failure so far). In a pipeline the same about
    /// the pipelines that it needs, directly or through others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Choice<Status>>,
}

/// The value must match `include`, unless that is empty, and must not match `exclude`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Choice<T> {
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<T>,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<T>,
}

impl Pipeline {
    /// The document that policies evaluate.
    #[must_use]
    pub fn document(&self) -> Document {
        Document::new(SCHEMA, &serde_json::to_value(self).unwrap_or_default())
    }

    /// Whether the `when` of the pipeline names this kind of event.
    #[must_use]
    pub fn names_event(&self, kind: EventKind) -> bool {
        let alternatives = self.when.iter().flat_map(|when| &when.0);
        alternatives.filter_map(|conditions| conditions.event.as_ref()).any(|choice| choice.include.contains(&kind))
    }

    /// Names of all secrets that the pipeline and its steps request.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        self.env_secret_names().chain(self.steps.iter().flat_map(Step::secret_names))
    }

    /// Names of the secrets that every step gets.
    pub fn env_secret_names(&self) -> impl Iterator<Item = &str> {
        secrets_in(&self.env)
    }
}

impl Step {
    /// Names of the secrets that the step requests itself.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        let settings = match &self.action {
            Action::Image(action) => action.settings.as_ref(),
            Action::Uses(_) => None,
        };
        let in_settings = settings.into_iter().flat_map(BTreeMap::values).filter_map(|setting| match setting {
            Setting::FromSecret(name) => Some(name.as_str()),
            Setting::Value(_) => None,
        });
        secrets_in(&self.env).chain(in_settings)
    }
}

fn secrets_in(env: &BTreeMap<String, EnvValue>) -> impl Iterator<Item = &str> {
    env.values().filter_map(|value| match value {
        EnvValue::FromSecret(name) => Some(name.as_str()),
        EnvValue::Text(_) => None,
    })
}

impl Subject for Pipeline {
    fn subject_document(&self) -> Document {
        self.document()
    }

    fn problem(&self) -> Option<String> {
        self.problem()
    }
}

/// Serializes durations as whole seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "the signature that serde's `with` asks for")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => serializer.serialize_u64(duration.as_secs()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_secs))
    }
}
