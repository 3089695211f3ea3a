//! The life of one container of a plan: prepared, created, started, supervised, or found again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use beespace_core::ids::{StageId, StepId};
use beespace_core::outcome::{Exit, ExitCause, Stored};
use beespace_core::time::Timestamp;
use tokio::sync::{AcquireError, SemaphorePermit};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::client::{MAX_REMOVAL_TRIES, REMOVAL_DELAY};
use super::containers::{ContainerInspect, Containers};
use super::create::{ContainerSpec, CreateContext, FileUpload};
use super::deferred_start::{DeferredStart, StartState, first_output_at, never_started, start_state};
use super::files::Files;
use super::images::Images;
use super::injected_files::{container_index, script_name};
use super::internal_containers::InternalContainers;
use super::mounts::scripts_mount;
use super::names::Names;
use super::network::Networks;
use super::options::DockerOptions;
use super::precreated::{Precreated, PrecreatedContainer};
use super::pull::PullFailed;
use super::supervise::{Supervised, live_output, start_error, stored_output};
use crate::clock::now;
use crate::engine::EngineError;
use crate::engine::launch::{Launch, OutputSender, write_host_line};

/// A wait for a start permit that is shorter than this is not reported.
const REPORT_WAIT_AFTER: Duration = Duration::from_secs(1);

/// Attempts to create a container that the engine stopped before its script began.
const MAX_ATTEMPTS: usize = 3;

/// The containers of steps.
#[derive(Debug)]
pub(super) struct StepContainers {
    pub(super) names: Names,
    pub(super) options: DockerOptions,
    pub(super) images: Images,
    pub(super) containers: Containers,
    pub(super) internal: InternalContainers,
    pub(super) files: Files,
    pub(super) networks: Arc<Networks>,
    pub(super) precreated: Precreated,
}

/// One call of `run` or `adopt`.
pub(super) struct RunCall<'a> {
    pub(super) launch: &'a Launch,
    pub(super) output: &'a OutputSender,
    pub(super) cancel: &'a CancellationToken,
}

/// The state of a container when `run` wants to start it.
enum CreateOutcome {
    Ready(ReadyContainer),
    /// There is no container; the exit states why.
    Refused(Exit),
    /// An earlier call, of this process or of one before it, has started it.
    AlreadyStarted(StartedContainer),
}

/// A container whose program has not begun.
struct ReadyContainer {
    /// The connection to it, if it was started early.
    start: Option<DeferredStart>,
    /// Its program waits for the start signal.
    is_deferred: bool,
}

/// A container whose program has begun, or may have.
struct StartedContainer {
    inspect: ContainerInspect,
    started_at: Timestamp,
}

impl StepContainers {
    /// [`Engine::run`](crate::engine::Engine::run)
    pub(super) async fn run(&self, call: &RunCall<'_>) -> Result<Exit, EngineError> {
        let name = self.container_name(call.launch)?;
        for _ in 0..MAX_ATTEMPTS {
            let outcome = tokio::select! {
                biased;
                () = call.cancel.cancelled() => CreateOutcome::Refused(cancelled(call.launch)),
                outcome = self.create_or_reuse(call, &name) => outcome?,
            };
            match outcome {
                CreateOutcome::AlreadyStarted(started) => {
                    return self.reattach(call, &name, started, Stored::default()).await;
                }
                CreateOutcome::Refused(exit) => {
                    self.containers.remove(&name).await?;
                    return Ok(exit);
                }
                CreateOutcome::Ready(ready) => {
                    let is_deferred = ready.is_deferred;
                    let exit = self.start_and_supervise(call, &name, ready).await?;
                    if !is_deferred || !never_started(&self.containers, &name, &exit).await? {
                        return Ok(exit);
                    }
                    // An engine that was stopped has ended the container in the moment before the start signal.
                    self.containers.remove(&name).await?;
                }
            }
        }
        Ok(Exit::lost_before_start(&call.launch.container))
    }

    /// [`Engine::adopt`](crate::engine::Engine::adopt)
    pub(super) async fn adopt(&self, call: &RunCall<'_>, stored: Stored) -> Result<Exit, EngineError> {
        let name = self.container_name(call.launch)?;
        let Some(inspect) = self.containers.inspect(&name).await? else { return Ok(Exit::lost(&call.launch.container)) };
        let started_at = if stored == Stored::default() {
            self.started_at(&name, &inspect).await?
        } else {
            let first = first_output_at(&self.containers, &name).await?;
            Some(first.filter(|_| inspect.is_deferred).unwrap_or_else(|| inspect.started_at()))
        };
        match started_at {
            Some(started_at) => self.reattach(call, &name, StartedContainer { inspect, started_at }, stored).await,
            None => {
                // Removed at once: later, nobody could tell that the container was stopped while it waited for its start signal.
                self.containers.remove(&name).await?;
                self.run(call).await
            }
        }
    }

    /// When the program of an existing container has begun, if it has, or may have.
    async fn started_at(&self, name: &str, inspect: &ContainerInspect) -> Result<Option<Timestamp>, EngineError> {
        if inspect.is_created() {
            return Ok(None);
        }
        match start_state(&self.containers, name, inspect).await? {
            StartState::Started(at) => Ok(Some(at)),
            StartState::NeverStarted => Ok(None),
        }
    }

    fn container_name(&self, launch: &Launch) -> Result<String, EngineError> {
        Ok(self.names.container(launch.step, container_index(launch)?))
    }

