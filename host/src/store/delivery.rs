//! Deliveries: what Gogs sent, kept as it was signed, and what came of it.

use std::time::Duration;

use beespace_core::build::Build;
use beespace_core::change_event::ChangeEvent;
use beespace_core::digest::Digest;
use beespace_core::event::Event;
use beespace_core::ids::{BuildId, DeliveryId, RepositoryId};
use beespace_core::reason::Reason;
use beespace_core::time::Timestamp;
use beespace_core::trigger::LastSeenRef;
use serde::{Deserialize, Serialize};

use super::queue::FairnessKey;
use super::repository::Repositories;
use super::tables::{DELIVERY, DELIVERY_BODY, DELIVERY_OF_REPOSITORY, DELIVERY_SEEN, Key, last_id};
use super::transaction::{Order, Read, Rows, Write};
use super::{Queue, Store, StoreError};

/// One webhook POST. Its body lies apart, so that a list of deliveries stays small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub id: DeliveryId,
    /// The hook's repository.
    pub repository: RepositoryId,
    /// `X-Gogs-Delivery`. Not signed: a name, no proof.
    pub forge_id: String,
    /// `X-Gogs-Event`. Not signed either.
    pub event: String,
    /// Of the signed JSON.
    pub sha256: Digest,
    pub bytes: u64,
    pub received_at: Timestamp,
    pub outcome: DeliveryOutcome,
    /// The same JSON had come before, under another id of Gogs'.
    #[serde(default)]
    pub is_repeat: bool,
    /// How many such repeats of this one were kept.
    #[serde(default)]
    pub repeats: u8,
}

/// What came of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryOutcome {
    Waiting,
    Built(BuildId),
    Ignored(Reason),
    /// Given up: our own trouble, or a body we cannot read. Sending it again in Gogs, or `delivery replay`, tries again.
    DeadLetter(Reason),
}

/// What the webhook hands over once the signature was checked.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    pub id: DeliveryId,
    pub repository: RepositoryId,
    pub forge_id: String,
    pub event: String,
    pub body: Vec<u8>,
    pub received_at: Timestamp,
}

/// For how long the same JSON under another id may be another push: Gogs sends one delivery after the other, so that two of one second
/// can come minutes apart. Later it can only be an old one that somebody sends again.
const REPEAT_WINDOW: Duration = Duration::from_secs(300);
/// More of the same than git pushes in a second: whoever sends more does not fill the disk with them.
const MAX_REPEATS: u8 = 32;

/// Whether a delivery is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    New(DeliveryId),
    /// The same came before; this is the first one's id.
    Duplicate(DeliveryId),
}

/// What to do about a delivery, decided by core.
#[derive(Debug, Clone)]
pub enum DeliveryAction {
    Build { id: BuildId, event: Box<Event> },
    Ignore { reason: Reason, forget_ref: Option<String> },
    DeadLetter(Reason),
}

fn key(id: DeliveryId) -> Key {
    Key::new().id(id.0)
}

fn seen_keys(delivery: &Delivery) -> [Key; 2] {
    let of = |kind: u8| Key::new().u64(delivery.repository.0).byte(kind);
    [of(0).text(&delivery.forge_id), of(1).bytes(&delivery.sha256.0)]
}

/// Whether a delivery with the content of `first` may tell of another push all the same.
fn may_be_separate_push(first: &Delivery, delivery: &Delivery) -> bool {
    first.forge_id != delivery.forge_id
        && first.sha256 == delivery.sha256
        && delivery.received_at <= first.received_at + REPEAT_WINDOW
        && first.repeats < MAX_REPEATS
}

/// What both kinds of transaction can tell of deliveries.
pub trait Deliveries: Rows + Sized {
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.row(DELIVERY, "delivery", key(id).as_slice())
    }

    /// The signed JSON.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn delivery_body(&self, id: DeliveryId) -> Result<Option<Vec<u8>>, StoreError> {
        self.bytes(DELIVERY_BODY, key(id).as_slice())
    }
}

