//! Hosts Beespace's WebAssembly components. The only crate that names wasmtime, in three rings:
//!
//! | ring | here |
//! |---|---|
//! | every setting of the runtime | `engine` (configuration, pool, the ticker without which no guest runs) |
//! | generated | `bindings` (what `bindgen!` makes of `wit/`, nothing else) |
//! | meaning | the rest, below |
//!
//! The way of a plugin: bytes → [`manifest`] (read, not run) → `load` (compiled off the async threads or taken from `aot`,
//! linked with exactly what [`grant`] allows by `link`, tried under the limits it will have, its settings checked) → a typed front
//! door, one for each kind: [`Policy`], [`StepType`], [`Notifier`], [`Converter`].
//!
//! The way of a call: front door → `call` (a place to run, a store of its own, an end by the clock), on `threads` of the guests' own
//! → the guest, which may call what `offer` holds, and reach the outside through `egress` → `convert` (counted, cut, cleaned,
//! checked) → an [`Answer`] with one [`PluginError`] of one class for whatever went wrong, and a [`CallReport`].
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

mod aot;
mod bindings;
mod call;
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
mod sanitize;
mod state;
mod step_type;
mod threads;

pub use aot::CacheOptions;
pub use call::{CallOutcome, CallSlots};
pub use converter::{ConvertError, Converted, Converter, PIPELINES_SCHEMA, SourceFile};
pub use diagnostic::PluginDiagnostic;
pub use engine::TICK;
pub use error::PluginError;
pub use grant::{AddressClass, EgressRule, EgressScheme, Grants};
pub use host_functions::BoxFuture;
pub use host_functions::kv::{KvEntry, KvError, KvPut, KvStore};
pub use host_functions::log::{LogLevel, LogLine};
pub use host_functions::secrets::{SecretSource, SecretValue};
pub use host_functions::source::{SourceEntry, SourceError, SourceFiles, SourceKind};
pub use limits::Limits;
pub use load::{BindingSpec, Host, HostError, HostOptions};
pub use load_error::{LoadError, LoadFailure};
pub use manifest::{Kind, Manifest, ManifestError};
pub use notifier::{NoticeInput, Notifier, SendError};
pub use plugin::Plugin;
pub use policy::{Policy, PolicyRequest};
pub use state::CallReport;
pub use step_type::{PlanError, RoundEnd, StepInput, StepType};
