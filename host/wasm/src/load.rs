//! Loads a plugin from its bytes. Everything that can be checked before the first call is checked here.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use beespace_core::digest::{Digest, canonical_json};
use tokio::sync::Mutex;
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre};

use crate::bindings::lifecycle::AnyPluginPre;
use crate::call::Sandbox;
use crate::compile_error::compile_failure;
use crate::compiled_cache::{AotCache, CacheOptions};
use crate::diagnostic::{self, Schema};
use crate::egress::{Outbound, Tls};
use crate::engine::TickingEngine;
use crate::grant::{Grants, NeededGrant};
use crate::limits::Limits;
use crate::link;
use crate::load_error::{LoadError, LoadFailure};
use crate::manifest::{Kind, Manifest};
use crate::plugin::{BoundPlugin, Loaded, Plugin};
use crate::ports::kv::KvStore;
use crate::ports::secrets::SecretSource;
use crate::sanitize::sanitize;
use crate::setting_grants;
use crate::slots::{CallSlots, MaxCalls};
use crate::state::{HostResources, State};

/// The options of the plugin host.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The cache of compiled components. Without it every start compiles.
    pub cache: Option<CacheOptions>,
    /// Maximum size of a component.
    pub max_component_bytes: usize,
    /// Maximum number of concurrent calls of each kind of plugin. Further calls wait.
    pub max_calls: MaxCalls,
    /// Addresses that no plugin may send to: the server itself, engines, stores.
    pub own_addresses: Vec<SocketAddr>,
    /// Reports that a large component is being compiled, which takes long. By default the log has it.
    pub report_compilation: fn(&str),
}

/// The size from which on the compilation of a component is reported, in bytes. Smaller ones take about a second.
const LARGE_COMPONENT: usize = 1 << 20;

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            cache: None,
            max_component_bytes: 32 << 20,
            max_calls: MaxCalls::each(16),
            own_addresses: Vec::new(),
            report_compilation: |text| tracing::info!("{text}"),
        }
    }
}

/// A binding of a plugin, as the configuration describes it.
#[derive(Clone)]
pub struct BindingSpec {
    /// The name of the binding. It is unique in the instance and part of every message.
    pub name: String,
    pub settings: serde_json::Value,
    pub grants: Grants,
    pub limits: Limits,
    /// Required if `grants.kv` is set.
    pub kv: Option<Arc<dyn KvStore>>,
    /// Required if `grants.secrets` is not empty.
    pub secrets: Option<Arc<dyn SecretSource>>,
}

impl BindingSpec {
    /// A binding without grants.
    #[must_use]
    pub fn new(name: impl Into<String>, settings: serde_json::Value, limits: Limits) -> Self {
        Self { name: name.into(), settings, grants: Grants::default(), limits, kv: None, secrets: None }
    }
}

impl std::fmt::Debug for BindingSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BindingSpec").field("name", &self.name).field("grants", &self.grants).finish_non_exhaustive()
    }
}

/// Why the plugin host could not start.
#[derive(Debug, thiserror::Error)]
#[error("the plugin host could not start: {0}")]
pub struct HostError(String);

/// Loads plugins. There is one host per process; all its plugins share its engine, call slots and cache. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Host(Arc<HostState>);

struct HostState {
    sandbox: Sandbox,
    cache: Option<AotCache>,
    max_component_bytes: usize,
    report_compilation: fn(&str),
    own_addresses: Arc<[SocketAddr]>,
    tls: Arc<Tls>,
    /// Compiling uses all cores, so only one component is compiled at a time.
    compiling: Mutex<()>,
}

impl std::fmt::Debug for HostState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// A component whose imports are linked. Its exports are not checked yet.
pub(crate) struct LinkedComponent {
    pub(crate) plugin: Plugin,
    pub(crate) pre: InstancePre<State>,
    component: Component,
    settings: serde_json::Value,
    limits: Limits,
    resources: HostResources,
}