impl Deliveries for Read {}
impl Deliveries for Write<'_> {}

impl Read {
    /// Deliveries, newest first; of one repository where one is named. `after` is the last id of the page before.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub fn deliveries(
        &self,
        repository: Option<RepositoryId>,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let (table, prefix) = match repository {
            Some(repository) => (DELIVERY_OF_REPOSITORY, Key::new().u64(repository.0)),
            None => (DELIVERY, Key::new()),
        };
        let after = after.map(|id| prefix.clone().id(id.0));
        let keys = self.keys(table, prefix.as_slice(), after.as_ref().map(Key::as_slice), Order::NewestFirst, limit)?;
        let ids = keys.iter().filter_map(|key| last_id(key)).map(DeliveryId);
        ids.filter_map(|id| self.delivery(id).transpose()).collect()
    }
}

impl Write<'_> {
    fn put_delivery(&self, delivery: &Delivery) -> Result<(), StoreError> {
        self.put(DELIVERY, "delivery", key(delivery.id).as_slice(), delivery)
    }

    fn add_delivery(&self, delivery: &Delivery, body: &[u8]) -> Result<Accepted, StoreError> {
        let id = delivery.id.0.as_bytes();
        self.put_delivery(delivery)?;
        self.put_bytes(DELIVERY_BODY, id, body)?;
        self.put_bytes(DELIVERY_OF_REPOSITORY, Key::new().u64(delivery.repository.0).bytes(id).as_slice(), &[])?;
        let [by_id, by_content] = seen_keys(delivery);
        self.put_bytes(DELIVERY_SEEN, by_id.as_slice(), id)?;
        // The first of its content stays the first: from it the time for repeats is counted.
        if !delivery.is_repeat {
            self.put_bytes(DELIVERY_SEEN, by_content.as_slice(), id)?;
        }
        self.enqueue(Queue::Delivery, id, FairnessKey::of_repository(delivery.repository), delivery.received_at)?;
        self.announce(ChangeEvent::DeliveryStored { repository: delivery.repository, delivery: delivery.id });
        Ok(Accepted::New(delivery.id))
    }

    /// The first delivery that told of the same, and its row while that is kept.
    fn find_earlier(&self, delivery: &Delivery) -> Result<Option<(DeliveryId, Option<Delivery>)>, StoreError> {
        for seen in seen_keys(delivery) {
            if let Some(id) = self.bytes(DELIVERY_SEEN, seen.as_slice())?.and_then(|bytes| last_id(&bytes)).map(DeliveryId) {
                return Ok(Some((id, self.delivery(id)?)));
            }
        }
        Ok(None)
    }

    /// The same that comes again is new.
    pub(super) fn forget_seen(&self, delivery: &Delivery) -> Result<(), StoreError> {
        for seen in seen_keys(delivery) {
            if self.bytes(DELIVERY_SEEN, seen.as_slice())?.is_some_and(|id| id == delivery.id.0.as_bytes()) {
                self.remove(DELIVERY_SEEN, seen.as_slice())?;
            }
        }
        Ok(())
    }

    fn apply_action(&self, mut delivery: Delivery, settlement: &DeliveryAction, now: Timestamp) -> Result<(), StoreError> {
        delivery.outcome = match settlement {
            DeliveryAction::Build { id, event } => {
                self.create_build(*id, event, delivery.id, now)?;
                DeliveryOutcome::Built(*id)
            }
            DeliveryAction::Ignore { reason, forget_ref: forget } => {
                if let Some(git_ref) = forget {
                    self.record_ref(delivery.repository, git_ref, None)?;
                }
                DeliveryOutcome::Ignored(reason.clone())
            }
            DeliveryAction::DeadLetter(reason) => DeliveryOutcome::DeadLetter(reason.clone()),
        };
        self.dequeue(Queue::Delivery, delivery.id.0.as_bytes())?;
        self.announce(ChangeEvent::DeliveryProcessed { repository: delivery.repository, delivery: delivery.id });
        self.put_delivery(&delivery)
    }

    fn create_build(&self, id: BuildId, event: &Event, delivery: DeliveryId, now: Timestamp) -> Result<(), StoreError> {
        self.refresh_repository(&event.repository)?;
        self.record_ref(event.repository.id, &event.git_ref(), Some(&LastSeenRef::of_event(event)))?;
        self.put_new_build(&Build { delivery: Some(delivery), ..Build::pending(id, event.clone(), now) })
    }
}

