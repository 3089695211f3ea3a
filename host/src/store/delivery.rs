//! Deliveries: the signed payloads from Gogs and the outcome of each.

use std::time::Duration;

use beespace_core::build::Build;
use beespace_core::change_event::ChangeEvent;
use beespace_core::digest::Digest;
use beespace_core::event::{Event, PullRequest};
use beespace_core::ids::{BuildId, DeliveryId, RepositoryId};
use beespace_core::reason::Reason;
use beespace_core::time::Timestamp;
use beespace_core::trigger::LastSeenRef;
use serde::{Deserialize, Serialize};

pub use super::delivery_outcome::{DeliveryOutcome, OutcomeKind};
use super::queue::{DueTime, FairnessKey};
use super::repository::Repositories;
use super::tables::{DELIVERY, DELIVERY_BODY, DELIVERY_OF_OUTCOME, DELIVERY_OF_REPOSITORY, DELIVERY_SEEN, Key, Table, last_id};
use super::transaction::{Order, Read, Rows, Write};
use super::{Queue, Store, StoreError};

/// One webhook POST. The body is in a table of its own, so lists of deliveries stay cheap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub id: DeliveryId,
    /// The webhook's repository.
    pub repository: RepositoryId,
    /// The `X-Gogs-Delivery` header. It is not signed: an identifier, not a proof.
    pub forge_id: String,
    /// The `X-Gogs-Event` header. It is not signed either.
    pub event: String,
    /// SHA-256 of the signed JSON.
    pub sha256: Digest,
    pub bytes: u64,
    pub received_at: Timestamp,
    pub outcome: DeliveryOutcome,
    /// Whether the same JSON arrived earlier under another Gogs id.
    pub is_repeat: bool,
    /// The number of such repeats of this delivery that were stored.
    pub repeats: u8,
    /// Builds besides the one in `outcome`: a release also reports its tag.
    #[serde(default)]
    pub more_builds: Vec<BuildId>,
}

impl Delivery {
    /// The delivery after one of its builds turned out to have nothing to run. Another of its builds takes its place.
    pub(super) fn without_build(mut self, build: BuildId, reason: &Reason) -> Self {
        self.more_builds.retain(|other| *other != build);
        if self.outcome == DeliveryOutcome::Built(build) {
            self.outcome = match self.more_builds.is_empty() {
                true => DeliveryOutcome::Ignored(reason.clone()),
                false => DeliveryOutcome::Built(self.more_builds.remove(0)),
            };
        }
        self
    }
}

/// A delivery whose signature the webhook has verified.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    pub id: DeliveryId,
    pub repository: RepositoryId,
    pub forge_id: String,
    pub event: String,
    pub body: Vec<u8>,
    pub received_at: Timestamp,
}

/// Within this time, the same JSON under another id may be a separate push: Gogs sends deliveries one after another, so two of
/// the same second can arrive minutes apart. After this time it can only be an old delivery that is sent again.
const REPEAT_WINDOW: Duration = Duration::from_secs(300);
/// The maximum number of repeats that are stored. It is more than git can push in a second, and it keeps a client that repeats a
/// delivery from filling the disk.
const MAX_REPEATS: u8 = 32;

/// The header of a delivery about a pull request.
const PULL_REQUEST_EVENT: &str = "pull_request";

/// Whether a delivery is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    New(DeliveryId),
    /// The same delivery arrived before, with this id.
    Duplicate(DeliveryId),
}

/// The action for a delivery, as decided by core.
#[derive(Debug, Clone)]
pub enum DeliveryAction {
    /// One build per event; at least one.
    Build(Vec<(BuildId, Event)>),
    Ignore {
        reason: Reason,
        forget_ref: Option<String>,
    },
    /// Keep what is now known about a pull request.
    Update {
        pull_request: Box<PullRequest>,
        reason: Reason,
    },
    DeadLetter(Reason),
}

fn key(id: DeliveryId) -> Key {
    Key::new().id(id.0)
}

fn outcome_key(kind: OutcomeKind) -> Key {
    Key::new().text(kind.as_str())
}

fn seen_keys(delivery: &Delivery) -> [Key; 2] {
    let of = |kind: u8| Key::new().u64(delivery.repository.0).byte(kind);
    [of(0).text(&delivery.forge_id), of(1).bytes(&delivery.sha256.0)]
}

