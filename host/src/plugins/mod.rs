//! The plugins of this instance, bound according to the configuration. All plugins are loaded, tried and their settings validated
//! before the server is ready. A plugin that cannot be loaded prevents the start, because a missing policy cannot deny anything.

mod bundled;
mod busy;
mod host_functions;
mod plugin_log;
mod secret_scope;

use std::collections::BTreeMap;
use std::sync::Arc;

use beespace_core::digest::Digest;
use beespace_core::policy::chain::Binding;
use beespace_core::policy::pointer::PathGrant;
use beespace_core::policy::{Mode, Point};
use beespace_core::rule_set::{BoundPlugin, PolicyRule, RuleSet};
use beespace_wasm::{
    AddressClass, BindingSpec, EgressRule, Grants, Host, HostOptions, Limits, LoadError, LoadFailure, MaxCalls, Notifier, Plugin,
    PluginDiagnostic, Policy, StepType,
};

pub use bundled::{BUNDLED, bundled};
pub use busy::when_free;
pub use plugin_log::forward_log;
pub use secret_scope::move_granted_secrets;

use crate::config::{self, Config, LimitsConfig, NotifierBinding, PluginBinding, PluginSource, PolicyBinding};
use crate::encryption::Key;
use crate::store::Store;

/// The number of notices that one notifier sends at once. A receiver that hangs occupies these slots and no other notifier's.
pub const SLOTS_PER_NOTIFIER: usize = 4;

/// The number of notices that this many notifiers send at once. Notices whose notifier is no longer configured have slots of
/// their own.
#[must_use]
pub fn send_slots(notifiers: usize) -> usize {
    SLOTS_PER_NOTIFIER * (notifiers + 1)
}

/// Calls of policies, and of step types, that run at once. A call takes about a millisecond; a plugin that loops endlessly takes
/// up to ten seconds, and other calls go on beside it.
const MAX_CALLS: u32 = 24;

/// The options of the plugin host that follow from the configuration. A kind of plugin that is not bound takes no address space.
#[must_use]
pub fn host_options(config: &Config) -> HostOptions {
    let calls = |bindings: usize, calls: u32| if bindings == 0 { 0 } else { calls };
    // Notifiers wait for their receivers. Each has slots of its own, so that one that hangs delays no other.
    let sending = u32::try_from(send_slots(config.notifiers.len())).unwrap_or(u32::MAX);
    let max_calls = MaxCalls {
        policies: calls(config.policies.len(), MAX_CALLS),
        step_types: calls(config.steps.len(), MAX_CALLS),
        notifiers: calls(config.notifiers.len(), sending),
    };
    let max_component_bytes = usize::try_from(config.plugins.component_bytes).unwrap_or(usize::MAX);
    HostOptions { max_calls, max_component_bytes, ..HostOptions::default() }
}

/// Everything that was bound, ready to be called.
#[derive(Debug, Default)]
pub struct Plugins {
    /// In the order of the configuration, which is the order of evaluation.
    pub policies: Vec<BoundPolicy>,
    pub step_types: BTreeMap<String, StepType>,
    pub notifiers: BTreeMap<String, Notifier>,
}

/// A policy with its mode and the paths that it may patch.
#[derive(Debug)]
pub struct BoundPolicy {
    pub policy: Policy,
    pub mode: Mode,
    pub mutable: BTreeMap<Point, Vec<PathGrant>>,
}

/// A binding whose plugin could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{at}: [[{section}]] {name:?}: {reason}")]
pub struct BindingError {
    /// `FILE:LINE` of the binding, or of the setting that is wrong.
    pub at: String,
    pub section: &'static str,
    pub name: String,
    pub reason: String,
}

/// Why one binding could not be loaded.
#[derive(Debug)]
enum Unloadable {
    /// Its settings are wrong.
    Settings(Vec<PluginDiagnostic>),
    Other(String),
    Several(Vec<Self>),
}

