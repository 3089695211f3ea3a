//! The steps of a stage that are in hand: those that run, those that are being made ready, and those that are being put away.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use anyhow::Context as _;
use beespace_core::build::Stage;
use beespace_core::graph;
use beespace_core::ids::StepNumber;
use beespace_core::status::Status;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::container::Begin;
use super::step::{self, FinishedStep};
use super::{StageRun, prefetch};

/// Steps that are made ready at most while others run.
const MAX_PREFETCHES: usize = 4;
/// Of them at once. The first one of a stage is made ready alone: everybody waits for it.
const PREFETCHES_AT_ONCE: usize = 2;

/// A step that is being made ready.
struct Prefetch {
    task: AbortOnDropHandle<()>,
    /// Cancelled when its turn has come, or never will.
    too_late: CancellationToken,
}

impl Prefetch {
    /// Waits for what is half asked for: it would come to be behind everybody's back.
    async fn finish(self) {
        self.too_late.cancel();
        let _ = self.task.await;
    }
}

/// A stage's hands. Let go of, they leave the containers as they are.
#[derive(Default)]
pub(super) struct StepTasks {
    running: JoinSet<anyhow::Result<FinishedStep>>,
    cancels: HashMap<StepNumber, CancellationToken>,
    prefetches: HashMap<StepNumber, Prefetch>,
    /// Cancelled as these come to be ready, in the order in which they were begun.
    ready: Vec<CancellationToken>,
    removals: JoinSet<()>,
    /// Cancelled once all of the stage is removed at once.
    stage_closing: CancellationToken,
    /// The step that ended last: put away while others run.
    last_finished: Option<StepNumber>,
}

impl StepTasks {
    /// Does what the row says: runs what is to run, stops what is to stop, makes ready what comes next.
    pub(super) fn reconcile(&mut self, run: &Arc<StageRun>, stage: &Stage, begin: Begin) {
        for step in stage.steps.iter().filter(|step| step.status == Status::Running) {
            if !self.cancels.contains_key(&step.number) {
                self.start_step(run, step.number, begin);
            }
            // A step that runs has a reason where it is to be stopped, and only there.
            if let Some(cancel) = self.cancels.get(&step.number).filter(|_| step.reason.is_some()) {
                cancel.cancel();
            }
        }
        let is_over = |number| stage.steps.iter().any(|step| step.number == number && step.status.is_over());
        // One that waits for a person has nothing left there, and may run again at any moment.
        if let Some(ended) = self.last_finished.take().filter(|number| is_over(*number)) {
            self.removals.spawn(step::remove_containers(Arc::clone(run), stage.clone(), ended, self.stage_closing.clone()));
        }
        if !stage.steps.iter().any(|step| !step.status.is_over() && prefetch::reads_source(run, step)) {
            run.change.files.drop_tree();
        }
        for number in graph::upcoming(&graph::nodes(stage), &run.change.facts, MAX_PREFETCHES) {
            if let Entry::Vacant(vacant) = self.prefetches.entry(number) {
                let before = self.ready.get(self.ready.len().saturating_sub(PREFETCHES_AT_ONCE)).cloned();
                let (ready, too_late) = (CancellationToken::new(), CancellationToken::new());
                self.ready.push(ready.clone());
                let turn = prefetch::PrefetchSignal { may_start: before, ready: ready.drop_guard(), too_late: too_late.clone() };
                let task = AbortOnDropHandle::new(tokio::spawn(prefetch::prefetch(Arc::clone(run), stage.clone(), number, turn)));
                vacant.insert(Prefetch { task, too_late });
            }
        }
    }

    fn start_step(&mut self, run: &Arc<StageRun>, number: StepNumber, begin: Begin) {
        let cancel = CancellationToken::new();
        self.cancels.insert(number, cancel.clone());
        // Where the stage was not opened, nothing is being made ready.
        let ahead = self.prefetches.remove(&number).filter(|_| run.opened.is_cancelled());
        let run = Arc::clone(run);
        self.running.spawn(async move {
            if let Some(ahead) = ahead {
                // Also for a step that is to stop.
                ahead.finish().await;
            }
            step::run(run, number, begin, cancel).await
        });
    }

    /// How the next step ends; none where none runs.
    pub(super) async fn next_finished(&mut self) -> Option<anyhow::Result<FinishedStep>> {
        let ended = self.running.join_next().await?.context("a step's task failed").flatten();
        self.last_finished = ended.as_ref().ok().map(|ended| ended.number);
        if let Some(number) = self.last_finished {
            self.cancels.remove(&number);
        }
        Some(ended)
    }

    /// Stops working, and leaves what runs to whoever comes next.
    pub(super) async fn detach(mut self) {
        self.running.shutdown().await;
    }

    /// Waits for what does not matter to the stage's end, so that nothing is made any more where everything is removed.
    pub(super) async fn rest(mut self, run: &StageRun) {
        self.prefetches.values().for_each(|ahead| ahead.too_late.cancel());
        for (_, ahead) in self.prefetches.drain().filter(|_| run.opened.is_cancelled()) {
            ahead.finish().await;
        }
        self.stage_closing.cancel();
        while self.removals.join_next().await.is_some() {}
    }
}
