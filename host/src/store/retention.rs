//! What has been kept long enough leaves, a piece at a time, so that nobody's change waits long behind it. The file does not shrink by it:
//! what is free in it is written again.

use beespace_core::build::{Build, Phase};
use beespace_core::ids::{BuildId, DeliveryId, NoticeId};
use beespace_core::time::Timestamp;

use super::build::Builds as _;
use super::delivery::{Deliveries as _, Delivery, DeliveryOutcome};
use super::outbox::Notices as _;
use super::repository::Repositories as _;
use super::tables::{
    BUILD, DECISION, DECISION_OF_BUILD, DELIVERY, DELIVERY_BODY, DELIVERY_OF_REPOSITORY, Key, LAST_RUN, NOTICE_OF_BUILD, STAGE,
    Table, last_id,
};
use super::transaction::{Order, Read, Rows, Write};
use super::{Store, StoreError};

/// Rows that are looked at in one go.
const BATCH: usize = 50;

/// Some of what is old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<Id> {
    /// What may leave of it.
    pub removable: Vec<Id>,
    /// The last that was looked at: the next piece comes after it. None: there is no more.
    pub next: Option<Id>,
}

impl Read {
    /// The oldest builds, beyond `after`, and those of them that ended before `before` and are the last run of no branch that still exists:
    /// policies are told of that one.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn expired_builds(&self, after: Option<BuildId>, before: Timestamp) -> Result<Batch<BuildId>, StoreError> {
        let ids = self.oldest_ids(BUILD, after.map(|id| id.0))?.into_iter().map(BuildId);
        let mut piece = Batch { removable: Vec::new(), next: None };
        for id in ids {
            let Some(build) = self.build(id)? else { continue };
            if build.created_at >= before {
                return Ok(Batch { next: None, ..piece });
            }
            if build.finished_at.is_some_and(|at| at < before) && !self.is_last_run(&build)? {
                piece.removable.push(id);
            }
            piece.next = Some(id);
        }
        Ok(piece)
    }

    /// The oldest deliveries, beyond `after`, and those of them that came before `before` and that no build here comes from.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn expired_deliveries(&self, after: Option<DeliveryId>, before: Timestamp) -> Result<Batch<DeliveryId>, StoreError> {
        let ids = self.oldest_ids(DELIVERY, after.map(|id| id.0))?.into_iter().map(DeliveryId);
        let mut piece = Batch { removable: Vec::new(), next: None };
        for id in ids {
            let Some(delivery) = self.delivery(id)? else { continue };
            if delivery.received_at >= before {
                return Ok(Batch { next: None, ..piece });
            }
            let is_needed = match delivery.outcome {
                DeliveryOutcome::Waiting => true,
                DeliveryOutcome::Built(build) => self.build(build)?.is_some(),
                DeliveryOutcome::Ignored(_) | DeliveryOutcome::DeadLetter(_) => false,
            };
            if !is_needed {
                piece.removable.push(id);
            }
            piece.next = Some(id);
        }
        Ok(piece)
    }

    /// Ids in a table whose keys are ids, the oldest first.
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
    /// The build leaves with its stages, decisions and notices. Its delivery leaves after it.
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

    /// What was built once is not built again because it was forgotten: only what it is known by stays.
    fn purge_delivery(&self, delivery: &Delivery) -> Result<(), StoreError> {
        let id = delivery.id.0;
        self.remove(DELIVERY, id.as_bytes())?;
        self.remove(DELIVERY_BODY, id.as_bytes())?;
        self.remove(DELIVERY_OF_REPOSITORY, Key::new().u64(delivery.repository.0).id(id).as_slice())?;
        // Nothing came of it: whoever sends it again means it.
        if matches!(delivery.outcome, DeliveryOutcome::DeadLetter(_)) { self.forget_seen(delivery) } else { Ok(()) }
    }
}

impl Store {
    /// Removes builds that are over with all that belongs to them but their logs.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
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

    /// Removes deliveries that do not wait.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
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
