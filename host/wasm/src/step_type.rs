//! The front door of step types: settings become a plan of containers, exits become the next plan or the end.

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
use crate::host_functions::source::SourceFiles;
use crate::load::{BindingSpec, Host, incompatible, with_binding};
use crate::load_error::{LoadError, LoadFailure};
use crate::manifest::Kind;
use crate::plugin::{BoundPlugin, Plugin};
use crate::sanitize::sanitize;
use crate::state::State;

/// What a step type gets to know. The same for every round of a step, and again for a retry.
#[derive(Clone)]
pub struct StepInput {
    /// The step's name in the pipeline.
    pub step: String,
    pub context: PluginContext,
    /// `beespace.event/v1`, as policies get it.
    pub event: Document,
    /// The step's `with:` block.
    pub params: serde_json::Value,
    /// Outputs of earlier steps, as JSON, by step name.
    pub upstream: Vec<(String, String)>,
    /// Names of the secrets that the pipeline passes to the step. Values never enter a plugin.
    pub secret_names: Vec<String>,
    /// The files of the commit.
    pub source: Arc<dyn SourceFiles>,
}

impl std::fmt::Debug for StepInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepInput").field("step", &self.step).field("params", &self.params).finish_non_exhaustive()
    }
}

/// What happened to the plan of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoundEnd {
    /// All its containers have ended (at once, where it had none).
    Exited(Vec<Exit>),
    /// Someone stopped it; one last chance to plan the cleaning up.
    Cancelled,
}

/// Why there is no plan.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlanError {
    /// The `with:` block is not right: the pipeline's author can mend it.
    #[error("the step's `with` is not right: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Params(Vec<PluginDiagnostic>),
    /// The plugin failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

/// A step type, loaded and bound. Cheap to clone; calls of clones run side by side.
#[derive(Debug, Clone)]
pub struct StepType(Arc<Inner>);

struct Inner {
    bound: BoundPlugin,
    pre: StepPluginPre<State>,
    params: Option<Schema>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bound.fmt(f)
    }
}

impl Host {
    /// Loads a step type from the bytes of its component.
    ///
    /// # Errors
    /// [`LoadError`] with what is wrong and what to do; nothing of it stays loaded.
    pub async fn load_step_type(&self, component: Vec<u8>, spec: BindingSpec) -> Result<StepType, LoadError> {
        let load = async {
            let prepared = self.link(component, Kind::Step, &spec).await?;
            let params = prepared.plugin.manifest.params_schema.as_ref().map(Schema::new).transpose();
            let params = params.map_err(LoadFailure::Schema)?;
            let pre = StepPluginPre::new(prepared.pre.clone()).map_err(incompatible)?;
            Ok(StepType(Arc::new(Inner { bound: self.bind(prepared).await?, pre, params })))
        };
        load.await.map_err(with_binding(&spec.name))
    }
}

impl StepType {
    /// Who it is.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.0.bound.plugin
    }

    /// What is wrong with a `with:` block as far as the manifest's schema tells, without running anything.
    #[must_use]
    pub fn check_params(&self, params: &serde_json::Value) -> Vec<PluginDiagnostic> {
        self.0.params.as_ref().map(|schema| schema.diagnostics(params)).unwrap_or_default()
    }

    /// Makes the first plan. The plan names this binding as its `uses`.
    pub async fn make_plan(&self, input: StepInput) -> CallOutcome<StepPlan, PlanError> {
        let problems = self.check_params(&input.params);
        if !problems.is_empty() {
            return CallOutcome::failed(PlanError::Params(problems));
        }
        if let Err(error) = self.check_input(&input) {
            return CallOutcome::failed(error.into());
        }
        let (inner, step, wit_input) = (self.0.clone(), input.step.clone(), wit::Input::from(&input));
        let answer = self.0.bound.call(Some(input.source), move |store| {
            Box::pin(async move {
                let plugin = inner.pre.instantiate_async(&mut *store).await?;
                plugin.beespace_plugin_step().call_make_plan(&mut *store, &wit_input).await
            })
        });
        answer.await.map_result(|said| match said? {
            Ok(plan) => Ok(self.reader().plan(&self.identity(&step), plan)?),
            Err(diagnostics) => Err(PlanError::Params(diagnostic::from_wit(diagnostics))),
        })
    }

    /// Says what follows after a round of `plan`, the plan that just ended. The caller counts the rounds.
    pub async fn react(&self, input: StepInput, plan: &StepPlan, end: RoundEnd) -> CallOutcome<Directive> {
        if let Err(error) = self.check_input(&input) {
            return CallOutcome::failed(error);
        }
        let Ok(state) = base64::prelude::BASE64_STANDARD.decode(&plan.state) else {
            let message = format!("{}: the state of the plan that ended is damaged", self.plugin().label);
            return CallOutcome::failed(PluginError::new(ErrorClass::Internal, message));
        };
        let (inner, step, wit_input) = (self.0.clone(), input.step.clone(), wit::Input::from(&input));
        let event = match &end {
            RoundEnd::Exited(exits) => wit::Event::Exited(exits.iter().map(to_wit::exit).collect()),
            RoundEnd::Cancelled => wit::Event::Cancelled,
        };
        let answer = self.0.bound.call(Some(input.source), move |store| {
            Box::pin(async move {
                let plugin = inner.pre.instantiate_async(&mut *store).await?;
                plugin.beespace_plugin_step().call_react(&mut *store, &wit_input, &state, &event).await
            })
        });
        answer.await.map_result(|said| match said? {
            Ok(directive) => self.reader().directive(&self.identity(&step), directive),
            Err(words) => {
                let message = format!("{} could not go on: {}", self.plugin().label, sanitize(&words, 1 << 10));
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
