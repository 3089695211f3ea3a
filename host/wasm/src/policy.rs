//! The handle of a loaded policy, which evaluates a request and returns a verdict.

use std::sync::Arc;

use beespace_core::digest::Document;
use beespace_core::plugin_context::PluginContext;
use beespace_core::policy::{ErrorClass, Point, Verdict};

use crate::bindings::policy::PolicyPluginPre;
use crate::bindings::policy::exports::beespace::plugin::policy as wit;
use crate::call::CallOutcome;
use crate::convert::{from_wit::OutputReader, to_wit};
use crate::error::PluginError;
use crate::load::{BindingSpec, Host, LinkedComponent, incompatible};
use crate::load_error::{LoadError, LoadFailure};
use crate::manifest::Kind;
use crate::plugin::{Loaded, Plugin};
use crate::sanitize::sanitize;
use crate::slots::CallingBuild;
use crate::state::State;

/// The input of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRequest {
    pub point: Point,
    pub context: PluginContext,
    /// The event (`beespace.event/v1`), identical at every point.
    pub event: Document,
    /// The subject of the decision.
    pub subject: Document,
    /// The previous version of the subject, if there is one.
    pub previous: Option<Document>,
}

/// A loaded and bound policy. It is cheap to clone, and calls of clones run concurrently.
#[derive(Debug, Clone)]
pub struct Policy(Arc<Loaded<PolicyPluginPre<State>>>);

impl Host {
    /// Loads a policy from the bytes of its component.
    ///
    /// # Errors
    /// [`LoadError`] with the cause and the remedy. Nothing stays loaded then.
    pub async fn load_policy(&self, component: Vec<u8>, spec: BindingSpec) -> Result<Policy, LoadError> {
        let check_exports = |linked: &LinkedComponent| {
            check_points(&linked.plugin.manifest.points)?;
            PolicyPluginPre::new(linked.pre.clone()).map_err(incompatible)
        };
        Ok(Policy(Arc::new(self.load(component, Kind::Policy, &spec, check_exports).await?)))
    }
}

/// Refuses a point at which no policy is evaluated: a typing error, or a point of another version. Such a policy would look
/// enforced and decide nothing.
fn check_points(points: &[String]) -> Result<(), LoadFailure> {
    let asked = Point::ALL.map(Point::as_str);
    match points.iter().find(|point| !asked.contains(&point.as_str())) {
        Some(point) => Err(LoadFailure::UnknownPoint { point: sanitize(point, 100), asked: asked.join(", ") }),
        None => Ok(()),
    }
}

impl Policy {
    /// Identity of the plugin.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.0.bound.plugin
    }

    /// Whether the manifest lists this decision point.
    #[must_use]
    pub fn applies_at(&self, point: Point) -> bool {
        let points = &self.plugin().manifest.points;
        let is_default = points.is_empty() && Point::DEFAULT.contains(&point);
        is_default || points.iter().any(|name| name == point.as_str())
    }

    /// Evaluates the policy. Every failure (trap, timeout, or the plugin's own `err`) is one error with a class.
    pub async fn evaluate(&self, request: PolicyRequest) -> CallOutcome<Verdict> {
        let previous = request.previous.as_ref().map_or(0, |document| document.json.len());
        if let Err(error) = self.0.bound.check_input([request.event.json.len(), request.subject.json.len(), previous]) {
            return CallOutcome::failed(error);
        }
        let (loaded, build) = (self.0.clone(), CallingBuild::of(&request.context));
        let answer = self.0.bound.call_for_build(build, None, move |store| {
            Box::pin(async move {
                let policy = loaded.exports.instantiate_async(&mut *store).await?;
                policy.beespace_plugin_policy().call_evaluate(&mut *store, &request.into()).await
            })
        });
        answer.await.map_result(|result| self.read(result?))
    }

    fn read(&self, result: Result<wit::Verdict, String>) -> Result<Verdict, PluginError> {
        let plugin = self.plugin();
        match result {
            Ok(verdict) => OutputReader::new(&plugin.label, self.0.bound.limits.output_bytes).verdict(&plugin.binding, verdict),
            Err(reason) => {
                let reason = sanitize(&reason, 1 << 10);
                Err(PluginError::new(ErrorClass::PluginError, format!("{} could not decide: {reason}", plugin.label)))
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
