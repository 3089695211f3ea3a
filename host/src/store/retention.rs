//! Removal of builds and deliveries whose retention period is over. It works in batches, so other writes never wait long. The
//! file does not shrink; redb reuses the free pages.

use beespace_core::build::{Build, Phase};
use beespace_core::ids::{BuildId, DeliveryId, NoticeId};
use beespace_core::time::Timestamp;

use super::build::Builds as _;
use super::delivery::{Deliveries as _, Delivery, DeliveryOutcome};
use super::notice::Notices as _;
use super::repository::Repositories as _;
use super::tables::{
    BUILD, DECISION, DECISION_OF_BUILD, DELIVERY, DELIVERY_BODY, DELIVERY_OF_REPOSITORY, Key, LAST_RUN, NOTICE_OF_BUILD, STAGE,
    Table, last_id,
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
                DeliveryOutcome::Built(build) => self.build(build)?.is_some(),
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

    /// Removes a delivery. The index of known deliveries keeps its keys, so the same delivery is not built again.
    fn purge_delivery(&self, delivery: &Delivery) -> Result<(), StoreError> {
        let id = delivery.id.0;
        self.remove(DELIVERY, id.as_bytes())?;
        self.remove(DELIVERY_BODY, id.as_bytes())?;
        self.remove(DELIVERY_OF_REPOSITORY, Key::new().u64(delivery.repository.0).id(id).as_slice())?;
        // A dead letter has no build. If it is redelivered, it must be processed.
        if matches!(delivery.outcome, DeliveryOutcome::DeadLetter(_)) { self.forget_seen(delivery) } else { Ok(()) }
    }
}

impl Store {
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
    pub async fn purge_deliveries(&self, ids: Vec<DeliveryId>) -> Result<(), StoreError> {
        self.write(move |write| {
            for id in &ids {
                let delivery = write.delivery(*id)?.filter(|delivery| delivery.outcome != DeliveryOutcome::Waiting);
                delivery.map_or(Ok(()), |delivery| write.purge_delivery(&delivery))?;
            }
            Ok(())
        })
        .await
    }
}
