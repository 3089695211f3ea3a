//! The schedules of repositories, and the builds that they start. The transaction that creates a build also stores the next time,
//! so a time is built once, also if the server is killed. A time that passed while the server was down is built once, late.

use beespace_core::build::Build;
use beespace_core::event::{Actor, Cause, Cron, Event, Revision};
use beespace_core::ids::{BuildId, RepositoryId};
use beespace_core::schedule::{MAX_SCHEDULES, Schedule};
use beespace_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::queue::{DueTime, FairnessKey};
use super::repository::Repositories as _;
use super::tables::{Key, SCHEDULE, SCHEDULE_SOURCE};
use super::transaction::{Order, Read, Rows, Write};
use super::{Queue, Store, StoreError, row};

/// Who has set a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleOrigin {
    /// A person. Only people change it.
    Person,
    /// The pipeline file of the default branch. Only a newer file changes it.
    File,
}

/// A schedule with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSchedule {
    pub repository: RepositoryId,
    pub schedule: Schedule,
    pub origin: ScheduleOrigin,
    /// When it is due next; `None` if it is not enabled.
    pub next: Option<Timestamp>,
    /// Its last build, and when that was started.
    pub last: Option<(BuildId, Timestamp)>,
}

impl StoredSchedule {
    fn id(&self) -> ScheduleId {
        ScheduleId { repository: self.repository, name: self.schedule.name.clone() }
    }
}

/// Identifies a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleId {
    pub repository: RepositoryId,
    pub name: String,
}

impl ScheduleId {
    fn key(&self) -> Key {
        Key::new().u64(self.repository.0).text(&self.name)
    }

    /// Parses a key of the queue; `None` if it is invalid.
    #[must_use]
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let (repository, name) = key.split_first_chunk()?;
        let name = std::str::from_utf8(name.strip_suffix(&[0])?).ok()?;
        Some(Self { repository: RepositoryId(u64::from_be_bytes(*repository)), name: name.to_owned() })
    }
}

/// Reading schedules, in both kinds of transaction.
pub trait Schedules: Rows + Sized {
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn schedule(&self, id: &ScheduleId) -> Result<Option<StoredSchedule>, StoreError> {
        self.row(SCHEDULE, "schedule", id.key().as_slice())
    }

    /// The schedules of a repository by name.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn schedules(&self, repository: RepositoryId) -> Result<Vec<StoredSchedule>, StoreError> {
        let mut schedules = Vec::new();
        self.scan(SCHEDULE, Key::new().u64(repository.0).as_slice(), None, Order::OldestFirst, &mut |_, value| {
            schedules.push(row::decode("schedule", value)?);
            Ok(true)
        })?;
        Ok(schedules)
    }
}

impl Schedules for Read {}
impl Schedules for Write<'_> {}

impl Write<'_> {
    /// Stores a schedule and queues it for its next time.
    fn put_schedule(&self, stored: &StoredSchedule, now: Timestamp) -> Result<(), StoreError> {
        let key = stored.id().key();
        self.put(SCHEDULE, "schedule", key.as_slice(), stored)?;
        let fairness_key = FairnessKey::of_repository(stored.repository);
        match stored.next {
            Some(next) => self.enqueue(Queue::Schedule, key.as_slice(), fairness_key, DueTime::at(next, now)),
            None => self.dequeue(Queue::Schedule, key.as_slice()),
        }
    }

    fn remove_schedule_row(&self, id: &ScheduleId) -> Result<bool, StoreError> {
        self.dequeue(Queue::Schedule, id.key().as_slice())?;
        self.remove(SCHEDULE, id.key().as_slice())
    }

    /// Creates the build of a schedule; none while its repository is disabled.
    fn start_scheduled(
        &self,
        stored: &mut StoredSchedule,
        sender: Actor,
        build: BuildId,
        now: Timestamp,
    ) -> Result<Option<BuildId>, StoreError> {
        let repository = self.repository(stored.repository)?.ok_or(StoreError::NotFound("repository"))?;
        if repository.hook.is_none() {
            return Ok(None);
        }
        let Schedule { name, branch, params, .. } = stored.schedule.clone();
        let revision = Revision::Branch(branch.unwrap_or_else(|| repository.default_branch.clone()));
        let cause = Cause::Cron(Cron { schedule: name, revision, params });
        let event = Event { repository: repository.described(), sender, cause };
        self.create_build(&Build::pending(build, event, now))?;
        stored.last = Some((build, now));
        Ok(Some(build))
    }

    /// Takes over the schedules of a build's pipeline files, unless a newer build has done so. The names that people have set
    /// stay theirs.
    pub(super) fn adopt_schedules(&self, build: &Build, schedules: &[Schedule], now: Timestamp) -> Result<(), StoreError> {
        let repository = build.event.repository.id;
        let source = Key::new().u64(repository.0);
        if self
            .bytes(SCHEDULE_SOURCE, source.as_slice())?
            .is_some_and(|newest| newest.as_slice() > build.id.0.as_bytes().as_slice())
        {
            return Ok(());
        }
        self.put_bytes(SCHEDULE_SOURCE, source.as_slice(), build.id.0.as_bytes())?;
        let stored = self.schedules(repository)?;
        let (of_file, of_people): (Vec<_>, Vec<_>) = stored.into_iter().partition(|stored| stored.origin == ScheduleOrigin::File);
        for old in of_file.iter().filter(|old| schedules.iter().all(|new| new.name != old.schedule.name)) {
            self.remove_schedule_row(&old.id())?;
        }
        let room = MAX_SCHEDULES.saturating_sub(of_people.len());
        let is_free = |new: &&Schedule| of_people.iter().all(|old| old.schedule.name != new.name);
        for new in schedules.iter().filter(is_free).take(room) {
            let old = of_file.iter().find(|old| old.schedule.name == new.name);
            // The time of a schedule that did not change stays: it may be due now.
            if old.is_some_and(|old| old.schedule == *new) {
                continue;
            }
            let (next, last) = (new.next_after(now), old.and_then(|old| old.last));
            let stored = StoredSchedule { repository, schedule: new.clone(), origin: ScheduleOrigin::File, next, last };
            self.put_schedule(&stored, now)?;
        }
        Ok(())
    }
}

