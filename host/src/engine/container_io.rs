//! The input of an engine for one container, and the output that the engine returns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use beespace_core::ids::StepId;
use beespace_core::output::Stream;
use beespace_core::plan::{Container, StepPlan};
use beespace_core::policy::Approved;
use beespace_core::time::Timestamp;
use bytes::Bytes;
use secrecy::SecretString;
use tokio::sync::mpsc;

use super::error::EngineError;
use crate::clock::now;

/// One container of an approved plan, and its other inputs.
#[derive(Debug, Clone)]
pub struct Launch {
    pub step: StepId,
    /// The container's id in the plan.
    pub container: String,
    pub plan: Arc<Approved<StepPlan>>,
    /// The image to run, if the build has already determined which one its reference means ([`Engine::find_image`],
    /// [`Engine::pull_image`]). Otherwise the engine uses the image that it has, and pulls it only if it has none.
    ///
    /// [`Engine::find_image`]: super::Engine::find_image
    /// [`Engine::pull_image`]: super::Engine::pull_image
    pub image: Option<String>,
    /// `CI` and `BEESPACE_*`. The plan's own variables take precedence.
    pub env: BTreeMap<String, String>,
    /// The values of the secrets that the plan names, by the name of the secret.
    pub secrets: BTreeMap<String, SecretString>,
}

impl Launch {
    /// The container in the plan.
    ///
    /// # Errors
    /// [`EngineError::NoSuchContainer`].
    pub fn container(&self) -> Result<&Container, EngineError> {
        let mut containers = self.plan.get().containers.iter();
        containers
            .find(|container| container.id == self.container)
            .ok_or_else(|| EngineError::NoSuchContainer { step: self.step, container: self.container.clone() })
    }

    /// The time limit that the plan sets for the container.
    pub fn timeout(&self) -> Option<Duration> {
        self.container().ok().and_then(|container| container.limits.timeout())
    }
}

/// A piece of output, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub stream: Stream,
    pub at: Timestamp,
    pub bytes: Bytes,
}

/// Receives output. Bounded: see the contract.
pub type OutputSender = mpsc::Sender<Output>;

/// Writes a line to the step's log in the name of the host.
pub(super) async fn write_host_line(output: &OutputSender, text: impl Into<String>) {
    let mut text = text.into();
    text.push('\n');
    // A receiver that is gone gets no line.
    let _ = output.send(Output { stream: Stream::Host, at: now(), bytes: text.into() }).await;
}
