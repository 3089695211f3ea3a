//! An engine without containers. It obeys variables in a step's environment, so that cancel, timeout, crash and retry have plain,
//! fast tests.
//!
//! | variable | effect |
//! |---|---|
//! | `OUTPUT` | is written to stdout first, with a newline |
//! | `SLEEP` | the container then waits this long (`200ms`, `3s`, `1m`) |
//! | `OOM` | the container exits like a program that the memory limit killed |
//! | `EXIT_CODE` | the exit code; 0 if it is absent |
//! | `FAILED_ATTEMPTS` | so many attempts at a step exit with 1; the others obey `EXIT_CODE` |
//! | `FAIL_START` | the container cannot be started; the value is the reason |

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use beespace_core::exit::{Exit, ExitCause};
use beespace_core::ids::{StageId, StepId};
use beespace_core::output::{OutputOffsets, Stream};
use beespace_core::plan::{Container, SecretTarget, WORKSPACE};
use beespace_core::units::parse_duration;
use futures::StreamExt as _;
use secrecy::ExposeSecret;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::container_io::{Launch, Output, OutputSender};
use super::contract::{Capabilities, Engine, EngineInfo, EngineWarning, ImageOutcome};
use super::error::EngineError;
use super::tar_stream::{self, TarContents};
use crate::clock::now;

/// The engine of tests. It forgets its stages when the process ends, as an engine would whose machine is lost.
#[derive(Debug, Default)]
pub struct Dummy {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The known stages. An open stage has a token that ends its containers.
    stages: BTreeMap<StageId, Option<CancellationToken>>,
    exits: BTreeMap<Key, Exit>,
    started_steps: Vec<StepId>,
}

/// A container: its step and its id in the plan.
type Key = (StepId, String);

impl Dummy {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The steps of which a container was started, in order.
    #[must_use]
    pub fn started_steps(&self) -> Vec<StepId> {
        self.state().started_steps.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and no operation leaves the maps inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn require_open(&self, stage: StageId) -> Result<CancellationToken, EngineError> {
        self.state().stages.get(&stage).cloned().flatten().ok_or(EngineError::NotOpen(stage))
    }
}

#[async_trait]
impl Engine for Dummy {
    fn kind(&self) -> &'static str {
        "dummy"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { shared_localhost: false, separate_streams: false, early_start: false }
    }

    async fn check(&self) -> Result<EngineInfo, EngineError> {
        Ok(EngineInfo {
            kind: self.kind().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: String::new(),
            platform: String::new(),
            warnings: vec![EngineWarning::new(
                "the dummy engine runs no containers: OUTPUT, SLEEP, EXIT_CODE, OOM and FAIL_START control a step",
            )],
        })
    }

    async fn open(&self, stage: StageId) -> Result<(), EngineError> {
        self.state().stages.entry(stage).or_default().get_or_insert_default();
        Ok(())
    }

    async fn fill(&self, stage: StageId, sources: Option<&Path>, _launches: &[Launch]) -> Result<(), EngineError> {
        self.require_open(stage)?;
        let tree = sources.map(|sources| (sources.to_owned(), WORKSPACE));
        let mut tar = tar_stream::pack(TarContents { tree, ..TarContents::default() });
        while let Some(chunk) = tar.next().await {
            chunk?;
        }
        Ok(())
    }

    async fn find_image(&self, launch: &Launch) -> Result<Option<String>, EngineError> {
        Ok(Some(launch.container()?.image.clone()))
    }

    async fn pull_image(&self, launch: &Launch, _output: &OutputSender) -> Result<ImageOutcome<String>, EngineError> {
        Ok(ImageOutcome::Ready(launch.container()?.image.clone()))
    }

    async fn prepare(&self, launch: &Launch) -> Result<(), EngineError> {
        self.require_open(launch.step.stage_id()).map(drop)
    }

    async fn run(&self, launch: Launch, output: OutputSender, cancel: CancellationToken) -> Result<Exit, EngineError> {
        let destroyed = self.require_open(launch.step.stage_id())?;
        let container = launch.container()?;
        let key = (launch.step, container.id.clone());
        if let Some(exit) = self.state().exits.get(&key) {
            return Ok(exit.clone());
        }
        let began = Instant::now();
        let mut exit = Exit::lost(&container.id);
        (exit.cause, exit.code, exit.message) = self.simulate(&launch, container, &output, &cancel, &destroyed).await;
        exit.duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let never_ran = exit.cause == ExitCause::Cancelled && exit.code.is_none();
        if !destroyed.is_cancelled() && !never_ran {
            self.state().exits.insert(key, exit.clone());
        }
        Ok(exit)
    }

