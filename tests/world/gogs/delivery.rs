//! The queue of hook tasks, the request, the signature.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use url::Url;

use super::Inner;
use super::payload;
use super::state::Mood;

/// `DELIVER_TIMEOUT`.
const TIMEOUT: Duration = Duration::from_secs(15);

/// One row of `hook_task`: address, body and signature as they were when the event happened.
#[derive(Debug, Clone)]
pub struct Task {
    pub uuid: String,
    pub repository: u64,
    pub hook: u64,
    pub url: String,
    pub content_type: String,
    pub event: String,
    /// The signed JSON.
    pub json: String,
    /// Empty for a hook without a secret.
    pub signature: String,
    /// How often it was sent.
    pub sent: u32,
    /// What came back last: the status, or why there was none. None while it waits.
    pub answer: Option<Result<u16, String>>,
}

impl Inner {
    /// Queues a task for every active hook of the repository that wants the event.
    pub(super) fn tell(&self, repository: u64, event: &str, payload: &Value) {
        let json = payload::text(payload);
        let mut state = self.state();
        let hooks: Vec<_> = state
            .hooks
            .values()
            .filter(|hook| hook.repository == repository && hook.active && hook.events.iter().any(|wanted| wanted == event))
            .cloned()
            .collect();
        for hook in hooks {
            let task = Task {
                uuid: uuid::Uuid::now_v7().to_string(),
                repository,
                hook: hook.id,
                url: hook.url,
                content_type: hook.content_type,
                event: event.to_owned(),
                signature: if hook.secret.is_empty() { String::new() } else { sign(&json, &hook.secret) },
                json: json.clone(),
                sent: 0,
                answer: None,
            };
            let _ = self.queue.send(task.uuid.clone());
            state.tasks.push(task);
        }
    }

    pub(super) fn redeliver(&self, uuid: &str) {
        if let Some(task) = self.state().tasks.iter_mut().find(|task| task.uuid == uuid) {
            task.answer = None;
            let _ = self.queue.send(task.uuid.clone());
        }
    }
}

/// Lower-case hex of HMAC-SHA256 over the JSON.
#[must_use]
pub fn sign(json: &str, secret: &str) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap_or_else(|_| panic!("HMAC takes any key"));
    mac.update(json.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// One goroutine of Gogs does it for the whole instance: a slow receiver holds up everybody.
pub(super) async fn deliver_hooks(inner: Arc<Inner>, mut waiting: mpsc::UnboundedReceiver<String>) {
    while let Some(uuid) = waiting.recv().await {
        while inner.state().mood == Mood::HooksStalled {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let Some(task) = inner.state().tasks.iter().find(|task| task.uuid == uuid).cloned() else { continue };
        let answer = match tokio::time::timeout(TIMEOUT, send(&task)).await {
            Ok(answer) => answer.map_err(|error| format!("{error:#}")),
            Err(_) => Err("i/o timeout".to_owned()),
        };
        if let Some(task) = inner.state().tasks.iter_mut().find(|task| task.uuid == uuid) {
            task.sent += 1;
            task.answer = Some(answer);
        }
        inner.delivered.notify_waiters();
    }
}

/// The request byte by byte, so that its headers are those that were recorded.
async fn send(task: &Task) -> Result<u16> {
    let url = Url::parse(&task.url)?;
    let host = url.host_str().context("no host")?;
    let port = url.port_or_known_default().context("no port")?;
    let (kind, body) = match task.content_type.as_str() {
        "form" => {
            let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &task.json).finish();
            ("application/x-www-form-urlencoded", form)
        }
        _ => ("application/json", task.json.clone()),
    };
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: GogsServer\r\nContent-Length: {length}\r\n\
         Content-Type: {kind}\r\nX-Github-Delivery: {uuid}\r\nX-Github-Event: {event}\r\nX-Gogs-Delivery: {uuid}\r\n\
         X-Gogs-Event: {event}\r\nX-Gogs-Signature: {signature}\r\nAccept-Encoding: gzip\r\n\r\n",
        length = body.len(),
        uuid = task.uuid,
        event = task.event,
        signature = task.signature,
    );
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(head.as_bytes()).await?;
    // A receiver that answers before it has read everything closes early; its answer counts.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut answer = Vec::new();
    while !answer.windows(2).any(|pair| pair == b"\r\n") {
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece).await?;
        anyhow::ensure!(length > 0, "the connection was closed without an answer");
        answer.extend_from_slice(piece.get(..length).unwrap_or_default());
    }
    let line = String::from_utf8_lossy(&answer);
    line.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP status")
}
