//! An engine with a fail point before and after each call, so that a test can end the server around any of them.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use beespace_core::exit::Exit;
use beespace_core::ids::{StageId, StepId};
use beespace_core::output::OutputOffsets;
use tokio_util::sync::CancellationToken;

use super::container_io::{Launch, OutputSender};
use super::contract::{Capabilities, Engine, EngineInfo, ImageOutcome};
use super::error::EngineError;
use crate::fail_point::{self, Side, pass};

/// The calls of the server, by the names of their fail points.
pub const CALLS: [&str; 12] =
    ["check", "open", "fill", "find_image", "prepare", "run", "adopt", "release", "close", "destroy", "inventory", "maintain"];

/// Adds the fail points to an engine. In a build without fail points this is the engine itself.
pub fn wrap(engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
    if fail_point::ARMED { Arc::new(FailPoints(engine)) } else { engine }
}

#[derive(Debug)]
struct FailPoints(Arc<dyn Engine>);

/// The call continues only if the server survives its fail points.
async fn with_fail_points<T>(call: &str, work: impl Future<Output = T>) -> T {
    pass(Side::Before, "engine", call);
    let result = work.await;
    pass(Side::After, "engine", call);
    result
}

#[async_trait]
impl Engine for FailPoints {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn check(&self) -> Result<EngineInfo, EngineError> {
        with_fail_points("check", self.0.check()).await
    }

    async fn open(&self, stage: StageId) -> Result<(), EngineError> {
        with_fail_points("open", self.0.open(stage)).await
    }

    async fn fill(&self, stage: StageId, sources: Option<&Path>, launches: &[Launch]) -> Result<(), EngineError> {
        with_fail_points("fill", self.0.fill(stage, sources, launches)).await
    }

    async fn find_image(&self, launch: &Launch) -> Result<Option<String>, EngineError> {
        with_fail_points("find_image", self.0.find_image(launch)).await
    }

    async fn pull_image(&self, launch: &Launch, output: &OutputSender) -> Result<ImageOutcome<String>, EngineError> {
        // Without fail points: most builds have found their images before.
        self.0.pull_image(launch, output).await
    }

    async fn prepare(&self, launch: &Launch) -> Result<(), EngineError> {
        with_fail_points("prepare", self.0.prepare(launch)).await
    }

    async fn run(&self, launch: Launch, output: OutputSender, cancel: CancellationToken) -> Result<Exit, EngineError> {
        with_fail_points("run", self.0.run(launch, output, cancel)).await
    }

    async fn adopt(
        &self,
        launch: Launch,
        stored: OutputOffsets,
        output: OutputSender,
        cancel: CancellationToken,
    ) -> Result<Exit, EngineError> {
        with_fail_points("adopt", self.0.adopt(launch, stored, output, cancel)).await
    }

    async fn release(&self, step: StepId) -> Result<(), EngineError> {
        with_fail_points("release", self.0.release(step)).await
    }

    async fn close(&self, stage: StageId) -> Result<(), EngineError> {
        with_fail_points("close", self.0.close(stage)).await
    }

    async fn destroy(&self, stage: StageId) -> Result<(), EngineError> {
        with_fail_points("destroy", self.0.destroy(stage)).await
    }

    async fn inventory(&self) -> Result<Vec<StageId>, EngineError> {
        with_fail_points("inventory", self.0.inventory()).await
    }

    async fn maintain(&self) -> Result<(), EngineError> {
        with_fail_points("maintain", self.0.maintain()).await
    }

    /// The same fail point as for `maintain`: a test that kills the server does not reach one that only a graceful stop passes.
    async fn shutdown(&self) -> Result<(), EngineError> {
        with_fail_points("maintain", self.0.shutdown()).await
    }
}