impl From<String> for Unloadable {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

impl From<LoadError> for Unloadable {
    fn from(error: LoadError) -> Self {
        error.failure.into()
    }
}

impl From<LoadFailure> for Unloadable {
    fn from(failure: LoadFailure) -> Self {
        match failure {
            LoadFailure::Settings(problems) => Self::Settings(problems),
            LoadFailure::Several(all) => Self::Several(all.into_iter().map(Self::from).collect()),
            other => Self::Other(other.to_string()),
        }
    }
}

impl Plugins {
    /// Loads every binding of the configuration.
    ///
    /// # Errors
    /// All bindings that could not be loaded, not only the first.
    pub async fn load(config: &Config, host: &Host, store: &Store, key: &Arc<Key>) -> Result<Self, Vec<BindingError>> {
        let mut plugins = Self::default();
        let mut errors = Vec::new();
        for binding in config.policies.iter().filter(|binding| is_available(binding)) {
            match load_policy(config, host, binding).await {
                Ok(policy) => plugins.policies.push(policy),
                Err(why) => errors.extend(binding_errors("policy", &binding.plugin, why)),
            }
        }
        for binding in &config.steps {
            match load_step_type(config, host, binding).await {
                Ok(step_type) => drop(plugins.step_types.insert(binding.name.clone(), step_type)),
                Err(why) => errors.extend(binding_errors("step", binding, why)),
            }
        }
        for binding in &config.notifiers {
            match load_notifier(config, host, binding, (store, key)).await {
                Ok(notifier) => drop(plugins.notifiers.insert(binding.plugin.name.clone(), notifier)),
                Err(why) => errors.extend(binding_errors("notifier", &binding.plugin, why)),
            }
        }
        if errors.is_empty() { Ok(plugins) } else { Err(errors) }
    }

    /// The policies that are evaluated at `point`, in the form that the policy chain needs.
    #[must_use]
    pub fn policies_at(&self, point: Point) -> Vec<((Policy, Mode), Binding)> {
        let policies = self.policies.iter().filter(|bound| bound.policy.applies_at(point));
        policies.map(|bound| ((bound.policy.clone(), bound.mode), bound.binding(point))).collect()
    }

    /// The rules that decisions are made under.
    #[must_use]
    pub fn rule_set(&self, limits: &LimitsConfig) -> RuleSet {
        let bound = |plugin: &Plugin| BoundPlugin { component: plugin.component, settings: plugin.settings };
        let step_types = self.step_types.iter().map(|(name, step_type)| (name.clone(), bound(step_type.plugin())));
        RuleSet {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policies: self.policies.iter().map(BoundPolicy::rule).collect(),
            step_types: step_types.collect(),
            limits: limits.of_container(),
        }
    }

    /// Every plugin that is bound, for pages and `doctor`.
    pub fn all(&self) -> impl Iterator<Item = &Plugin> {
        let policies = self.policies.iter().map(|bound| bound.policy.plugin());
        policies.chain(self.step_types.values().map(StepType::plugin)).chain(self.notifiers.values().map(Notifier::plugin))
    }
}

impl BoundPolicy {
    fn rule(&self) -> PolicyRule {
        let plugin = self.policy.plugin();
        let paths = |grants: &Vec<PathGrant>| grants.iter().map(ToString::to_string).collect();
        PolicyRule {
            name: plugin.binding.clone(),
            plugin: BoundPlugin { component: plugin.component, settings: plugin.settings },
            mode: self.mode,
            mutable: self.mutable.iter().map(|(point, grants)| (*point, paths(grants))).collect(),
        }
    }

