//! One container of a plan, from nothing to its end.

use std::pin::pin;
use std::time::Duration;

use beespace_core::ids::StageId;
use beespace_core::outcome::{Exit, ExitCause, Stored};
use bollard::models::{ContainerCreateBody, ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::{AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, StartContainerOptions};
use tokio::sync::{AcquireError, SemaphorePermit};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Docker;
use super::create::{Freight, Order, Surroundings};
use super::follow::{Subject, instant, live};
use super::parcel::Parcels;
use super::pull::Missing;
use super::stage::{REMOVAL_PAUSE, REMOVAL_TRIES};
use super::waits::Wait;
use crate::engine::archive::{Contents, File};
use crate::engine::{EngineError, Launch, OutputSender, now, say};

/// Nobody needs to hear of a wait that is shorter.
const SOON: Duration = Duration::from_secs(1);

/// How far a container has come when its turn begins.
enum Made {
    Ready,
    /// There is no container, and why.
    Refused(Exit),
    /// An earlier call, here or before a restart, has started it.
    Started(ContainerState),
}

impl Docker {
    pub(super) async fn run_container(
        &self,
        launch: &Launch,
        output: &OutputSender,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        let name = self.name(launch)?;
        let made = tokio::select! {
            biased;
            () = cancel.cancelled() => Made::Refused(cancelled(launch)),
            made = self.make(launch, &name, output) => made?,
        };
        match made {
            Made::Ready => self.start(launch, &name, output, cancel).await,
            Made::Started(state) => self.take_up(launch, &name, &state, Stored::default(), output, cancel).await,
            Made::Refused(exit) => {
                self.remove_container(&name).await?;
                Ok(exit)
            }
        }
    }

    pub(super) async fn adopt_container(
        &self,
        launch: &Launch,
        stored: Stored,
        output: &OutputSender,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        let name = self.name(launch)?;
        match self.state(&name).await? {
            None => Ok(Exit::lost(&launch.container)),
            Some(state) if is_unstarted(&state) => self.run_container(launch, output, cancel).await,
            Some(state) => self.take_up(launch, &name, &state, stored, output, cancel).await,
        }
    }

    fn name(&self, launch: &Launch) -> Result<String, EngineError> {
        Ok(self.names.container(launch.step, place(launch)?))
    }

    /// Makes a container that can be started when its turn comes. Nothing is pulled for one that may never run.
    pub(super) async fn prepare_container(&self, launch: &Launch) -> Result<(), EngineError> {
        let name = self.name(launch)?;
        let Ok(order) = self.order(launch, &name).await? else { return Ok(()) };
        if self.has_image(&launch.container()?.image).await? && self.state(&name).await?.is_none() {
            let send = async {
                // A script comes with the others of its stage.
                if matches!(order.parcels, Freight::Script(_)) { Ok(()) } else { self.send_parcels(launch, &name, &order).await }
            };
            let (sent, created) = tokio::join!(send, self.ask_for(&name, order.body.clone()));
            created.and(sent)?;
            self.ahead().note_made(launch, order.digest());
        }
        Ok(())
    }

    /// What the container of a launch is made of. The inner error is a sentence for people: it cannot be started.
    async fn order(&self, launch: &Launch, name: &str) -> Result<Result<Order, String>, EngineError> {
        let (container, place) = (launch.container()?, place(launch)?);
        let stage = launch.step.stage_id();
        let room = self.require_open(stage).await?;
        let surroundings = Surroundings {
            options: &self.options,
            workspace: &self.names.stage(stage),
            room: &room,
            name,
            workspace_labels: self.names.workspace_labels(stage, &room),
            labels: self.names.container_labels(launch.step, &container.id),
            parcel_labels: self.names.step_labels(launch.step),
            scripts: self.scripts(stage, true),
            script_name: &script_name(launch, place),
            init: self.init_works().await?,
        };
        Ok(surroundings.order(launch, container))
    }

    async fn make(&self, launch: &Launch, name: &str, output: &OutputSender) -> Result<Made, EngineError> {
        let id = &launch.container()?.id;
        let order = match self.order(launch, name).await? {
            Ok(order) => order,
            Err(text) => return Ok(Made::Refused(Exit::unstarted(id, ExitCause::StartFailed, text))),
        };
        let prepared = self.ahead().take_made(launch);
        match self.state(name).await? {
            None => {}
            Some(state) if !is_unstarted(&state) => return Ok(Made::Started(state)),
            Some(_) if prepared == Some(order.digest()) => {
                self.send_missing_script(launch, &order).await?;
                return Ok(Made::Ready);
            }
            // Made before a crash, or for what has changed since.
            Some(_) => self.remove_container(name).await?,
        }
        let (sent, made) =
            tokio::join!(self.send_parcels(launch, name, &order), self.create(id, name, order.body.clone(), output));
        match made? {
            Made::Ready => sent.map(|()| Made::Ready),
            other => Ok(other),
        }
    }

    async fn send_parcels(&self, launch: &Launch, name: &str, order: &Order) -> Result<(), EngineError> {
        let (mounts, files) = match &order.parcels {
            Freight::None => return Ok(()),
            Freight::Script(script) => return self.send_script(launch.step.stage_id(), script).await,
            Freight::Own(mounts, files) => (mounts, files),
        };
        let filler = format!("{name}-fill");
        let body = self.own_container(self.names.step_labels(launch.step), mounts.clone());
        if let Err(EngineError::Refused { status: 409, .. }) = self.create_own(&filler, body.clone()).await {
            self.remove_container(&filler).await?;
            self.create_own(&filler, body).await?;
        }
        self.upload(&filler, Contents { files: files.clone(), ..Contents::default() }).await
    }

    /// Of a container that was made ahead: a plan that came to be later than the sources has a script that did not come with them.
    async fn send_missing_script(&self, launch: &Launch, order: &Order) -> Result<(), EngineError> {
        match &order.parcels {
            Freight::Script(script) if !self.ahead().has_script(launch, script.digest()) => {
                self.send_script(launch.step.stage_id(), script).await
            }
            _ => Ok(()),
        }
    }

    async fn send_script(&self, stage: StageId, script: &File) -> Result<(), EngineError> {
        let filler = self.names.filler(stage);
        let contents = || Contents { files: vec![script.clone()], ..Contents::default() };
        match self.upload(&filler, contents()).await {
            // Somebody has cleared away what was never started.
            Err(EngineError::Refused { status: 404, .. }) => {
                self.make_filler(stage).await?;
                self.upload(&filler, contents()).await
            }
            other => other,
        }
    }

    async fn ask_for(&self, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.client.call("make a container", Wait::Slow, api.create_container(Some(options), body)).await.map(|_| ())
    }

    /// Asks for the container, and pulls its image where that is absent.
    async fn create(&self, id: &str, name: &str, body: ContainerCreateBody, output: &OutputSender) -> Result<Made, EngineError> {
        let image = body.image.clone().unwrap_or_default();
        let (mut pulled, mut conflicts) = (false, 0);
        loop {
            let (cause, text) = match self.ask_for(name, body.clone()).await {
                Ok(()) => return Ok(Made::Ready),
                Err(EngineError::Refused { status: 404, message, .. }) if !pulled && names_image(&message) => {
                    pulled = true;
                    match self.pull(&image, output).await? {
                        Ok(()) => continue,
                        Err(Missing(text)) => (ExitCause::ImageFailed, text),
                    }
                }
                // An earlier request, given up because the engine hung, was carried out all the same, or is just now.
                Err(EngineError::Refused { status: 409, .. }) if conflicts < REMOVAL_TRIES => {
                    conflicts += 1;
                    match self.state(name).await? {
                        Some(state) if !is_unstarted(&state) => return Ok(Made::Started(state)),
                        Some(_) => self.remove_container(name).await?,
                        None => sleep(REMOVAL_PAUSE).await,
                    }
                    continue;
                }
                Err(EngineError::Refused { status: 400, message, .. }) if message.contains("invalid reference format") => {
                    (ExitCause::ImageFailed, format!("{image:?} is no name of an image"))
                }
                Err(EngineError::Refused { status: 400, message, .. }) => (ExitCause::StartFailed, message),
                Err(error) => return Err(error),
            };
            return Ok(Made::Refused(Exit::unstarted(id, cause, text)));
        }
    }

    async fn start(
        &self,
        launch: &Launch,
        name: &str,
        output: &OutputSender,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        let api = self.client.api().await?;
        // Before the start, so that no byte is missed; without `logs`, which would send some twice.
        let options = AttachContainerOptionsBuilder::new().stdout(true).stderr(true).stream(true).logs(false).build();
        let attached = self.client.call("attach to a container", Wait::Quick, api.attach_container(name, Some(options))).await?;
        let started = {
            let turn = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(cancelled(launch)),
                turn = self.turn(output) => turn,
            };
            let started =
                self.client.call("start a container", Wait::Slow, api.start_container(name, None::<StartContainerOptions>)).await;
            drop(turn);
            started
        };
        match started {
            Ok(()) => {}
            Err(EngineError::Refused { message, .. }) => {
                return Ok(Exit::unstarted(&launch.container, ExitCause::StartFailed, start_error(&message)));
            }
            Err(error) => return Err(error),
        }
        let subject = Subject { name, container: &launch.container, began: now(), timeout: launch.timeout(), is_over: false };
        self.follow(&subject, live(attached.output), Stored::default(), output, cancel).await
    }

    /// A place among the starts that the engine is asked for at once. Who does not get one soon is told what it waits for.
    async fn turn(&self, output: &OutputSender) -> Result<SemaphorePermit<'_>, AcquireError> {
        let mut turn = pin!(self.starts.acquire());
        if let Ok(turn) = timeout(SOON, &mut turn).await {
            return turn;
        }
        let message =
            format!("It waits for its turn: {} containers are being started, and no more at once.", self.starts_at_once);
        say(output, message).await;
        turn.await
    }

    /// Follows a container that was started earlier, by the engine's own copy of its output.
    async fn take_up(
        &self,
        launch: &Launch,
        name: &str,
        state: &ContainerState,
        stored: Stored,
        output: &OutputSender,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        let began = state.started_at.as_deref().and_then(instant).unwrap_or_else(now);
        let subject = Subject {
            name,
            container: &launch.container,
            began,
            timeout: launch.timeout(),
            is_over: state.running != Some(true),
        };
        let source = self.reread(name, stored).await?;
        self.follow(&subject, source, stored, output, cancel).await
    }
}

/// A container's place in its plan.
fn place(launch: &Launch) -> Result<usize, EngineError> {
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
pub(super) fn script_alone(launch: &Launch) -> Result<Option<File>, EngineError> {
    let name = script_name(launch, place(launch)?);
    let parcels = Parcels::pack(launch.container()?, &launch.secrets, &name);
    Ok(parcels.ok().and_then(|parcels| parcels.script_alone()))
}

fn cancelled(launch: &Launch) -> Exit {
    Exit::unstarted(&launch.container, ExitCause::Cancelled, "it was cancelled before it started")
}

fn is_unstarted(state: &ContainerState) -> bool {
    state.status == Some(ContainerStateStatusEnum::CREATED)
}

/// The same status says that an image is missing and that a container is.
fn names_image(message: &str) -> bool {
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
