//! The front door of policies: a request in, a verdict out.

use std::sync::Arc;

use beespace_core::digest::Document;
use beespace_core::plugin_context::PluginContext;
use beespace_core::policy::{ErrorClass, Point, Verdict};

use crate::bindings::policy::PolicyPluginPre;
use crate::bindings::policy::exports::beespace::plugin::policy as wit;
use crate::call::CallOutcome;
use crate::convert::{from_wit::OutputReader, to_wit};
use crate::error::PluginError;
use crate::load::{BindingSpec, Host, incompatible, with_binding};
use crate::load_error::LoadError;
use crate::manifest::Kind;
use crate::plugin::{BoundPlugin, Plugin};
use crate::sanitize::sanitize;
use crate::state::State;

/// What a policy is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRequest {
    pub point: Point,
    pub context: PluginContext,
    /// `beespace.event/v1`, the same at every point.
    pub event: Document,
    /// What is decided on.
    pub subject: Document,
    /// The subject as it was before, where there is one.
    pub previous: Option<Document>,
}

/// A policy, loaded and bound. Cheap to clone; calls of clones run side by side.
#[derive(Debug, Clone)]
pub struct Policy(Arc<Inner>);

struct Inner {
    bound: BoundPlugin,
    pre: PolicyPluginPre<State>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bound.fmt(f)
    }
}

impl Host {
    /// Loads a policy from the bytes of its component.
    ///
    /// # Errors
    /// [`LoadError`] with what is wrong and what to do; nothing of it stays loaded.
    pub async fn load_policy(&self, component: Vec<u8>, spec: BindingSpec) -> Result<Policy, LoadError> {
        let load = async {
            let prepared = self.link(component, Kind::Policy, &spec).await?;
            let pre = PolicyPluginPre::new(prepared.pre.clone()).map_err(incompatible)?;
            Ok(Policy(Arc::new(Inner { bound: self.bind(prepared).await?, pre })))
        };
        load.await.map_err(with_binding(&spec.name))
    }
}

impl Policy {
    /// Who it is.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.0.bound.plugin
    }

    /// Whether its manifest asks for this point.
    #[must_use]
    pub fn applies_at(&self, point: Point) -> bool {
        let points = &self.plugin().manifest.points;
        points.is_empty() || points.iter().any(|name| name == point.as_str())
    }

    /// Asks it. Every failure, a trap or a timeout as much as the plugin's own `err`, is one error with a class.
    pub async fn evaluate(&self, request: PolicyRequest) -> CallOutcome<Verdict> {
        let previous = request.previous.as_ref().map_or(0, |document| document.json.len());
        if let Err(error) = self.0.bound.check_input([request.event.json.len(), request.subject.json.len(), previous]) {
            return CallOutcome::failed(error);
        }
        let inner = self.0.clone();
        let answer = self.0.bound.call(None, move |store| {
            Box::pin(async move {
                let policy = inner.pre.instantiate_async(&mut *store).await?;
                policy.beespace_plugin_policy().call_evaluate(&mut *store, &request.into()).await
            })
        });
        answer.await.map_result(|said| self.read(said?))
    }

    fn read(&self, said: Result<wit::Verdict, String>) -> Result<Verdict, PluginError> {
        let plugin = self.plugin();
        match said {
            Ok(verdict) => OutputReader::new(&plugin.label, self.0.bound.limits.output_bytes).verdict(&plugin.binding, verdict),
            Err(words) => {
                let words = sanitize(&words, 1 << 10);
                Err(PluginError::new(ErrorClass::PluginError, format!("{} could not decide: {words}", plugin.label)))
            }
        }
    }
}

impl From<PolicyRequest> for wit::Request {
    fn from(request: PolicyRequest) -> Self {
        Self {
            point: request.point.as_str().to_owned(),
            ctx: to_wit::context(&request.context),
            event: to_wit::document(&request.event),
            subject: to_wit::document(&request.subject),
            previous: request.previous.as_ref().map(to_wit::document),
            facts: Vec::new(),
        }
    }
}