impl Host {
    /// Starts the engine and opens the cache.
    ///
    /// # Errors
    /// [`HostError`] if memory or threads are unavailable, or if the cache directory is accessible to other users.
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        let engine = TickingEngine::start(options.max_calls.sum()).map_err(|error| {
            HostError(format!("{error:#}; plugins need more memory or address space: raise `ulimit -v` or `LimitAS=`"))
        })?;
        let open = |cache| AotCache::open(cache, engine.get());
        let cache = options.cache.map(open).transpose().map_err(HostError)?;
        let sandbox = Sandbox::new(engine, options.max_calls).map_err(|error| HostError(error.to_string()))?;
        Ok(Self(Arc::new(HostState {
            cache,
            sandbox,
            max_component_bytes: options.max_component_bytes,
            report_compilation: options.report_compilation,
            own_addresses: options.own_addresses.into(),
            tls: Arc::default(),
            compiling: Mutex::new(()),
        })))
    }

    /// The call slots of one kind of plugin.
    #[must_use]
    pub fn call_slots(&self, kind: Kind) -> CallSlots {
        self.0.sandbox.slots().count(kind)
    }

    /// Runs a future that calls several plugins in sequence on the guest threads, so that no call has to wait for another thread
    /// to wake up. The future runs to its end, even if the caller stops waiting.
    pub async fn run_on_guest_threads<T: Send + 'static>(&self, calls: impl Future<Output = T> + Send + 'static) -> T {
        self.0.sandbox.threads().run_on_quick(calls).await
    }

    /// Loads a plugin of one kind: links the component, checks its exports with `check_exports`, and binds it.
    ///
    /// # Errors
    /// [`LoadError`] with the cause and the remedy. Nothing stays loaded then.
    pub(crate) async fn load<E>(
        &self,
        component: Vec<u8>,
        kind: Kind,
        spec: &BindingSpec,
        check_exports: impl FnOnce(&LinkedComponent) -> Result<E, LoadFailure>,
    ) -> Result<Loaded<E>, LoadError> {
        let load = async {
            let linked = self.link(component, kind, spec).await?;
            let exports = check_exports(&linked)?;
            Ok(Loaded { bound: self.bind(linked).await?, exports })
        };
        load.await.map_err(|failure| LoadError { binding: spec.name.clone(), failure })
    }

    /// Reads, compiles and links a component. The exports are not checked yet.
    async fn link(&self, bytes: Vec<u8>, kind: Kind, spec: &BindingSpec) -> Result<LinkedComponent, LoadFailure> {
        let manifest = self.inspect(&bytes, kind)?;
        let digest = Digest::of(&bytes);
        let component = self.compile(&spec.name, digest, bytes).await?;
        let engine = self.0.sandbox.engine().get();
        let imports: Vec<String> = component.component_type().imports(engine).map(|(name, _)| name.to_owned()).collect();
        check_binding(&manifest, spec, link::missing_grants(kind, &spec.grants, &imports)?)?;
        let linker = link::linker(engine, kind, &spec.grants).map_err(internal)?;
        let pre = linker.instantiate_pre(&component).map_err(incompatible)?;
        let plugin = Plugin {
            kind,
            binding: spec.name.clone(),
            label: format!("{kind} {:?} ({} {})", spec.name, manifest.name, manifest.version).into(),
            component: digest,
            settings: Digest::of_json(&spec.settings),
            imports: imports.iter().map(|import| sanitize(import, 200)).collect(),
            manifest,
        };
        let resources = self.resources(&plugin.label, spec)?;
        let (settings, limits) = (spec.settings.clone(), spec.limits.clone());
        Ok(LinkedComponent { plugin, pre, component, settings, limits, resources })
    }

    /// Checks everything that the bytes alone reveal.
    fn inspect(&self, bytes: &[u8], kind: Kind) -> Result<Manifest, LoadFailure> {
        if Engine::detect_precompiled(bytes).is_some() {
            return Err(LoadFailure::Precompiled);
        }
        let cap = self.0.max_component_bytes;
        if bytes.len() > cap {
            return Err(LoadFailure::TooLarge { bytes: bytes.len(), cap });
        }
        let manifest = Manifest::of_component(bytes)?;
        if manifest.kind != kind {
            return Err(LoadFailure::OtherKind { is: manifest.kind, wanted: kind });
        }
        Ok(manifest)
    }

    async fn compile(&self, binding: &str, digest: Digest, bytes: Vec<u8>) -> Result<Component, LoadFailure> {
        let (shared, binding) = (self.0.clone(), binding.to_owned());
        let _one_at_a_time = self.0.compiling.lock().await;
        let compiled = tokio::task::spawn_blocking(move || {
            let engine = shared.sandbox.engine().get();
            if let Some(component) = shared.cache.as_ref().and_then(|cache| cache.load(engine, digest)) {
                return Ok(component);
            }
            if bytes.len() >= LARGE_COMPONENT {
                let size = bytes.len().div_ceil(1 << 20);
                (shared.report_compilation)(&format!("compiling plugin {binding} ({size} MiB), which may take a minute"));
            }
            let component = Component::from_binary(engine, &bytes)?;
            if let Some(cache) = &shared.cache {
                cache.store(digest, &component);
            }
            Ok::<_, wasmtime::Error>(component)
        });
        match compiled.await {
            Ok(compiled) => compiled.map_err(|error| compile_failure(&error)),
            Err(panicked) => Err(LoadFailure::Compile(format!("the compiler failed ({panicked})"))),
        }
    }

    fn resources(&self, label: &Arc<str>, spec: &BindingSpec) -> Result<HostResources, LoadFailure> {
        let grants = &spec.grants;
        let missing = |what| LoadFailure::Internal(format!("{what} are granted, but the server provides no source for them"));
        let kv = match (grants.kv, &spec.kv) {
            (false, _) => None,
            (true, Some(store)) => Some((spec.name.as_str().into(), store.clone())),
            (true, None) => return Err(missing("key-value pairs")),
        };
        let secrets = match (grants.secrets.is_empty(), &spec.secrets) {
            (true, _) => None,
            (false, Some(source)) => Some((Arc::<BTreeSet<String>>::new(grants.secrets.clone()), source.clone())),
            (false, None) => return Err(missing("secrets")),
        };
        let outbound = (!grants.egress.is_empty()).then(|| {
            let shared = &self.0;
            Arc::new(Outbound::new(label.clone(), grants.egress.clone(), shared.own_addresses.clone(), shared.tls.clone()))
        });
        Ok(HostResources { kv, secrets, outbound, source: None })
    }

    /// The final checks. They run code of the plugin, under its real limits.
    async fn bind(&self, linked: LinkedComponent) -> Result<BoundPlugin, LoadFailure> {
        let bound = BoundPlugin {
            sandbox: self.0.sandbox.clone(),
            settings: canonical_json(&linked.settings).into(),
            plugin: Arc::new(linked.plugin),
            limits: linked.limits,
            resources: linked.resources,
            slowness: Arc::default(),
        };
        let pre = linked.pre;
        let trial = bound.call(move |store| Box::pin(async move { pre.instantiate_async(store).await.map(drop) })).await;
        trial.result.map_err(LoadFailure::Trial)?;
        self.validate_settings(&bound, &linked.component).await?;
        Ok(bound)
    }

    /// Lets the plugin validate its settings, with nothing linked but the log.
    async fn validate_settings(&self, bound: &BoundPlugin, component: &Component) -> Result<(), LoadFailure> {
        let mut linker = link::pure_linker(self.0.sandbox.engine().get()).map_err(internal)?;
        linker.define_unknown_imports_as_traps(component).map_err(incompatible)?;
        let pre = linker.instantiate_pre(component).and_then(AnyPluginPre::new).map_err(incompatible)?;
        let settings = bound.settings.clone();
        let checked = bound.call(move |store| {
            Box::pin(async move {
                let plugin = pre.instantiate_async(&mut *store).await?;
                plugin.beespace_plugin_lifecycle().call_validate_config(&mut *store, &settings).await
            })
        });
        match checked.await.result.map_err(LoadFailure::Trial)? {
            Ok(()) => Ok(()),
            Err(diagnostics) => Err(LoadFailure::Settings(diagnostic::from_wit(diagnostics))),
        }
    }
}

