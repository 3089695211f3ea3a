//! The limits on the kinds and the number of requests of a plugin, tested with a plugin whose requests the test selects.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beespace_tests::gogs::FakeGogs;
use beespace_tests::guest_build;
use beespace_tests::process::{NO_ENV, Process};
use beespace_wasm::{AddressClass, BindingSpec, EgressRule, Grants, Host, HostOptions, Limits, MaxCalls, Notifier};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::notify;

/// Requests of one binding that may be open at once.
const CONCURRENT_REQUESTS: usize = 8;
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The records of a receiver.
#[derive(Debug, Default)]
struct Seen {
    heads: Vec<String>,
    /// The size of each body in bytes.
    bodies: Vec<usize>,
    open: usize,
    most_open: usize,
}

/// A server on loopback that delays each response.
struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Receiver {
    async fn start(pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let keep = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, pause, keep.clone()));
            }
        });
        Self { address, seen }
    }

    /// The results of a guest's requests with these settings.
    async fn asked(&self, mut settings: Value) -> Vec<Value> {
        settings["authority"] = json!(self.address.to_string());
        let notifier = request_sender(self.address, settings).await;
        let receipt = notifier.send(guest_build::notice()).await.result.unwrap();
        serde_json::from_str(&receipt.external_id).unwrap()
    }
}

async fn answer(mut stream: TcpStream, pause: Duration, seen: Arc<Mutex<Seen>>) {
    {
        let mut seen = seen.lock().unwrap();
        seen.open += 1;
        seen.most_open = seen.most_open.max(seen.open);
    }
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let is_chunked = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(1 << 10)]).contains("chunked");
    let is_whole = |bytes: &[u8]| bytes.ends_with(if is_chunked(bytes) { b"\r\n0\r\n\r\n" } else { b"\r\n\r\n" });
    while !is_whole(&bytes) {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => bytes.extend(&buffer[..length]),
        }
    }
    if pause > Duration::ZERO {
        // Waits until the permitted number of requests is open, then a moment for one too many.
        while seen.lock().unwrap().most_open < CONCURRENT_REQUESTS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(pause).await;
    }
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    {
        let mut seen = seen.lock().unwrap();
        seen.heads.push(head.to_ascii_lowercase());
        seen.bodies.push(body.matches('x').count());
        seen.open -= 1;
    }
    let _ = stream.write_all(OK.as_bytes()).await;
}

async fn request_sender(to: SocketAddr, settings: Value) -> Notifier {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests/send-requests.wasm");
    let component = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; plugins/build makes it", path.display()));
    let host = Host::new(HostOptions { max_calls: MaxCalls::each(4), ..HostOptions::default() }).unwrap();
    let egress = vec![EgressRule::parse(&format!("http://{to}"), AddressClass::Loopback).unwrap()];
    let grants = Grants { egress, ..Grants::default() };
    let spec = BindingSpec { grants, ..BindingSpec::new("send-requests", settings, Limits::notifier()) };
    host.load_notifier(component, spec).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_common_http_methods_are_sent() {
    let receiver = Receiver::start(Duration::ZERO).await;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(receiver.asked(json!({ "method": method })).await, [json!(200)], "{method}");
        assert!(receiver.seen.lock().unwrap().heads.pop().unwrap().starts_with(&format!("{} /hook ", method.to_lowercase())));
    }
    for method in ["OPTIONS", "TRACE", "CONNECT", "PROPFIND"] {
        let results = receiver.asked(json!({ "method": method })).await;
        assert!(results[0].as_str().unwrap().contains("HttpRequestMethodInvalid"), "{method}: {results:?}");
    }
    assert!(receiver.seen.lock().unwrap().heads.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_cannot_set_connection_or_reserved_headers() {
    let receiver = Receiver::start(Duration::ZERO).await;
    let ours = ["expect", "x-beespace-build", "x-beespace-anything", "connection", "host", "transfer-encoding", "upgrade"];
    let headers: Vec<&str> = ours.into_iter().chain(["x-team"]).collect();
    let results = receiver.asked(json!({ "method": "POST", "headers": headers })).await;
    let (refused, status) = results.split_at(ours.len());
    assert_eq!((refused, status), (ours.map(Value::from).as_slice(), [json!(200)].as_slice()));
    let head = receiver.seen.lock().unwrap().heads.pop().unwrap();
    assert!(head.contains("x-team: set-by-the-guest"), "{head}");
    assert_eq!(head.matches("set-by-the-guest").count(), 1, "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_may_send_twenty_requests() {
    let receiver = Receiver::start(Duration::ZERO).await;
    let results = receiver.asked(json!({ "method": "GET", "times": 25 })).await;
    let (sent, refused) = results.split_at(20);
    assert!(sent.iter().all(|one| *one == 200), "{results:?}");
    assert!(refused.iter().all(|one| one.as_str().is_some_and(|code| code.contains("ConnectionLimitReached"))), "{results:?}");
    assert_eq!(receiver.seen.lock().unwrap().heads.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_has_eight_concurrent_requests_and_queues_the_rest() {
    let receiver = Receiver::start(Duration::from_millis(200)).await;
    let results = receiver.asked(json!({ "method": "GET", "times": 20, "at_once": true })).await;
    assert_eq!(results, vec![json!(200); 20]);
    let seen = receiver.seen.lock().unwrap();
    assert_eq!((seen.heads.len(), seen.most_open), (20, CONCURRENT_REQUESTS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_is_limited_to_four_mebibytes() {
    let receiver = Receiver::start(Duration::ZERO).await;
    assert_eq!(receiver.asked(json!({ "method": "POST", "body": 4 << 20 })).await, [json!(200)]);
    assert_eq!(receiver.seen.lock().unwrap().bodies.pop(), Some(4 << 20));
    let results = receiver.asked(json!({ "method": "POST", "body": (4 << 20) + 1 })).await;
    assert!(results[0].as_str().is_some_and(|code| code.contains("HttpRequestBodySize")), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_logged_without_its_path_and_query() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository("ada/hive").await.unwrap();
    let url = format!("{}?token=in-the-query", gogs.inbox_url("team"));
    let settings = format!("[engine]\nkind = \"dummy\"\n{}", notify::webhook("inbox", &url, gogs.url()));
    let server = Process::start(env!("CARGO_BIN_EXE_beespace-under-test"), &gogs, &settings, NO_ENV).await.unwrap();
    server.set_plugin_secret("key", "a-key-for-the-receiver").await.unwrap();
    server.enable("ada/hive").await.unwrap();
    gogs.push("ada/hive", "main", &[(".beespace.yml", "steps: [{name: a, image: busybox}]")], "Fill cells").await.unwrap();
    gogs.wait_for_inbox("team", 1).await.unwrap();
    let logged = async || Ok(server.log().contains("a plugin sent a request").then(|| server.log()));
    let log = server.wait_for("the request in the log", logged).await.unwrap();
    assert!(log.contains("host=\"127.0.0.1\"") && !log.contains("/inbox/team") && !log.contains("in-the-query"), "{log}");
}
