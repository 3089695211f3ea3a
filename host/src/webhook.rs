//! Gogs' POST: cap, key, signature, durable, 202. Nothing of a body is looked at before its signature, and nothing but storing it
//! happens before the answer: Gogs delivers one hook after the other for its whole instance, and waits for each.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use beespace_core::digest::Digest;
use beespace_core::ids::{DeliveryId, RepositoryId};
use beespace_core::time::Timestamp;
use beespace_core::verify::{Verified, verify};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::api::problem::{Problem, STORE_UNAVAILABLE};
use crate::seal::{self, SealError, Sealed};
use crate::store::delivery::{Accepted, NewDelivery};
use crate::store::{Store, StoreError};
use crate::telemetry::{HookResponse, WebhookMetrics};

/// The route, in the words of the router.
pub const ROUTE: &str = "/-/hook/{key}";
/// What comes before a key in a hook's address.
pub const PATH_PREFIX: &str = "/-/hook/";

/// Gogs does not cut the pushes of merges: they can be long.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;
/// Of all deliveries that are being read or stored. Gogs sends one at a time; this many are somebody's mistake, or worse.
const MAX_BUFFERED_BYTES: usize = 64 * 1024 * 1024;
/// A body above that is verified off the async threads: hashing it takes milliseconds.
const INLINE_VERIFY_BYTES: usize = 128 * 1024;
/// Gogs itself gives up after 15 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// An id of ours is longer than that only if it is not Gogs'.
const MAX_FORGE_ID_LENGTH: usize = 100;

/// What the route needs.
#[derive(Debug, Clone)]
pub struct Webhook {
    store: Store,
    seal: seal::Key,
    /// Stands in for the secret of a hook that does not exist, so that the answer takes the same work.
    decoy_secret: Sealed,
    metrics: WebhookMetrics,
    /// Bytes that bodies may still take.
    body_budget: Arc<Semaphore>,
    now: fn() -> Timestamp,
}

impl WebhookMetrics {
    fn verify(&self, body: Vec<u8>, secret: &[u8], signature: Option<&str>) -> Option<Verified<Vec<u8>>> {
        self.record_signature(body.len());
        verify(body, secret, signature)
    }
}

impl HookResponse {
    /// Gogs shows it beside the delivery, so a person reads it there.
    fn respond(self) -> Response {
        let (status, code, detail) = match self {
            Self::Accepted => return (StatusCode::ACCEPTED, "accepted\n").into_response(),
            Self::Duplicate => return (StatusCode::ACCEPTED, "known already\n").into_response(),
            Self::Refused => (StatusCode::UNAUTHORIZED, "refused", "This hook's address or its secret is wrong."),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The delivery is larger than 10 MiB."),
            Self::Incomplete => (StatusCode::REQUEST_TIMEOUT, "broken-body", "The delivery did not arrive whole."),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many deliveries came at once; this one is not kept."),
            Self::NotStored => (
                StatusCode::SERVICE_UNAVAILABLE,
                STORE_UNAVAILABLE,
                "Beespace cannot store anything now; the delivery is not kept.",
            ),
        };
        let problem = Problem::new(status, code, detail);
        match self.remedy() {
            Some(help) => problem.help(help).json(),
            None => problem.json(),
        }
    }

    fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Refused => Some("`beespace repo repair` makes both anew."),
            Self::Incomplete | Self::Busy => Some("Redeliver it from the hook's page in Gogs."),
            // Gogs tries nothing again by itself.
            Self::NotStored => Some("Redeliver it from the hook's page in Gogs once `/readyz` of Beespace says ready."),
            Self::Accepted | Self::Duplicate | Self::TooLarge => None,
        }
    }
}

/// Name under which the secret of the hook with this key is sealed.
#[must_use]
pub fn secret_aad(repository: RepositoryId, key: Digest) -> String {
    format!("hook/{repository}/{}", key.hex())
}

/// What the store knows a hook's key by. The key itself is in Gogs alone.
#[must_use]
pub fn key_digest(key: &str) -> Digest {
    Digest::of(key)
}

/// The hook's repository, and the body that its secret signed.
type VerifiedBody = (RepositoryId, Verified<Vec<u8>>);

impl Webhook {
    /// # Errors
    /// [`SealError`] where the system has no random bytes.
    pub fn new(store: Store, seal: seal::Key, counts: WebhookMetrics, now: fn() -> Timestamp) -> Result<Self, SealError> {
        // As long as the secret of a hook in hex: opening it is the same work.
        let mut secret = Zeroizing::new([0_u8; 64]);
        getrandom::fill(secret.as_mut_slice()).map_err(|error| SealError::NoRandom(error.to_string()))?;
        let nobody = seal.seal(&secret_aad(RepositoryId(0), key_digest("")), secret.as_slice())?;
        Ok(Self {
            store,
            seal,
            decoy_secret: nobody,
            metrics: counts,
            body_budget: Arc::new(Semaphore::new(MAX_BUFFERED_BYTES)),
            now,
        })
    }