    /// [`Engine::prepare`](crate::engine::Engine::prepare): creates a container, and starts it if its start can be deferred. No image is pulled for a
    /// container that may never run.
    pub(super) async fn prepare(&self, launch: &Launch) -> Result<(), EngineError> {
        let name = self.container_name(launch)?;
        let Ok(spec) = self.spec(launch, &name).await? else { return Ok(()) };
        if self.precreated.has_container(launch) || !self.images.is_present(&launch.container()?.image).await? {
            return Ok(());
        }
        if let Some(inspect) = self.containers.inspect(&name).await? {
            // Its step has not begun, so a container without output was created by an earlier process: it waits for its start signal, or exited while
            // it waited.
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

    /// Removes the containers of a step and the volumes with their files.
    pub(super) async fn release(&self, step: StepId) -> Result<(), EngineError> {
        let labels = self.names.step_labels(step);
        self.precreated.forget(|of| of == step);
        self.containers.remove_all(&labels).await?;
        self.files.remove_volumes(&labels, None).await
    }

    /// Removes the containers of a stage.
    pub(super) async fn remove_stage(&self, stage: StageId) -> Result<(), EngineError> {
        self.containers.remove_all(&self.names.stage_labels(stage)).await
    }

    /// The specification of a launch's container. The inner error is a text for people: the container cannot be started.
    async fn spec(&self, launch: &Launch, name: &str) -> Result<Result<ContainerSpec, String>, EngineError> {
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
        Ok(context.spec(launch, container))
    }

    async fn create_or_reuse(&self, call: &RunCall<'_>, name: &str) -> Result<CreateOutcome, EngineError> {
        let launch = call.launch;
        let id = &launch.container()?.id;
        let spec = match self.spec(launch, name).await? {
            Ok(spec) => spec,
            Err(text) => return Ok(CreateOutcome::Refused(Exit::unstarted(id, ExitCause::StartFailed, text))),
        };
        if let Some(outcome) = self.reuse(launch, name, &spec).await? {
            return Ok(outcome);
        }
        let upload = self.files.upload_files(launch.step, name, &spec.upload);
        let (uploaded, created) = tokio::join!(upload, self.create_and_pull(id, name, &spec, call.output));
        match created? {
            ready @ CreateOutcome::Ready(_) => uploaded.map(|()| ready),
            other => Ok(other),
        }
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
                if let Some(started_at) = self.started_at(name, &inspect).await? {
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
                        Ok(()) => continue,
                        Err(PullFailed(text)) => (ExitCause::ImageFailed, text),
                    }
                }
                // The engine has carried out an earlier request that timed out, or is carrying it out right now.
                Err(EngineError::Refused { status: 409, .. }) if conflicts < MAX_REMOVAL_TRIES => {
                    conflicts += 1;
                    match self.containers.inspect(name).await? {
                        None => sleep(REMOVAL_DELAY).await,
                        Some(inspect) => match self.started_at(name, &inspect).await? {
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
            return Ok(CreateOutcome::Refused(Exit::unstarted(id, cause, text)));
        }
    }

    /// Starts the container unless it was started early, lets its program begin, and supervises it.
    async fn start_and_supervise(&self, call: &RunCall<'_>, name: &str, ready: ReadyContainer) -> Result<Exit, EngineError> {
        let (launch, is_deferred) = (call.launch, ready.is_deferred);
        let start = match ready.start {
            Some(start) => start,
            None => {
                let mut start = DeferredStart::attach(&self.containers, name, is_deferred).await?;
                let permit = tokio::select! {
                    biased;
                    () = call.cancel.cancelled() => return Ok(cancelled(launch)),
                    permit = self.start_permit(call.output) => permit,
                };
                let started = start.start(&self.containers, name).await;
                drop(permit);
                match started {
                    Ok(()) => start,
                    Err(EngineError::Refused { message, .. }) => {
                        return Ok(Exit::unstarted(&launch.container, ExitCause::StartFailed, start_error(&message)));
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        if is_deferred && call.cancel.is_cancelled() {
            drop(start);
            self.containers.remove(name).await?;
            return Ok(cancelled(launch));
        }
        let supervised = Supervised {
            containers: &self.containers,
            name,
            container: &launch.container,
            started_at: now(),
            timeout: launch.timeout(),
            is_deferred,
            waited: start.waited(),
            had_exited: false,
        };
        let attached = start.send_start_signal().await;
        let source = live_output(is_deferred, attached.output);
        supervised.until_exit(source, Stored::default(), call.output, call.cancel).await
    }

    /// A permit to start a container. If there is none soon, the step's log states what the container waits for.
    async fn start_permit(&self, output: &OutputSender) -> Result<SemaphorePermit<'_>, AcquireError> {
        let mut permit = pin!(self.containers.start_permit());
        if let Ok(permit) = timeout(REPORT_WAIT_AFTER, &mut permit).await {
            return permit;
        }
        let limit = self.containers.max_concurrent_starts();
        write_host_line(output, format!("waiting to start: the engine is already starting {limit} containers, the limit")).await;
        permit.await
    }

    /// Supervises a container whose program has begun earlier, with the engine's own copy of its output.
    async fn reattach(
        &self,
        call: &RunCall<'_>,
        name: &str,
        started: StartedContainer,
        stored: Stored,
    ) -> Result<Exit, EngineError> {
        let StartedContainer { inspect, started_at } = started;
        let supervised = Supervised {
            containers: &self.containers,
            name,
            container: &call.launch.container,
            started_at,
            timeout: call.launch.timeout(),
            is_deferred: inspect.is_deferred,
            waited: started_at.since(inspect.started_at()),
            had_exited: !inspect.is_running(),
        };
        let source = stored_output(&self.containers, name, inspect.is_deferred, stored).await?;
        supervised.until_exit(source, stored, call.output, call.cancel).await
    }
}

fn cancelled(launch: &Launch) -> Exit {
    Exit::unstarted(&launch.container, ExitCause::Cancelled, "the container was cancelled before it started")
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
