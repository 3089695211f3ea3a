//! Docker, and engines that have its API.
//!
//! A stage consists of a network (a bridge network, and a pause container that owns the network namespace) and a volume, the
//! workspace. The containers of its steps join the namespace of the pause container; this takes less than half the time that a
//! network of their own would take.
//!
//! # Parts
//!
//! | part | responsibility |
//! |---|---|
//! | [`network`] | networks of stages, with their pause containers, isolation rules and prewarmed networks |
//! | [`files`] | volumes, and uploads to them |
//! | [`images`] | what images contain, pulls, and the image of pause containers |
//! | [`step_images`] | which image a plan's container runs |
//! | [`containers`] | operations on single containers |
//! | [`internal_containers`] | containers of the pause image |
//! | [`step_creation`] | the creation of a plan's container: [`create`], [`injected_files`], [`precreated`] |
//! | [`step_containers`] | its life after that: [`deferred_start`], [`supervise`], [`forward_output`] |
//!
//! # What `docker inspect` shows
//!
//! Plain variables, images, commands and labels. A script is a file: in a volume of its stage, or, together with the secrets of
//! its step, in a volume that only this container mounts. Both are read-only, and `docker inspect` shows neither
//! ([`injected_files`]). Secrets that are variables of a container *without* a script (`entrypoint` and `args`) are an exception:
//! no program of ours runs in it that could read a file, so these secrets are in its environment, which `docker inspect` shows to
//! everyone who may use the engine. In both cases a secret is on the engine's disk until the step is released.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use beespace_core::exit::Exit;
use beespace_core::ids::{StageId, StepId};
use beespace_core::output::OutputOffsets;
use futures::future::{join, try_join};
use tokio_util::sync::CancellationToken;

use super::container_io::{Launch, OutputSender};
use super::{Capabilities, Engine, EngineError, EngineInfo, ImageOutcome};
use client::Client;
use containers::Containers;
use files::Files;
use images::Images;
use injected_files::sole_script;
use internal_containers::InternalContainers;
use names::{Names, stage_of};
use network::Networks;
use precreated::Precreated;
use step_containers::{RunCall, StepContainers};
use step_creation::StepCreation;
use step_images::StepImages;

mod client;
mod containers;
mod create;
mod deferred_start;
mod error;
mod files;
mod forward_output;
mod images;
mod info;
mod injected_files;
mod internal_containers;
mod isolation;
mod mounts;
mod names;
mod network;
mod options;
mod output;
mod pause_image;
mod precreated;
mod pull;
mod step_containers;
mod step_creation;
mod step_images;
mod subnet;
mod supervise;
mod timeouts;

pub use options::DockerOptions;
pub use timeouts::Timeouts;

/// One Docker engine.
#[derive(Debug)]
pub struct Docker {
    client: Client,
    names: Names,
    containers: Containers,
    images: Images,
    internal: InternalContainers,
    files: Files,
    networks: Arc<Networks>,
    precreated: Arc<Precreated>,
    steps: StepContainers,
    prewarmed_networks: usize,
}

impl Docker {
    /// Does not call the engine yet, so that a server can start while its engine is down.
    ///
    /// # Errors
    /// [`EngineError::InvalidAddress`] and [`EngineError::InvalidInstance`].
    pub fn new(options: DockerOptions) -> Result<Self, EngineError> {
        let client = Client::new(&options.host, options.timeouts)?;
        let names = Names::new(&options.instance)?;
        let containers = Containers::new(client.clone(), options.grace);
        let images = Images::new(client.clone(), names.clone());
        let internal = InternalContainers::new(names.clone(), images.clone(), containers.clone());
        let files = Files::new(client.clone(), names.clone(), containers.clone(), internal.clone());
        let networks =
            Arc::new(Networks::new(client.clone(), names.clone(), containers.clone(), internal.clone(), files.clone(), &options));
        let prewarmed_networks = options.prewarmed_networks;
        let precreated = Arc::new(Precreated::default());
        let creation = StepCreation {
            names: names.clone(),
            options,
            step_images: StepImages { images: images.clone() },
            containers: containers.clone(),
            internal: internal.clone(),
            files: files.clone(),
            networks: Arc::clone(&networks),
            precreated: Arc::clone(&precreated),
        };
        let steps = StepContainers {
            names: names.clone(),
            containers: containers.clone(),
            files: files.clone(),
            creation,
            precreated: Arc::clone(&precreated),
        };
        Ok(Self { client, names, containers, images, internal, files, networks, precreated, steps, prewarmed_networks })
    }