    fn binding(&self, point: Point) -> Binding {
        let plugin = self.policy.plugin();
        Binding {
            policy: plugin.binding.clone(),
            component: plugin.component,
            settings: plugin.settings,
            mode: self.mode,
            mutable: self.mutable.get(&point).cloned().unwrap_or_default(),
        }
    }
}

/// Whether a policy can be loaded: not the default one in a binary for development that embeds no plugins. `doctor` reports that.
fn is_available(binding: &PolicyBinding) -> bool {
    !binding.is_default || matches!(&binding.plugin.source, PluginSource::Named(name) if bundled(name).is_some())
}

/// The limits of one kind of plugin, with the memory of the configuration.
fn limits(config: &Config, of_kind: Limits) -> Limits {
    Limits { memory_bytes: usize::try_from(config.plugins.memory).unwrap_or(usize::MAX), ..of_kind }
}

/// One error for each wrong setting, else one for the binding.
fn binding_errors(section: &'static str, binding: &PluginBinding, why: Unloadable) -> Vec<BindingError> {
    let error = |at, reason| BindingError { at, section, name: binding.name.clone(), reason };
    match why {
        Unloadable::Other(reason) => vec![error(binding.lines.of_binding(), reason)],
        Unloadable::Several(all) => all.into_iter().flat_map(|why| binding_errors(section, binding, why)).collect(),
        Unloadable::Settings(problems) => {
            let of_problem = |problem: &PluginDiagnostic| {
                let pointer = problem.pointer.as_deref().unwrap_or_default();
                let key = pointer.replace('/', ".");
                error(binding.lines.of_setting(pointer), format!("`settings{key}`: {}", problem.message))
            };
            problems.iter().map(of_problem).collect()
        }
    }
}

async fn load_policy(config: &Config, host: &Host, binding: &PolicyBinding) -> Result<BoundPolicy, Unloadable> {
    let mut mutable = BTreeMap::new();
    for (point, paths) in &binding.mutate {
        let grants: Result<Vec<PathGrant>, _> = paths.iter().map(|path| path.parse()).collect();
        mutable.insert(*point, grants.map_err(|error| format!("`mutate`: {error}"))?);
    }
    let spec = BindingSpec::new(&binding.plugin.name, binding.plugin.settings.clone(), limits(config, Limits::policy()));
    let policy = host.load_policy(component(&binding.plugin).await?, spec).await?;
    Ok(BoundPolicy { policy, mode: binding.mode, mutable })
}

async fn load_step_type(config: &Config, host: &Host, binding: &PluginBinding) -> Result<StepType, Unloadable> {
    let spec = BindingSpec::new(&binding.name, binding.settings.clone(), limits(config, Limits::step_type()));
    Ok(host.load_step_type(component(binding).await?, spec).await?)
}

async fn load_notifier(
    config: &Config,
    host: &Host,
    binding: &NotifierBinding,
    (store, key): (&Store, &Arc<Key>),
) -> Result<Notifier, Unloadable> {
    let egress = binding.grants.hosts.iter().map(egress_rule).collect::<Result<Vec<_>, _>>()?;
    let hosts = egress.iter().map(|rule| rule.host.clone()).collect();
    let mut spec = BindingSpec::new(&binding.plugin.name, binding.plugin.settings.clone(), limits(config, Limits::notifier()));
    spec.secrets = Some(Arc::new(host_functions::PluginSecrets { store: store.clone(), key: Arc::clone(key), hosts }));
    spec.kv = Some(Arc::new(host_functions::StoredValues { store: store.clone() }));
    let secrets = binding.grants.secrets.iter().cloned().collect();
    spec.grants = Grants { egress, secrets, secrets_reveal: false, kv: binding.grants.kv };
    Ok(host.load_notifier(component(&binding.plugin).await?, spec).await?)
}

fn egress_rule(grant: &config::HostGrant) -> Result<EgressRule, String> {
    let class = match grant.addresses {
        config::AddressClass::Public => AddressClass::Public,
        config::AddressClass::Private => AddressClass::Private,
        config::AddressClass::Loopback => AddressClass::Loopback,
    };
    EgressRule::parse(grant.url.as_str().trim_end_matches('/'), class).map_err(|error| format!("`grants.hosts`: {error}"))
}

/// Reads the component and compares it with the pinned digest, if there is one.
async fn component(binding: &PluginBinding) -> Result<Vec<u8>, String> {
    let bytes = match &binding.source {
        PluginSource::Named(name) => bundled(name).map(<[u8]>::to_vec).ok_or_else(|| unknown_plugin(name))?,
        PluginSource::File(path) => {
            tokio::fs::read(path).await.map_err(|error| format!("{} cannot be read: {error}", path.display()))?
        }
    };
    let digest = Digest::of(&bytes);
    match binding.sha256 {
        Some(pinned) if pinned != digest => Err(format!(
            "the component has the digest {digest}, but `sha256` pins {pinned}; check its origin before you change the pin"
        )),
        _ => Ok(bytes),
    }
}

fn unknown_plugin(name: &str) -> String {
    let names: Vec<&str> = BUNDLED.iter().map(|(name, _)| *name).collect();
    if names.is_empty() {
        return format!("unknown plugin {name:?}: this binary has no bundled plugins; set `plugin` to the path of a file");
    }
    format!(
        "unknown plugin {name:?}; the bundled plugins are {}; a path to a file ends with `.wasm` or contains a `/`",
        names.join(", ")
    )
}
