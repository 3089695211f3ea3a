//! The handle of a loaded step type, which turns settings into a plan of containers, and exits into the next plan or the outcome.

use std::sync::Arc;

use base64::Engine as _;
use beespace_core::digest::Document;
use beespace_core::exit::Exit;
use beespace_core::plan::StepPlan;
use beespace_core::plugin_context::PluginContext;
use beespace_core::policy::ErrorClass;
use beespace_core::step_type::Directive;

use crate::bindings::step::StepPluginPre;
use crate::bindings::step::exports::beespace::plugin::step as wit;
use crate::call::CallOutcome;
use crate::convert::{from_wit::OutputReader, plan::StepIdentity, to_wit};
use crate::diagnostic::{self, PluginDiagnostic, Schema};
use crate::error::PluginError;
use crate::load::{BindingSpec, Host, LinkedComponent, incompatible};
use crate::load_error::{LoadError, LoadFailure};
use crate::manifest::Kind;
use crate::plugin::{Loaded, Plugin};
use crate::ports::source::SourceFiles;
use crate::sanitize::sanitize;
use crate::slots::CallingBuild;
use crate::state::State;

/// The input of a step type. It is identical for every round and every retry of a step.
#[derive(Clone)]
pub struct StepInput {
    /// The name of the step in the pipeline.
    pub step: String,
    pub context: PluginContext,
    /// The event (`beespace.event/v1`), as policies receive it.
    pub event: Document,
    /// The step's `with:` block.
    pub params: serde_json::Value,
    /// Outputs of earlier steps, as JSON, by step name.
    pub upstream: Vec<(String, String)>,
    /// Names of the secrets that the pipeline passes to the step. The values never enter a plugin.
    pub secret_names: Vec<String>,
    /// The files of the commit.
    pub source: Arc<dyn SourceFiles>,
}

impl std::fmt::Debug for StepInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepInput").field("step", &self.step).field("params", &self.params).finish_non_exhaustive()
    }
}

/// How a round ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoundEnd {
    /// All containers have exited (immediately, if there were none).
    Exited(Vec<Exit>),
    /// The step was cancelled. The plugin may plan one cleanup round.
    Cancelled,
}

/// Why a step type returned no plan.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlanError {
    /// The `with:` block is invalid; the author of the pipeline can fix it.
    #[error("the `with` block of the step is invalid: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Params(Vec<PluginDiagnostic>),
    /// The plugin failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

impl PlanError {
    /// The class of the failure. Invalid parameters are an answer of the plugin.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Params(_) => ErrorClass::PluginError,
            Self::Plugin(error) => error.class,
        }
    }
}

/// A loaded and bound step type. It is cheap to clone, and calls of clones run concurrently.
#[derive(Debug, Clone)]
pub struct StepType(Arc<Loaded<StepExports>>);

struct StepExports {
    pre: StepPluginPre<State>,
    /// The schema of the `with:` block, if the manifest has one.
    params: Option<Schema>,
}

impl Host {
    /// Loads a step type from the bytes of its component.
    ///
    /// # Errors
    /// [`LoadError`] with the cause and the remedy. Nothing stays loaded then.
    pub async fn load_step_type(&self, component: Vec<u8>, spec: BindingSpec) -> Result<StepType, LoadError> {
        let check_exports = |linked: &LinkedComponent| -> Result<StepExports, LoadFailure> {
            let params = linked.plugin.manifest.params_schema.as_ref().map(Schema::new).transpose();
            let params = params.map_err(LoadFailure::Schema)?;
            let pre = StepPluginPre::new(linked.pre.clone()).map_err(incompatible)?;
            Ok(StepExports { pre, params })
        };
        Ok(StepType(Arc::new(self.load(component, Kind::Step, &spec, check_exports).await?)))
    }
}

