//! The identity of a plugin, and its binding ready to be called. Common to all kinds.

use std::sync::Arc;

use beespace_core::digest::Digest;
use beespace_core::policy::ErrorClass;
use wasmtime::Store;

use crate::call::{CallBody, CallOutcome, CallTarget, Sandbox};
use crate::error::PluginError;
use crate::limits::Limits;
use crate::manifest::{Kind, Manifest};
use crate::ports::source::SourceFiles;
use crate::slots::CallingBuild;
use crate::state::{HostResources, State};
use crate::threads::SlownessScore;

/// The identity of a plugin, for people and for the record of its decisions.
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
    /// The imports of the component, with versions. The plugin can use nothing else.
    pub imports: Vec<String>,
    pub(crate) label: Arc<str>,
}

impl Plugin {
    /// Whether the plugin imports the interface that reads the files of the commit.
    #[must_use]
    pub fn reads_source(&self) -> bool {
        self.imports.iter().any(|import| import.starts_with("beespace:plugin/source@"))
    }
}

/// A bound plugin, ready to be called.
pub(crate) struct BoundPlugin {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) sandbox: Sandbox,
    pub(crate) settings: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) resources: HostResources,
    /// The score of all calls of this binding.
    pub(crate) slowness: Arc<SlownessScore>,
}

impl BoundPlugin {
    /// Runs `body` in a fresh store, in a slot of its own kind. Not bounded per build.
    pub(crate) async fn call<T, F>(&self, body: F) -> CallOutcome<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Store<State>) -> CallBody<'a, T> + Send + 'static,
    {
        self.run(None, self.resources.clone(), body).await
    }

    /// Runs `body` on behalf of a build, which holds only a part of the slots at once. The plugin may read `source`.
    pub(crate) async fn call_for_build<T, F>(
        &self,
        build: CallingBuild,
        source: Option<Arc<dyn SourceFiles>>,
        body: F,
    ) -> CallOutcome<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Store<State>) -> CallBody<'a, T> + Send + 'static,
    {
        let resources = HostResources { source, ..self.resources.clone() };
        self.run(Some(build), resources, body).await
    }

    async fn run<T, F>(&self, build: Option<CallingBuild>, resources: HostResources, body: F) -> CallOutcome<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Store<State>) -> CallBody<'a, T> + Send + 'static,
    {
        let state = State::new(&self.limits, self.settings.clone(), resources);
        let call = CallTarget { kind: self.plugin.kind, label: &self.plugin.label, slowness: &self.slowness, build };
        self.sandbox.call(call, state, body).await
    }

    /// Rejects an input that is too large. The memory of a guest is limited, but copying into it would have no limit of its own.
    pub(crate) fn check_input(&self, bytes: impl IntoIterator<Item = usize>) -> Result<(), PluginError> {
        let total = bytes.into_iter().fold(0, usize::saturating_add);
        let cap = self.limits.input_bytes;
        if total <= cap {
            return Ok(());
        }
        let message = format!("{} was not called: its input has {total} bytes; the limit is {cap}", self.plugin.label);
        Err(PluginError::new(ErrorClass::Internal, message))
    }
}

impl std::fmt::Debug for BoundPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundPlugin").field("plugin", &self.plugin).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// A bound plugin with its checked exports, which are typed by the plugin's kind: the `…Pre` type that `bindgen!` generates.
pub(crate) struct Loaded<E> {
    pub(crate) bound: BoundPlugin,
    pub(crate) exports: E,
}

impl<E> std::fmt::Debug for Loaded<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bound.fmt(f)
    }
}
