//! An engine with a fail point before and after each call, so that a test can let the server die around any of them.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use beespace_core::exit::Exit;
use beespace_core::ids::{StageId, StepId};
use beespace_core::output::OutputOffsets;
use tokio_util::sync::CancellationToken;

use super::{Engine, EngineError, EngineInfo, Launch, OutputSender};
use crate::fail_point::{self, Side, pass};

/// The calls that the server makes, by the names of their fail points.
pub const CALLS: [&str; 11] =
    ["check", "open", "fill", "prepare", "run", "adopt", "release", "close", "destroy", "stock", "inventory"];

/// The engine itself in a build without fail points.
pub fn wrap(engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
    if fail_point::ARMED { Arc::new(FailPoints(engine)) } else { engine }
}

#[derive(Debug)]
struct FailPoints(Arc<dyn Engine>);

/// The call may go on only where the server outlives its fail points.
async fn with_fail_points<T>(call: &str, work: impl Future<Output = T>) -> T {
    pass(Side::Before, "engine", call);
    let answer = work.await;
    pass(Side::After, "engine", call);
    answer
}

#[async_trait]
impl Engine for FailPoints {
    fn kind(&self) -> &'static str {
        self.0.kind()
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

    async fn maintain(&self, stages: usize) -> Result<(), EngineError> {
        with_fail_points("stock", self.0.maintain(stages)).await
    }

    async fn inventory(&self) -> Result<Vec<StageId>, EngineError> {
        with_fail_points("inventory", self.0.inventory()).await
    }
}
