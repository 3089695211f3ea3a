//! Why a plugin could not be loaded, for the person who installs it.

use crate::diagnostic::PluginDiagnostic;
use crate::error::PluginError;
use crate::grant::NeededGrant;
use crate::manifest::{Kind, ManifestError};

/// A binding whose plugin could not be loaded.
#[derive(Debug, Clone, thiserror::Error)]
#[error("plugin {binding:?}: {failure}")]
pub struct LoadError {
    /// Name of the binding.
    pub binding: String,
    pub failure: LoadFailure,
}

/// The cause, with the remedy.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadFailure {
    #[error("the file contains compiled code, which is never accepted; provide the component that it was compiled from")]
    Precompiled,
    #[error("the component has {bytes} bytes; the limit is {cap}: raise `[plugins] component_bytes`")]
    TooLarge { bytes: usize, cap: usize },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the component is a {is} plugin, but the binding requires a {wanted} plugin")]
    OtherKind { is: Kind, wanted: Kind },
    /// The component uses a proposal of WebAssembly that this server switches off.
    #[error("the component uses {name}, which plugins cannot use; {help}")]
    Unsupported { name: &'static str, help: &'static str },
    /// The policy would never be evaluated at this point, and its verdict would be missed.
    #[error("the manifest names the decision point {point:?}, but policies are evaluated only at {asked}")]
    UnknownPoint { point: String, asked: String },
    #[error("the component could not be compiled: {0}")]
    Compile(String),
    #[error("the plugin needs {}", list_grants(.0))]
    MissingGrants(Vec<NeededGrant>),
    #[error("the component imports {import}, which is not available to {kind} plugins")]
    NotForKind { import: String, kind: Kind },
    #[error(
        "the component imports {import}, which is not available to {kind} plugins. Build it without WASI: Rust for \
         wasm32-unknown-unknown, JavaScript with `disableFeatures`, Python with `--stub-wasi`; `plugins/build` shows it for Rust"
    )]
    Wasi { import: String, kind: Kind },
    #[error("the component is incompatible with this server: {0}")]
    Incompatible(String),
    /// The trial run under the real limits failed.
    #[error("the trial run failed: {0}")]
    Trial(PluginError),
    #[error("the JSON Schema in the manifest is invalid: {0}")]
    Schema(String),
    #[error("invalid settings: {}", list(.0))]
    Settings(Vec<PluginDiagnostic>),
    /// Several of the failures above, each with a remedy of its own.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
    /// An internal error.
    #[error("the component could not be loaded: {0}")]
    Internal(String),
}

fn list_grants(missing: &[NeededGrant]) -> String {
    let needs: Vec<String> = missing.iter().map(|grant| format!("`grants.{}` ({})", grant.key(), grant.purpose())).collect();
    let examples: Vec<&str> = missing.iter().filter_map(|grant| grant.example()).collect();
    let needs = needs.join(" and ");
    if examples.len() < missing.len() {
        return format!("{needs}; the configuration cannot grant all of it yet");
    }
    format!("{needs}: set grants = {{ {} }}", examples.join(", "))
}

fn list(problems: &[PluginDiagnostic]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