/// Compares the settings with the manifest's schema and with the grants. `missing` are the grants that the imports need. All
/// problems are reported together.
fn check_binding(manifest: &Manifest, spec: &BindingSpec, mut missing: Vec<NeededGrant>) -> Result<(), LoadFailure> {
    let mut problems = Vec::new();
    if let Some(schema) = &manifest.config_schema {
        problems = Schema::new(schema).map_err(LoadFailure::Schema)?.diagnostics(&spec.settings);
        if manifest.kind == Kind::Notifier {
            for (grant, problem) in setting_grants::uncovered(schema, &spec.settings, &spec.grants) {
                // The problem names what to grant, which the import alone does not reveal.
                missing.retain(|other| *other != grant);
                problems.push(problem);
            }
        }
    }
    let grants = (!missing.is_empty()).then_some(LoadFailure::MissingGrants(missing));
    let settings = (!problems.is_empty()).then_some(LoadFailure::Settings(problems));
    match (grants, settings) {
        (None, None) => Ok(()),
        (Some(only), None) | (None, Some(only)) => Err(only),
        (Some(grants), Some(settings)) => Err(LoadFailure::Several(vec![grants, settings])),
    }
}

pub(crate) fn incompatible(error: wasmtime::Error) -> LoadFailure {
    LoadFailure::Incompatible(sanitize(&format!("{error:#}"), 1 << 10))
}

fn internal(error: wasmtime::Error) -> LoadFailure {
    LoadFailure::Internal(format!("{error:#}"))
}
