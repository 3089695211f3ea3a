//! The state of a stage that runs, and the access to its row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use beespace_core::build::{Build, Stage, Step};
use beespace_core::environment::{self, Inputs};
use beespace_core::graph;
use beespace_core::ids::{StageId, StepId, StepNumber};
use beespace_core::mask;
use beespace_core::pipeline::eval_when::StageConditions;
use beespace_core::reason::Reason;
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use super::container_slots::ContainerSlots;
use super::image_digests::BuildImages;
use super::secrets::StageSecrets;
use crate::app::App;
use crate::clock::now;
use crate::source::ChangeSet;
use crate::store::StoreError;
use crate::store::build::Builds as _;

/// A stage that runs in this process.
pub(super) struct StageRun {
    pub(super) app: Arc<App>,
    pub(super) id: StageId,
    pub(super) build: Build,
    pub(super) change_set: ChangeSet,
    /// Evaluated once: transactions and async threads only look answers up.
    pub(super) conditions: Arc<StageConditions>,
    pub(super) secrets: StageSecrets,
    pub(super) images: BuildImages,
    pub(super) mask: mask::Secrets,
    pub(super) container_slots: ContainerSlots,
    /// Cancelled once the engine has opened the stage.
    pub(super) opened: CancellationToken,
    /// Held for writing while the stage is destroyed and opened again, for reading while a container is prepared in it.
    pub(super) reopen_lock: RwLock<()>,
}

impl StageRun {
    /// Opens the stage's secrets, those that its plans name and those that later plans may name.
    ///
    /// # Errors
    /// A secret that cannot be decrypted or masked.
    pub(super) fn open(
        app: &Arc<App>,
        build: Build,
        (change_set, conditions): (ChangeSet, StageConditions),
        stage: &Stage,
    ) -> Result<Self, Reason> {
        let plans = stage.steps.iter().filter_map(|step| step.round.as_ref());
        let planned = plans.flat_map(|round| &round.plan.containers).flat_map(|container| &container.secrets);
        let mut names: BTreeSet<String> = planned.map(|mount| mount.secret.clone()).collect();
        names.extend(stage.pipeline.secret_names().map(str::to_owned));
        let secrets = StageSecrets::open(app, &build, &names, stage.started_at)?;
        Ok(Self {
            app: Arc::clone(app),
            id: stage.id(),
            build,
            change_set,
            conditions: Arc::new(conditions),
            container_slots: ContainerSlots::of_stage(app),
            mask: secrets.mask()?,
            secrets,
            images: BuildImages::stored(&stage.images),
            opened: CancellationToken::new(),
            reopen_lock: RwLock::default(),
        })
    }

    /// The stage's row.
    pub(super) fn stage(&self) -> Result<Stage, StoreError> {
        self.app.store.read()?.stage(self.id)?.ok_or(StoreError::NotFound("stage"))
    }

    /// The stable id of the person who caused the build.
    pub(super) fn caused_by(&self) -> String {
        self.build.event.sender.stable_id()
    }

    pub(super) fn step_id(&self, step: &Step) -> StepId {
        StepId { build: self.id.build, stage: self.id.stage, step: step.number, attempt: step.attempt }
    }

    pub(super) async fn update_stage(&self, change: impl Fn(&mut Stage) + Send + 'static) -> Result<Stage, StoreError> {
        update_stage(&self.app, self.id, change).await
    }

    pub(super) async fn update_step(
        &self,
        number: StepNumber,
        change: impl Fn(&mut Step) + Send + 'static,
    ) -> Result<Stage, StoreError> {
        self.update_stage(move |stage| stage.step_mut(number).into_iter().for_each(&change)).await
    }

    /// The remaining time until the stage's timeout. Time spent waiting for approval does not count.
    pub(super) fn time_left(&self, stage: &Stage) -> Duration {
        let timeout = self.app.config.limits.timeout_of_stage(stage.pipeline.timeout);
        timeout.saturating_sub(stage.run_duration(now()))
    }

    /// The environment variables of a step that starts in the stage's current state.
    pub(super) fn environment(&self, stage: &Stage, step: &Step) -> BTreeMap<String, String> {
        let status_so_far = graph::status_so_far(&graph::nodes(stage));
        let build_url = crate::urls::build_url(&self.app.config.server.public_url, &self.build);
        environment::variables(&Inputs { build: &self.build, stage, step, status_so_far, build_url: &build_url })
    }
}

/// Changes a stage's row now, with everything that follows from it.
pub(super) async fn update_stage(
    app: &App,
    id: StageId,
    change: impl Fn(&mut Stage) + Send + 'static,
) -> Result<Stage, StoreError> {
    let change = move |stage: &mut Stage| {
        change(stage);
        Ok(())
    };
    app.store.change_stage(id, now(), change).await
}
