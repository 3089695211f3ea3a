//! The composition root: what lives long, and who knows whom.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use beespace_core::build::Build;
use beespace_core::ids::BuildId;
use beespace_wasm::{CacheOptions, Host, HostOptions};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::admin_token::AdminToken;
use crate::config::{Config, EngineKind};
use crate::disk;
use crate::engine::docker::{Docker, DockerOptions, Timeouts};
use crate::engine::dummy::Dummy;
use crate::engine::fail_points;
use crate::engine::{Engine, HealthCache};
use crate::forge::{Enabler, Forge, HookLocks};
use crate::log::LogStore;
use crate::notify;
use crate::plugins::Plugins;
use crate::seal::Key;
use crate::source::Mirrors;
use crate::store::build::Builds as _;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use crate::worker::Heartbeats;

/// Everything that lives as long as the server.
#[derive(Debug)]
pub struct App {
    pub config: Config,
    pub store: Store,
    pub key: Arc<Key>,
    pub admin_token: AdminToken,
    pub forge: Forge,
    /// Enables and disables repositories.
    pub enabler: Enabler,
    pub mirrors: Mirrors,
    pub plugins: Plugins,
    /// What the plugins run in.
    pub host: Host,
    pub engine: Arc<dyn Engine>,
    pub engine_health: HealthCache,
    pub logs: LogStore,
    pub metrics: Metrics,
    pub heartbeats: Heartbeats,
    pub stopping: CancellationToken,
}

/// How long a process that was killed may take to let go of what is ours now: a program that it was just starting holds the store until it has
/// begun, and a git that it started writes on in its scratch directory.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

impl App {
    /// Opens and loads everything. What fails here stops the start, with a text that says what to do.
    ///
    /// # Errors
    /// The first thing that cannot be had.
    pub async fn open(config: Config) -> anyhow::Result<Arc<Self>> {
        let dir = config.data.dir.clone();
        make_private(&dir).with_context(|| format!("the data directory {} cannot be used", dir.display()))?;
        let store = open_store(&dir.join("beespace.redb")).await?;
        // Behind the store's lock: no other server uses what lies there.
        clear_directory(&dir.join("scratch")).await?;
        let key = Arc::new(Key::load_or_create(&config.data.key_path(), store.read()?.key_id()?)?);
        store.put_key_id(key.id()).await?;
        let instance = store.instance_id().await?;
        let engine = open_engine(&config, instance)?;
        let cache = CacheOptions { dir: dir.join("aot"), key: Zeroizing::new(key.derive("aot").to_vec()) };
        let host = Host::new(host_options(&config, cache))?;
        let plugins = Plugins::load(&config, &host, &store, &key).await.map_err(|bad| {
            let all: Vec<String> = bad.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("plugins cannot be loaded:\n  {}", all.join("\n  "))
        })?;
        let forge = Forge::new(config.gogs.url.clone(), config.gogs.token.clone(), config.gogs.ca_file.as_deref())?;
        Ok(Arc::new(Self {
            admin_token: AdminToken::load_or_create(&config.data.admin_token_path())?,
            enabler: Enabler {
                forge: forge.clone(),
                store: store.clone(),
                seal: Key::clone(&key),
                hook_base: config.server.hook_base().clone(),
                locks: HookLocks::default(),
            },
            engine_health: HealthCache::default(),
            forge,
            mirrors: Mirrors::new(dir.join("mirrors"), dir.join("home"), config.gogs.ca_file.clone()),
            logs: LogStore::new(dir.join(disk::LOGS_DIR)),
            metrics: Metrics::default(),
            heartbeats: Heartbeats::default(),
            stopping: CancellationToken::new(),
            config,
            store,
            key,
            plugins,
            host,
            engine,
        }))
    }

    /// The build's row.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn build(&self, id: BuildId) -> Result<Build, StoreError> {
        self.store.read()?.build(id)?.ok_or(StoreError::NotFound("build"))
    }
}

async fn open_store(path: &Path) -> Result<Store, StoreError> {
    let give_up = Instant::now() + RELEASE_TIMEOUT;
    loop {
        match Store::open(path) {
            Err(StoreError::InUse(_)) if Instant::now() < give_up => sleep(RETRY_INTERVAL).await,
            opened => return opened,
        }
    }
}