impl StepType {
    /// Identity of the plugin.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.0.bound.plugin
    }

    /// Validates a `with:` block against the manifest's JSON Schema, without running the plugin.
    #[must_use]
    pub fn check_params(&self, params: &serde_json::Value) -> Vec<PluginDiagnostic> {
        self.0.exports.params.as_ref().map(|schema| schema.diagnostics(params)).unwrap_or_default()
    }

    /// Makes the first plan. The plan contains this binding as its `uses`.
    pub async fn make_plan(&self, input: StepInput) -> CallOutcome<StepPlan, PlanError> {
        let diagnostics = self.check_params(&input.params);
        if !diagnostics.is_empty() {
            return CallOutcome::failed(PlanError::Params(diagnostics));
        }
        if let Err(error) = self.check_input(&input) {
            return CallOutcome::failed(error.into());
        }
        let (loaded, build, step, wit_input) =
            (self.0.clone(), CallingBuild::of(&input.context), input.step.clone(), wit::Input::from(&input));
        let answer = self.0.bound.call_for_build(build, Some(input.source), move |store| {
            Box::pin(async move {
                let plugin = loaded.exports.pre.instantiate_async(&mut *store).await?;
                plugin.beespace_plugin_step().call_make_plan(&mut *store, &wit_input).await
            })
        });
        answer.await.map_result(|result| match result? {
            Ok(plan) => Ok(self.reader().plan(&self.identity(&step), plan)?),
            Err(diagnostics) => Err(PlanError::Params(diagnostic::from_wit(diagnostics))),
        })
    }

    /// Returns the directive that follows the round of `plan`, which has ended. The caller limits the number of rounds.
    pub async fn react(&self, input: StepInput, plan: &StepPlan, end: RoundEnd) -> CallOutcome<Directive> {
        if let Err(error) = self.check_input(&input) {
            return CallOutcome::failed(error);
        }
        let Ok(state) = base64::prelude::BASE64_STANDARD.decode(&plan.state) else {
            let message = format!("{}: the stored state of its previous plan is damaged", self.plugin().label);
            return CallOutcome::failed(PluginError::new(ErrorClass::Internal, message));
        };
        let (loaded, build, step, wit_input) =
            (self.0.clone(), CallingBuild::of(&input.context), input.step.clone(), wit::Input::from(&input));
        let event = match &end {
            RoundEnd::Exited(exits) => wit::Event::Exited(exits.iter().map(to_wit::exit).collect()),
            RoundEnd::Cancelled => wit::Event::Cancelled,
        };
        let answer = self.0.bound.call_for_build(build, Some(input.source), move |store| {
            Box::pin(async move {
                let plugin = loaded.exports.pre.instantiate_async(&mut *store).await?;
                plugin.beespace_plugin_step().call_react(&mut *store, &wit_input, &state, &event).await
            })
        });
        answer.await.map_result(|result| match result? {
            Ok(directive) => self.reader().directive(&self.identity(&step), directive),
            Err(reason) => {
                let message = format!("{} could not plan the next round: {}", self.plugin().label, sanitize(&reason, 1 << 10));
                Err(PluginError::new(ErrorClass::PluginError, message))
            }
        })
    }

    fn reader(&self) -> OutputReader<'_> {
        OutputReader::new(&self.plugin().label, self.0.bound.limits.output_bytes)
    }

    fn identity<'a>(&'a self, step: &'a str) -> StepIdentity<'a> {
        StepIdentity { step, uses: &self.plugin().binding }
    }

    fn check_input(&self, input: &StepInput) -> Result<(), PluginError> {
        let upstream = input.upstream.iter().map(|(name, json)| name.len() + json.len()).sum();
        self.0.bound.check_input([input.event.json.len(), input.params.to_string().len(), upstream])
    }
}

impl From<&StepInput> for wit::Input {
    fn from(input: &StepInput) -> Self {
        Self {
            ctx: to_wit::context(&input.context),
            event: to_wit::document(&input.event),
            params: beespace_core::digest::canonical_json(&input.params),
            upstream: input.upstream.clone(),
            secret_names: input.secret_names.clone(),
        }
    }
}