/// Whether a delivery with the same content as `first` may still report something else.
fn may_be_separate(first: &Delivery, delivery: &Delivery) -> bool {
    first.forge_id != delivery.forge_id
        && first.sha256 == delivery.sha256
        // A pull request that is closed and reopened again yields the same JSON, however long that takes.
        && (delivery.received_at <= first.received_at + REPEAT_WINDOW || delivery.event == PULL_REQUEST_EVENT)
        && first.repeats < MAX_REPEATS
}

/// Reading deliveries, in both kinds of transaction.
pub trait Deliveries: Rows + Sized {
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.row(DELIVERY, "delivery", key(id).as_slice())
    }

    /// The signed JSON.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn delivery_body(&self, id: DeliveryId) -> Result<Option<Vec<u8>>, StoreError> {
        self.bytes(DELIVERY_BODY, key(id).as_slice())
    }
}

impl Deliveries for Read {}
impl Deliveries for Write<'_> {}

impl Read {
    /// Deliveries of one repository or of all, newest first. `after` is the last id of the previous page.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
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
        self.deliveries_in(table, &prefix, after, limit)
    }

    /// Deliveries with an outcome of this kind, newest first. `after` is the last id of the previous page.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn deliveries_with(
        &self,
        kind: OutcomeKind,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.deliveries_in(DELIVERY_OF_OUTCOME, &outcome_key(kind), after, limit)
    }

    fn deliveries_in(
        &self,
        table: Table,
        prefix: &Key,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let after = after.map(|id| prefix.clone().id(id.0));
        let keys = self.keys(table, prefix.as_slice(), after.as_ref().map(Key::as_slice), Order::NewestFirst, limit)?;
        let ids = keys.iter().filter_map(|key| last_id(key)).map(DeliveryId);
        ids.filter_map(|id| self.delivery(id).transpose()).collect()
    }
}

impl Write<'_> {
    /// Writes the row and updates the index of outcomes.
    pub(super) fn put_delivery(&self, delivery: &Delivery) -> Result<(), StoreError> {
        if let Some(old) = self.delivery(delivery.id)? {
            self.forget_outcome(&old)?;
        }
        self.put_bytes(DELIVERY_OF_OUTCOME, outcome_key(delivery.outcome.kind()).id(delivery.id.0).as_slice(), &[])?;
        self.put(DELIVERY, "delivery", key(delivery.id).as_slice(), delivery)
    }

    /// Removes the delivery from the index of outcomes.
    pub(super) fn forget_outcome(&self, delivery: &Delivery) -> Result<(), StoreError> {
        self.remove(DELIVERY_OF_OUTCOME, outcome_key(delivery.outcome.kind()).id(delivery.id.0).as_slice()).map(drop)
    }

    fn add_delivery(&self, delivery: &Delivery, body: &[u8]) -> Result<Accepted, StoreError> {
        let id = delivery.id.0.as_bytes();
        self.put_delivery(delivery)?;
        self.put_bytes(DELIVERY_BODY, id, body)?;
        self.put_bytes(DELIVERY_OF_REPOSITORY, Key::new().u64(delivery.repository.0).bytes(id).as_slice(), &[])?;
        let [by_id, by_content] = seen_keys(delivery);
        self.put_bytes(DELIVERY_SEEN, by_id.as_slice(), id)?;
        // The index keeps pointing at the first delivery with this content: the window for repeats begins with it.
        if !delivery.is_repeat {
            self.put_bytes(DELIVERY_SEEN, by_content.as_slice(), id)?;
        }
        self.enqueue(Queue::Delivery, id, FairnessKey::of_repository(delivery.repository), DueTime::now(delivery.received_at))?;
        self.announce(ChangeEvent::DeliveryStored { repository: delivery.repository, delivery: delivery.id });
        Ok(Accepted::New(delivery.id))
    }

    /// The id of the first delivery with the same Gogs id or content, with its row if it has not been removed.
    fn find_earlier(&self, delivery: &Delivery) -> Result<Option<(DeliveryId, Option<Delivery>)>, StoreError> {
        for seen in seen_keys(delivery) {
            if let Some(id) = self.bytes(DELIVERY_SEEN, seen.as_slice())?.and_then(|bytes| last_id(&bytes)).map(DeliveryId) {
                return Ok(Some((id, self.delivery(id)?)));
            }
        }
        Ok(None)
    }

    /// Removes the delivery from the index of known deliveries, so that the same delivery counts as new again.
    pub(super) fn forget_seen(&self, delivery: &Delivery) -> Result<(), StoreError> {
        for seen in seen_keys(delivery) {
            if self.bytes(DELIVERY_SEEN, seen.as_slice())?.is_some_and(|id| id == delivery.id.0.as_bytes()) {
                self.remove(DELIVERY_SEEN, seen.as_slice())?;
            }
        }
        Ok(())
    }

    /// Removes Gogs' id of the delivery from the index of known deliveries; the digest of its content stays.
    pub(super) fn forget_forge_id(&self, delivery: &Delivery) -> Result<(), StoreError> {
        let [by_id, _] = seen_keys(delivery);
        self.remove(DELIVERY_SEEN, by_id.as_slice()).map(drop)
    }

    fn apply_action(&self, mut delivery: Delivery, action: &DeliveryAction, now: Timestamp) -> Result<(), StoreError> {
        delivery.outcome = match action {
            DeliveryAction::Build(builds) => {
                for (id, event) in builds {
                    self.create_build(&Build { delivery: Some(delivery.id), ..Build::pending(*id, event.clone(), now) })?;
                }
                let mut ids = builds.iter().map(|(id, _)| *id);
                let first = ids.next().ok_or(StoreError::NotFound("event"))?;
                delivery.more_builds = ids.collect();
                DeliveryOutcome::Built(first)
            }
            DeliveryAction::Ignore { reason, forget_ref } => {
                if let Some(git_ref) = forget_ref {
                    self.record_ref(delivery.repository, git_ref, None)?;
                }
                DeliveryOutcome::Ignored(reason.clone())
            }
            DeliveryAction::Update { pull_request, reason } => {
                self.record_pull_request(delivery.repository, pull_request, now)?;
                DeliveryOutcome::Ignored(reason.clone())
            }
            DeliveryAction::DeadLetter(reason) => DeliveryOutcome::DeadLetter(reason.clone()),
        };
        self.dequeue(Queue::Delivery, delivery.id.0.as_bytes())?;
        self.announce(ChangeEvent::DeliveryProcessed { repository: delivery.repository, delivery: delivery.id });
        self.put_delivery(&delivery)
    }
}