fn host_options(config: &Config, cache: CacheOptions) -> HostOptions {
    let usual = HostOptions::default();
    // Calls of notifiers wait for others. They come on top, so that a policy finds a place while all of them hang.
    let sending = u32::try_from(notify::send_slots(config.notifiers.len())).unwrap_or(u32::MAX);
    let max_running = usual.max_running.saturating_add(sending);
    let own_addresses = std::iter::once(config.server.listen).chain(engine_addresses(&config.engine.host)).collect();
    HostOptions { cache: Some(cache), own_addresses, max_running, ..usual }
}

/// Where the engine listens, where that is not a socket of this machine: no plugin is to reach it.
fn engine_addresses(host: &str) -> Vec<SocketAddr> {
    let Some(address) = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")) else { return Vec::new() };
    // One that is not known now is not known to its client either.
    address.trim_end_matches('/').to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}

fn open_engine(config: &Config, instance: uuid::Uuid) -> anyhow::Result<Arc<dyn Engine>> {
    let engine: Arc<dyn Engine> = match config.engine.kind {
        EngineKind::Docker => Arc::new(Docker::new(docker_options(config, instance))?),
        EngineKind::Dummy => Arc::new(Dummy::new()),
    };
    Ok(fail_points::wrap(engine))
}

/// From TERM to KILL: what Docker itself gives.
const STOP_GRACE: Duration = Duration::from_secs(10);

fn docker_options(config: &Config, instance: uuid::Uuid) -> DockerOptions {
    DockerOptions {
        host: config.engine.host.clone(),
        instance: instance.as_simple().to_string(),
        memory: config.limits.step_memory,
        pids: u32::from(config.limits.step_pids.get()),
        // Each line has some bytes of the engine's own around it in its copy.
        log_bytes: config.limits.log_size.saturating_mul(2),
        network_pool: config.engine.network_pool,
        metadata_access: config.engine.metadata_access,
        grace: STOP_GRACE,
        waits: Timeouts::default(),
    }
}

/// What a process before this one worked on there when it ended is of no use to anybody.
async fn clear_directory(dir: &Path) -> anyhow::Result<()> {
    use std::io::ErrorKind;
    let give_up = Instant::now() + RELEASE_TIMEOUT;
    loop {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && Instant::now() < give_up => sleep(RETRY_INTERVAL).await,
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} cannot be emptied", dir.display()));
            }
            _ => return Ok(()),
        }
    }
}

/// The directory exists and belongs to the server alone.
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_process_before_still_writes_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = folder.path().join("scratch");
        std::fs::create_dir_all(scratch.join("checkout")).unwrap();
        let (began, writes) = (Instant::now(), scratch.join("checkout"));
        let write = move || {
            let mut files = 0_u32;
            while began.elapsed() < RETRY_INTERVAL * 12 {
                files += 1;
                let _ = std::fs::create_dir_all(&writes);
                // What it is in may go in between.
                let _ = std::fs::write(writes.join(files.to_string()), "");
            }
        };
        let writer = tokio::task::spawn_blocking(write);
        while !scratch.join("checkout/1").exists() {
            tokio::task::yield_now().await;
        }
        let mut emptied = 0;
        while !writer.is_finished() {
            clear_directory(&scratch).await.unwrap();
            emptied += 1;
        }
        writer.await.unwrap();
        clear_directory(&scratch).await.unwrap();
        assert!(!scratch.exists() && emptied > 0);
    }

    #[test]
    fn an_engine_that_listens_is_out_of_reach_for_plugins() {
        assert_eq!(engine_addresses("unix:///var/run/docker.sock"), []);
        assert_eq!(engine_addresses("tcp://127.0.0.1:2375"), [SocketAddr::from(([127, 0, 0, 1], 2375))]);
        let named = engine_addresses("tcp://localhost:2375/");
        assert!(named.contains(&SocketAddr::from(([127, 0, 0, 1], 2375))), "{named:?}");
    }
}
