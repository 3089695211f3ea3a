//! The webhook route: find the key, limit the body, verify the signature, store the delivery, respond with 202.
//!
//! Nothing of a body is parsed before its signature is verified, and nothing but storing happens before the response: Gogs sends
//! the deliveries of its whole instance one after the other, and waits for each response.

mod body_memory;

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
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::encryption::{self, SealError, Sealed};
use crate::http_problem::{Problem, STORE_UNAVAILABLE};
use crate::store::delivery::{Accepted, NewDelivery};
use crate::store::repository::Hook;
use crate::store::{Store, StoreError};
use crate::telemetry::{HookResponse, WebhookMetrics};
use crate::webhook_secret::{ROUTE, key_digest, secret_aad};
use body_memory::{BodyRoom, BodyRooms, NoRoom};

/// The longest body. Gogs does not truncate the payload of a push, and that of a large merge is long.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;
/// A longer body is verified on a blocking thread, because hashing it takes milliseconds.
const INLINE_VERIFY_BYTES: usize = 128 * 1024;
/// The time for a whole body. Gogs itself gives up after 15 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// The time for a body whose key is unknown. It is read only so that the response does not show whether the key exists, and it
/// must not occupy the connections of deliveries.
const UNKNOWN_KEY_BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest delivery id and event name, in characters. Those of Gogs are shorter.
const MAX_FORGE_ID_LENGTH: usize = 100;

/// The state of the route.
#[derive(Debug, Clone)]
pub struct Webhook {
    store: Store,
    seal: encryption::Key,
    /// The secret used for an unknown key, so that the response takes the same work and the key cannot be guessed by timing.
    decoy_secret: Sealed,
    metrics: WebhookMetrics,
    rooms: Arc<BodyRooms>,
    now: fn() -> Timestamp,
}

/// The HTTP response. Gogs shows its text beside the delivery, so people read it there.
fn respond(response: HookResponse) -> Response {
    let (status, code, detail) = match response {
        HookResponse::Accepted => return (StatusCode::ACCEPTED, "accepted\n").into_response(),
        HookResponse::Duplicate => return (StatusCode::ACCEPTED, "already known\n").into_response(),
        HookResponse::Refused => (StatusCode::UNAUTHORIZED, "refused", "the webhook's URL or secret is wrong"),
        HookResponse::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the delivery is larger than 10 MiB"),
        HookResponse::Incomplete => (StatusCode::REQUEST_TIMEOUT, "broken-body", "the delivery did not arrive completely"),
        HookResponse::Busy => {
            (StatusCode::SERVICE_UNAVAILABLE, "busy", "too many deliveries arrived at once; this one was not stored")
        }
        HookResponse::NotStored => (
            StatusCode::SERVICE_UNAVAILABLE,
            STORE_UNAVAILABLE,
            "Beespace cannot write to its store at the moment; the delivery was not stored",
        ),
    };
    let problem = Problem::new(status, code, detail);
    match remedy(response) {
        Some(help) => problem.help(help).json(),
        None => problem.json(),
    }
}

fn remedy(response: HookResponse) -> Option<&'static str> {
    match response {
        HookResponse::Refused => Some("run `beespace repo repair OWNER/NAME` to replace the webhook and its secret"),
        HookResponse::Incomplete | HookResponse::Busy => Some("redeliver it from the webhook's page in Gogs"),
        // Gogs does not retry a delivery by itself.
        HookResponse::NotStored => {
            Some("redeliver it from the webhook's page in Gogs once `/readyz` of Beespace reports `ready`")
        }
        HookResponse::Accepted | HookResponse::Duplicate | HookResponse::TooLarge => None,
    }
}

/// The webhook with the key of a request, and its repository; none if the key is unknown.
type KnownHook = Option<(RepositoryId, Hook)>;
/// The repository of a webhook, and the body that its secret signed.
type VerifiedBody = (RepositoryId, Verified<Vec<u8>>);

impl Webhook {
    /// # Errors
    /// [`SealError`] if the system's random generator fails.
    pub fn new(store: Store, seal: encryption::Key, metrics: WebhookMetrics, now: fn() -> Timestamp) -> Result<Self, SealError> {
        // As long as a real secret in hex, so that decrypting it takes the same work.
        let mut secret = Zeroizing::new([0_u8; 64]);
        getrandom::fill(secret.as_mut_slice()).map_err(|error| SealError::NoRandom(error.to_string()))?;
        let decoy_secret = seal.seal(&secret_aad(RepositoryId(0), key_digest("")), secret.as_slice())?;
        Ok(Self { store, seal, decoy_secret, metrics, rooms: Arc::default(), now })
    }