impl Store {
    /// Stores a delivery. A duplicate adds nothing, but if the first one ended as a dead letter, it is processed again. A
    /// delivery is a duplicate if its Gogs id is known, or if the same JSON arrived earlier and reports nothing else.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written. Gogs must receive an error, so that a person can redeliver.
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
            more_builds: Vec::new(),
        };
        self.write(move |write| match write.find_earlier(&delivery)? {
            None => write.add_delivery(&delivery, &new.body),
            Some((id, None)) => Ok(Accepted::Duplicate(id)),
            Some((_, Some(first))) if matches!(first.outcome, DeliveryOutcome::DeadLetter(_)) => {
                write.put_delivery(&Delivery { outcome: DeliveryOutcome::Waiting, ..first.clone() })?;
                let fairness_key = FairnessKey::of_repository(first.repository);
                write.enqueue(Queue::Delivery, first.id.0.as_bytes(), fairness_key, DueTime::now(delivery.received_at))?;
                Ok(Accepted::Duplicate(first.id))
            }
            Some((_, Some(first))) if may_be_separate(&first, &delivery) => {
                write.put_delivery(&Delivery { repeats: first.repeats.saturating_add(1), ..first })?;
                write.add_delivery(&Delivery { is_repeat: true, ..delivery.clone() }, &new.body)
            }
            Some((id, Some(_))) => Ok(Accepted::Duplicate(id)),
        })
        .await
    }

    /// Stores the outcome of a delivery: its build, or the reason why there is none. `decide` receives the ref's last recorded
    /// commit in the same transaction that records the new one, so a push is built once, whatever the number of its deliveries.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be written.
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
            let action = decide(last.as_ref());
            write.apply_action(delivery, &action, now)
        })
        .await
    }

    /// Processes a delivery again that was ignored or ended as a dead letter.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the delivery already has a build.
    pub async fn retry_delivery(&self, id: DeliveryId, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |write| {
            let delivery = write.delivery(id)?.ok_or(StoreError::NotFound("delivery"))?;
            if let DeliveryOutcome::Built(_) = delivery.outcome {
                return Err(StoreError::Conflict(format!(
                    "delivery {id} already has a build; `beespace build restart` repeats it"
                )));
            }
            let fairness_key = FairnessKey::of_repository(delivery.repository);
            write.put_delivery(&Delivery { outcome: DeliveryOutcome::Waiting, ..delivery })?;
            write.enqueue(Queue::Delivery, id.0.as_bytes(), fairness_key, DueTime::now(now))
        })
        .await
    }
}
