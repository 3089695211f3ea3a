//! What pages and API work with: the parts of the running server that people may touch.

use std::sync::Arc;

use beespace_core::digest::Digest;
use beespace_core::time::Timestamp;
use beespace_wasm::{Host, Plugin};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use crate::clock;
use crate::config::Config;
use crate::engine::{Engine, HealthCache};
use crate::forge::Enabler;
use crate::log::LogStore;
use crate::seal::Key;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::worker::Heartbeats;

/// The state of every handler of pages and API.
#[derive(Debug, Clone)]
pub struct AppState {
    pub config: Arc<Config>,
    pub store: Store,
    pub logs: LogStore,
    pub key: Arc<Key>,
    /// Makes and removes hooks; knows Gogs.
    pub enabler: Enabler,
    pub engine: Arc<dyn Engine>,
    /// What it said of itself last.
    pub engine_health: HealthCache,
    /// Every plugin that is bound; all of them are loaded, or the server would not have started.
    pub plugins: Arc<[Plugin]>,
    /// What the plugins run in.
    pub host: Host,
    /// How the workers do.
    pub heartbeats: Heartbeats,
    pub metrics: Metrics,
    /// Whoever has it may do everything.
    pub admin_token: SecretString,
}

impl AppState {
    /// Compares in constant time; both sides are hashed first, so that not even lengths show.
    #[must_use]
    pub fn is_admin_token(&self, token: &str) -> bool {
        let expected = Digest::of(self.admin_token.expose_secret());
        Digest::of(token).0.ct_eq(&expected.0).into()
    }

    /// The present, as rows and pages write it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        clock::now()
    }
}
