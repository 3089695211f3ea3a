//! The plugins of this instance, bound according to the configuration. All plugins are loaded, tried and their settings validated
//! before the server is ready. A plugin that cannot be loaded prevents the start, because a missing policy cannot deny anything.

mod bundled;
mod host_functions;
mod plugin_log;

use std::collections::BTreeMap;
use std::sync::Arc;

use beespace_core::digest::Digest;
use beespace_core::policy::chain::Binding;
use beespace_core::policy::pointer::PathGrant;
use beespace_core::policy::{Mode, Point};
use beespace_wasm::{AddressClass, BindingSpec, EgressRule, Grants, Host, Limits, Notifier, Plugin, Policy, StepType};

pub use bundled::{BUNDLED, bundled};
pub use plugin_log::forward_log;

use crate::config::{self, Config, NotifierBinding, PluginBinding, PluginSource, PolicyBinding};
use crate::seal::Key;
use crate::store::Store;

/// The number of notices that one notifier sends at once. A receiver that hangs occupies these slots and no other notifier's.
pub const SLOTS_PER_NOTIFIER: usize = 4;

/// The number of notices that this many notifiers send at once. Notices whose notifier is no longer configured have slots of
/// their own.
#[must_use]
pub fn send_slots(notifiers: usize) -> usize {
    SLOTS_PER_NOTIFIER * (notifiers + 1)
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
#[error("[[{section}]] {name:?}: {reason}")]
pub struct BindingError {
    pub section: &'static str,
    pub name: String,
    pub reason: String,
}

impl Plugins {
    /// Loads every binding of the configuration.
    ///
    /// # Errors
    /// All bindings that could not be loaded, not only the first.
    pub async fn load(config: &Config, host: &Host, store: &Store, key: &Arc<Key>) -> Result<Self, Vec<BindingError>> {
        let mut plugins = Self::default();
        let mut errors = Vec::new();
        for binding in &config.policies {
            match load_policy(host, binding).await {
                Ok(policy) => plugins.policies.push(policy),
                Err(reason) => errors.push(binding_error("policy", &binding.plugin, reason)),
            }
        }
        for binding in &config.steps {
            match load_step_type(host, binding).await {
                Ok(step_type) => drop(plugins.step_types.insert(binding.name.clone(), step_type)),
                Err(reason) => errors.push(binding_error("step", binding, reason)),
            }
        }
        for binding in &config.notifiers {
            match load_notifier(host, binding, store, key).await {
                Ok(notifier) => drop(plugins.notifiers.insert(binding.plugin.name.clone(), notifier)),
                Err(reason) => errors.push(binding_error("notifier", &binding.plugin, reason)),
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

    /// Every plugin that is bound, for pages and `doctor`.
    pub fn all(&self) -> impl Iterator<Item = &Plugin> {
        let policies = self.policies.iter().map(|bound| bound.policy.plugin());
        policies.chain(self.step_types.values().map(StepType::plugin)).chain(self.notifiers.values().map(Notifier::plugin))
    }
}

impl BoundPolicy {
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

fn binding_error(section: &'static str, binding: &PluginBinding, reason: String) -> BindingError {
    BindingError { section, name: binding.name.clone(), reason }
}

async fn load_policy(host: &Host, binding: &PolicyBinding) -> Result<BoundPolicy, String> {
    let mut mutable = BTreeMap::new();
    for (point, paths) in &binding.mutate {
        let grants: Result<Vec<PathGrant>, _> = paths.iter().map(|path| path.parse()).collect();
        mutable.insert(*point, grants.map_err(|error| format!("`mutate`: {error}"))?);
    }
    let spec = BindingSpec::new(&binding.plugin.name, binding.plugin.settings.clone(), Limits::policy());
    let policy = host.load_policy(component(&binding.plugin).await?, spec).await.map_err(load_failure)?;
    Ok(BoundPolicy { policy, mode: binding.mode, mutable })
}

async fn load_step_type(host: &Host, binding: &PluginBinding) -> Result<StepType, String> {
    let spec = BindingSpec::new(&binding.name, binding.settings.clone(), Limits::step_type());
    host.load_step_type(component(binding).await?, spec).await.map_err(load_failure)
}

async fn load_notifier(host: &Host, binding: &NotifierBinding, store: &Store, key: &Arc<Key>) -> Result<Notifier, String> {
    let egress = binding.grants.hosts.iter().map(egress_rule).collect::<Result<Vec<_>, _>>()?;
    let hosts = egress.iter().map(|rule| rule.host.clone()).collect();
    let mut spec = BindingSpec::new(&binding.plugin.name, binding.plugin.settings.clone(), Limits::notifier());
    spec.secrets = Some(Arc::new(host_functions::InstanceSecrets { store: store.clone(), key: Arc::clone(key), hosts }));
    spec.kv = Some(Arc::new(host_functions::StoredValues { store: store.clone() }));
    let secrets = binding.grants.secrets.iter().cloned().collect();
    spec.grants = Grants { egress, secrets, secrets_reveal: false, kv: binding.grants.kv };
    host.load_notifier(component(&binding.plugin).await?, spec).await.map_err(load_failure)
}

fn egress_rule(grant: &config::HostGrant) -> Result<EgressRule, String> {
    let class = match grant.addresses {
        config::AddressClass::Public => AddressClass::Public,
        config::AddressClass::Private => AddressClass::Private,
        config::AddressClass::Loopback => AddressClass::Loopback,
    };
    EgressRule::parse(grant.url.as_str().trim_end_matches('/'), class).map_err(|error| format!("`grants.hosts`: {error}"))
}

fn load_failure(error: beespace_wasm::LoadError) -> String {
    error.failure.to_string()
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
