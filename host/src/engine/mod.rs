//! What runs a plan: the contract every engine keeps, and the engines.
//!
//! Nothing above this module knows what a container is made of, and nothing below it decides anything: how an end is read is
//! [`beespace_core::outcome`]'s.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use beespace_core::exit::Exit;
use beespace_core::ids::{StageId, StepId};
use beespace_core::output::{OutputOffsets, Stream};
use beespace_core::plan::{Container, StepPlan};
use beespace_core::policy::Approved;
use beespace_core::time::Timestamp;
use bytes::Bytes;
use futures::stream::BoxStream;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::now;

pub mod docker;
pub mod dummy;
mod error;
pub mod fail_points;
mod health_cache;
mod tar_stream;

pub use error::EngineError;
pub use health_cache::HealthCache;

/// A place where stages run.
///
/// # The contract
///
/// Every engine keeps it; `tests/it/engine_contract.rs` holds each one to it.
///
/// **Order.** For a stage: [`open`](Self::open), then at most one [`fill`](Self::fill), then any number of
/// [`run`](Self::run), in the end [`destroy`](Self::destroy). In between [`close`](Self::close) and `open` again. [`prepare`](Self::prepare) may come before a `run`, or never: `run`
/// does what is left of it. `run`, `prepare` and `fill` on a stage that is not open are [`EngineError::NotOpen`].
///
/// **At once.** Different stages never wait for each other, except that an engine bounds how many containers it starts at the same
/// moment. Within a stage `run`, `adopt`, `prepare` and `release` of different steps, and `fill`, may go on at once; `prepare` and `run` of one
/// container, and `open`, `fill`, `close` and `destroy` of one stage, are not called beside each other. `destroy` beside a `run` is allowed and ends it.
///
/// **What runs.** Only an [`Approved`] plan reaches a method that could start or pull anything. What a plan has a container do begins
/// at most once an attempt, however often `run` and `adopt` are called for it, in this process or the next one; and not before `run` is called,
/// even where `prepare` has started the container.
///
/// **Isolation.** Stages share nothing: neither network nor files. The containers of a stage share the workspace, at
/// [`beespace_core::plan::WORKSPACE`], and a network in which they reach each other at `localhost`; they may read each other's scripts and cannot
/// change them. A secret's value is seen only by the container whose plan names it.
///
/// **Output** arrives in the order in which the program wrote it to each stream, and all of it before `run` returns. It is pushed back on:
/// a receiver that does not read stops the program, not the host. A receiver that is gone has its output thrown away; the program
/// goes on.
///
/// **Ends.** `Ok` is the truth about the container, whatever it is: refused to start, no such image, out of memory, timed out. `Err` is
/// the engine's own trouble (it does not answer, a disk is full); whether the container ran is then not known, and
/// [`adopt`](Self::adopt) finds out. An `Exit` can be asked for again through `adopt` until the step is released.
///
/// **Cancel** always ends `run` and `adopt`: the program gets TERM, and KILL after a grace; while an engine does not answer, the call
/// returns an error after its own timeout. A cancel before the start means that nothing ran ([`beespace_core::exit::ExitCause::Cancelled`], no code).
/// The same holds for the timeout, which counts from where `run` lets the container begin.
///
/// **After a failure** of `open` or `fill` parts of the stage may exist: `destroy` it. After a failure of `destroy` call it again.
///
/// **Idempotent** are `open`, `prepare`, `release`, `close` and `destroy`: done twice, or after a crash in the middle, they lead to the same place,
/// and what is not there any more is no error. Everything an engine makes carries this instance's id; it sees and touches nothing else.
#[async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// The word in the configuration (`docker`, `dummy`).
    fn kind(&self) -> &'static str;

    /// Asks the engine who it is, and whether it will do. Cheap: `/readyz` calls it.
    ///
    /// # Errors
    /// It does not answer, or is too old.
    async fn check(&self) -> Result<EngineInfo, EngineError>;

    /// Makes the stage's network and its empty workspace; of one that was closed, its network.
    ///
    /// # Errors
    /// The engine's trouble; then [`destroy`](Self::destroy) the stage.
    async fn open(&self, stage: StageId) -> Result<(), EngineError>;

    /// Puts a directory into the stage's workspace, which stays empty without one, and beside it what containers of the stage will find in files: with
    /// those of `launches` their [`run`](Self::run) does not have to begin.
    ///
    /// # Errors
    /// [`EngineError::SourcesUnreadable`] where the directory cannot be read, else the engine's trouble.
    async fn fill(&self, stage: StageId, sources: Option<&Path>, launches: &[Launch]) -> Result<(), EngineError>;

    /// Gets ready ahead of its turn what [`run`](Self::run) of the same launch would have to wait for: a container with a script may be started, and
    /// then waits for its turn before it reads the script. Called, if at all, before the first `run` of an attempt. Nothing is pulled: an image that is absent, or a container that cannot be made, is no
    /// error here; `run` says so when its turn comes. A launch that has changed since is prepared in vain.
    ///
    /// # Errors
    /// [`EngineError::NotOpen`], or the engine's trouble.
    async fn prepare(&self, launch: &Launch) -> Result<(), EngineError>;

    /// Runs one container of an approved plan to its end.
    ///
    /// # Errors
    /// The engine's trouble; then [`adopt`](Self::adopt) tells what became of the container.
    async fn run(&self, launch: Launch, output: OutputSender, cancel: CancellationToken) -> Result<Exit, EngineError>;

    /// Takes up a container that an earlier `run` (before a restart of the server, or of the engine) may have started. `stored` says
    /// how much of its output is safe; what came after is sent again, as exactly as the engine's own copy allows. One that runs is followed,
    /// one that ended is told of, one whose turn is known never to have come is run now, and one that is not there is
    /// [`beespace_core::exit::ExitCause::Lost`]: an engine does not know whether it ever was. The caller may: where not a byte of its output
    /// is stored it was never made, and `run` is the next call, which runs it unless the stage is not open any more.
    ///
    /// # Errors
    /// The engine's trouble.
    async fn adopt(
        &self,
        launch: Launch,
        stored: OutputOffsets,
        output: OutputSender,
        cancel: CancellationToken,
    ) -> Result<Exit, EngineError>;

    /// Removes the containers of a step, and with them its script and the files of its secrets. To be called once the `Exit`s are
    /// stored; until then they can be asked for again. `destroy` does it too, for all steps.
    ///
    /// # Errors
    /// The engine's trouble.
    async fn release(&self, step: StepId) -> Result<(), EngineError>;

    /// Removes everything of the stage but its workspace, which waits for [`open`](Self::open) to come again.
    ///
    /// # Errors
    /// The first trouble; everything else has been tried.
    async fn close(&self, stage: StageId) -> Result<(), EngineError>;

    /// Removes everything of the stage, running or not.
    ///
    /// # Errors
    /// The first trouble; everything else has been tried.
    async fn destroy(&self, stage: StageId) -> Result<(), EngineError>;

    /// Keeps as much ready as `stages` that come at once would need to be opened without delay, and clears away what was made ready beyond that or
    /// by a process before this one. With 0 nothing is kept. Not called beside itself.
    ///
    /// # Errors
    /// The engine's trouble.
    async fn maintain(&self, stages: usize) -> Result<(), EngineError>;

    /// The stages of this instance of which anything exists.
    ///
    /// # Errors
    /// The engine's trouble.
    async fn inventory(&self) -> Result<Vec<StageId>, EngineError>;
}

