//! The webhook route over HTTP, with a store behind it.

use beespace::encryption::Key;
use beespace::store::delivery::{Deliveries as _, DeliveryAction, DeliveryOutcome};
use beespace::store::repository::{Hook, Repository};
use beespace::store::{Queue, Store};
use beespace::telemetry::{HookResponse, WebhookMetrics};
use beespace::webhook::Webhook;
use beespace::webhook_secret::{key_digest, secret_aad};
use beespace_core::ids::{DeliveryId, RepositoryId, RepositoryName};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::time::Timestamp;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::{FakeGogs, sign};
use reqwest::StatusCode;

use crate::gogs::{Recorded, SECRET, recorded};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OLD_KEY: &str = "fedcba9876543210fedcba9876543210";
const REPOSITORY: RepositoryId = RepositoryId(1);
const NOW: Timestamp = Timestamp(1_000_000);

struct World {
    store: Store,
    counts: WebhookMetrics,
    url: String,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

async fn world() -> World {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("beespace.redb")).unwrap();
    let seal = Key::from_bytes([7; 32]);
    let hook = |key: &str, secret: &[u8]| Hook {
        key: key_digest(key),
        secret: seal.seal(&secret_aad(REPOSITORY, key_digest(key)), secret).unwrap(),
        forge_id: 1,
        created_at: NOW,
    };
    let repository = Repository {
        id: REPOSITORY,
        name: RepositoryName::new("acme", "app").unwrap(),
        default_branch: "master".to_owned(),
        is_private: false,
        html_url: String::new(),
        hook: Some(hook(KEY, SECRET)),
        previous_hooks: vec![(hook(OLD_KEY, b"old"), Timestamp(NOW.0 + 1))],
        last_number: 0,
        enabled_at: NOW,
    };
    store.change_repository(REPOSITORY, move |_| Ok(repository.clone())).await.unwrap();
    let counts = WebhookMetrics::default();
    let webhook = Webhook::new(store.clone(), seal, counts.clone(), || NOW).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/-/hook/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, webhook.router()).await });
    World { store, counts, url, client: reqwest::Client::new(), _folder: folder }
}

