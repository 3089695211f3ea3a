//! Hosts Beespace's WebAssembly components. The only crate that depends on wasmtime, in three rings:
//!
//! | ring | modules |
//! |---|---|
//! | runtime settings | `engine`: configuration, instance pool, and the epoch ticker, without which no guest runs |
//! | generated code | `bindings`: the output of `bindgen!` for `wit/` and nothing else |
//! | semantics | all other modules |
//!
//! **Loading a plugin.** [`manifest`] reads the manifest from the bytes without running anything. `load` compiles the component
//! off the async threads or takes it from the cache (`aot`), links exactly the imports that [`grant`] allows (`link`), runs a
//! trial instantiation under the plugin's limits and validates the settings. The result is a typed handle, one for each kind:
//! [`Policy`], [`StepType`], [`Notifier`], [`Converter`].
//!
//! **Calling a plugin.** The handle passes the call to `call`, which waits for a call slot, creates a fresh store and enforces
//! the time limits. The guest runs on threads of its own (`threads`). It can call the granted `host_functions`, which use
//! resources of the server through `ports`, and send requests through `egress`. `convert` limits, sanitizes and validates the
//! result. The caller receives a [`CallOutcome`]: the value or one [`PluginError`] with a class, and a [`CallReport`].
//!
//! ```no_run
//! # async fn example(component: Vec<u8>, request: beespace_wasm::PolicyRequest) -> Result<(), Box<dyn std::error::Error>> {
//! use beespace_wasm::{BindingSpec, Host, HostOptions, Limits};
//!
//! let host = Host::new(HostOptions::default())?;
//! let settings = serde_json::json!({ "registries": ["docker.io"] });
//! let policy = host.load_policy(component, BindingSpec::new("images", settings, Limits::policy())).await?;
//! let verdict = policy.evaluate(request).await.result?;
//! # Ok(()) }
//! ```

mod bindings;
mod call;
mod call_log;
mod compile_error;
mod compiled_cache;
mod convert;
mod converter;
mod diagnostic;
mod egress;
mod engine;
mod error;
pub mod grant;
mod host_functions;
mod limits;
mod link;
mod load;
mod load_error;
pub mod manifest;
mod notifier;
mod plugin;
mod policy;
mod ports;
mod resources;
mod sanitize;
mod schema_errors;
mod setting_grants;
mod slots;
mod state;
mod step_type;
mod threads;

pub use call::CallOutcome;
pub use call_log::{LogLevel, LogLine};
pub use compiled_cache::CacheOptions;
pub use converter::{ConvertError, Converted, Converter, PIPELINES_SCHEMA, SourceFile};
pub use diagnostic::PluginDiagnostic;
pub use engine::TICK;
pub use error::PluginError;
pub use grant::{AddressClass, EgressRule, EgressScheme, Grants, NeededGrant};
pub use limits::Limits;
pub use load::{BindingSpec, Host, HostError, HostOptions};
pub use load_error::{LoadError, LoadFailure};
pub use manifest::{Kind, Manifest, ManifestError};
pub use notifier::{NoticeInput, Notifier, SendError};
pub use plugin::Plugin;
pub use policy::{Policy, PolicyRequest};
pub use ports::BoxFuture;
pub use ports::kv::{KvEntry, KvError, KvPut, KvStore};
pub use ports::secrets::{SecretSource, SecretValue};
pub use ports::source::{SourceEntry, SourceError, SourceFiles, SourceKind};
pub use slots::{CallSlots, MaxCalls};
pub use state::CallReport;
pub use step_type::{PlanError, RoundEnd, StepInput, StepType};

/// A filter for the log. Failed requests of plugins are logged by the host; the library would log each of them again.
pub const LOG_FILTER: &str = "wasmtime_wasi_http=error";
