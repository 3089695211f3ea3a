//! The rules of `host/wasm/src/egress.rs`, each shown by a plugin that tries to break it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use beespace_tests::guest_build;
use beespace_wasm::{
    AddressClass, BindingSpec, EgressRule, Grants, Host, HostOptions, Limits, MaxCalls, SecretSource, SecretValue, SendError,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server on loopback that returns the same response to every request and records the requests.
struct Receiver {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let keep = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut buffer = [0; 1024];
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => break,
                        Ok(length) => request.extend(&buffer[..length]),
                    }
                }
                keep.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// The secret `token`, bound to a host.
struct Token(&'static str);

impl SecretSource for Token {
    fn secret(&self, name: &str) -> Result<Option<SecretValue>, String> {
        let value = SecretValue { value: b"s3cret-value".to_vec().into(), hosts: vec![self.0.to_owned()] };
        Ok((name == "token").then_some(value))
    }
}

struct Try<'a> {
    /// The format of `tests/guests/http_get.wat`: `h127.0.0.1:80`.
    target: String,
    rule: &'a str,
    class: AddressClass,
    bound_to: &'static str,
    own: Vec<SocketAddr>,
}

impl<'a> Try<'a> {
    fn new(target: impl std::fmt::Display, rule: &'a str) -> Self {
        let target = format!("h{target}");
        Self { target, rule, class: AddressClass::Loopback, bound_to: "127.0.0.1", own: Vec::new() }
    }

    /// The status of the response, or the name of wasi:http's error code.
    async fn send(self) -> Result<String, String> {
        let host =
            Host::new(HostOptions { max_calls: MaxCalls::each(4), own_addresses: self.own, ..HostOptions::default() }).unwrap();
        let grants = Grants {
            egress: vec![EgressRule::parse(self.rule, self.class).unwrap()],
            secrets: BTreeSet::from(["token".to_owned()]),
            ..Grants::default()
        };
        let settings = serde_json::Value::String(self.target);
        let spec = BindingSpec {
            grants,
            secrets: Some(Arc::new(Token(self.bound_to))),
            ..BindingSpec::new("hook", settings, Limits::notifier())
        };
        let notifier = host.load_notifier(guest_build::notifier_guest("http_get"), spec).await.unwrap();
        match notifier.send(guest_build::notice()).await.result {
            Ok(receipt) => Ok(receipt.external_id),
            Err(SendError::Permanent(code)) => Err(error_code(&code)),
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn error_code(number: &str) -> String {
    let (resolve, _) = guest_build::world("notifier-plugin", None);
    let types = resolve.types.iter().find(|(_, of)| of.name.as_deref() == Some("error-code") && is_variant(of)).unwrap().1;
    match &types.kind {
        wit_parser::TypeDefKind::Variant(variant) => {
            let number: usize = number.parse().unwrap();
            variant.cases.get(number).map_or_else(|| format!("code {number}"), |case| case.name.clone())
        }
        other => panic!("{other:?}"),
    }
}

/// `wasi:http` and `wasi:filesystem` both have an `error-code`; only the former is a variant.
fn is_variant(of: &wit_parser::TypeDef) -> bool {
    matches!(of.kind, wit_parser::TypeDefKind::Variant(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_host_is_reached_with_the_secret_in_its_header() {
    let receiver = Receiver::start(OK).await;
    let rule = format!("http://{}", receiver.address);
    assert_eq!(Try::new(receiver.address, &rule).send().await.unwrap(), "200");
    let asked = receiver.asked().remove(0);
    assert!(asked.starts_with("GET /hook?secret=in-the-query HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: s3cret-value\r\n"), "{asked}");
    assert!(asked.contains(&format!("host: {}\r\n", receiver.address)), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_sent_only_to_its_own_host() {
    let receiver = Receiver::start(OK).await;
    let rule = format!("http://{}", receiver.address);
    let wrong = Try { bound_to: "hooks.example", ..Try::new(receiver.address, &rule) };
    assert_eq!(wrong.send().await.unwrap_err(), "HTTP-request-denied");
    assert!(receiver.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_rule_is_not_reached() {
    let receiver = Receiver::start(OK).await;
    let port = receiver.address.port();
    for (target, rule) in [
        (format!("127.0.0.1:{port}"), "http://127.0.0.1:1".to_owned()),
        (format!("127.0.0.1:{port}"), format!("https://127.0.0.1:{port}")),
        (format!("localhost:{port}"), format!("http://127.0.0.1:{port}")),
        (format!("127.0.0.2:{port}"), format!("http://127.0.0.1:{port}")),
    ] {
        assert_eq!(Try::new(&target, &rule).send().await.unwrap_err(), "HTTP-request-denied", "{target} by {rule}");
    }
    assert!(receiver.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_resolves_to_this_machine_is_refused() {
    let receiver = Receiver::start(OK).await;
    let port = receiver.address.port();
    for (name, bound_to) in [("localhost", "localhost"), ("127.0.0.1", "127.0.0.1"), ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1")] {
        let rule = format!("http://{name}:{port}");
        let target = format!("{name}:{port}");
        for class in [AddressClass::Public, AddressClass::Private] {
            let refused = Try { class, bound_to, ..Try::new(&target, &rule) }.send().await.unwrap_err();
            assert_eq!(refused, "destination-IP-prohibited", "{name}, {class:?}");
        }
    }
    assert!(receiver.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cloud_metadata_service_is_unreachable_for_every_address_class() {
    for class in [AddressClass::Public, AddressClass::Private, AddressClass::Loopback] {
        let refused = Try { class, bound_to: "169.254.169.254", ..Try::new("169.254.169.254", "http://169.254.169.254") };
        let refused = refused.send().await.unwrap_err();
        assert_eq!(refused, "destination-IP-prohibited");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_of_the_server_is_unreachable() {
    let receiver = Receiver::start(OK).await;
    let rule = format!("http://{}", receiver.address);
    for own in [receiver.address, SocketAddr::from(([0, 0, 0, 0], receiver.address.port()))] {
        let refused = Try { own: vec![own], ..Try::new(receiver.address, &rule) }.send().await.unwrap_err();
        assert_eq!(refused, "destination-IP-prohibited");
    }
    assert!(receiver.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_name_in_the_authority_is_refused() {
    let receiver = Receiver::start(OK).await;
    let rule = format!("http://{}", receiver.address);
    let refused = Try::new(format!("good.example@{}", receiver.address), &rule).send().await.unwrap_err();
    assert!(["HTTP-request-URI-invalid", "code 900"].contains(&refused.as_str()), "{refused}");
    assert!(receiver.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_returned_to_the_plugin_and_not_followed() {
    let elsewhere = Receiver::start(OK).await;
    let answer = format!("HTTP/1.1 302 Found\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n", elsewhere.address);
    let receiver = Receiver::start(Box::leak(answer.into_boxed_str())).await;
    let rule = format!("http://{}", receiver.address);
    assert_eq!(Try::new(receiver.address, &rule).send().await.unwrap(), "302");
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_trusted_certificate_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        // The server does not support TLS; the handshake must fail without a fallback.
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await;
        String::from_utf8_lossy(&received).into_owned()
    });
    let rule = format!("https://{address}");
    let target = Try { target: format!("s{address}"), ..Try::new("", &rule) };
    assert_eq!(target.send().await.unwrap_err(), "TLS-protocol-error");
    assert!(!asked.await.unwrap().contains("s3cret"));
}
