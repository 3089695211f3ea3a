//! Schedules that people set and run.

use beespace_core::event::Actor;
use beespace_core::git_ref::{self, BRANCHES};
use beespace_core::ids::BuildId;
use beespace_core::schedule::{Schedule, Timetable, is_schedule_name};
use beespace_core::units::format_duration;

use super::ActionError;
use super::start::check_params;
use crate::app::App;
use crate::clock::now;
use crate::principal::Principal;
use crate::store::repository::Repository;
use crate::store::schedule::{ScheduleId, StoredSchedule};

/// Sets a schedule.
///
/// # Errors
/// [`ActionError`] if it is invalid, or the pipeline file has one of this name.
pub async fn set_schedule(app: &App, repository: &Repository, schedule: Schedule) -> Result<StoredSchedule, ActionError> {
    check_params(&schedule.params)?;
    if !is_schedule_name(&schedule.name) {
        return Err(ActionError::InvalidSchedule(format!(
            "{:?} is not the name of a schedule: 1 to 100 letters, digits, `.`, `_` and `-`",
            schedule.name
        )));
    }
    if let Some(branch) = schedule.branch.as_ref().filter(|branch| !git_ref::is_well_formed(&format!("{BRANCHES}{branch}"))) {
        return Err(ActionError::InvalidSchedule(format!("branch {branch:?} has a name that git does not allow")));
    }
    let timetable = Timetable::parse(&schedule.cron, &schedule.zone);
    let timetable = timetable.map_err(|error| ActionError::InvalidSchedule(error.to_string()))?;
    let (least, now) = (app.config.limits.schedule_interval, now());
    if timetable.is_closer_than(least, now) {
        let least = format_duration(least);
        let text = format!("the times are closer to each other than `[limits] schedule_interval` ({least})");
        return Err(ActionError::InvalidSchedule(text));
    }
    Ok(app.store.set_schedule(repository.id, schedule, now).await?)
}

/// Starts a build of a schedule now, and returns its id.
///
/// # Errors
/// [`ActionError`] if there is no such schedule, or the repository is disabled.
pub async fn run_schedule(app: &App, repository: &Repository, name: String, by: &Principal) -> Result<BuildId, ActionError> {
    let (id, build) = (ScheduleId { repository: repository.id, name }, BuildId(uuid::Uuid::now_v7()));
    Ok(app.store.run_schedule(id, Actor::local(by.id()), build, now()).await?)
}