    /// The route, to be merged into the server's router.
    pub fn router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        Router::new().route(ROUTE, post(receive)).with_state(self)
    }

    async fn handle(&self, key: &str, headers: &HeaderMap, body: Body) -> HookResponse {
        let key = key_digest(key);
        // The key is looked up before the body is read, so that a body without a known key takes no room from the real
        // deliveries. This reveals nothing: a key has 128 random bits.
        let hook = self.store.read().and_then(|read| read.hook_by_key(key, (self.now)()));
        let (room, timeout) = match &hook {
            Ok(Some(_)) => (self.rooms.of_key(key), BODY_TIMEOUT),
            _ => (self.rooms.of_unknown_key(), UNKNOWN_KEY_BODY_TIMEOUT),
        };
        let (body, _room) = match tokio::time::timeout(timeout, read(body, room)).await {
            Ok(Ok(read)) => read,
            Ok(Err(response)) => return response,
            Err(_) => return HookResponse::Incomplete,
        };
        let verified = match hook {
            Ok(hook) => self.verify_body(hook, headers, body).await,
            Err(error) => Err(error),
        };
        match verified {
            Ok(Some((repository, body))) => self.store(repository, headers, body).await,
            Ok(None) => HookResponse::Refused,
            Err(error) => {
                tracing::error!(%error, "a delivery could not be verified");
                HookResponse::NotStored
            }
        }
    }

    async fn verify_body(&self, hook: KnownHook, headers: &HeaderMap, body: Vec<u8>) -> Result<Option<VerifiedBody>, StoreError> {
        if body.len() <= INLINE_VERIFY_BYTES {
            return self.verify_body_blocking(hook, headers, body);
        }
        let (this, headers) = (self.clone(), headers.clone());
        let verified = tokio::task::spawn_blocking(move || this.verify_body_blocking(hook, &headers, body)).await;
        verified.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// Verifies the body with the webhook's secret. An unknown key takes the same work.
    fn verify_body_blocking(
        &self,
        hook: KnownHook,
        headers: &HeaderMap,
        body: Vec<u8>,
    ) -> Result<Option<VerifiedBody>, StoreError> {
        let known = hook.as_ref().map(|(repository, hook)| (secret_aad(*repository, hook.key), &hook.secret));
        let (aad, secret) = known.unwrap_or_else(|| (secret_aad(RepositoryId(0), key_digest("")), &self.decoy_secret));
        let secret = self.seal.open(&aad, secret).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let signed = signed_part(headers, body);
        self.metrics.signed(signed.len());
        let verified = verify(signed, &secret, header_text(headers, "x-gogs-signature"));
        Ok(hook.map(|(repository, _)| repository).zip(verified))
    }

    async fn store(&self, repository: RepositoryId, headers: &HeaderMap, body: Verified<Vec<u8>>) -> HookResponse {
        let body = body.into_inner();
        // Neither header is signed. Without a delivery id from Gogs, the body's digest identifies a repeated delivery.
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
                tracing::info!(%repository, delivery = %id, "delivery is already known");
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
    // A key that is not UTF-8 is an unknown key.
    let key = key.map_or_else(|_| String::new(), |Path(key)| key);
    let response = webhook.handle(&key, &headers, body).await;
    webhook.metrics.responded(response);
    respond(response)
}

/// Reads the whole body. It takes its room until the returned [`BodyRoom`] is dropped.
async fn read(body: Body, mut room: BodyRoom) -> Result<(Vec<u8>, BodyRoom), HookResponse> {
    let mut body = Limited::new(body, MAX_BODY_BYTES);
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
            true => HookResponse::TooLarge,
            false => HookResponse::Incomplete,
        })?;
        let Ok(chunk) = frame.into_data() else { continue };
        room.grow(chunk.len()).map_err(|NoRoom| HookResponse::Busy)?;
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes, room))
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The bytes that Gogs signed: the decoded field `payload` of a form, otherwise the body (Gogs `internal/database/webhook.go`).
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