impl Store {
    /// Makes a delivery durable. The same one again adds nothing; where the first ended as a dead letter it goes again. The same is
    /// what has Gogs' id of one that is here, and what has the JSON of one that came long before.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written: Gogs must be told, so that a person can send it again.
    pub async fn accept_delivery(&self, new: NewDelivery) -> Result<Accepted, StoreError> {
        let delivery = Delivery {
            id: new.id,
            repository: new.repository,
            forge_id: new.forge_id,
            event: new.event,
            sha256: Digest::of(&new.body),
            bytes: u64::try_from(new.body.len()).unwrap_or(u64::MAX),
            received_at: new.received_at,
            outcome: DeliveryOutcome::Waiting,
            is_repeat: false,
            repeats: 0,
        };
        self.write(move |write| match write.find_earlier(&delivery)? {
            None => write.add_delivery(&delivery, &new.body),
            Some((id, None)) => Ok(Accepted::Duplicate(id)),
            Some((_, Some(first))) if matches!(first.outcome, DeliveryOutcome::DeadLetter(_)) => {
                write.put_delivery(&Delivery { outcome: DeliveryOutcome::Waiting, ..first.clone() })?;
                let turn = FairnessKey::of_repository(first.repository);
                write.enqueue(Queue::Delivery, first.id.0.as_bytes(), turn, delivery.received_at)?;
                Ok(Accepted::Duplicate(first.id))
            }
            Some((_, Some(first))) if may_be_separate_push(&first, &delivery) => {
                write.put_delivery(&Delivery { repeats: first.repeats.saturating_add(1), ..first })?;
                write.add_delivery(&Delivery { is_repeat: true, ..delivery.clone() }, &new.body)
            }
            Some((id, Some(_))) => Ok(Accepted::Duplicate(id)),
        })
        .await
    }

    /// Ends a delivery's wait: with its build, or with the reason why there is none. `decide` is told what the ref recorded last,
    /// in the transaction that records the new commit, so that one push is built once however often it is told of.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written.
    pub async fn finish_delivery(
        &self,
        id: DeliveryId,
        git_ref: Option<String>,
        now: Timestamp,
        decide: impl Fn(Option<&LastSeenRef>) -> DeliveryAction + Send + 'static,
    ) -> Result<(), StoreError> {
        self.write(move |write| {
            let delivery = write.delivery(id)?.ok_or(StoreError::NotFound("delivery"))?;
            if delivery.outcome != DeliveryOutcome::Waiting {
                return Ok(());
            }
            let last = git_ref.as_deref().map_or(Ok(None), |git_ref| write.last_seen(delivery.repository, git_ref))?;
            let settlement = decide(last.as_ref());
            write.apply_action(delivery, &settlement, now)
        })
        .await
    }

    /// Lets a delivery that was ignored or given up go its way again.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where it has a build already.
    pub async fn replay_delivery(&self, id: DeliveryId, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |write| {
            let delivery = write.delivery(id)?.ok_or(StoreError::NotFound("delivery"))?;
            if let DeliveryOutcome::Built(_) = delivery.outcome {
                return Err(StoreError::Conflict(
                    "it has a build already; restart that with `beespace build restart`".to_owned(),
                ));
            }
            let turn = FairnessKey::of_repository(delivery.repository);
            write.put_delivery(&Delivery { outcome: DeliveryOutcome::Waiting, ..delivery })?;
            write.enqueue(Queue::Delivery, id.0.as_bytes(), turn, now)
        })
        .await
    }
}