    /// Removes the containers of a stage and its network.
    async fn remove_containers_and_network(&self, stage: StageId) -> Result<(), EngineError> {
        self.precreated.forget(|step| step.stage_id() == stage);
        let network = async {
            match self.networks.of_stage(stage).await? {
                Some(network) => self.networks.remove(&network).await,
                None => Ok(()),
            }
        };
        let (containers, network) = join(self.steps.remove_stage(stage), network).await;
        // Containers that were created in the meantime are gone as well.
        self.precreated.forget(|step| step.stage_id() == stage);
        containers.and(network)
    }
}

#[async_trait]
impl Engine for Docker {
    fn kind(&self) -> &'static str {
        "docker"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { shared_localhost: true, separate_streams: true, early_start: true }
    }

    async fn check(&self) -> Result<EngineInfo, EngineError> {
        let info = info::engine_info(&self.client).await?;
        self.images.refused_import().map_or(Ok(info), |refused| Err(refused.into()))
    }

    async fn open(&self, stage: StageId) -> Result<(), EngineError> {
        let network = self.networks.assign(stage).await?;
        try_join(self.networks.ensure_running(&network), self.files.create_upload_container(stage)).await?;
        self.internal.init_works().await.map(|_| ())
    }

    async fn fill(&self, stage: StageId, sources: Option<&Path>, launches: &[Launch]) -> Result<(), EngineError> {
        let mut files = Vec::new();
        let mut scripts = Vec::new();
        for launch in launches {
            if let Some(script) = sole_script(launch)? {
                scripts.push((launch, script.digest()));
                files.push(script);
            }
        }
        self.files.fill(stage, sources, files).await?;
        for (launch, script) in scripts {
            self.precreated.add_script(launch, script);
        }
        Ok(())
    }

    async fn find_image(&self, launch: &Launch) -> Result<Option<String>, EngineError> {
        let image = self.steps.creation.step_images.find(launch).await?;
        Ok(image.map(|image| image.pinned.clone()))
    }

    async fn pull_image(&self, launch: &Launch, output: &OutputSender) -> Result<ImageOutcome<String>, EngineError> {
        Ok(match self.steps.creation.step_images.pull(launch, output).await? {
            ImageOutcome::Ready(image) => ImageOutcome::Ready(image.pinned.clone()),
            ImageOutcome::Unusable(exit) => ImageOutcome::Unusable(exit),
        })
    }

    async fn prepare(&self, launch: &Launch) -> Result<(), EngineError> {
        self.steps.creation.prepare(launch).await
    }

    async fn run(&self, launch: Launch, output: OutputSender, cancel: CancellationToken) -> Result<Exit, EngineError> {
        self.steps.run(&RunCall { launch: &launch, output: &output, cancel: &cancel }).await
    }

    async fn adopt(
        &self,
        launch: Launch,
        stored: OutputOffsets,
        output: OutputSender,
        cancel: CancellationToken,
    ) -> Result<Exit, EngineError> {
        self.steps.adopt(&RunCall { launch: &launch, output: &output, cancel: &cancel }, stored).await
    }

    async fn release(&self, step: StepId) -> Result<(), EngineError> {
        self.steps.release(step).await
    }

    /// The workspace stays: it has the name of the stage's network, and the next network gets the same name.
    async fn close(&self, stage: StageId) -> Result<(), EngineError> {
        self.remove_containers_and_network(stage).await?;
        self.files.remove_volumes(&self.names.stage_labels(stage), Some(&self.names.workspace(stage))).await
    }

    /// The workspace is removed last: it shows which network is the stage's.
    async fn destroy(&self, stage: StageId) -> Result<(), EngineError> {
        let removed = self.remove_containers_and_network(stage).await;
        let workspace = removed.is_err().then(|| self.names.workspace(stage));
        removed.and(self.files.remove_volumes(&self.names.stage_labels(stage), workspace.as_deref()).await)
    }

    async fn inventory(&self) -> Result<Vec<StageId>, EngineError> {
        let labels = self.names.instance_labels();
        let containers = self.containers.list(&labels).await?;
        let volumes = self.files.list_volumes(&labels).await?;
        let labels = containers.into_iter().filter_map(|container| container.labels);
        let labels = labels.chain(volumes.into_iter().map(|volume| volume.labels));
        let stages: BTreeSet<StageId> = labels.filter_map(|labels| stage_of(&labels)).collect();
        Ok(stages.into_iter().collect())
    }

    /// Keeps the pause image and the prewarmed networks, and removes orphaned networks.
    async fn maintain(&self) -> Result<(), EngineError> {
        self.images.ensure_pause_image().await?;
        self.networks.prewarm(self.prewarmed_networks).await
    }

    /// Removes the prewarmed networks, and the pause image unless containers of stages still use it.
    async fn shutdown(&self) -> Result<(), EngineError> {
        self.networks.prewarm(0).await?;
        self.images.remove_pause_images(None).await
    }
}
