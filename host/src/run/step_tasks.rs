//! The tasks of a stage: steps that run, steps that are prefetched, and ended steps whose containers are removed.

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

use super::container::StartMode;
use super::prefetch::{self, PrefetchSignal};
use super::stage_run::StageRun;
use super::step;
use super::step_run::FinishedStep;

/// The maximum number of steps that are prefetched while others run.
const MAX_PREFETCHES: usize = 4;
/// How many of them are prefetched at once. The first step of a stage is prefetched alone, because everything waits for it.
const PREFETCHES_AT_ONCE: usize = 2;

/// A step that is being prefetched.
struct Prefetch {
    task: AbortOnDropHandle<()>,
    /// Cancelled when the step itself starts, or never will.
    too_late: CancellationToken,
}

impl Prefetch {
    /// Waits for an engine call that is under way: without the wait, its container could appear after everything was removed.
    async fn finish(self) {
        self.too_late.cancel();
        let _ = self.task.await;
    }
}

/// Tasks of a stage. Dropping them leaves containers running.
#[derive(Default)]
pub(super) struct StepTasks {
    running: JoinSet<anyhow::Result<FinishedStep>>,
    cancels: HashMap<StepNumber, CancellationToken>,
    prefetches: HashMap<StepNumber, Prefetch>,
    /// One per prefetch, in the order in which they were started; cancelled when the prefetch is done.
    done: Vec<CancellationToken>,
    removals: JoinSet<()>,
    /// Cancelled when the stage closes, which removes all of its containers at once.
    stage_closing: CancellationToken,
    /// The step that ended last; its containers are removed while other steps run.
    last_finished: Option<StepNumber>,
}

impl StepTasks {
    /// Makes the tasks match the row: starts and cancels steps, removes the containers of the last ended step, and
    /// prefetches the steps that come next.
    pub(super) fn reconcile(&mut self, run: &Arc<StageRun>, stage: &Stage, mode: StartMode) {
        for step in stage.steps.iter().filter(|step| step.status == Status::Running) {
            if !self.cancels.contains_key(&step.number) {
                self.start_step(run, step.number, mode);
            }
            // A running step has a reason only when it is being cancelled.
            if let Some(cancel) = self.cancels.get(&step.number).filter(|_| step.reason.is_some()) {
                cancel.cancel();
            }
        }
        let is_over = |number| stage.step(number).is_some_and(|step| step.status.is_over());
        // A blocked step has no containers left, and may start again at any moment.
        if let Some(ended) = self.last_finished.take().filter(|number| is_over(*number)) {
            self.removals.spawn(step::remove_containers(Arc::clone(run), stage.clone(), ended, self.stage_closing.clone()));
        }
        if !stage.steps.iter().any(|step| !step.status.is_over() && prefetch::reads_source(run, step)) {
            run.change_set.files.drop_tree();
        }
        for number in graph::upcoming(&graph::nodes(stage), &run.conditions, MAX_PREFETCHES) {
            self.prefetch(run, stage, number);
        }
    }

    /// Starts the prefetch of a step unless it has been started before. It waits until fewer than [`PREFETCHES_AT_ONCE`]
    /// others run.
    fn prefetch(&mut self, run: &Arc<StageRun>, stage: &Stage, number: StepNumber) {
        let Entry::Vacant(vacant) = self.prefetches.entry(number) else { return };
        let may_start = self.done.get(self.done.len().saturating_sub(PREFETCHES_AT_ONCE)).cloned();
        let (done, too_late) = (CancellationToken::new(), CancellationToken::new());
        self.done.push(done.clone());
        let signal = PrefetchSignal { may_start, done: done.drop_guard(), too_late: too_late.clone() };
        let task = AbortOnDropHandle::new(tokio::spawn(prefetch::prefetch(Arc::clone(run), stage.clone(), number, signal)));
        vacant.insert(Prefetch { task, too_late });
    }

    fn start_step(&mut self, run: &Arc<StageRun>, number: StepNumber, mode: StartMode) {
        let cancel = CancellationToken::new();
        self.cancels.insert(number, cancel.clone());
        // While the stage is not open, nothing is being prepared.
        let prefetch = self.prefetches.remove(&number).filter(|_| run.opened.is_cancelled());
        let run = Arc::clone(run);
        self.running.spawn(async move {
            if let Some(prefetch) = prefetch {
                // A step that is being cancelled waits for its prefetch, too.
                prefetch.finish().await;
            }
            step::run(run, number, mode, cancel).await
        });
    }

    /// The next step that ends; none when no step runs.
    pub(super) async fn next_finished(&mut self) -> Option<anyhow::Result<FinishedStep>> {
        let finished = self.running.join_next().await?.context("running a step panicked").flatten();
        self.last_finished = finished.as_ref().ok().map(|step| step.number);
        if let Some(number) = self.last_finished {
            self.cancels.remove(&number);
        }
        Some(finished)
    }

    /// Stops the tasks and leaves the containers running for the next process.
    pub(super) async fn detach(mut self) {
        self.running.shutdown().await;
    }

    /// Waits for the prefetches and removals, so that nothing is created when the stage's resources are removed.
    pub(super) async fn wind_down(mut self, run: &StageRun) {
        self.prefetches.values().for_each(|prefetch| prefetch.too_late.cancel());
        for (_, prefetch) in self.prefetches.drain().filter(|_| run.opened.is_cancelled()) {
            prefetch.finish().await;
        }
        self.stage_closing.cancel();
        while self.removals.join_next().await.is_some() {}
    }
}
