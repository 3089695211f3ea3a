//! Removal of builds and deliveries whose retention period is over, and of the digests of deliveries that no webhook accepts any
//! more. It works in batches, so other writes never wait long. The
//! file does not shrink; redb reuses the free pages.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use beespace_core::build::{Build, Phase};
use beespace_core::ids::{BuildId, DeliveryId, NoticeId, RepositoryId};
use beespace_core::time::Timestamp;

use super::build::Builds as _;
use super::delivery::{Deliveries as _, Delivery, DeliveryOutcome};
use super::notice::Notices as _;
use super::repository::{Repositories as _, Repository};
use super::tables::{
    BUILD, DECISION, DECISION_OF_BUILD, DELIVERY, DELIVERY_BODY, DELIVERY_OF_REPOSITORY, DELIVERY_SEEN, Key, LAST_RUN,
    NOTICE_OF_BUILD, STAGE, STAGE_SUMMARY, Table, last_id,
};
use super::transaction::{Order, Read, Rows, Write};
use super::{Store, StoreError};

/// The number of rows in a batch.
const BATCH: usize = 50;

/// A batch of old rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<Id> {
    /// The rows that may be removed.
    pub removable: Vec<Id>,
    /// The last row of the batch; the next batch begins after it. `None` if there are no more old rows.
    pub next: Option<Id>,
}

impl Read {
    /// The oldest builds after `after`. A build is removable if it finished before `before`, unless it is the last run of an
    /// existing branch: policies receive that one as the previous build.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn expired_builds(&self, after: Option<BuildId>, before: Timestamp) -> Result<Batch<BuildId>, StoreError> {
        let ids = self.oldest_ids(BUILD, after.map(|id| id.0))?.into_iter().map(BuildId);
        let mut batch = Batch { removable: Vec::new(), next: None };
        for id in ids {
            let Some(build) = self.build(id)? else { continue };
            if build.created_at >= before {
                return Ok(Batch { next: None, ..batch });
            }
            if build.finished_at.is_some_and(|at| at < before) && !self.is_last_run(&build)? {
                batch.removable.push(id);
            }
            batch.next = Some(id);
        }
        Ok(batch)
    }

    /// The oldest deliveries after `after`. A delivery is removable if it arrived before `before`, has been processed, and its
    /// build is gone.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn expired_deliveries(&self, after: Option<DeliveryId>, before: Timestamp) -> Result<Batch<DeliveryId>, StoreError> {
        let ids = self.oldest_ids(DELIVERY, after.map(|id| id.0))?.into_iter().map(DeliveryId);
        let mut batch = Batch { removable: Vec::new(), next: None };
        for id in ids {
            let Some(delivery) = self.delivery(id)? else { continue };
            if delivery.received_at >= before {
                return Ok(Batch { next: None, ..batch });
            }
            let is_needed = match delivery.outcome {
                DeliveryOutcome::Waiting => true,
                DeliveryOutcome::Built(build) => {
                    let mut builds = std::iter::once(&build).chain(&delivery.more_builds);
                    builds.try_fold(false, |found, id| Ok::<_, StoreError>(found || self.build(*id)?.is_some()))?
                }
                DeliveryOutcome::Ignored(_) | DeliveryOutcome::DeadLetter(_) => false,
            };
            if !is_needed {
                batch.removable.push(id);
            }
            batch.next = Some(id);
        }
        Ok(batch)
    }

    /// One batch of ids from a table whose keys are ids, oldest first.
    fn oldest_ids(&self, table: Table, after: Option<uuid::Uuid>) -> Result<Vec<uuid::Uuid>, StoreError> {
        let after = after.map(|id| *id.as_bytes());
        let keys = self.keys(table, &[], after.as_ref().map(<[u8; 16]>::as_slice), Order::OldestFirst, BATCH)?;
        Ok(keys.iter().filter_map(|key| last_id(key)).collect())
    }

    fn is_last_run(&self, build: &Build) -> Result<bool, StoreError> {
        let (repository, Some(branch)) = (build.event.repository.id, build.event.branch()) else { return Ok(false) };
        let is_last = self.last_run(repository, branch)? == Some(build.id);
        Ok(is_last && self.last_seen(repository, &build.event.git_ref())?.is_some())
    }
}

