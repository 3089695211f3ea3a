//! The host's own step: the sources, from the mirror into the stage's workspace.

use beespace_core::build::Step;
use beespace_core::outcome::Reason;
use beespace_core::status::Status;

use super::StageRun;
use crate::app::now;
use crate::engine::archive;

/// Makes the stage's room and fills it. Done again after a crash it begins anew: nothing of the user has run before it is through.
pub(super) async fn fill(run: &StageRun, step: &Step) -> anyhow::Result<(Status, Option<Reason>)> {
    let log = run.app.logs.writer(run.step_id(step), run.mask.clone(), run.app.config.limits.log_bytes).await?;
    let filled = fill_and_tell(run, &log).await;
    if let Err(reason) = &filled {
        log.say(now(), &reason.to_string()).await?;
    }
    log.finish(now(), None).await?;
    Ok(match filled {
        Ok(()) => (Status::Success, None),
        Err(reason) => (Status::Error, Some(reason)),
    })
}

async fn fill_and_tell(run: &StageRun, log: &crate::log::LogWriter) -> Result<(), Reason> {
    let engine = &run.app.engine;
    let stage = run.stage().map_err(|error| Reason::new("store", error.to_string()))?;
    let build = &run.build;
    let tell = async |line: String| log.say(now(), &line).await.map_err(|error| Reason::new("log", error.to_string()));
    engine.destroy(run.id).await.map_err(|error| error.reason())?;
    engine.open(run.id).await.map_err(|error| error.reason())?;
    let options = &stage.pipeline.clone;
    if !options.enabled {
        return tell("The pipeline wants no clone: the workspace is empty.".to_owned()).await;
    }
    let sha = build.head.as_ref().map_or_else(|| build.event.sha(), |head| &head.sha);
    let depth = if options.depth == 0 { "whole history".to_owned() } else { format!("history of {} commits", options.depth) };
    tell(format!("Cloning {} at {} ({}, {depth})", build.event.repository.name, sha.short(), build.event.git_ref())).await?;
    let checkout = crate::resolve::checkout(&run.app, build, sha, options.depth).await?;
    engine.fill(run.id, archive::pack(checkout.path().to_owned())).await.map_err(|error| error.reason())?;
    tell("The sources are in place.".to_owned()).await
}
