//! One container of a plan, from nothing to its end.

use std::pin::pin;
use std::time::Duration;

use beespace_core::exit::{Exit, ExitCause};
use beespace_core::ids::StageId;
use beespace_core::output::OutputOffsets;
use beespace_core::time::Timestamp;
use bollard::models::{ContainerCreateBody, ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use tokio::sync::{AcquireError, SemaphorePermit};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::create::{ContainerSpec, CreateContext, Freight};
use super::deferred_start::{ContainerInspect, DeferredStart, StartState};
use super::injected_files::InjectedFiles;
use super::pull::PullFailed;
use super::stage::{MAX_REMOVAL_TRIES, REMOVAL_PAUSE};
use super::supervise::{Supervised, live_output};
use super::timeouts::CallKind;
use super::{Docker, precreated};
use crate::engine::tar_stream::{HostFile, TarContents};
use crate::engine::{EngineError, Launch, OutputSender, now, write_host_line};

/// Nobody needs to hear of a wait that is shorter.
const REPORT_WAIT_AFTER: Duration = Duration::from_secs(1);

/// How often a container is made whose turn an engine takes from it.
const MAX_ATTEMPTS: usize = 3;

/// How far a container has come when its turn begins.
enum Made {
    /// With the line to it, where it has started and waits; and whether it is one that does.
    Ready(Option<DeferredStart>, bool),
    /// There is no container, and why.
    Refused(Exit),
    /// An earlier call, here or before a restart, has begun it.
    AlreadyStarted(ContainerInspect, Timestamp),
}

impl Docker {
    pub(super) async fn run_container(
        &self,
        launch: &Launch,
        output: &OutputSender,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        let name = self.name(launch)?;
        for _ in 0..MAX_ATTEMPTS {
            let made = tokio::select! {
                biased;
                () = cancel.cancelled() => Made::Refused(cancelled(launch)),
                made = self.create_or_reuse(launch, &name, output) => made?,
            };
            match made {
                Made::AlreadyStarted(look, at) => {
                    return self.reattach(launch, &name, (look, at), OutputOffsets::default(), output, cancel).await;
                }
                Made::Refused(exit) => {
                    self.remove_container(&name).await?;
                    return Ok(exit);
                }
                Made::Ready(held, waits) => {
                    let exit = self.start_and_supervise(launch, &name, (held, waits), output, cancel).await?;
                    if !waits || !self.never_started(&name, &exit).await? {
                        return Ok(exit);
                    }
                    // An engine that was stopped has ended it in the moment before its turn.
                    self.remove_container(&name).await?;
                }
            }
        }
        Ok(Exit::lost_before_start(&launch.container))
    }

    pub(super) async fn adopt_container(
        &self,
        launch: &Launch,
        stored: OutputOffsets,
        output: &OutputSender,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        let name = self.name(launch)?;
        let Some(look) = self.look(&name).await? else { return Ok(Exit::lost(&launch.container)) };
        let began = if stored == OutputOffsets::default() {
            self.started_at(&name, &look).await?
        } else {
            Some(self.first_word(&name).await?.filter(|_| look.waits).unwrap_or_else(|| look.started_at()))
        };
        match began {
            Some(at) => self.reattach(launch, &name, (look, at), stored, output, cancel).await,
            None => {
                // At once: of one that was ended while it waited nobody could tell it later.
                self.remove_container(&name).await?;
                self.run_container(launch, output, cancel).await
            }
        }
    }

    /// When a container that is there has begun, if it has, or may have.
    async fn started_at(&self, name: &str, look: &ContainerInspect) -> Result<Option<Timestamp>, EngineError> {
        if is_unstarted(&look.state) {
            return Ok(None);
        }
        match self.start_state(name, look).await? {
            StartState::Started(at) => Ok(Some(at)),
            StartState::NeverStarted => Ok(None),
        }
    }

    fn name(&self, launch: &Launch) -> Result<String, EngineError> {
        Ok(self.names.container(launch.step, container_index(launch)?))
    }

    /// Makes a container and, where it waits for its turn, starts it. Nothing is pulled for one that may never run.
    pub(super) async fn prepare_container(&self, launch: &Launch) -> Result<(), EngineError> {
        let name = self.name(launch)?;
        let Ok(order) = self.order(launch, &name).await? else { return Ok(()) };
        if self.ahead().is_made(launch) || !self.has_image(&launch.container()?.image).await? {
            return Ok(());
        }
        if let Some(look) = self.look(&name).await? {
            // Its turn comes later, so whoever says nothing was made by a process before this one, and waits, or ended while it did.
            let waits = is_unstarted(&look.state) || (look.waits && self.first_word(&name).await?.is_none());
            if !waits {
                return Ok(());
            }
            self.remove_container(&name).await?;
        }
        let send = async {
            // A script comes with the others of its stage.
            if matches!(order.parcels, Freight::Script(_)) { Ok(()) } else { self.send_parcels(launch, &name, &order).await }
        };
        let (sent, created) = tokio::join!(send, self.ask_for(&name, order.body.clone()));
        created.and(sent)?;
        let held = if order.waits() { self.hold_back(&name).await? } else { None };
        self.ahead().note_made(launch, precreated::Made { order: order.digest(), held });
        Ok(())
    }

    /// What the container of a launch is made of. The inner error is a sentence for people: it cannot be started.
    async fn order(&self, launch: &Launch, name: &str) -> Result<Result<ContainerSpec, String>, EngineError> {
        let (container, place) = (launch.container()?, container_index(launch)?);
        let stage = launch.step.stage_id();
        let room = self.require_open(stage).await?;
        let surroundings = CreateContext {
            options: &self.options,
            workspace: &self.names.workspace(stage),
            network: &room,
            name,
            workspace_labels: self.names.workspace_labels(stage, &room),
            labels: self.names.container_labels(launch.step, &container.id),
            file_labels: self.names.step_labels(launch.step),
            scripts: self.scripts_mount(stage, true),
            script_name: &script_name(launch, place),
            init: self.init_works().await?,
        };
        Ok(surroundings.order(launch, container))
    }

    async fn create_or_reuse(&self, launch: &Launch, name: &str, output: &OutputSender) -> Result<Made, EngineError> {
        let id = &launch.container()?.id;
        let order = match self.order(launch, name).await? {
            Ok(order) => order,
            Err(text) => return Ok(Made::Refused(Exit::not_started(id, ExitCause::StartFailed, text))),
        };
        if let Some(made) = self.reuse(launch, name, &order).await? {
            return Ok(made);
        }
        let (sent, made) = tokio::join!(self.send_parcels(launch, name, &order), self.create(id, name, &order, output));
        match made? {
            ready @ Made::Ready(..) => sent.map(|()| ready),
            other => Ok(other),
        }
    }

    /// The container that is there already, where it will do; else there is none afterwards.
    async fn reuse(&self, launch: &Launch, name: &str, order: &ContainerSpec) -> Result<Option<Made>, EngineError> {
        let prepared = self.ahead().take_container(launch);
        let Some(look) = self.look(name).await? else { return Ok(None) };
        match prepared {
            Some(mut made) => {
                if made.order == order.digest() && is_waiting(&look.state, &mut made.held) {
                    self.upload_missing_script(launch, order).await?;
                    return Ok(Some(Made::Ready(made.held, order.waits())));
                }
                // What it is made of has changed since, or it has ended while it waited.
            }
            None => {
                if let Some(at) = self.started_at(name, &look).await? {
                    return Ok(Some(Made::AlreadyStarted(look, at)));
                }
                // Made before a crash.
            }
        }
        self.remove_container(name).await.map(|()| None)
    }

    async fn send_parcels(&self, launch: &Launch, name: &str, order: &ContainerSpec) -> Result<(), EngineError> {
        let (mounts, files) = match &order.parcels {
            Freight::None => return Ok(()),
            Freight::Script(script) => return self.upload_script(launch.step.stage_id(), script).await,
            Freight::OwnVolumes(mounts, files) => (mounts, files),
        };
        let filler = format!("{name}-fill");
        let body = self.internal_container(self.names.step_labels(launch.step), mounts.clone());
        if let Err(EngineError::Refused { status: 409, .. }) = self.create_internal(&filler, body.clone()).await {
            self.remove_container(&filler).await?;
            self.create_internal(&filler, body).await?;
        }
        self.upload(&filler, TarContents { files: files.clone(), ..TarContents::default() }).await
    }

    /// Of a container that was made ahead: a plan that came to be later than the sources has a script that did not come with them.
    async fn upload_missing_script(&self, launch: &Launch, order: &ContainerSpec) -> Result<(), EngineError> {
        match &order.parcels {
            Freight::Script(script) if !self.ahead().has_script(launch, script.digest()) => {
                self.upload_script(launch.step.stage_id(), script).await
            }
            _ => Ok(()),
        }
    }

    async fn upload_script(&self, stage: StageId, script: &HostFile) -> Result<(), EngineError> {
        let filler = self.names.upload_container(stage);
        let contents = || TarContents { files: vec![script.clone()], ..TarContents::default() };
        match self.upload(&filler, contents()).await {
            // Somebody has cleared away what was never started.
            Err(EngineError::Refused { status: 404, .. }) => {
                self.create_upload_container(stage).await?;
                self.upload(&filler, contents()).await
            }
            other => other,
        }
    }

    async fn ask_for(&self, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.client.call("make a container", CallKind::Slow, api.create_container(Some(options), body)).await.map(|_| ())
    }

    /// Asks for the container, and pulls its image where that is absent.
    async fn create(&self, id: &str, name: &str, order: &ContainerSpec, output: &OutputSender) -> Result<Made, EngineError> {
        let image = order.body.image.clone().unwrap_or_default();
        let (mut pulled, mut conflicts) = (false, 0);
        loop {
            let (cause, text) = match self.ask_for(name, order.body.clone()).await {
                Ok(()) => return Ok(Made::Ready(None, order.waits())),
                Err(EngineError::Refused { status: 404, message, .. }) if !pulled && is_missing_image(&message) => {
                    pulled = true;
                    match self.pull(&image, output).await? {
                        Ok(()) => continue,
                        Err(PullFailed(text)) => (ExitCause::ImageFailed, text),
                    }
                }
                // An earlier request, given up because the engine hung, was carried out all the same, or is just now.
                Err(EngineError::Refused { status: 409, .. }) if conflicts < MAX_REMOVAL_TRIES => {
                    conflicts += 1;
                    match self.look(name).await? {
                        None => sleep(REMOVAL_PAUSE).await,
                        Some(look) => match self.started_at(name, &look).await? {
                            Some(at) => return Ok(Made::AlreadyStarted(look, at)),
                            None => self.remove_container(name).await?,
                        },
                    }
                    continue;
                }
                Err(EngineError::Refused { status: 400, message, .. }) if message.contains("invalid reference format") => {
                    (ExitCause::ImageFailed, format!("{image:?} is no name of an image"))
                }
                Err(EngineError::Refused { status: 400, message, .. }) => (ExitCause::StartFailed, message),
                Err(error) => return Err(error),
            };
            return Ok(Made::Refused(Exit::not_started(id, cause, text)));
        }
    }

    /// Starts it, unless it waits already, and lets it begin.
    async fn start_and_supervise(
        &self,
        launch: &Launch,
        name: &str,
        (held, waited): (Option<DeferredStart>, bool),
        output: &OutputSender,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        let held = match held {
            Some(held) => held,
            None => {
                let mut held = self.attach(name, waited).await?;
                let turn = tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Ok(cancelled(launch)),
                    turn = self.start_permit(output) => turn,
                };
                let started = self.start(name, &mut held).await;
                drop(turn);
                match started {
                    Ok(()) => held,
                    Err(EngineError::Refused { message, .. }) => {
                        return Ok(Exit::not_started(&launch.container, ExitCause::StartFailed, start_error(&message)));
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        if waited && cancel.is_cancelled() {
            drop(held);
            self.remove_container(name).await?;
            return Ok(cancelled(launch));
        }
        let (container, timeout, waited_for) = (launch.container.as_str(), launch.timeout(), held.waited());
        let subject = Supervised {
            name,
            container,
            started_at: now(),
            timeout,
            is_deferred: waited,
            waited: waited_for,
            had_exited: false,
        };
        let attached = held.send_start_signal().await;
        self.supervise(&subject, live_output(waited, attached.output), OutputOffsets::default(), output, cancel).await
    }

    /// A place among the starts that the engine is asked for at once. Who does not get one soon is told what it waits for.
    async fn start_permit(&self, output: &OutputSender) -> Result<SemaphorePermit<'_>, AcquireError> {
        let mut turn = pin!(self.start_permits.acquire());
        if let Ok(turn) = timeout(REPORT_WAIT_AFTER, &mut turn).await {
            return turn;
        }
        let message =
            format!("It waits for its turn: {} containers are being started, and no more at once.", self.max_concurrent_starts);
        write_host_line(output, message).await;
        turn.await
    }

    /// Follows a container that has begun earlier, by the engine's own copy of its output.
    async fn reattach(
        &self,
        launch: &Launch,
        name: &str,
        (look, began): (ContainerInspect, Timestamp),
        stored: OutputOffsets,
        output: &OutputSender,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        let (container, timeout, waited) = (launch.container.as_str(), launch.timeout(), look.waits);
        let waited_for = began.since(look.started_at());
        let subject = Supervised {
            name,
            container,
            started_at: began,
            timeout,
            is_deferred: waited,
            waited: waited_for,
            had_exited: !look.is_running(),
        };
        let source = self.stored_output(name, waited, stored).await?;
        self.supervise(&subject, source, stored, output, cancel).await
    }
}

/// A container's place in its plan.
fn container_index(launch: &Launch) -> Result<usize, EngineError> {
    let container = launch.container()?;
    let place = launch.plan.get().containers.iter().position(|other| other.id == container.id);
    Ok(place.unwrap_or_default())
}

/// What a container's script is called among those of its stage: a shell says so in its errors.
fn script_name(launch: &Launch, place: usize) -> String {
    let (step, attempt) = (launch.step.step, launch.step.attempt);
    match (attempt, place) {
        (1, 0) => format!("script-{step}"),
        _ => format!("script-{step}.{attempt}.{place}"),
    }
}

/// The script of a launch, where that is all that its container finds in files. One that cannot be packed is told of when its turn comes.
pub(super) fn sole_script(launch: &Launch) -> Result<Option<HostFile>, EngineError> {
    let name = script_name(launch, container_index(launch)?);
    let parcels = InjectedFiles::pack(launch.container()?, &launch.secrets, &name);
    Ok(parcels.ok().and_then(|parcels| parcels.sole_script()))
}

fn cancelled(launch: &Launch) -> Exit {
    Exit::not_started(&launch.container, ExitCause::Cancelled, "it was cancelled before it started")
}

fn is_unstarted(state: &ContainerState) -> bool {
    state.status == Some(ContainerStateStatusEnum::CREATED)
}

/// Whether a container that this process has made ahead still waits: to be started, or for its turn.
fn is_waiting(state: &ContainerState, held: &mut Option<DeferredStart>) -> bool {
    match held {
        Some(held) => state.running == Some(true) && held.is_connected(),
        None => is_unstarted(state),
    }
}

/// The same status says that an image is missing and that a container is.
fn is_missing_image(message: &str) -> bool {
    message.to_ascii_lowercase().contains("no such image")
}

/// The part of the engine's sentence that speaks of the command.
pub(super) fn start_error(message: &str) -> String {
    let text = message.trim().trim_end_matches(": unknown");
    let text = text.find("exec: ").and_then(|at| text.get(at..)).unwrap_or(text);
    let hint = if text.contains("/bin/sh") { " (the image has no shell, which `run` needs)" } else { "" };
    format!("the container could not be started: {text}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_error_speaks_of_the_command() {
        let docker = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \
                      \"nope\": executable file not found in $PATH: unknown";
        assert_eq!(start_error(docker), "the container could not be started: exec: \"nope\": executable file not found in $PATH");
    }
}
