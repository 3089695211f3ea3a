//! The composition root: creates the long-lived components and connects them.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use beespace_core::build::Build;
use beespace_core::digest::Digest;
use beespace_core::error_cause::root_cause;
use beespace_core::ids::BuildId;
use beespace_wasm::{CacheOptions, Host, HostOptions};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use url::Url;
use zeroize::Zeroizing;

use crate::admin_token::AdminToken;
use crate::clock::now;
use crate::config::{Config, DockerConfig, EngineKind};
use crate::disk;
use crate::encryption::Key;
use crate::engine::docker::{Docker, DockerOptions, Timeouts};
use crate::engine::dummy::Dummy;
use crate::engine::fail_points;
use crate::engine::{Engine, HealthCache};
use crate::forge::{Enabler, Forge, HookLocks};
use crate::log::LogStore;
use crate::plugins::{self, Plugins};
use crate::source::{Mirrors, Scratch, SourceLimits};
use crate::store::build::Builds as _;
use crate::store::repository::Repositories as _;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use crate::urls::Urls;
use crate::worker::Heartbeats;

/// The folder of unfinished checkouts in the data directory.
const SCRATCH_DIR: &str = "scratch";

/// Everything that lives as long as the server.
#[derive(Debug)]
pub struct App {
    pub config: Config,
    /// The id of this data directory.
    pub instance: uuid::Uuid,
    pub store: Store,
    pub key: Arc<Key>,
    pub admin_token: AdminToken,
    pub forge: Forge,
    /// Enables and disables repositories.
    pub enabler: Enabler,
    pub mirrors: Mirrors,
    pub plugins: Plugins,
    /// Digest of the rules under which decisions are made. They cannot change while the server runs.
    pub rules: Digest,
    /// The runtime of the plugins.
    pub host: Host,
    pub engine: Arc<dyn Engine>,
    pub engine_health: HealthCache,
    /// One permit for each container that runs.
    pub container_slots: Arc<Semaphore>,
    pub logs: LogStore,
    pub metrics: Metrics,
    pub heartbeats: Heartbeats,
    pub stopping: CancellationToken,
    /// The paths of pages and of the API as clients see them.
    pub urls: Urls,
}

/// How long the children of a killed process may keep resources in use: a child that was just being started holds the
/// store's lock until it executes its program, and a git child may still write to the scratch directory.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How much longer than a stage can run a replaced value of a secret is kept: time for cleanup rounds and for a slow engine.
const REPLACED_SECRETS_MARGIN: Duration = Duration::from_secs(3_600);

/// Why the server cannot start, with a remedy.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    pub message: String,
    pub help: String,
}

impl App {
    /// Opens and loads every component. A failure stops the start of the server.
    ///
    /// # Errors
    /// The first component that cannot be opened, and what to do; a [`StartError`] has the remedy apart.
    pub async fn open(config: Config) -> anyhow::Result<Arc<Self>> {
        let dir = config.data.dir.clone();
        make_private(&dir).map_err(|error| unusable_data_directory(&dir, &error))?;
        let store = open_store(&dir.join("beespace.redb")).await?;
        // Only after the store is locked: then no other server uses the directory.
        clear_directory(&dir.join(SCRATCH_DIR)).await?;
        let key = Arc::new(Key::load_or_create(&config.data.key_path(), store.read()?.key_id()?)?);
        store.put_key_id(key.id()).await?;
        let instance = store.instance_id().await?;
        let engine = open_engine(&config, instance)?;
        let cache = CacheOptions { dir: dir.join("aot"), key: Zeroizing::new(key.derive("aot").to_vec()) };
        let host = Host::new(host_options(&config, cache))?;
        plugins::move_granted_secrets(&store, &key, &config.notifiers).await?;
        store.forget_replaced_secrets(config.limits.stage_timeout + REPLACED_SECRETS_MARGIN, now()).await?;
        let plugins = Plugins::load(&config, &host, &store, &key).await.map_err(|bad| {
            let all: Vec<String> = bad.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("cannot load plugins:\n  {}", all.join("\n  "))
        })?;
        store.set_notifiers(plugins.notifiers.keys().cloned());
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
            container_slots: Arc::new(Semaphore::new(usize::from(config.limits.containers.get()))),
            forge,
            mirrors: Mirrors::new(dir.join("mirrors"), dir.join("home"), config.gogs.ca_file.clone())
                .with_limits(source_limits(&config)),
            logs: LogStore::new(dir.join(disk::LOGS_DIR)),
            metrics: Metrics::default(),
            heartbeats: Heartbeats::default(),
            stopping: CancellationToken::new(),
            urls: Urls::new(&config.server.public_url),
            rules: plugins.rule_set(&config.limits).digest(),
            config,
            instance,
            store,
            key,
            plugins,
            host,
            engine,
        }))
    }

    /// A build's row.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn build(&self, id: BuildId) -> Result<Build, StoreError> {
        self.store.read()?.build(id)?.ok_or(StoreError::NotFound("build"))
    }

    /// The clone URL of the build's repository under its present name: it may have been renamed since the event, and Gogs
    /// does not redirect from old names.
    #[must_use]
    pub fn clone_url(&self, build: &Build) -> Url {
        let repository = &build.event.repository;
        let known = self.store.read().and_then(|read| read.repository(repository.id)).ok().flatten();
        self.forge.clone_url(known.as_ref().map_or(&repository.name, |known| &known.name))
    }

    /// The place of checkouts that are being made. A start of the server clears it.
    #[must_use]
    pub fn scratch(&self) -> Scratch {
        Scratch { directory: self.config.data.dir.join(SCRATCH_DIR), reserve: self.config.limits.free_disk }
    }
}

