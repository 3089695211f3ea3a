//! The creation of a plan's container: prefetched, created when its step begins, or found because an earlier call has created it.

use std::sync::Arc;

use beespace_core::exit::{Exit, ExitCause};
use beespace_core::time::Timestamp;
use tokio::time::sleep;

use super::client::{MAX_REMOVAL_TRIES, REMOVAL_DELAY};
use super::containers::{ContainerInspect, Containers};
use super::create::{ContainerSpec, CreateContext, FileUpload};
use super::deferred_start::{DeferredStart, first_output_at, started_at};
use super::files::Files;
use super::images::Images;
use super::injected_files::{container_index, script_name};
use super::internal_containers::InternalContainers;
use super::mounts::scripts_mount;
use super::names::Names;
use super::network::Networks;
use super::options::DockerOptions;
use super::precreated::{Precreated, PrecreatedContainer};
use super::pull::PullOutcome;
use crate::engine::EngineError;
use crate::engine::launch::{Launch, OutputSender};

/// Creates the containers of steps.
#[derive(Debug)]
pub(super) struct StepCreation {
    pub(super) names: Names,
    pub(super) options: DockerOptions,
    pub(super) images: Images,
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

    /// [`Engine::prepare`](crate::engine::Engine::prepare): creates a container, and starts it if its start can be deferred. No
    /// image is pulled for a container that may never run.
    pub(super) async fn prepare(&self, launch: &Launch) -> Result<(), EngineError> {
        let name = self.container_name(launch)?;
        let SpecOutcome::Valid(spec) = self.spec(launch, &name).await? else { return Ok(()) };
        if self.precreated.has_container(launch) || !self.images.is_present(&launch.container()?.image).await? {
            return Ok(());
        }
        if let Some(inspect) = self.containers.inspect(&name).await? {
            // Its step has not begun, so a container without output was created by an earlier process: it waits for its start
            // signal, or exited while it waited.
            let is_waiting =
                inspect.is_created() || (inspect.is_deferred && first_output_at(&self.containers, &name).await?.is_none());
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
        let spec = match self.spec(launch, name).await? {
            SpecOutcome::Valid(spec) => spec,
            SpecOutcome::Invalid(text) => return Ok(CreateOutcome::Refused(Exit::not_started(id, ExitCause::StartFailed, text))),
        };
        if let Some(outcome) = self.reuse(launch, name, &spec).await? {
            return Ok(outcome);
        }
        let upload = self.files.upload_files(launch.step, name, &spec.upload);
        let (uploaded, created) = tokio::join!(upload, self.create_and_pull(id, name, &spec, output));
        match created? {
            ready @ CreateOutcome::Ready(_) => uploaded.map(|()| ready),
            other => Ok(other),
        }
    }

    /// The specification of a launch's container.
    async fn spec(&self, launch: &Launch, name: &str) -> Result<SpecOutcome, EngineError> {
        let (container, index) = (launch.container()?, container_index(launch)?);
        let stage = launch.step.stage_id();
        let network = self.networks.of_open_stage(stage).await?;
        let context = CreateContext {
            options: &self.options,
            workspace: &self.names.workspace(stage),
            network: &network,
            name,
            workspace_labels: self.names.workspace_labels(stage, &network),
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

    /// Creates the container. If its image is absent, pulls it first.
    async fn create_and_pull(
        &self,
        id: &str,
        name: &str,
        spec: &ContainerSpec,
        output: &OutputSender,
    ) -> Result<CreateOutcome, EngineError> {
        let image = spec.body.image.clone().unwrap_or_default();
        let (mut is_pulled, mut conflicts) = (false, 0);
        loop {
            let (cause, text) = match self.containers.create("create a container", name, spec.body.clone()).await {
                Ok(()) => {
                    return Ok(CreateOutcome::Ready(ReadyContainer { start: None, is_deferred: spec.is_deferred() }));
                }
                Err(EngineError::Refused { status: 404, message, .. }) if !is_pulled && is_missing_image(&message) => {
                    is_pulled = true;
                    match self.images.pull(&image, output).await? {
                        PullOutcome::Pulled => continue,
                        PullOutcome::Failed(text) => (ExitCause::ImageFailed, text),
                    }
                }
                // The engine has carried out an earlier request that timed out, or is carrying it out right now.
                Err(EngineError::Refused { status: 409, .. }) if conflicts < MAX_REMOVAL_TRIES => {
                    conflicts += 1;
                    match self.containers.inspect(name).await? {
                        None => sleep(REMOVAL_DELAY).await,
                        Some(inspect) => match started_at(&self.containers, name, &inspect).await? {
                            Some(started_at) => {
                                return Ok(CreateOutcome::AlreadyStarted(StartedContainer { inspect, started_at }));
                            }
                            None => self.containers.remove(name).await?,
                        },
                    }
                    continue;
                }
                Err(EngineError::Refused { status: 400, message, .. }) if message.contains("invalid reference format") => {
                    (ExitCause::ImageFailed, format!("{image:?} is not a valid image name"))
                }
                Err(EngineError::Refused { status: 400, message, .. }) => (ExitCause::StartFailed, message),
                Err(error) => return Err(error),
            };
            return Ok(CreateOutcome::Refused(Exit::not_started(id, cause, text)));
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
