//! Why a plugin was not loaded, for the person who installs it.

use crate::diagnostic::PluginDiagnostic;
use crate::error::PluginError;
use crate::manifest::{Kind, ManifestError};

/// A binding that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("plugin {binding:?}: {failure}")]
pub struct LoadError {
    /// Name of the binding.
    pub binding: String,
    pub failure: LoadFailure,
}

/// What is wrong with it, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadFailure {
    #[error("it is already compiled; compiled code is never taken from outside, give the component it was made from")]
    Precompiled,
    #[error("it has {bytes} bytes, at most {cap} are allowed here")]
    TooLarge { bytes: usize, cap: usize },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("it is a {is}, but is bound as a {wanted}")]
    OtherKind { is: Kind, wanted: Kind },
    #[error("it does not compile: {0}")]
    Compile(String),
    #[error("it wants {import}, which was not granted to this binding; {help}")]
    NotGranted { import: String, help: &'static str },
    #[error("it wants {import}, which no {kind} is given")]
    NotForKind { import: String, kind: Kind },
    #[error(
        "it wants {import}, but a {kind} gets nothing of WASI there. Build it without: Rust for wasm32-unknown-unknown, \
         JavaScript with `disableFeatures`, Python with `--stub-wasi`; `plugins/build` shows it for Rust"
    )]
    Wasi { import: String, kind: Kind },
    #[error("it does not fit this server: {0}")]
    Incompatible(String),
    /// It failed in a trial run under the limits it would have.
    #[error("it failed when it was tried: {0}")]
    Trial(PluginError),
    #[error("the JSON Schema in its manifest is not usable: {0}")]
    Schema(String),
    #[error("its settings are not right: {}", list(.0))]
    Settings(Vec<PluginDiagnostic>),
    /// Our own trouble.
    #[error("it could not be loaded: {0}")]
    Internal(String),
}

fn list(problems: &[PluginDiagnostic]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
