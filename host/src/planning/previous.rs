//! The stage that policies compare with: the same pipeline in the branch's last build that ran.

use beespace_core::build::{Build, Stage};
use beespace_core::pipeline::{Cell, Pipeline};

use crate::app::App;
use crate::store::StoreError;
use crate::store::build::Builds as _;

/// Identifies a pipeline across the builds of a branch. The position in the file cannot: a pipeline that is added above another
/// one would take over its past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PipelineKey<'a> {
    name: &'a str,
    cell: &'a Cell,
}

impl<'a> PipelineKey<'a> {
    fn of(pipeline: &'a Pipeline) -> Self {
        Self { name: &pipeline.name, cell: &pipeline.cell }
    }
}

/// The stage of the same pipeline in the last build that ran on the branch, for a pull request on its target. A stage that
/// policies or people declined, or that was skipped, does not count: an earlier attempt does not make a change acceptable.
#[must_use]
pub fn previous_stage(app: &App, build: &Build, pipeline: &Pipeline) -> Option<Stage> {
    let branch = build.event.branch_or_target()?;
    let find = || {
        let read = app.store.read()?;
        let Some(last) = read.last_run(build.event.repository.id, branch)? else { return Ok(None) };
        let key = PipelineKey::of(pipeline);
        let ran = |stage: &Stage| stage.started_at.is_some() && PipelineKey::of(&stage.pipeline) == key;
        Ok(read.stages(last)?.into_iter().find(ran))
    };
    // Without a previous stage, policies decide as they do about a first build.
    find().unwrap_or_else(|error: StoreError| {
        tracing::warn!(%error, build = %build.id, "could not read the previous build; policies evaluate without it");
        None
    })
}
