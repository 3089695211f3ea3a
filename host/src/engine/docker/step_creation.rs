//! The creation of a plan's container: prefetched, created when its step begins, or found because an earlier call has created it.

use std::sync::Arc;

use beespace_core::exit::{Exit, ExitCause};
use beespace_core::time::Timestamp;
use tokio::time::sleep;

use super::client::{MAX_REMOVAL_TRIES, REMOVAL_DELAY};
use super::containers::{ContainerInspect, Containers};
use super::create::{ContainerSpec, CreateContext, FileUpload, nothing_to_run};
use super::deferred_start::{DeferredStart, start_marker_at, started_at};
use super::files::Files;
use super::images::ImageFacts;
use super::injected_files::{container_index, script_name};
use super::internal_containers::InternalContainers;
use super::mounts::scripts_mount;
use super::names::Names;
use super::network::Networks;
use super::options::DockerOptions;
use super::precreated::{Precreated, PrecreatedContainer};
use super::step_images::StepImages;
use crate::engine::container_io::{Launch, OutputSender};
use crate::engine::{EngineError, ImageOutcome};

/// Attempts to create a container whose image is removed at the same time.
const MAX_IMAGE_TRIES: usize = 2;

/// Creates the containers of steps.
#[derive(Debug)]
pub(super) struct StepCreation {
    pub(super) names: Names,
    pub(super) options: DockerOptions,
    pub(super) step_images: StepImages,
    pub(super) containers: Containers,
    pub(super) internal: InternalContainers,
    pub(super) files: Files,
    pub(super) networks: Arc<Networks>,
    pub(super) precreated: Arc<Precreated>,
}

/// The specification of a container, if there is one.
enum SpecOutcome {
    Valid(Box<ContainerSpec>),
    /// The container cannot be started. The text is for people.
    Invalid(String),
}

/// The result of a request to create a container.
enum Creation {
    Outcome(CreateOutcome),
    /// The engine has no longer the image.
    ImageMissing,
}

/// The state of a container when `run` wants to start it.
pub(super) enum CreateOutcome {
    Ready(ReadyContainer),
    /// There is no container; the exit states why.
    Refused(Exit),
    /// An earlier call, of this process or of one before it, has started it.
    AlreadyStarted(StartedContainer),
}

/// A container whose program has not begun.
pub(super) struct ReadyContainer {
    /// The connection to it, if it was started early.
    pub(super) start: Option<DeferredStart>,
    /// Its program waits for the start signal.
    pub(super) is_deferred: bool,
}

/// A container whose program has begun, or may have.
pub(super) struct StartedContainer {
    pub(super) inspect: ContainerInspect,
    pub(super) started_at: Timestamp,
}

impl StepCreation {
    pub(super) fn container_name(&self, launch: &Launch) -> Result<String, EngineError> {
        Ok(self.names.container(launch.step, container_index(launch)?))
    }

    /// The process limit of a launch's container.
    pub(super) fn pids(&self, launch: &Launch) -> u32 {
        launch.container().ok().and_then(|container| container.limits.pids).unwrap_or(self.options.pids)
    }

    /// [`Engine::prepare`](crate::engine::Engine::prepare): creates a container, and starts it if its start can be deferred. No
    /// image is pulled for a container that may never run.
    pub(super) async fn prepare(&self, launch: &Launch) -> Result<(), EngineError> {
        let name = self.container_name(launch)?;
        let network = self.networks.of_open_stage(launch.step.stage_id()).await?;
        let Some(image) = self.step_images.find(launch).await? else { return Ok(()) };
        let SpecOutcome::Valid(spec) = self.spec(launch, &name, &network, &image).await? else { return Ok(()) };
        if self.precreated.has_container(launch) {
            return Ok(());
        }
        if let Some(inspect) = self.containers.inspect(&name).await? {
            // Its step has not begun, so a container without the start marker was created by an earlier process: it waits for its
            // start signal, or exited while it waited.
            let is_waiting =
                inspect.is_created() || (inspect.is_deferred && start_marker_at(&self.containers, &name).await?.is_none());
            if !is_waiting {
                return Ok(());
            }
            self.containers.remove(&name).await?;
        }
        let upload = async {
            // A sole script is uploaded with the other scripts of its stage.
            if matches!(spec.upload, FileUpload::SharedScript(_)) {
                Ok(())
            } else {
                self.files.upload_files(launch.step, &name, &spec.upload).await
            }
        };
        let create = self.containers.create("create a container", &name, spec.body.clone());
        let (uploaded, created) = tokio::join!(upload, create);
        created.and(uploaded)?;
        let start = if spec.is_deferred() { DeferredStart::start_early(&self.containers, &name).await? } else { None };
        self.precreated.add_container(launch, PrecreatedContainer { spec: spec.digest(), start });
        Ok(())
    }

