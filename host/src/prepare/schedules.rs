//! Checks the schedules of the pipeline files of a build, before they replace those of earlier files.

use beespace_core::build::Build;
use beespace_core::ids::RepositoryId;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::schedule::{MAX_SCHEDULES, Schedule, Timetable};
use beespace_core::units::format_duration;

use crate::app::App;
use crate::clock::now;
use crate::store::StoreError;
use crate::store::schedule::{ScheduleOrigin, Schedules as _};

/// Why the schedules of the build cannot become those of its repository; `None` if they can, or if they need not.
///
/// # Errors
/// The store's.
pub(super) fn problem(app: &App, build: &Build) -> Result<Option<Reason>, StoreError> {
    let schedules: Vec<&Schedule> = build.schedules().collect();
    if schedules.is_empty() || !build.defines_schedules() {
        return Ok(None);
    }
    let of_people = names_of_people(app, build.event.repository.id)?;
    let mut problems: Vec<String> = Vec::new();
    for (index, schedule) in schedules.iter().enumerate() {
        let name = &schedule.name;
        if schedules.iter().take(index).any(|other| other.name == *name) {
            problems.push(format!("two pipelines have a schedule {name:?}"));
        }
        if of_people.contains(name) {
            problems.push(format!("schedule {name:?} is also set by hand: rename it, or run `beespace schedule remove {name}`"));
        }
        problems.extend(too_close(app, schedule));
    }
    let count = schedules.len() + of_people.len();
    if count > MAX_SCHEDULES {
        problems.push(format!("the repository would have {count} schedules; at most {MAX_SCHEDULES} are possible"));
    }
    if problems.is_empty() {
        return Ok(None);
    }
    let reason = Reason::new(ReasonCode::InvalidSchedules, "the schedules of the pipeline file are not possible");
    let part = |problem| Reason::new(ReasonCode::InvalidSchedules, problem);
    Ok(Some(problems.into_iter().fold(reason, |reason, problem| reason.part(part(problem)))))
}

fn names_of_people(app: &App, repository: RepositoryId) -> Result<Vec<String>, StoreError> {
    let stored = app.store.read()?.schedules(repository)?.into_iter();
    Ok(stored.filter(|stored| stored.origin == ScheduleOrigin::Person).map(|stored| stored.schedule.name).collect())
}

fn too_close(app: &App, schedule: &Schedule) -> Option<String> {
    let least = app.config.limits.schedule_interval;
    let timetable = Timetable::parse(&schedule.cron, &schedule.zone).ok()?;
    timetable.is_closer_than(least, now()).then(|| {
        let least = format_duration(least);
        format!("the times of schedule {:?} are closer to each other than `[limits] schedule_interval` ({least})", schedule.name)
    })
}
