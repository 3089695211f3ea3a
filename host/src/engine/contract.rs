//! The contract that every engine keeps, and what only some engines can do.

use std::path::Path;

use async_trait::async_trait;
use beespace_core::exit::Exit;
use beespace_core::ids::{StageId, StepId};
use beespace_core::output::OutputOffsets;
use tokio_util::sync::CancellationToken;

use super::container_io::{Launch, OutputSender};
use super::error::EngineError;

/// A backend that runs stages.
///
/// # The contract
///
/// Every engine keeps this contract, and `tests/it/engine_contract.rs` checks it for each engine. [`Capabilities`] lists what
/// only some engines can do.
///
/// **Order.** The calls for a stage are [`open`](Self::open), then at most one [`fill`](Self::fill), then any number of
/// [`run`](Self::run), and finally [`destroy`](Self::destroy). In between, a stage may be closed with [`close`](Self::close) and
/// opened again. [`prepare`](Self::prepare) may precede a `run`, or never be called: `run` does the rest. `run`,
/// `prepare` and `fill` on a stage that is not open return [`EngineError::NotOpen`].
///
/// **Concurrency.** Calls for different stages never wait for each other, except that an engine limits how many containers it
/// starts at the same time. Within a stage, `run`, `adopt`, `prepare` and `release` of different steps, and `fill`, may be
/// concurrent. The caller does not call `prepare` and `run` of the same container concurrently, nor `open`, `fill`, `close` and
/// `destroy` of the same stage. A `destroy` during a `run` is allowed and ends the `run`.
///
/// **Execution.** Only an [`Approved`](beespace_core::policy::Approved) plan reaches a method that can start or pull anything.
/// The program of a plan's container begins at most once per attempt, however often `run` and `adopt` are called for it, in this
/// process or a later one. It does not begin before `run` is called, even if `prepare` has started the container.
///
/// **Isolation.** Stages share neither networks nor files. The containers of a stage share the workspace at
/// [`beespace_core::plan::WORKSPACE`] and the stage's network. They can read each other's scripts and cannot change them. Only a
/// container whose plan names a secret can see the secret's value.
///
/// **Output** arrives completely before `run` returns. If the engine separates streams, the output of each stream arrives in the
/// order in which the program wrote it. Output has backpressure: a receiver that does not read blocks the program, not the host.
/// If the receiver is dropped, the output is discarded and the program continues.
///
/// **Exits.** `Ok` describes any exit of the container: the container could not be started, the image does not exist, the
/// memory limit was reached, the timeout was reached. `Err` is a failure of the engine (it does not respond, its
/// disk is full). It is then unknown whether the container has run, and [`adopt`](Self::adopt) finds out. `adopt` returns the
/// same `Exit` again until the step is released.
///
/// **Cancel** always ends `run` and `adopt`: the program receives TERM, and KILL after a grace period. If the engine does not
/// respond, the call returns an error after its own time limit. A cancel before the start means that the program did not run
/// ([`ExitCause::Cancelled`](beespace_core::exit::ExitCause::Cancelled) without a code). The same holds for the plan's time
/// limit, which begins when `run` lets the program begin.
///
/// **After a failure** of `open` or `fill`, parts of the stage may exist: `destroy` it. After a failure of `destroy`, call it
/// again.
///
/// **Idempotence.** `open`, `prepare`, `release`, `close` and `destroy` are idempotent: repeated, or called after a crash in the
/// middle, they have the same result, and an object that no longer exists is not an error. Everything that an engine makes is
/// labelled with the id of this instance; the engine neither sees nor changes anything else.
#[async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// The engine's name in the configuration (`docker`, `dummy`).
    fn kind(&self) -> &'static str;

    /// The capabilities of this engine beyond the contract.
    fn capabilities(&self) -> Capabilities;

    /// Asks the engine for its version and checks that it is suitable. This is cheap: `/readyz` calls it.
    ///
    /// # Errors
    /// The engine does not respond, or is too old.
    async fn check(&self) -> Result<EngineInfo, EngineError>;

    /// Creates the stage's network and its empty workspace. For a stage that was closed, only the network.
    ///
    /// # Errors
    /// A failure of the engine; then [`destroy`](Self::destroy) the stage.
    async fn open(&self, stage: StageId) -> Result<(), EngineError>;

    /// Copies a directory into the stage's workspace, which stays empty without one. Also uploads the files of `launches` in
    /// advance, so that their [`run`](Self::run) does not begin with an upload.
    ///
    /// # Errors
    /// [`EngineError::SourcesUnreadable`] if the directory cannot be read, otherwise a failure of the engine.
    async fn fill(&self, stage: StageId, sources: Option<&Path>, launches: &[Launch]) -> Result<(), EngineError>;

    /// The image that a launch's container would run now without a pull, as a reference that means this image for ever
    /// ([`Launch::image`]). `None` if it has to be pulled, or must not be run before its registry was asked
    /// ([`Pull::Always`](beespace_core::pipeline::Pull)). An engine without images returns the reference itself.
    ///
    /// # Errors
    /// A failure of the engine.
    async fn find_image(&self, launch: &Launch) -> Result<Option<String>, EngineError>;

    /// Like [`find_image`](Self::find_image), but pulls the image as the plan wants it, and reports the progress as output.
    ///
    /// # Errors
    /// A failure of the engine.
    async fn pull_image(&self, launch: &Launch, output: &OutputSender) -> Result<ImageOutcome<String>, EngineError>;

    /// Prefetches what [`run`](Self::run) of the same launch would otherwise wait for. A container with a script may be started;
    /// it then waits for its start signal before it reads the script. If it is called at all, it is called before the first `run`
    /// of an attempt. It pulls nothing and changes nothing that other containers can see: an absent image, or a container that
    /// cannot be created, is not an error here, because `run` reports it. If the launch changes afterwards, the prefetched
    /// container is not used.
    ///
    /// # Errors
    /// [`EngineError::NotOpen`], or a failure of the engine.
    async fn prepare(&self, launch: &Launch) -> Result<(), EngineError>;

    /// Runs one container of an approved plan until it exits.
    ///
    /// # Errors
    /// A failure of the engine; then [`adopt`](Self::adopt) finds out what happened to the container.
    async fn run(&self, launch: Launch, output: OutputSender, cancel: CancellationToken) -> Result<Exit, EngineError>;

    /// Re-attaches to a container that an earlier `run` may have started, before a restart of the server or of the engine.
    /// `stored` states how much of its output is stored; later output is sent again, as exactly as the engine's own copy allows.
    ///
    /// | the container | result |
    /// |---|---|
    /// | runs | it is supervised until it exits |
    /// | has exited | its exit |
    /// | exists, and its program certainly never began | it is run now |
    /// | does not exist | [`ExitCause::Lost`](beespace_core::exit::ExitCause::Lost) |
    ///
    /// An engine does not know whether a container that does not exist ever existed. The caller may know: if no byte of its
    /// output is stored, the container was never created. The next call is then `run`, which runs it unless the stage is no
    /// longer open.
    ///
    /// # Errors
    /// A failure of the engine.
    async fn adopt(
        &self,
        launch: Launch,
        stored: OutputOffsets,
        output: OutputSender,
        cancel: CancellationToken,
    ) -> Result<Exit, EngineError>;

    /// Removes the containers of a step, with its script and the files of its secrets. Called when the `Exit`s are stored; until
    /// then, `adopt` can return them again. `destroy` does the same for all steps.
    ///
    /// # Errors
    /// A failure of the engine.
    async fn release(&self, step: StepId) -> Result<(), EngineError>;

    /// Removes everything of the stage except its workspace, which is kept for the next [`open`](Self::open).
    ///
    /// # Errors
    /// The first failure; everything else has been tried.
    async fn close(&self, stage: StageId) -> Result<(), EngineError>;

    /// Removes everything of the stage, running or not.
    ///
    /// # Errors
    /// The first failure; everything else has been tried.
    async fn destroy(&self, stage: StageId) -> Result<(), EngineError>;

    /// The stages of this instance of which anything exists.
    ///
    /// # Errors
    /// A failure of the engine.
    async fn inventory(&self) -> Result<Vec<StageId>, EngineError>;

    /// Prepares what future stages need, and removes such preparations of an earlier process. The server calls it after each
    /// stage and at intervals, never concurrently with itself. An engine without preparations does nothing.
    ///
    /// # Errors
    /// A failure of the engine.
    async fn maintain(&self) -> Result<(), EngineError>;

    /// Removes what [`maintain`](Self::maintain) has prepared. The server calls it when it stops, after the last `maintain`.
    ///
    /// # Errors
    /// A failure of the engine.
    async fn shutdown(&self) -> Result<(), EngineError>;
}

/// The result of a request for an image.
#[derive(Debug)]
pub enum ImageOutcome<T> {
    /// The image can be run.
    Ready(T),
    /// The image cannot be run; the exit states why.
    Unusable(Exit),
}

/// Capabilities that only some engines have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The containers of a stage reach each other at `localhost`: a container can be added to the network namespace of a stage
    /// that is running.
    pub shared_localhost: bool,
    /// Standard output and standard error arrive separately, each in order.
    pub separate_streams: bool,
    /// [`Engine::prepare`] starts a container with a script early; the container waits for its start signal.
    pub early_start: bool,
}

/// An engine's report about itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EngineInfo {
    /// `docker`, `dummy`.
    pub kind: String,
    /// The engine's own version.
    pub version: String,
    /// The version of its API that we use.
    pub api: String,
    /// `linux/amd64`
    pub platform: String,
    /// Settings that a careful operator would change.
    pub warnings: Vec<EngineWarning>,
}

/// A setting of an engine that a careful operator would change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EngineWarning {
    pub message: String,
    /// The remedy, if it does not follow from the message.
    pub help: Option<String>,
}

impl EngineWarning {
    /// A warning without a remedy.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}
