//! Docker, and what speaks its API.
//!
//! A stage is a *room* (a bridge network, and a holder: a container of the gate's image that owns the network namespace) and a volume, the
//! workspace. A step's container joins the holder's namespace, which starts in less than half the time that a network of its own would take.
//!
//! # What `docker inspect` shows
//!
//! Plain variables, images, commands and labels. A script is a file in a volume of its stage, or with the secrets of its step in one that this one
//! container mounts; both are read-only, and neither is shown ([`file_volume`]). The exception are secrets as variables of a container *without* a script
//! (`entrypoint` and `args`): nothing of ours runs in it that could read a file, so they are in its environment, which `docker inspect` shows to
//! whoever may use the engine. Either way a value lies on the engine's disk until the step is released.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use beespace_core::exit::Exit;
use beespace_core::ids::{StageId, StepId};
use beespace_core::output::OutputOffsets;
use ipnet::Ipv4Net;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, EngineInfo, Launch, OutputSender};
use client::Client;
use names::Names;
use precreated::Precreated;

mod client;
mod create;
mod deferred_start;
mod info;
mod injected_files;
mod isolation;
mod names;
mod network;
mod pause_image;
mod precreated;
mod pull;
mod run;
mod stage;
mod supervise;
mod timeouts;

pub use timeouts::Timeouts;

/// What an instance lays down for its engine.
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// `unix:///var/run/docker.sock` or `tcp://HOST:PORT`.
    pub host: String,
    /// Tells this instance's things from everybody else's: 1 to 32 lower-case letters and digits, the same for the life of the store.
    pub instance: String,
    /// Bytes a container may use where its plan says nothing. Swap comes not on top.
    pub memory: u64,
    /// Processes a container may have where its plan says nothing.
    pub pids: u32,
    /// Bytes of output that the engine keeps a container, for taking it up after a crash. More than a log may have.
    pub log_bytes: u64,
    /// The addresses of stages' networks.
    pub network_pool: Ipv4Net,
    /// Whether containers may reach the metadata service of the cloud that the engine runs in.
    pub metadata_access: bool,
    /// From TERM to KILL.
    pub grace: Duration,
    /// How long it may take for its answers.
    pub waits: Timeouts,
}

/// One Docker engine.
#[derive(Debug)]
pub struct Docker {
    client: Client,
    names: Names,
    options: DockerOptions,
    start_permits: Semaphore,
    /// Beyond two starts a core an engine only gets slower.
    max_concurrent_starts: usize,
    /// Rooms that stand ready for the stages to come.
    prewarmed: tokio::sync::Mutex<Vec<String>>,
    ahead: Mutex<Precreated>,
    /// Whether the engine can put an init process into a container; asked once.
    init: OnceCell<bool>,
}

impl Docker {
    /// Does not call the engine yet: a server starts while its engine is down.
    ///
    /// # Errors
    /// [`EngineError::InvalidAddress`] and [`EngineError::Instance`].
    pub fn new(options: DockerOptions) -> Result<Self, EngineError> {
        let starts_at_once = 2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            client: Client::new(&options.host, options.waits)?,
            names: Names::new(&options.instance)?,
            options,
            start_permits: Semaphore::new(starts_at_once),
            max_concurrent_starts: starts_at_once,
            prewarmed: tokio::sync::Mutex::default(),
            ahead: Mutex::default(),
            init: OnceCell::new(),
        })
    }

    fn ahead(&self) -> MutexGuard<'_, Precreated> {
        // It is whole at any time.
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Engine for Docker {
    fn kind(&self) -> &'static str {
        "docker"
    }

    async fn check(&self) -> Result<EngineInfo, EngineError> {
        self.engine_info().await
    }

    async fn open(&self, stage: StageId) -> Result<(), EngineError> {
        self.open_stage(stage).await
    }

    async fn fill(&self, stage: StageId, sources: Option<&Path>, launches: &[Launch]) -> Result<(), EngineError> {
        self.fill_stage(stage, sources, launches).await
    }

    async fn prepare(&self, launch: &Launch) -> Result<(), EngineError> {
        self.prepare_container(launch).await
    }

    async fn run(&self, launch: Launch, output: OutputSender, cancel: CancellationToken) -> Result<Exit, EngineError> {
        self.run_container(&launch, &output, &cancel).await
    }

    async fn adopt(
        &self,
        launch: Launch,
        stored: OutputOffsets,
        output: OutputSender,
        cancel: CancellationToken,
    ) -> Result<Exit, EngineError> {
        self.adopt_container(&launch, stored, &output, &cancel).await
    }

    async fn release(&self, step: StepId) -> Result<(), EngineError> {
        self.release_step(step).await
    }

    async fn close(&self, stage: StageId) -> Result<(), EngineError> {
        self.close_stage(stage).await
    }

    async fn destroy(&self, stage: StageId) -> Result<(), EngineError> {
        self.destroy_stage(stage).await
    }

    async fn maintain(&self, stages: usize) -> Result<(), EngineError> {
        self.prewarm(stages).await
    }

    async fn inventory(&self) -> Result<Vec<StageId>, EngineError> {
        self.list_stages().await
    }
}
