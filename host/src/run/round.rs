//! One round of a step: the containers of its plan in the order of their needs, and what they say into the step's log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use beespace_core::exit::{Exit, ExitCause};
use beespace_core::ids::StepId;
use beespace_core::plan::{Container, StepPlan};
use beespace_core::policy::Approved;
use beespace_core::reason::Reason;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::StageRun;
use super::container::{Begin, ContainerRun, OUTPUT_QUEUE, OutputChunk, OutputOrigin};
use super::step_log::StepLog;
use crate::engine::Launch;

/// A round in hand.
pub(super) struct RoundRun<'a> {
    pub(super) run: &'a Arc<StageRun>,
    pub(super) step: StepId,
    pub(super) number: u16,
    pub(super) begin: Begin,
    pub(super) plan: &'a Arc<Approved<StepPlan>>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) secrets: BTreeMap<String, SecretString>,
    pub(super) log: &'a StepLog,
    pub(super) cancel: &'a CancellationToken,
}

impl RoundRun<'_> {
    /// Runs every container to its end; their exits come in the order of the plan.
    pub(super) async fn exits(&self) -> anyhow::Result<Result<Vec<Exit>, Reason>> {
        let (sender, receiver) = mpsc::channel(OUTPUT_QUEUE);
        let (exits, written) = tokio::join!(self.containers(sender), self.write_log(receiver));
        written?;
        Ok(exits)
    }

    async fn containers(&self, output: mpsc::Sender<OutputChunk>) -> Result<Vec<Exit>, Reason> {
        let containers = &self.plan.get().containers;
        let services = CancellationToken::new();
        let mut waiting: Vec<(u16, &Container)> = (0..).zip(containers).collect();
        let mut exits: HashMap<&str, Exit> = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let (ready, rest): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|(_, container)| container.needs.iter().all(|need| exits.contains_key(need.as_str())));
            waiting = rest;
            for (place, container) in ready {
                if container.needs.iter().any(|need| !exits.get(need.as_str()).is_some_and(Exit::is_success)) {
                    let message = "a container that it needs did not end well";
                    exits.insert(&container.id, Exit::not_started(&container.id, ExitCause::Cancelled, message));
                    continue;
                }
                let cancel = if container.service { services.child_token() } else { self.cancel.child_token() };
                let container_run = self.container_run(place, container, output.clone(), cancel);
                let begin = self.begin;
                tasks.spawn(async move { (place, container_run.until_exit(begin).await) });
            }
            let works = |container: &Container| !container.service && !exits.contains_key(container.id.as_str());
            if self.cancel.is_cancelled() || !containers.iter().any(works) {
                services.cancel();
            }
            match tasks.join_next().await {
                None if waiting.is_empty() => break,
                // What still waits needs something that was never there; the floor refuses such plans.
                None => return Err(Reason::new("plan-order", "containers of the plan wait for each other")),
                Some(ended) => {
                    let (place, exit) = ended.map_err(|error| Reason::new("internal", error.to_string()))?;
                    let id = containers.get(usize::from(place)).map_or("", |container| &container.id);
                    exits.insert(id, exit?);
                }
            }
        }
        Ok(containers.iter().filter_map(|container| exits.remove(container.id.as_str())).collect())
    }

    fn container_run(
        &self,
        place: u16,
        container: &Container,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> ContainerRun {
        let launch = Launch {
            step: self.step,
            container: container.id.clone(),
            plan: Arc::clone(self.plan),
            env: self.env.clone(),
            secrets: self.secrets.clone(),
            timeout: None,
        };
        let stored = self.log.stored(self.number, place);
        let speaker = OutputOrigin { round: self.number, container: place };
        ContainerRun { run: Arc::clone(self.run), launch, speaker, stored, output, cancel }
    }

    async fn write_log(&self, mut output: mpsc::Receiver<OutputChunk>) -> anyhow::Result<()> {
        while let Some((source, piece)) = output.recv().await {
            self.run.app.metrics.add_log_bytes(u64::try_from(piece.bytes.len()).unwrap_or_default());
            self.log.write(source, piece.at, piece.bytes).await?;
        }
        Ok(())
    }
}