    async fn adopt(
        &self,
        launch: Launch,
        _stored: OutputOffsets,
        _output: OutputSender,
        _cancel: CancellationToken,
    ) -> Result<Exit, EngineError> {
        let known = self.state().exits.get(&(launch.step, launch.container.clone())).cloned();
        Ok(known.unwrap_or_else(|| Exit::lost(&launch.container)))
    }

    async fn release(&self, step: StepId) -> Result<(), EngineError> {
        self.state().exits.retain(|(of, _), _| *of != step);
        Ok(())
    }

    async fn close(&self, stage: StageId) -> Result<(), EngineError> {
        let mut state = self.state();
        state.exits.retain(|(step, _), _| step.stage_id() != stage);
        if let Some(token) = state.stages.get_mut(&stage).and_then(Option::take) {
            token.cancel();
        }
        Ok(())
    }

    async fn destroy(&self, stage: StageId) -> Result<(), EngineError> {
        self.close(stage).await?;
        self.state().stages.remove(&stage);
        Ok(())
    }

    async fn inventory(&self) -> Result<Vec<StageId>, EngineError> {
        let stages: BTreeSet<StageId> = self.state().stages.keys().copied().collect();
        Ok(stages.into_iter().collect())
    }

    async fn maintain(&self) -> Result<(), EngineError> {
        Ok(())
    }

    async fn shutdown(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

type SimulatedExit = (ExitCause, Option<i32>, String);

/// The value of a variable that a secret sets, as a container would see it.
fn secret_env<'l>(launch: &'l Launch, container: &Container, name: &str) -> Option<&'l str> {
    let mounts = container.secrets.iter().filter(|mount| matches!(&mount.target, SecretTarget::Env(env) if env == name));
    mounts.filter_map(|mount| launch.secrets.get(&mount.secret)).map(ExposeSecret::expose_secret).next()
}

impl Dummy {
    async fn simulate(
        &self,
        launch: &Launch,
        container: &Container,
        output: &OutputSender,
        cancel: &CancellationToken,
        destroyed: &CancellationToken,
    ) -> SimulatedExit {
        let variable = |name: &str| {
            let plain = container.env.get(name).or_else(|| launch.env.get(name)).map(String::as_str);
            secret_env(launch, container, name).or(plain)
        };
        if cancel.is_cancelled() {
            return (ExitCause::Cancelled, None, "the container was cancelled before it started".to_owned());
        }
        if let Some(reason) = variable("FAIL_START") {
            return (ExitCause::StartFailed, None, reason.to_owned());
        }
        self.state().started_steps.push(launch.step);
        let program = async {
            if let Some(text) = variable("OUTPUT") {
                let bytes = format!("{text}\n").into();
                let _ = output.send(Output { stream: Stream::Stdout, at: now(), bytes }).await;
            }
            tokio::time::sleep(variable("SLEEP").and_then(duration).unwrap_or_default()).await;
        };
        let timeout = async {
            match launch.timeout() {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = destroyed.cancelled() => (ExitCause::Lost, None, Exit::lost("").message),
            () = cancel.cancelled() => (ExitCause::Cancelled, Some(143), "cancelled".to_owned()),
            () = timeout => (ExitCause::TimedOut, Some(143), "timed out".to_owned()),
            () = program => {
                if variable("OOM").is_some() {
                    return (ExitCause::OutOfMemory, Some(137), "killed: out of memory".to_owned());
                }
                let number = |name: &str| variable(name).and_then(|number| number.parse::<i32>().ok()).unwrap_or(0);
                let fails = i32::from(launch.step.attempt) <= number("FAILED_ATTEMPTS");
                (ExitCause::Exited, Some(if fails { 1 } else { number("EXIT_CODE") }), String::new())
            }
        }
    }
}

/// A duration as everywhere, and also milliseconds, for tests that must be fast.
fn duration(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok().map(Duration::from_millis),
        None => parse_duration(text),
    }
}