impl World {
    async fn post(&self, key: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> (StatusCode, String) {
        let mut request = self.client.post(format!("{}{key}", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    async fn replay(&self, key: &str, delivery: &Recorded) -> (StatusCode, String) {
        let body = if delivery.is_form() {
            url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &delivery.raw_json).finish()
        } else {
            delivery.raw_json.clone()
        };
        let not_ours = ["host", "content-length", "accept-encoding", "user-agent"];
        let headers: Vec<(&str, &str)> = delivery
            .headers
            .iter()
            .filter(|(name, _)| !not_ours.contains(&name.to_lowercase().as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        self.post(key, &headers, body).await
    }

    /// A small push, signed with `secret`, with the delivery id `id`.
    async fn small(&self, key: &str, id: &str, secret: &str, body: &str) -> StatusCode {
        let signature = sign(body, secret);
        let headers = [("X-Gogs-Event", "push"), ("X-Gogs-Delivery", id), ("X-Gogs-Signature", signature.as_str())];
        self.post(key, &headers, body.to_owned()).await.0
    }

    fn stored(&self) -> usize {
        self.store.read().unwrap().deliveries(None, None, 1000).unwrap().len()
    }

    fn waiting(&self) -> usize {
        self.store.read().unwrap().queue_entries(Queue::Delivery).unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_delivery_is_accepted_and_stored_as_signed() {
    let world = world().await;
    let mut kept = std::collections::HashSet::new();
    for delivery in recorded() {
        let (status, _) = world.replay(KEY, &delivery).await;
        let expected = if delivery.raw_json_verified { StatusCode::ACCEPTED } else { StatusCode::UNAUTHORIZED };
        assert_eq!(status, expected, "{} {:?}", delivery.path, delivery.header("x-gogs-event"));
        if delivery.raw_json_verified {
            kept.insert(delivery.raw_json.clone());
        }
    }
    assert!(recorded().iter().any(Recorded::is_form), "both content types were recorded");
    let read = world.store.read().unwrap();
    let all = read.deliveries(None, None, 1000).unwrap();
    let mut found = std::collections::HashSet::new();
    for delivery in all.iter().rev() {
        let body = read.delivery_body(delivery.id).unwrap().unwrap();
        // An organisation's webhook sends the same event as the repository's, with its own delivery id.
        let is_new = found.insert(body.clone());
        assert_eq!(is_new, !delivery.is_repeat);
        assert!(kept.contains(std::str::from_utf8(&body).unwrap()), "as it was signed");
    }
    assert_eq!(found.len(), kept.len());
    assert_eq!(world.waiting(), all.len());
    assert_eq!(world.counts.count(HookResponse::Refused), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_the_same_and_stores_nothing() {
    let world = world().await;
    let good = sign("{}", "s3cret");
    let mut wrong = good.clone().into_bytes();
    wrong[0] = if wrong[0] == b'0' { b'1' } else { b'0' };
    let wrong = String::from_utf8(wrong).unwrap();
    let unknown = KEY.replace('0', "1");
    let cases: [(&str, Option<&str>, &str); 8] = [
        (KEY, None, "{}"),
        (KEY, Some(""), "{}"),
        (KEY, Some("zz"), "{}"),
        (KEY, Some(&good[..62]), "{}"),
        (KEY, Some(&wrong), "{}"),
        (KEY, Some(&good), "{ }"),
        (&unknown, Some(&good), "{}"),
        ("%ff%00", Some(&good), "{}"),
    ];
    let mut answers = std::collections::HashSet::new();
    for (key, signature, body) in cases {
        let headers: Vec<_> = signature.iter().map(|signature| ("X-Gogs-Signature", *signature)).collect();
        answers.insert(world.post(key, &headers, body).await);
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers.into_iter().next().unwrap().0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.stored(), 0);
    assert_eq!(world.counts.count(HookResponse::Refused), 8);
    assert_eq!(world.small(KEY, "a", "s3cret", "{}").await, StatusCode::ACCEPTED, "it was the right signature");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_bit_in_key_or_signature_is_refused() {
    let world = world().await;
    let good = sign("{}", "s3cret");
    // Every bit of every byte is flipped, as far as the result can be written in a URL or a header.
    let flips = |text: &str| -> Vec<Vec<u8>> {
        let places = (0..text.len()).flat_map(|at| (0..8).map(move |bit| (at, bit)));
        let flip = |(at, bit): (usize, u8)| {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            bytes
        };
        places.map(flip).collect()
    };
    for key in flips(KEY) {
        let key: String = key.iter().map(|byte| format!("%{byte:02x}")).collect();
        let (status, _) = world.post(&key, &[("X-Gogs-Signature", &good)], "{}").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{key}");
    }
    let mut sent = 0;
    for signature in flips(&good).into_iter().filter(|signature| signature.iter().all(u8::is_ascii_graphic)) {
        // Upper and lower case hex digits are equal.
        let signature = String::from_utf8(signature).unwrap();
        let expected = if signature.eq_ignore_ascii_case(&good) { StatusCode::ACCEPTED } else { StatusCode::UNAUTHORIZED };
        let (status, _) = world.post(KEY, &[("X-Gogs-Signature", &signature)], "{}").await;
        assert_eq!(status, expected, "{signature}");
        sent += 1;
    }
    assert!(sent > 64 * 4, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_does_the_same_amount_of_work() {
    let world = world().await;
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let wrong = "0".repeat(64);
    let right = sign(&body, "s3cret");
    let unknown = KEY.replace('0', "1");
    let mut times = Vec::new();
    for (what, key, signature) in [
        ("no signature", KEY, None),
        ("bad hex", KEY, Some("zz")),
        ("wrong signature", KEY, Some(wrong.as_str())),
        ("unknown key", unknown.as_str(), Some(right.as_str())),
        ("right signature", KEY, Some(right.as_str())),
    ] {
        let headers: Vec<_> = signature.iter().map(|signature| ("X-Gogs-Signature", *signature)).collect();
        let before = world.counts.signature_work();
        let started = std::time::Instant::now();
        world.post(key, &headers, body.clone()).await;
        times.push((what, started.elapsed()));
        let (signatures, bytes) = world.counts.signature_work();
        let done = (signatures - before.0, bytes - before.1);
        assert_eq!(done, (1, u64::try_from(body.len()).unwrap()), "{what}");
    }
    println!("{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_a_real_server_reveals_nothing() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository("acme/app").await.unwrap();
    let beespace = Beespace::start(&gogs, "[engine]\nkind = \"dummy\"\n").await.unwrap();
    beespace.enable("acme/app").await.unwrap();
    gogs.push("acme/app", "main", &[("README.md", "# App")], "Begin").await.unwrap();
    let delivery = gogs.wait_until_delivered().await.unwrap().pop().unwrap();
    let stored = || beespace.app.store.read().unwrap().deliveries(None, None, 1000).unwrap().len();
    let before = stored();
    let path = delivery.url.strip_prefix(&beespace.url).unwrap();
    let other = format!("{}{}", beespace::webhook_secret::PATH_PREFIX, "0".repeat(32));
    let (right, wrong) = (sign(&delivery.json, "another secret"), "0".repeat(64));
    let mut answers = std::collections::HashSet::new();
    for (path, signature) in
        [(other.as_str(), Some(right.as_str())), (path, None), (path, Some("zz")), (path, Some(wrong.as_str()))]
    {
        let caller = beespace.anonymous();
        let request = caller.request(reqwest::Method::POST, path).body(delivery.body.clone());
        let request = signature.into_iter().fold(request, |request, signature| request.header("X-Gogs-Signature", signature));
        let answer = caller.send(request).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.json().unwrap()["code"], "refused");
        // Request ids and times differ.
        let headers = answer.headers.iter().filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()));
        let headers: Vec<_> = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        answers.insert((answer.body, headers));
    }
    assert_eq!(answers.len(), 1, "{answers:#?}");
    assert_eq!(stored(), before);
    let figures = beespace.admin().unwrap().get("/metrics").await.unwrap().body;
    let (refused, work) = ("beespace_webhook_deliveries_total{response=\"refused\"} 4\n", "beespace_webhook_signed_bytes_total ");
    assert!(figures.contains(refused) && figures.contains(work), "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_while_it_is_read() {
    let world = world().await;
    let long = "x".repeat(10 * 1024 * 1024 + 1);
    assert_eq!(world.small(KEY, "a", "s3cret", &long).await, StatusCode::PAYLOAD_TOO_LARGE);
    let just = "x".repeat(10 * 1024 * 1024);
    assert_eq!(world.small(KEY, "b", "s3cret", &just).await, StatusCode::ACCEPTED);
    assert_eq!((world.counts.count(HookResponse::TooLarge), world.stored()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_body_is_refused_at_the_limit() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let gogs = FakeGogs::start().await.unwrap();
    let beespace = Beespace::start(&gogs, "[engine]\nkind = \"dummy\"\n").await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(beespace.url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(b"POST /-/hook/key HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let (mut from, mut to) = stream.split();
    let send = async {
        // Until the server stops reading.
        for _ in 0..64 {
            if to.write_all(&chunk).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = vec![0; 64];
    let read = tokio::select! {
        read = from.read(&mut answer) => read.unwrap(),
        () = send => 0,
    };
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// Bodies of 9 MiB that end when they are told to.
struct Crowd {
    finish: tokio::sync::watch::Sender<bool>,
    bodies: tokio::task::JoinSet<reqwest::Result<StatusCode>>,
}

impl Crowd {
    fn send(world: &World, key: &str, count: usize) -> Self {
        let (finish, finished) = tokio::sync::watch::channel(false);
        let mut bodies = tokio::task::JoinSet::new();
        for _ in 0..count {
            let (mut finished, request) = (finished.clone(), world.client.post(format!("{}{key}", world.url)));
            bodies.spawn(async move {
                let end = async move {
                    finished.wait_for(|finished| *finished).await.unwrap();
                    Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"end"))
                };
                let most = futures::stream::iter([Ok(bytes::Bytes::from(vec![b'x'; 9 << 20]))]);
                let body = reqwest::Body::wrap_stream(futures::StreamExt::chain(most, futures::stream::once(end)));
                request.body(body).send().await.map(|response| response.status())
            });
        }
        Self { finish, bodies }
    }

    /// Waits until `count` bodies were refused for lack of room; the others then take all of it.
    async fn wait_until_refused(&mut self, count: usize) {
        for _ in 0..count {
            // The server may close the connection before it has read the whole request; the response is lost then.
            let refused = self.bodies.join_next().await.unwrap().unwrap();
            assert!(refused.is_err() || refused.is_ok_and(|status| status == StatusCode::SERVICE_UNAVAILABLE));
        }
    }

    /// Ends the bodies that were not refused: none of them is signed.
    async fn finish(mut self) {
        self.finish.send(true).unwrap();
        while let Some(status) = self.bodies.join_next().await {
            assert_eq!(status.unwrap().unwrap(), StatusCode::UNAUTHORIZED);
        }
    }
}

#[tokio::test]
async fn bodies_without_a_known_key_keep_out_no_delivery() {
    let world = world().await;
    let (secret, unknown) = (std::str::from_utf8(SECRET).unwrap(), KEY.replace('0', "1"));
    let mut crowd = Crowd::send(&world, &unknown, 12);
    crowd.wait_until_refused(11).await;
    assert_eq!(world.counts.count(HookResponse::Busy), 11);
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(9 << 20));
    assert_eq!(world.small(KEY, "a", secret, &large).await, StatusCode::ACCEPTED, "a long delivery");
    assert_eq!(world.small(KEY, "b", secret, "{}").await, StatusCode::ACCEPTED, "a short delivery");
    crowd.finish().await;
    assert_eq!(world.post(&unknown, &[], vec![b'x'; 9 << 20]).await.0, StatusCode::UNAUTHORIZED, "the room is released");
}

#[tokio::test]
async fn the_bodies_of_one_webhook_keep_out_neither_small_ones_nor_another_webhook() {
    let world = world().await;
    let secret = std::str::from_utf8(SECRET).unwrap();
    let mut crowd = Crowd::send(&world, KEY, 6);
    crowd.wait_until_refused(4).await;
    assert_eq!(world.small(KEY, "a", secret, "{}").await, StatusCode::ACCEPTED, "a short delivery of the same webhook");
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(9 << 20));
    assert_eq!(world.small(OLD_KEY, "b", "old", &large).await, StatusCode::ACCEPTED, "a long delivery of another webhook");
    crowd.finish().await;
    assert_eq!(world.post(KEY, &[], vec![b'x'; 9 << 20]).await.0, StatusCode::UNAUTHORIZED, "the room is released");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_delivery_adds_nothing() {
    let world = world().await;
    assert_eq!(world.small(KEY, "a", "s3cret", "{\"a\":1}").await, StatusCode::ACCEPTED);
    assert_eq!(world.small(KEY, "a", "s3cret", "{\"a\":1}").await, StatusCode::ACCEPTED);
    assert_eq!(world.small(KEY, "a", "s3cret", "{\"a\":2}").await, StatusCode::ACCEPTED);
    assert_eq!(world.stored(), 1);
    assert_eq!(world.counts.count(HookResponse::Duplicate), 2);
    assert_eq!(world.small(KEY, "c", "s3cret", "{\"a\":3}").await, StatusCode::ACCEPTED);
    assert_eq!(world.stored(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_dead_letter_is_processed_again() {
    let world = world().await;
    world.small(KEY, "a", "s3cret", "{}").await;
    let id: DeliveryId = world.store.read().unwrap().deliveries(None, None, 1).unwrap()[0].id;
    let bury = |_: Option<&beespace_core::trigger::LastSeenRef>| {
        DeliveryAction::DeadLetter(Reason::new(ReasonCode::MalformedPayload, "no push"))
    };
    world.store.finish_delivery(id, None, NOW, bury).await.unwrap();
    assert_eq!(world.waiting(), 0);
    assert_eq!(world.small(KEY, "a", "s3cret", "{}").await, StatusCode::ACCEPTED);
    assert_eq!((world.stored(), world.waiting()), (1, 1));
    assert_eq!(world.store.read().unwrap().delivery(id).unwrap().unwrap().outcome, DeliveryOutcome::Waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_before_a_repair_is_valid_only_with_its_own_secret() {
    let world = world().await;
    assert_eq!(world.small(OLD_KEY, "a", "old", "{\"a\":1}").await, StatusCode::ACCEPTED);
    assert_eq!(world.small(OLD_KEY, "b", "s3cret", "{\"a\":2}").await, StatusCode::UNAUTHORIZED);
    assert_eq!(world.small(KEY, "c", "old", "{\"a\":3}").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_without_a_payload_is_refused() {
    let world = world().await;
    let signature = sign("payload={}", "s3cret");
    let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("X-Gogs-Signature", signature.as_str())];
    assert_eq!(world.post(KEY, &headers, "payload={}").await.0, StatusCode::UNAUTHORIZED, "the value is signed, not the body");
    assert_eq!(world.post(KEY, &headers, "other=1").await.0, StatusCode::UNAUTHORIZED);
    let value = sign("{}", "s3cret");
    let headers = [("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"), ("X-Gogs-Signature", value.as_str())];
    assert_eq!(world.post(KEY, &headers, "payload=%7B%7D").await.0, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_refused() {
    let world = world().await;
    let status = world.client.get(format!("{}{KEY}", world.url)).send().await.unwrap().status();
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}