async fn open_store(path: &Path) -> Result<Store, StoreError> {
    let give_up = Instant::now() + RELEASE_TIMEOUT;
    let mut is_waiting = false;
    loop {
        match Store::open(path) {
            Err(in_use @ StoreError::InUse(_)) if Instant::now() < give_up => {
                if !std::mem::replace(&mut is_waiting, true) {
                    tracing::info!(%in_use, "waiting for the store");
                }
                sleep(RETRY_INTERVAL).await;
            }
            opened => return opened,
        }
    }
}

fn source_limits(config: &Config) -> SourceLimits {
    let limits = &config.limits;
    SourceLimits {
        git_memory: limits.git_memory,
        checkout_files: limits.checkout_files.get().into(),
        checkout_bytes: limits.checkout_bytes,
    }
}

fn host_options(config: &Config, cache: CacheOptions) -> HostOptions {
    let engine = config.engine.host().map(engine_addresses).unwrap_or_default();
    let own_addresses = std::iter::once(config.server.listen).chain(engine).collect();
    HostOptions { cache: Some(cache), own_addresses, ..plugins::host_options(config) }
}

/// The engine's addresses, if it listens on TCP: plugins must not reach it.
fn engine_addresses(host: &str) -> Vec<SocketAddr> {
    let Some(address) = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")) else { return Vec::new() };
    // A host name that cannot be resolved now cannot be reached by the engine's client either.
    address.trim_end_matches('/').to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}

fn open_engine(config: &Config, instance: uuid::Uuid) -> anyhow::Result<Arc<dyn Engine>> {
    let engine: Arc<dyn Engine> = match &config.engine.kind {
        EngineKind::Docker(docker) => Arc::new(Docker::new(docker_options(config, docker, instance))?),
        EngineKind::Dummy => Arc::new(Dummy::new()),
    };
    Ok(fail_points::wrap(engine))
}

/// The time between TERM and KILL, as in Docker's own default.
const STOP_GRACE: Duration = Duration::from_secs(10);

fn docker_options(config: &Config, docker: &DockerConfig, instance: uuid::Uuid) -> DockerOptions {
    DockerOptions {
        host: docker.host.clone(),
        instance: instance.as_simple().to_string(),
        cpu_millis: config.limits.step_cpu,
        memory: config.limits.step_memory,
        pids: u32::from(config.limits.step_pids.get()),
        // The engine's copy of the log has some bytes of overhead per line.
        log_bytes: config.limits.log_bytes.saturating_mul(2),
        network_pool: docker.network_pool,
        prewarmed_networks: usize::from(docker.prewarmed_networks),
        metadata_access: docker.metadata_access,
        grace: STOP_GRACE,
        timeouts: Timeouts::default(),
    }
}

/// Removes the directory. An earlier process may have left files in it, which are no longer needed.
async fn clear_directory(dir: &Path) -> anyhow::Result<()> {
    use std::io::ErrorKind;
    let give_up = Instant::now() + RELEASE_TIMEOUT;
    loop {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && Instant::now() < give_up => sleep(RETRY_INTERVAL).await,
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot clear {}", dir.display()));
            }
            _ => return Ok(()),
        }
    }
}

fn unusable_data_directory(dir: &Path, error: &std::io::Error) -> StartError {
    StartError {
        message: format!("cannot use the data directory {}: {}", dir.display(), root_cause(error)),
        help: "make it a directory that belongs to the server's user, or set `data.dir` in beespace.toml to another one"
            .to_owned(),
    }
}

/// Creates the directory if needed, and makes it accessible to the server's user only.
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_directory_that_another_process_still_writes_to_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = folder.path().join("scratch");
        std::fs::create_dir_all(scratch.join("checkout")).unwrap();
        let (began, writes) = (Instant::now(), scratch.join("checkout"));
        let write = move || {
            let mut files = 0_u32;
            while began.elapsed() < RETRY_INTERVAL * 12 {
                files += 1;
                let _ = std::fs::create_dir_all(&writes);
                // The directory may be removed in between.
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

    #[tokio::test]
    async fn a_data_directory_that_cannot_be_used_is_named_with_a_remedy() {
        // Nobody can create a directory there.
        let text = "[data]\ndir = \"/proc/beespace\"\n[gogs]\nurl = \"http://g\"\ntoken = \"x\"\n";
        let error = App::open(Config::read(text, None, []).unwrap().config).await.unwrap_err();
        let start = error.downcast_ref::<StartError>().unwrap();
        assert_eq!(start.message, "cannot use the data directory /proc/beespace: No such file or directory");
        assert!(start.help.contains("`data.dir`"), "{}", start.help);
    }

    #[test]
    fn the_addresses_of_a_tcp_engine_are_closed_to_plugins() {
        assert_eq!(engine_addresses("unix:///var/run/docker.sock"), []);
        assert_eq!(engine_addresses("tcp://127.0.0.1:2375"), [SocketAddr::from(([127, 0, 0, 1], 2375))]);
        let named = engine_addresses("tcp://localhost:2375/");
        assert!(named.contains(&SocketAddr::from(([127, 0, 0, 1], 2375))), "{named:?}");
    }
}
