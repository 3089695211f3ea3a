//! A loaded plugin, as far as all kinds are alike.

use std::sync::Arc;

use beespace_core::digest::Digest;
use beespace_core::policy::ErrorClass;
use wasmtime::Store;

use crate::call::{CallBody, CallOutcome, Sandbox};
use crate::error::PluginError;
use crate::host_functions::source::SourceFiles;
use crate::limits::Limits;
use crate::manifest::{Kind, Manifest};
use crate::state::{Capabilities, State};
use crate::threads::SlownessScore;

/// Who a plugin is: for people, and for the record of what it decided.
#[derive(Debug, Clone)]
pub struct Plugin {
    pub kind: Kind,
    /// Name of the binding.
    pub binding: String,
    pub manifest: Manifest,
    /// Digest of the component's bytes.
    pub component: Digest,
    /// Digest of the settings' canonical JSON.
    pub settings: Digest,
    /// What it imports, with versions: all that it could ever use.
    pub imports: Vec<String>,
    pub(crate) label: Arc<str>,
}

impl Plugin {
    /// Whether it can look into the commit that is built.
    #[must_use]
    pub fn reads_source(&self) -> bool {
        self.imports.iter().any(|import| import.starts_with("beespace:plugin/source@"))
    }
}

/// A plugin in its place, ready to be called.
pub(crate) struct BoundPlugin {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) sandbox: Sandbox,
    pub(crate) settings: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) capabilities: Capabilities,
    /// Of all its calls.
    pub(crate) slowness: Arc<SlownessScore>,
}

impl BoundPlugin {
    /// Runs `body` in a fresh store.
    pub(crate) async fn call<T, F>(&self, source: Option<Arc<dyn SourceFiles>>, body: F) -> CallOutcome<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Store<State>) -> CallBody<'a, T> + Send + 'static,
    {
        let capabilities = Capabilities { source, ..self.capabilities.clone() };
        let state = State::new(&self.limits, self.settings.clone(), capabilities);
        self.sandbox.call(&self.plugin.label, &self.slowness, state, body).await
    }

    /// Refuses what is too much to hand to a guest: its memory has a budget, what we copy into it has none of its own.
    pub(crate) fn check_input(&self, bytes: impl IntoIterator<Item = usize>) -> Result<(), PluginError> {
        let total = bytes.into_iter().fold(0, usize::saturating_add);
        let cap = self.limits.input_bytes;
        if total <= cap {
            return Ok(());
        }
        let message = format!("{} was not asked: the question has {total} bytes, at most {cap} are handed on", self.plugin.label);
        Err(PluginError::new(ErrorClass::Internal, message))
    }
}

impl std::fmt::Debug for BoundPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("plugin", &self.plugin).field("limits", &self.limits).finish_non_exhaustive()
    }
}