/// An uncompressed tar as a stream of bytes.
type TarStream = BoxStream<'static, std::io::Result<Bytes>>;

/// What an engine says about itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct EngineInfo {
    /// `docker`, `dummy`.
    pub kind: String,
    /// The engine's own version.
    pub version: String,
    /// The version of its API that we speak with it.
    pub api: String,
    /// `linux/amd64`
    pub platform: String,
    /// What a careful operator would change, in sentences.
    pub warnings: Vec<String>,
}

/// A piece of output, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub stream: Stream,
    pub at: Timestamp,
    pub bytes: Bytes,
}

/// Where output goes. Bounded: see the contract.
pub type OutputSender = mpsc::Sender<Output>;

/// One container of an approved plan and what it needs besides.
#[derive(Debug, Clone)]
pub struct Launch {
    pub step: StepId,
    /// The container's id in the plan.
    pub container: String,
    pub plan: Arc<Approved<StepPlan>>,
    /// `CI` and `BEESPACE_*`; the plan's own variables win.
    pub env: BTreeMap<String, String>,
    /// The values of the secrets that the plan names, by the name of the secret.
    pub secrets: BTreeMap<String, SecretString>,
    /// The time left for it; the plan's own limit holds too.
    pub timeout: Option<Duration>,
}

impl Launch {
    /// The container in the plan.
    ///
    /// # Errors
    /// [`EngineError::NoSuchContainer`].
    pub fn container(&self) -> Result<&Container, EngineError> {
        let mut containers = self.plan.get().containers.iter();
        containers
            .find(|container| container.id == self.container)
            .ok_or_else(|| EngineError::NoSuchContainer { step: self.step, container: self.container.clone() })
    }

    /// The shorter of the two limits.
    pub fn timeout(&self) -> Option<Duration> {
        let own = self.container().ok().and_then(|container| container.limits.timeout());
        own.into_iter().chain(self.timeout).min()
    }
}

/// The program that holds a stage's network (`host/gate`), for the architecture of this host.
pub const PAUSE_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/beespace-gate"));

/// Says something to the reader of the log, in the host's name.
async fn write_host_line(output: &OutputSender, text: impl Into<String>) {
    let mut text = text.into();
    text.push('\n');
    // A reader who is gone is not told.
    let _ = output.send(Output { stream: Stream::Host, at: now(), bytes: text.into() }).await;
}