impl Write<'_> {
    /// Removes a build with its stages, decisions and notices. Its delivery is removed later.
    fn purge_build(&self, build: &Build) -> Result<(), StoreError> {
        let prefix = Key::new().id(build.id.0);
        for key in self.keys(STAGE, prefix.as_slice(), None, Order::OldestFirst, usize::MAX)? {
            self.remove(STAGE, &key)?;
            self.remove(STAGE_SUMMARY, &key)?;
        }
        for key in self.keys(DECISION_OF_BUILD, prefix.as_slice(), None, Order::OldestFirst, usize::MAX)? {
            self.remove(DECISION_OF_BUILD, &key)?;
            last_id(&key).map_or(Ok(false), |id| self.remove(DECISION, id.as_bytes()))?;
        }
        for key in self.keys(NOTICE_OF_BUILD, prefix.as_slice(), None, Order::OldestFirst, usize::MAX)? {
            let notice = last_id(&key).map_or(Ok(None), |id| self.notice(NoticeId(id)))?;
            notice.map_or(Ok(()), |notice| self.remove_notice(&notice))?;
        }
        if let Some(branch) = build.event.branch() {
            let key = Key::new().u64(build.event.repository.id.0).text(branch);
            if self.bytes(LAST_RUN, key.as_slice())?.is_some_and(|id| id == build.id.0.as_bytes()) {
                self.remove(LAST_RUN, key.as_slice())?;
            }
        }
        self.remove_build(build)
    }

    /// Removes a delivery. If it arrived at `oldest_acceptable` or later, the index of known deliveries keeps the digest of its
    /// content, so the same delivery is not built again. Gogs' id is forgotten: it proves nothing, and an equal content is
    /// recognised without it.
    fn purge_delivery(&self, delivery: &Delivery, oldest_acceptable: Timestamp) -> Result<(), StoreError> {
        let id = delivery.id.0;
        self.remove(DELIVERY, id.as_bytes())?;
        self.remove(DELIVERY_BODY, id.as_bytes())?;
        self.forget_outcome(delivery)?;
        self.remove(DELIVERY_OF_REPOSITORY, Key::new().u64(delivery.repository.0).id(id).as_slice())?;
        // A dead letter has no build. If it is redelivered, it must be processed.
        let is_dead_letter = matches!(delivery.outcome, DeliveryOutcome::DeadLetter(_));
        if is_dead_letter || delivery.received_at < oldest_acceptable {
            self.forget_seen(delivery)?;
        }
        self.forget_forge_id(delivery)
    }

    /// Forgets one batch of the removed deliveries that arrived at the repository before `before`; returns the key after which
    /// the next batch begins.
    fn forget_before(
        &self,
        repository: RepositoryId,
        before: Timestamp,
        after: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let prefix = Key::new().u64(repository.0);
        let keys = self.keys(DELIVERY_SEEN, prefix.as_slice(), after, Order::OldestFirst, BATCH)?;
        for key in &keys {
            let Some(id) = self.bytes(DELIVERY_SEEN, key)?.and_then(|id| last_id(&id)) else { continue };
            // A delivery's id begins with the time of its arrival.
            if arrival(id) < before && self.delivery(DeliveryId(id))?.is_none() {
                self.remove(DELIVERY_SEEN, key)?;
            }
        }
        Ok(keys.last().filter(|_| keys.len() == BATCH).cloned())
    }
}

/// The time in an id; the end of time if it has none.
fn arrival(id: uuid::Uuid) -> Timestamp {
    let time = id.get_timestamp().map(|time| time.to_unix());
    time.map_or(Timestamp(u64::MAX), |(seconds, nanos)| Timestamp(seconds * 1_000 + u64::from(nanos) / 1_000_000))
}

/// The repository's webhooks whose grace period is over are dropped from its row.
fn without_expired_hooks(mut repository: Repository, now: Timestamp) -> Repository {
    repository.previous_hooks.retain(|(_, until)| now < *until);
    repository
}

/// The arrival before which no delivery of the repository can be accepted again: all of its webhooks are newer, and each has a
/// secret of its own. The time of a webhook that lies in the future is wrong, so nothing is known of it.
fn oldest_acceptable(repository: Repository, now: Timestamp) -> Timestamp {
    let repository = without_expired_hooks(repository, now);
    let hooks = repository.hook.into_iter().chain(repository.previous_hooks.into_iter().map(|(hook, _)| hook));
    hooks.map(|hook| if hook.created_at > now { Timestamp(0) } else { hook.created_at }).min().unwrap_or(now)
}

impl Store {
    /// Forgets removed deliveries that no webhook would accept again, because their webhook is replaced or gone. Until then
    /// their digests protect against replays.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read or written.
    pub async fn forget_unacceptable_deliveries(&self, now: Timestamp) -> Result<(), StoreError> {
        let repositories = self.read()?.repositories()?;
        let has_expired = |repository: &Repository| repository.previous_hooks.iter().any(|(_, until)| *until <= now);
        for repository in repositories.into_iter().filter(|one| one.hook.is_none() || has_expired(one)) {
            let id = repository.id;
            let before = oldest_acceptable(repository, now);
            let mut after: Option<Vec<u8>> = None;
            loop {
                after = self.write(move |write| write.forget_before(id, before, after.as_deref())).await?;
                if after.is_none() {
                    break;
                }
            }
            // Last, because it is what the next pass would look for after a crash.
            let known = move |known: Option<Repository>| {
                let known = known.ok_or(StoreError::NotFound("repository"))?;
                Ok(without_expired_hooks(known, now))
            };
            self.change_repository(id, known).await?;
        }
        Ok(())
    }

    /// Removes finished builds with everything that belongs to them, except their logs.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn purge_builds(&self, ids: Vec<BuildId>) -> Result<(), StoreError> {
        self.write(move |write| {
            for id in &ids {
                let build = write.build(*id)?.filter(|build| build.phase == Phase::Finished);
                build.map_or(Ok(()), |build| write.purge_build(&build))?;
            }
            Ok(())
        })
        .await
    }

    /// Removes deliveries that have been processed.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
    pub async fn purge_deliveries(&self, ids: Vec<DeliveryId>, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |write| {
            let mut oldest = BTreeMap::new();
            for id in &ids {
                let delivery = write.delivery(*id)?.filter(|delivery| delivery.outcome != DeliveryOutcome::Waiting);
                let Some(delivery) = delivery else { continue };
                let oldest_acceptable = match oldest.entry(delivery.repository) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        let repository = write.repository(delivery.repository)?;
                        *new.insert(repository.map_or(now, |repository| oldest_acceptable(repository, now)))
                    }
                };
                write.purge_delivery(&delivery, oldest_acceptable)?;
            }
            Ok(())
        })
        .await
    }
}
