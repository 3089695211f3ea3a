//! One round of a step: the containers of its plan in the order of their needs, and their output into the step's log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use beespace_core::exit::{Exit, ExitCause};
use beespace_core::ids::StepId;
use beespace_core::plan::{Container, StepPlan};
use beespace_core::policy::Approved;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::container::{ContainerRun, OUTPUT_QUEUE, OutputChunk, OutputOrigin, StartMode};
use super::stage_run::StageRun;
use super::step_log::StepLog;
use crate::engine::Launch;

/// How a round ended.
pub(super) enum RoundOutcome {
    /// Every container of the plan ended; the exits are in the order of the plan.
    Exited(Vec<Exit>),
    /// A container could not be run: a secret is missing, or the engine failed.
    Failed(Reason),
}

/// A round that runs in this process.
pub(super) struct RoundRun<'a> {
    pub(super) run: &'a Arc<StageRun>,
    pub(super) step: StepId,
    pub(super) number: u16,
    pub(super) mode: StartMode,
    pub(super) plan: &'a Arc<Approved<StepPlan>>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) secrets: BTreeMap<String, SecretString>,
    pub(super) log: &'a StepLog,
    pub(super) cancel: &'a CancellationToken,
}

impl RoundRun<'_> {
    /// Runs every container of the plan to its end.
    ///
    /// # Errors
    /// The log's.
    pub(super) async fn run(&self) -> anyhow::Result<RoundOutcome> {
        let (sender, receiver) = mpsc::channel(OUTPUT_QUEUE);
        let (exits, written) = tokio::join!(self.run_containers(sender), self.write_log(receiver));
        written?;
        Ok(exits.map_or_else(RoundOutcome::Failed, RoundOutcome::Exited))
    }

    async fn run_containers(&self, output: mpsc::Sender<OutputChunk>) -> Result<Vec<Exit>, Reason> {
        let containers = &self.plan.get().containers;
        let services = CancellationToken::new();
        let mut waiting: Vec<(u16, &Container)> = (0..).zip(containers).collect();
        let mut exits: HashMap<&str, Exit> = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            // Start every container whose needs have ended; skip it when one of them failed.
            let (ready, rest): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|(_, container)| container.needs.iter().all(|need| exits.contains_key(need.as_str())));
            waiting = rest;
            for (index, container) in ready {
                if container.needs.iter().any(|need| !exits.get(need.as_str()).is_some_and(Exit::is_success)) {
                    let message = "a container that this container needs failed";
                    exits.insert(&container.id, Exit::not_started(&container.id, ExitCause::Cancelled, message));
                    continue;
                }
                let cancel = if container.service { services.child_token() } else { self.cancel.child_token() };
                let container_run = self.container_run(index, container, output.clone(), cancel);
                let mode = self.mode;
                tasks.spawn(async move { (index, container_run.until_exit(mode).await) });
            }
            // Services stop when nothing that could need them is left, or when the round is cancelled.
            let is_pending = |container: &Container| !container.service && !exits.contains_key(container.id.as_str());
            if self.cancel.is_cancelled() || !containers.iter().any(is_pending) {
                services.cancel();
            }
            match tasks.join_next().await {
                None if waiting.is_empty() => break,
                // The remaining containers need a container that does not exist; the baseline policy refuses such plans.
                None => return Err(Reason::new(ReasonCode::PlanCycle, "the plan's containers wait for each other")),
                Some(ended) => {
                    let (index, exit) = ended.map_err(|error| Reason::new(ReasonCode::Internal, error.to_string()))?;
                    let id = containers.get(usize::from(index)).map_or("", |container| &container.id);
                    exits.insert(id, exit?);
                }
            }
        }
        Ok(containers.iter().filter_map(|container| exits.remove(container.id.as_str())).collect())
    }

    fn container_run(
        &self,
        index: u16,
        container: &Container,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> ContainerRun {
        let launch = Launch {
            step: self.step,
            container: container.id.clone(),
            plan: Arc::clone(self.plan),
            image: self.run.images.of(container),
            env: self.env.clone(),
            secrets: self.secrets.clone(),
        };
        let stored = self.log.stored(self.number, index);
        let origin = OutputOrigin { round: self.number, container: index };
        ContainerRun { run: Arc::clone(self.run), launch, origin, stored, output, cancel, slot: None }
    }

    async fn write_log(&self, mut output: mpsc::Receiver<OutputChunk>) -> anyhow::Result<()> {
        while let Some((origin, chunk)) = output.recv().await {
            self.run.app.metrics.add_log_bytes(u64::try_from(chunk.bytes.len()).unwrap_or_default());
            self.log.write(origin, chunk.at, chunk.bytes).await?;
        }
        Ok(())
    }
}