    /// Creates the container of a launch, or finds the existing one.
    pub(super) async fn create_or_reuse(
        &self,
        launch: &Launch,
        name: &str,
        output: &OutputSender,
    ) -> Result<CreateOutcome, EngineError> {
        let id = &launch.container()?.id;
        let network = self.networks.of_open_stage(launch.step.stage_id()).await?;
        for _ in 0..MAX_IMAGE_TRIES {
            let image = match self.step_images.present_or_pulled(launch, output).await? {
                ImageOutcome::Ready(image) => image,
                ImageOutcome::Unusable(exit) => return Ok(CreateOutcome::Refused(exit)),
            };
            let spec = match self.spec(launch, name, &network, &image).await? {
                SpecOutcome::Valid(spec) => spec,
                SpecOutcome::Invalid(text) => {
                    return Ok(CreateOutcome::Refused(Exit::not_started(id, ExitCause::StartFailed, text)));
                }
            };
            if let Some(outcome) = self.reuse(launch, name, &spec).await? {
                return Ok(outcome);
            }
            let upload = self.files.upload_files(launch.step, name, &spec.upload);
            let (uploaded, created) = tokio::join!(upload, self.create(launch, name, &spec));
            match created? {
                Creation::Outcome(ready @ CreateOutcome::Ready(_)) => return uploaded.map(|()| ready),
                Creation::Outcome(other) => return Ok(other),
                // Somebody has removed the image since it was found.
                Creation::ImageMissing => self.step_images.forget(launch),
            }
        }
        let text = format!("the image {} is repeatedly removed from the engine", launch.container()?.image);
        Ok(CreateOutcome::Refused(Exit::not_started(id, ExitCause::ImageFailed, text)))
    }

    /// The specification of a launch's container.
    async fn spec(&self, launch: &Launch, name: &str, network: &str, image: &ImageFacts) -> Result<SpecOutcome, EngineError> {
        let (container, index) = (launch.container()?, container_index(launch)?);
        let stage = launch.step.stage_id();
        let context = CreateContext {
            options: &self.options,
            image,
            workspace: &self.names.workspace(stage),
            network,
            name,
            workspace_labels: self.names.workspace_labels(stage, network),
            labels: self.names.container_labels(launch.step, &container.id),
            file_labels: self.names.step_labels(launch.step),
            scripts: scripts_mount(&self.names, stage, true),
            script_name: &script_name(launch, index),
            init: self.internal.init_works().await?,
        };
        Ok(match context.spec(launch, container) {
            Ok(spec) => SpecOutcome::Valid(Box::new(spec)),
            Err(text) => SpecOutcome::Invalid(text),
        })
    }

    /// The existing container, if it can be used. Otherwise there is none afterwards.
    async fn reuse(&self, launch: &Launch, name: &str, spec: &ContainerSpec) -> Result<Option<CreateOutcome>, EngineError> {
        let precreated = self.precreated.take_container(launch);
        let Some(inspect) = self.containers.inspect(name).await? else { return Ok(None) };
        match precreated {
            Some(mut container) => {
                if container.spec == spec.digest() && is_waiting(&inspect, &mut container.start) {
                    self.upload_missing_script(launch, spec).await?;
                    let ready = ReadyContainer { start: container.start, is_deferred: spec.is_deferred() };
                    return Ok(Some(CreateOutcome::Ready(ready)));
                }
                // Its specification has changed since, or it exited while it waited.
            }
            None => {
                if let Some(started_at) = started_at(&self.containers, name, &inspect).await? {
                    return Ok(Some(CreateOutcome::AlreadyStarted(StartedContainer { inspect, started_at })));
                }
                // It was created before a crash.
            }
        }
        self.containers.remove(name).await.map(|()| None)
    }

    /// Uploads the script of a precreated container if it was not uploaded with the sources, because its plan was made later.
    async fn upload_missing_script(&self, launch: &Launch, spec: &ContainerSpec) -> Result<(), EngineError> {
        match &spec.upload {
            FileUpload::SharedScript(script) if !self.precreated.has_script(launch, script.digest()) => {
                self.files.upload_script(launch.step.stage_id(), script).await
            }
            _ => Ok(()),
        }
    }

    /// Creates the container.
    async fn create(&self, launch: &Launch, name: &str, spec: &ContainerSpec) -> Result<Creation, EngineError> {
        let mut conflicts = 0;
        loop {
            match self.containers.create("create a container", name, spec.body.clone()).await {
                Ok(()) => {
                    let ready = ReadyContainer { start: None, is_deferred: spec.is_deferred() };
                    return Ok(Creation::Outcome(CreateOutcome::Ready(ready)));
                }
                Err(EngineError::Refused { status: 404, message, .. }) if is_missing_image(&message) => {
                    return Ok(Creation::ImageMissing);
                }
                // The engine has carried out an earlier request that timed out, or is carrying it out right now.
                Err(EngineError::Refused { status: 409, .. }) if conflicts < MAX_REMOVAL_TRIES => {
                    conflicts += 1;
                    match self.containers.inspect(name).await? {
                        None => sleep(REMOVAL_DELAY).await,
                        Some(inspect) => match started_at(&self.containers, name, &inspect).await? {
                            Some(started_at) => {
                                let started = StartedContainer { inspect, started_at };
                                return Ok(Creation::Outcome(CreateOutcome::AlreadyStarted(started)));
                            }
                            None => self.containers.remove(name).await?,
                        },
                    }
                }
                Err(EngineError::Refused { status: 400, message, .. }) => {
                    let is_empty = message.to_ascii_lowercase().contains("no command specified");
                    let text = if is_empty { nothing_to_run(&launch.container()?.image) } else { message };
                    let exit = Exit::not_started(&launch.container()?.id, ExitCause::StartFailed, text);
                    return Ok(Creation::Outcome(CreateOutcome::Refused(exit)));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether a precreated container of this process still waits: to be started, or for its start signal.
fn is_waiting(inspect: &ContainerInspect, start: &mut Option<DeferredStart>) -> bool {
    match start {
        Some(start) => inspect.is_running() && start.is_connected(),
        None => inspect.is_created(),
    }
}

/// Whether the image is missing. The same status code also means that a container is missing.
fn is_missing_image(message: &str) -> bool {
    message.to_ascii_lowercase().contains("no such image")
}
