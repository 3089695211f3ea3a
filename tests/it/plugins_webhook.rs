//! `notify-webhook` against a receiver that verifies signatures independently.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::IntoResponse as _;
use base64::Engine as _;
use beespace_core::digest::Document;
use beespace_core::notice::{Receipt, SCHEMA};
use beespace_tests::guest_build;
use beespace_wasm::{
    AddressClass, BindingSpec, EgressRule, Grants, Limits, LoadError, LoadFailure, NoticeInput, Notifier, SecretSource,
    SecretValue, SendError,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::plugins;

const SECRET: &[u8] = b"a secret that only the host knows";

/// One received request.
#[derive(Clone)]
struct Request {
    headers: BTreeMap<String, String>,
    body: String,
}

/// The response of a receiver.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    text: String,
}

/// A server on loopback that returns the same response to every request and records the requests.
struct Receiver {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    async fn start(status: u16, header: Option<(&'static str, &'static str)>, text: &'static str) -> Self {
        let headers = header.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self::answering(Reply { status, headers, text: text.to_owned() }).await
    }

    async fn answering(reply: Reply) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let keep = requests.clone();
        let answer = move |headers: HeaderMap, body: String| async move {
            let header_text = |value: &axum::http::HeaderValue| value.to_str().unwrap().to_owned();
            let headers = headers.iter().map(|(name, value)| (name.to_string(), header_text(value))).collect();
            keep.lock().unwrap().push(Request { headers, body });
            let mut answer = (StatusCode::from_u16(reply.status).unwrap(), reply.text).into_response();
            for (name, value) in reply.headers {
                answer.headers_mut().insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            answer
        };
        let router = Router::new().route("/hook", axum::routing::post(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// The secret `hook-key`, which can only sign, because it is bound to no host, and `hook-path` with the path of the receiver.
struct HookKey;

impl SecretSource for HookKey {
    fn secret(&self, name: &str) -> Result<Option<SecretValue>, String> {
        Ok(match name {
            "hook-key" => Some(SecretValue { value: SECRET.to_vec().into(), hosts: Vec::new() }),
            "hook-path" => Some(SecretValue { value: b"/hook\n".to_vec().into(), hosts: vec!["127.0.0.1".to_owned()] }),
            _ => None,
        })
    }
}

async fn notifier(address: SocketAddr, secret: &str, granted: &str) -> Notifier {
    load(json!({ "url": format!("http://{address}/hook"), "secret": secret }), secret, granted).await.unwrap()
}

async fn load(settings: Value, secret: &str, granted: &str) -> Result<Notifier, LoadError> {
    let rule = EgressRule::parse(&format!("http://{granted}"), AddressClass::Loopback).unwrap();
    let secrets = [secret.to_owned(), "hook-path".to_owned()].into();
    let grants = Grants { egress: vec![rule], secrets, ..Grants::default() };
    let spec = BindingSpec { grants, secrets: Some(Arc::new(HookKey)), ..BindingSpec::new("hook", settings, Limits::notifier()) };
    guest_build::host().load_notifier(plugins::component("plugins/notify-webhook"), spec).await
}

fn notice() -> NoticeInput {
    NoticeInput {
        idempotency_key: "0123abcd".to_owned(),
        attempt: 1,
        ordering_key: "build/7".to_owned(),
        sequence: 1,
        context: guest_build::context(),
        // Larger than one write of a body.
        subject: Document::new(SCHEMA, &json!({ "kind": "build.finished", "status": "failure", "message": "é".repeat(9_000) })),
        previous: None,
        links: vec![("build".to_owned(), "https://ci.example.org/acme/app/7".to_owned())],
    }
}

async fn send(receiver: &Receiver) -> Result<Receipt, SendError> {
    notifier(receiver.address, "hook-key", &receiver.address.to_string()).await.send(notice()).await.result
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_arrives_whole_and_its_signature_verifies() {
    let receiver = Receiver::start(202, None, "").await;
    let receipt = send(&receiver).await.unwrap();
    assert_eq!(receipt.external_id, "0123abcd");
    let requests = receiver.requests();
    let [Request { headers, body }] = requests.as_slice() else { panic!("{} requests", requests.len()) };
    let header = |name: &str| headers.get(name).map_or("", String::as_str);
    assert_eq!(header("content-type"), "application/cloudevents+json; charset=utf-8");
    assert_eq!((header("idempotency-key"), header("webhook-id")), ("0123abcd", "0123abcd"));

    let signed = format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp"));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET).unwrap();
    mac.update(signed.as_bytes());
    let signature = base64::prelude::BASE64_STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
    mac.verify_slice(&signature).unwrap();

    let event: Value = serde_json::from_str(body).unwrap();
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["type"], "beespace.build.finished");
    assert_eq!(event["source"], "/acme/app");
    assert_eq!(event["subject"], "build/7");
    assert_eq!(event["data"]["links"]["build"], "https://ci.example.org/acme/app/7");
    assert_eq!(event["data"]["message"].as_str().map(str::len), Some(18_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_of_the_url_comes_from_a_secret() {
    let receiver = Receiver::start(202, None, "").await;
    let address = receiver.address.to_string();
    let settings = |path_secret| json!({ "url": format!("http://{address}"), "secret": "hook-key", "path_secret": path_secret });
    let notifier = load(settings("hook-path"), "hook-key", &address).await.unwrap();
    notifier.send(notice()).await.result.unwrap();
    assert_eq!(receiver.requests().len(), 1, "the receiver answers at /hook only");
    let ungranted = load(settings("other"), "hook-key", &address).await.unwrap_err().to_string();
    assert!(ungranted.contains("`grants.secrets` does not contain \"other\""), "{ungranted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_receiver_gets_the_notice_again_after_its_retry_time() {
    let receiver = Receiver::start(503, Some(("retry-after", "7")), "down for\nmaintenance").await;
    let error = send(&receiver).await.unwrap_err();
    let SendError::Retry { after, reason } = &error else { panic!("{error}") };
    assert_eq!(*after, Some(Duration::from_secs(7)));
    assert_eq!(*reason, format!("http://{} responded with 503: down for maintenance", receiver.address));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_receiver_is_retried() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = notifier(address, "hook-key", &address.to_string()).await.send(notice()).await.result.unwrap_err();
    let SendError::Retry { reason, .. } = error else { panic!("{error:?}") };
    assert_eq!(reason, format!("http://{address} refused the connection: nothing listens there"));
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_errors_suspend_the_binding_and_redirects_are_not_followed() {
    let elsewhere = Receiver::start(200, None, "").await;
    let place: &'static str = format!("http://{}/hook", elsewhere.address).leak();
    for (status, header) in [(401, None), (404, None), (307, Some(("location", place)))] {
        let receiver = Receiver::start(status, header, "").await;
        let error = send(&receiver).await.unwrap_err();
        assert!(matches!(error, SendError::Misconfigured(_)), "{status}: {error:?}");
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanently_refused_notice_is_not_sent_again() {
    let receiver = Receiver::start(422, None, "what is this").await;
    let error = send(&receiver).await.unwrap_err();
    assert!(
        matches!(&error, SendError::Permanent(message) if message.ends_with("responded with 422: what is this")),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_do_not_match_the_settings_are_reported_and_nothing_is_sent() {
    let receiver = Receiver::start(200, None, "").await;
    let url = format!("http://{}/SECRETPART", receiver.address);
    let settings = json!({ "url": url, "secret": "other", "path_secret": "hook-path" });
    let unfit = load(settings, "hook-key", "127.0.0.1:1").await.unwrap_err();
    let LoadFailure::Settings(problems) = &unfit.failure else { panic!("{unfit}") };
    let mut problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    problems.sort();
    let origin = format!("http://{}", receiver.address);
    let expected = [
        "/secret: `grants.secrets` does not contain \"other\": add it".to_owned(),
        format!("/url: `grants.hosts` does not contain {origin}: add {{ url = \"{origin}\", addresses = \"loopback\" }}"),
    ];
    assert_eq!(problems, expected, "the path is not shown, and the secret that is granted is not a problem");
    let no_secret =
        notifier(receiver.address, "other", &receiver.address.to_string()).await.send(notice()).await.result.unwrap_err();
    assert!(
        matches!(&no_secret, SendError::Misconfigured(message) if message.contains("beespace secret set other")),
        "{no_secret:?}"
    );
    assert!(receiver.requests().is_empty());
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    attempt: u32,
    sequence: u64,
    subject: Value,
    answer: Reply,
}

/// The result of a notice, and what the receiver got. Its address is replaced with `RECEIVER`.
async fn outcome(settings: &Value, Case { attempt, sequence, subject, answer }: Case) -> Value {
    let receiver = Receiver::answering(answer).await;
    let address = receiver.address.to_string();
    let settings = serde_json::from_str(&settings.to_string().replace("RECEIVER", &address)).unwrap();
    let sent = match load(settings, "hook-key", &address).await {
        Err(error) => json!({ "not_loaded": error.to_string() }),
        Ok(notifier) => {
            let subject = Document::new(SCHEMA, &subject);
            match notifier.send(NoticeInput { attempt, sequence, subject, ..notice() }).await.result {
                Ok(receipt) => json!({ "sent": receipt.external_id }),
                Err(SendError::Retry { after, reason }) => {
                    json!({ "retry": reason, "after_seconds": after.map(|after| after.as_secs()) })
                }
                Err(SendError::Permanent(reason)) => json!({ "permanent": reason }),
                Err(SendError::Misconfigured(reason)) => json!({ "misconfigured": reason }),
                Err(other) => json!({ "error": other.to_string() }),
            }
        }
    };
    let got = receiver.requests().into_iter().map(|Request { mut headers, body }| {
        headers.remove("content-length");
        let body: Value = serde_json::from_str(&body).unwrap();
        json!({ "headers": headers, "body": body })
    });
    let came = json!({ "outcome": sent, "requests": got.collect::<Vec<_>>() });
    serde_json::from_str(&came.to_string().replace(&address, "RECEIVER")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn notify_webhook_matches_its_cases() {
    let mut came = Vec::new();
    for (_, case) in plugins::cases("notify-webhook") {
        let input: Case = serde_json::from_value(plugins::read(&case.join("input.json"))).unwrap();
        let value = outcome(&plugins::read(&case.join("settings.json")), input).await;
        came.push((case, value));
    }
    plugins::compare("notify-webhook", came);
}
