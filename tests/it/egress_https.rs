//! A notice over https: to a receiver whose certificate this machine trusts, and to none other.

use std::path::Path;
use std::sync::{Arc, Mutex};

use beespace_tests::gogs::PracticeGogs;
use beespace_tests::process::Process;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::Method;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

const PROGRAM: &str = env!("CARGO_BIN_EXE_beespace-under-test");
const REPO: &str = "ada/hive";

/// Someone who vouches for names.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap()))
    }
}

/// A server on loopback with a certificate; it keeps the head of whatever is sent to it, and is content with it.
struct Receiver {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    async fn start(acceptor: TlsAcceptor) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let keep = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A caller that does not trust us hangs up in the handshake.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n")
                    && stream.read_buf(&mut request).await.is_ok_and(|read| read > 0)
                {}
                keep.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
        });
        Self { port, asked }
    }
}

/// What becomes of the notice of a build, sent to `localhost` by a server that trusts the certificates of `trusted` alone.
async fn notice(receiver: &Receiver, trusted: &Path) -> Value {
    let gogs = PracticeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let url = format!("https://localhost:{}", receiver.port);
    let notifier = format!(
        "[engine]\nkind = \"dummy\"\n[[notifier]]\nname = \"inbox\"\nplugin = \"notify-webhook\"\n\
         settings = {{ url = \"{url}/hook\", secret = \"inbox-key\" }}\n\
         grants = {{ hosts = [{{ url = \"{url}\", addresses = \"loopback\" }}], secrets = [\"inbox-key\"] }}\n"
    );
    let server = Process::start(PROGRAM, &gogs, &notifier, &[("SSL_CERT_FILE", trusted)]).await.unwrap();
    let admin = server.admin().unwrap();
    let set = admin.call(Method::PUT, "/api/v1/secrets/inbox-key", &json!({ "value": "a-key-for-the-inbox" })).await.unwrap();
    assert!(set.status.is_success(), "{set:?}");
    let enabled = admin.post("/api/v1/repositories", &json!({ "name": REPO })).await.unwrap();
    assert!(enabled.status.is_success(), "{enabled:?}");
    gogs.push(REPO, "main", &[(".beespace.yml", "steps:\n  - name: build\n    image: busybox\n")], "Fill cells").await.unwrap();
    let tried = |all: Value| Some(all[0].clone()).filter(|one| one["state"] == "sent" || one["last_error"].is_string());
    server.when("an attempt at the notice", async || Ok(tried(admin.get("/api/v1/notices").await?.json()?))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_trusted_for_its_name_by_who_trusts_its_issuer_and_by_nobody_else() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, &ours.pem).unwrap();

    let good = Receiver::start(ours.acceptor("localhost")).await;
    let sent = notice(&good, &trusted).await;
    assert_eq!(sent["state"], "sent", "{sent:#}");
    let asked = good.asked.lock().unwrap().clone();
    assert!(asked.len() == 1 && asked[0].starts_with("POST /hook HTTP/1.1\r\n"), "{asked:?}");
    assert!(
        asked[0].contains(&format!("host: localhost:{}\r\n", good.port)) && asked[0].contains("webhook-signature: v1,"),
        "{asked:?}"
    );

    for acceptor in [theirs.acceptor("localhost"), ours.acceptor("elsewhere.example")] {
        let bad = Receiver::start(acceptor).await;
        let kept = notice(&bad, &trusted).await;
        assert_eq!(kept["state"], "pending", "{kept:#}");
        let words = kept["last_error"].as_str().unwrap();
        assert!(words.contains("certificate") && words.contains("nothing was sent"), "{words}");
        assert!(bad.asked.lock().unwrap().is_empty());
    }
}