    /// The one route, ready to be merged into the server's.
    pub fn router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        Router::new().route(ROUTE, post(receive)).with_state(self)
    }

    async fn handle(&self, key: &str, headers: &HeaderMap, body: Body) -> HookResponse {
        let (body, _room) = match tokio::time::timeout(BODY_TIMEOUT, self.read(body)).await {
            Ok(Ok(read)) => read,
            Ok(Err(answer)) => return answer,
            Err(_) => return HookResponse::Incomplete,
        };
        match self.verify_body(key, headers, body).await {
            Ok(Some((repository, body))) => self.store(repository, headers, body).await,
            Ok(None) => HookResponse::Refused,
            Err(error) => {
                tracing::error!(%error, "a delivery could not be checked");
                HookResponse::NotStored
            }
        }
    }

    /// The whole body, and the room it takes for as long as it is held.
    async fn read(&self, body: Body) -> Result<(Vec<u8>, OwnedSemaphorePermit), HookResponse> {
        let more = |bytes| Arc::clone(&self.body_budget).try_acquire_many_owned(bytes).map_err(|_| HookResponse::Busy);
        let mut body = Limited::new(body, MAX_BODY_BYTES);
        let (mut bytes, mut room) = (Vec::new(), more(0)?);
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(
                    |error| if error.is::<LengthLimitError>() { HookResponse::TooLarge } else { HookResponse::Incomplete },
                )?;
            let Ok(piece) = frame.into_data() else { continue };
            let length = u32::try_from(piece.len()).map_err(|_| HookResponse::TooLarge)?;
            room.merge(more(length)?);
            bytes.extend_from_slice(&piece);
        }
        Ok((bytes, room))
    }

    async fn verify_body(&self, key: &str, headers: &HeaderMap, body: Vec<u8>) -> Result<Option<VerifiedBody>, StoreError> {
        if body.len() <= INLINE_VERIFY_BYTES {
            return self.verify_body_blocking(key, headers, body);
        }
        let (this, key, headers) = (self.clone(), key.to_owned(), headers.clone());
        let checked = tokio::task::spawn_blocking(move || this.verify_body_blocking(&key, &headers, body)).await;
        checked.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// Finds the hook, and proves the body with its secret. The same work for a key that nobody has.
    fn verify_body_blocking(&self, key: &str, headers: &HeaderMap, body: Vec<u8>) -> Result<Option<VerifiedBody>, StoreError> {
        let digest = key_digest(key);
        let hook = self.store.read()?.hook_by_key(digest, (self.now)())?;
        let known = hook.as_ref().map(|(repository, hook)| (secret_aad(*repository, digest), &hook.secret));
        let (place, secret) = known.unwrap_or_else(|| (secret_aad(RepositoryId(0), key_digest("")), &self.decoy_secret));
        let secret = self.seal.open(&place, secret).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let verified = self.metrics.verify(signed_part(headers, body), &secret, header_text(headers, "x-gogs-signature"));
        Ok(hook.map(|(repository, _)| repository).zip(verified))
    }

    async fn store(&self, repository: RepositoryId, headers: &HeaderMap, body: Verified<Vec<u8>>) -> HookResponse {
        let body = body.into_inner();
        // Neither header is signed. Without an id of Gogs' the body is told again by its digest alone.
        let forge_id = header_text(headers, "x-gogs-delivery").filter(|id| (1..=MAX_FORGE_ID_LENGTH).contains(&id.len()));
        let delivery = NewDelivery {
            id: DeliveryId(Uuid::now_v7()),
            repository,
            forge_id: forge_id.map_or_else(|| Digest::of(&body).hex(), str::to_owned),
            event: header_text(headers, "x-gogs-event").unwrap_or_default().chars().take(MAX_FORGE_ID_LENGTH).collect(),
            body,
            received_at: (self.now)(),
        };
        match self.store.accept_delivery(delivery).await {
            Ok(Accepted::New(id)) => {
                tracing::info!(%repository, delivery = %id, "delivery accepted");
                HookResponse::Accepted
            }
            Ok(Accepted::Duplicate(id)) => {
                tracing::info!(%repository, delivery = %id, "delivery known already");
                HookResponse::Duplicate
            }
            Err(error) => {
                tracing::error!(%repository, %error, "a delivery could not be stored");
                HookResponse::NotStored
            }
        }
    }
}

async fn receive(
    State(webhook): State<Webhook>,
    key: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // What is not even text is a key that nobody has.
    let key = key.map_or_else(|_| String::new(), |Path(key)| key);
    let answer = webhook.handle(&key, &headers, body).await;
    webhook.metrics.record_response(answer);
    answer.respond()
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The bytes that Gogs signed: of a form the decoded `payload`, otherwise the body (`internal/database/webhook.go`).
fn signed_part(headers: &HeaderMap, body: Vec<u8>) -> Vec<u8> {
    let content_type = header_text(headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return body;
    }
    url::form_urlencoded::parse(&body)
        .find(|(name, _)| name == "payload")
        .map(|(_, value)| value.into_owned().into_bytes())
        .unwrap_or_default()
}
