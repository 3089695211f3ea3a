//! Signed deliveries: how a delivery is built, and the one task that sends them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use serde::{Serialize, Serializer};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use url::Url;

use super::hook::{ContentType, Hook};
use super::state::Instance;

/// The characters that Go's `url.QueryEscape` escapes; a space becomes a plus.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

/// One event for one webhook. Body, signature and URL are fixed when the delivery is created; a redelivery repeats them.
#[derive(Debug, Clone, Serialize)]
pub struct Delivery {
    pub uuid: String,
    /// `owner/name`.
    pub repository: String,
    pub hook: u64,
    pub event: String,
    pub url: String,
    /// Names in the case and order in which they are sent.
    #[serde(skip)]
    pub headers: Vec<(&'static str, String)>,
    /// The JSON that was signed.
    #[serde(rename = "payload", serialize_with = "as_json")]
    pub json: String,
    #[serde(skip)]
    pub body: Bytes,
    /// The secret of the webhook.
    #[serde(skip)]
    secret: String,
    /// The result of each attempt. Gogs never retries by itself.
    pub attempts: Vec<Attempt>,
}

/// The result of sending a delivery once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The status that the receiver returned.
    pub status: Option<u16>,
    /// Why there is no status.
    pub error: Option<String>,
}

fn as_json<S: Serializer>(json: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<serde_json::Value>(json).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

impl Delivery {
    pub(super) fn new(uuid: String, hook: &Hook, repository: String, event: &str, json: &str) -> Self {
        let (content_type, body) = match hook.content_type {
            ContentType::Json => ("application/json", json.to_owned()),
            ContentType::Form => {
                let escaped = percent_encoding::utf8_percent_encode(json, QUERY).to_string().replace(' ', "+");
                ("application/x-www-form-urlencoded", format!("payload={escaped}"))
            }
        };
        let headers = vec![
            ("Host", Url::parse(&hook.url).map(|url| authority(&url)).unwrap_or_default()),
            ("User-Agent", "GogsServer".to_owned()),
            ("Content-Length", body.len().to_string()),
            ("Content-Type", content_type.to_owned()),
            ("X-Github-Delivery", uuid.clone()),
            ("X-Github-Event", event.to_owned()),
            ("X-Gogs-Delivery", uuid.clone()),
            ("X-Gogs-Event", event.to_owned()),
            // A webhook without a secret sends an empty header.
            ("X-Gogs-Signature", if hook.secret.is_empty() { String::new() } else { sign(json, &hook.secret) }),
            ("Accept-Encoding", "gzip".to_owned()),
        ];
        let (url, json) = (hook.url.clone(), json.to_owned());
        Self {
            uuid,
            repository,
            hook: hook.id,
            event: event.to_owned(),
            url,
            headers,
            json,
            body: body.into(),
            secret: hook.secret.clone(),
            attempts: Vec::new(),
        }
    }

    /// The same event with a different body and a new signature, so that it counts as a new delivery. For webhooks that send
    /// JSON.
    #[must_use]
    pub fn with_new_content(&self, number: u64) -> Self {
        let json = self.json.replacen('{', &format!("{{\"number\": {number}, "), 1);
        let signature = sign(&json, &self.secret);
        let mut delivery = Self { body: json.clone().into(), json, ..self.clone() };
        for (name, value) in &mut delivery.headers {
            if *name == "X-Gogs-Signature" {
                value.clone_from(&signature);
            }
        }
        delivery
    }

    /// The status of the last attempt, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.attempts.last().and_then(|attempt| attempt.status)
    }

    /// The payload, parsed.
    ///
    /// # Errors
    /// Never for a delivery of the fake Gogs, which writes JSON.
    pub fn payload(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::from_str(&self.json)
    }
}

/// Gogs' signature: lower-case hex of HMAC-SHA256 over the JSON, whatever the content type.
#[must_use]
pub fn sign(json: &str, secret: &str) -> String {
    // HMAC accepts a key of any length.
    let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(json.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Sends queued deliveries one at a time for the whole instance: a slow receiver delays all others, as in Gogs.
pub(super) async fn deliver_all(instance: Arc<Instance>, mut queue: mpsc::UnboundedReceiver<String>, timeout: Duration) {
    while let Some(uuid) = queue.recv().await {
        instance.wait_for(|state| (!state.faults.deliveries_paused).then_some(())).await;
        let Some(delivery) = instance.read(|state| state.deliveries.iter().find(|it| it.uuid == uuid).cloned()) else { continue };
        let answer = tokio::time::timeout(timeout, send(&delivery)).await;
        let attempt = match answer {
            Ok(Ok(status)) => Attempt { status: Some(status), error: None },
            Ok(Err(error)) => Attempt { status: None, error: Some(format!("{error:#}")) },
            Err(_) => Attempt { status: None, error: Some(format!("no answer within {} s", timeout.as_secs_f32())) },
        };
        instance.update(|state| {
            if let Some(delivery) = state.deliveries.iter_mut().find(|it| it.uuid == uuid) {
                delivery.attempts.push(attempt);
            }
        });
    }
}

/// Redirects are not followed, as since Gogs 0.14.3: their status is the result.
async fn send(delivery: &Delivery) -> anyhow::Result<u16> {
    let url = Url::parse(&delivery.url).context("the URL of the webhook is invalid")?;
    anyhow::ensure!(url.scheme() == "http", "the fake Gogs delivers over http only, not to {url}");
    let port = url.port_or_known_default().context("the URL of the webhook has no port")?;
    let stream = TcpStream::connect((url.host_str().unwrap_or_default(), port)).await.context("connecting")?;
    let mut client = hyper::client::conn::http1::Builder::new();
    let (mut sender, connection) = client.title_case_headers(true).handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let mut request = hyper::Request::post(target);
    for (name, value) in &delivery.headers {
        request = request.header(*name, value);
    }
    let response = sender.send_request(request.body(Full::new(delivery.body.clone()))?).await?;
    let status = response.status().as_u16();
    // Gogs stores the response body; reading it is part of the 15 seconds.
    response.into_body().collect().await?;
    connection.abort();
    Ok(status)
}