fn of_file(name: &str) -> StoreError {
    StoreError::Conflict(format!("schedule {name:?} is in the pipeline file: change it there"))
}

impl Store {
    /// Sets a schedule for a person.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the pipeline file has a schedule of this name, or the repository has [`MAX_SCHEDULES`].
    pub async fn set_schedule(
        &self,
        repository: RepositoryId,
        schedule: Schedule,
        now: Timestamp,
    ) -> Result<StoredSchedule, StoreError> {
        self.write(move |write| {
            let old = write.schedule(&ScheduleId { repository, name: schedule.name.clone() })?;
            match &old {
                Some(old) if old.origin == ScheduleOrigin::File => return Err(of_file(&schedule.name)),
                None if write.schedules(repository)?.len() >= MAX_SCHEDULES => {
                    return Err(StoreError::Conflict(format!(
                        "the repository has {MAX_SCHEDULES} schedules, and more are not possible"
                    )));
                }
                _ => {}
            }
            let (next, last) = (schedule.next_after(now), old.and_then(|old| old.last));
            let stored = StoredSchedule { repository, schedule: schedule.clone(), origin: ScheduleOrigin::Person, next, last };
            write.put_schedule(&stored, now)?;
            Ok(stored)
        })
        .await
    }

    /// Removes a schedule that a person has set.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] if it is in the pipeline file.
    pub async fn remove_schedule(&self, id: ScheduleId) -> Result<(), StoreError> {
        self.write(move |write| {
            let stored = write.schedule(&id)?.ok_or(StoreError::NotFound("schedule"))?;
            if stored.origin == ScheduleOrigin::File {
                return Err(of_file(&id.name));
            }
            write.remove_schedule_row(&id).map(drop)
        })
        .await
    }

    /// Starts the build of a schedule that is due, and stores its next time. A time that has not come yet starts nothing: the
    /// clock was set back.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn run_due_schedule(&self, id: ScheduleId, build: BuildId, now: Timestamp) -> Result<Option<BuildId>, StoreError> {
        self.write(move |write| {
            let Some(mut stored) = write.schedule(&id)? else {
                return write.dequeue(Queue::Schedule, id.key().as_slice()).map(|()| None);
            };
            let is_due = stored.next.is_some_and(|next| next <= now);
            let started = match is_due {
                true => write.start_scheduled(&mut stored, Actor::schedule(&*id.name), build, now)?,
                false => None,
            };
            if is_due {
                stored.next = stored.schedule.next_after(now);
            }
            write.put_schedule(&stored, now)?;
            Ok(started)
        })
        .await
    }

    /// Leaves out the present time of a schedule whose build could not be started.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn skip_due_schedule(&self, id: ScheduleId, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |write| {
            let Some(stored) = write.schedule(&id)? else { return write.dequeue(Queue::Schedule, id.key().as_slice()) };
            write.put_schedule(&StoredSchedule { next: stored.schedule.next_after(now), ..stored }, now)
        })
        .await
    }

    /// Starts a build of a schedule now, for a person. Its next time stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] if the repository is disabled.
    pub async fn run_schedule(&self, id: ScheduleId, by: Actor, build: BuildId, now: Timestamp) -> Result<BuildId, StoreError> {
        self.write(move |write| {
            let mut stored = write.schedule(&id)?.ok_or(StoreError::NotFound("schedule"))?;
            let started = write.start_scheduled(&mut stored, by.clone(), build, now)?;
            write.put_schedule(&stored, now)?;
            started.ok_or_else(|| StoreError::Conflict("the repository is disabled: run `beespace repo enable` first".to_owned()))
        })
        .await
    }
}
