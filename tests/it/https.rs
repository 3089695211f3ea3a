//! HTTPS: notices go only to receivers with a trusted certificate; the configuration can name the authority of a Gogs.

use std::path::Path;
use std::sync::{Arc, Mutex};

use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::Process;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::Method;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const PROGRAM: &str = env!("CARGO_BIN_EXE_beespace-under-test");
const REPO: &str = "ada/hive";

/// A certificate authority.
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

/// A TLS server on loopback. It records the heads of all requests and accepts them.
struct Receiver {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    async fn start(acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let keep = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust the certificate ends the handshake.
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

/// The notice of a build, sent to `localhost` by a server that trusts only the authority `trusted`.
async fn notice(receiver: &Receiver, trusted: &Path) -> Value {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let url = format!("https://localhost:{}", receiver.port);
    let notifier = format!(
        "[engine]\nkind = \"dummy\"\n[[notifier]]\nname = \"inbox\"\nplugin = \"notify-webhook\"\n\
         settings = {{ url = \"{url}/hook\", secret = \"inbox-key\" }}\n\
         grants = {{ hosts = [{{ url = \"{url}\", addresses = \"loopback\" }}], secrets = [\"inbox-key\"] }}\n"
    );
    let server = Process::start(PROGRAM, &gogs, &notifier, &[("SSL_CERT_FILE", trusted)]).await.unwrap();
    let admin = server.admin().unwrap();
    let set =
        admin.call(Method::PUT, "/api/v1/plugin-secrets/inbox-key", &json!({ "value": "a-key-for-the-inbox" })).await.unwrap();
    assert!(set.status.is_success(), "{set:?}");
    let enabled = admin.post("/api/v1/repositories", &json!({ "name": REPO })).await.unwrap();
    assert!(enabled.status.is_success(), "{enabled:?}");
    gogs.push(REPO, "main", &[(".beespace.yml", "steps:\n  - name: build\n    image: busybox\n")], "Fill cells").await.unwrap();
    let tried = |all: Value| Some(all[0].clone()).filter(|one| one["state"] == "sent" || one["last_error"].is_string());
    server.wait_for("an attempt at the notice", async || Ok(tried(admin.get("/api/v1/notices").await?.json()?))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_trusted_only_for_its_name_and_through_its_issuer() {
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
        let last_error = kept["last_error"].as_str().unwrap();
        assert!(last_error.contains("certificate") && last_error.contains("got no request"), "{last_error}");
        assert!(bad.asked.lock().unwrap().is_empty());
    }
}

/// Terminates TLS, like a proxy in front of Gogs.
async fn front(acceptor: TlsAcceptor, gogs: &FakeGogs) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = gogs.url().strip_prefix("http://").unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let Ok(mut gogs) = TcpStream::connect(behind).await else { return };
                let _ = copy_bidirectional(&mut stream, &mut gogs).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gogs_with_a_private_authority_works_if_the_configuration_names_it() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let url = format!("https://localhost:{}", front(ours.acceptor("localhost"), &gogs).await);
    let engine = "[engine]\nkind = \"dummy\"\n";

    let of_theirs = folder.path().join("theirs.pem");
    std::fs::write(&of_theirs, &theirs.pem).unwrap();
    let env = [("BEESPACE_GOGS__URL", url.as_str()), ("BEESPACE_GOGS__CA_FILE", of_theirs.to_str().unwrap())];
    let server = Process::start(PROGRAM, &gogs, engine, &env).await.unwrap();
    let refused = server.admin().unwrap().post("/api/v1/repositories", &json!({ "name": REPO })).await.unwrap();
    assert!(refused.status.is_client_error() || refused.status.is_server_error(), "{refused:?}");
    assert!(refused.body.contains("certificate"), "{refused:?}");

    let of_ours = folder.path().join("ours.pem");
    std::fs::write(&of_ours, &ours.pem).unwrap();
    let env = [("BEESPACE_GOGS__URL", url.as_str()), ("BEESPACE_GOGS__CA_FILE", of_ours.to_str().unwrap())];
    let server = Process::start(PROGRAM, &gogs, engine, &env).await.unwrap();
    server.enable(REPO).await.unwrap();
    let pipeline = "steps:\n  - name: build\n    image: busybox\n";
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], "Fill cells").await.unwrap();
    let admin = server.admin().unwrap();
    let over = |build: Value| Some(build).filter(|build| build["finished_at"].is_string());
    let path = "/api/v1/repositories/ada/hive/builds/1";
    let build = server.wait_for("the build", async || Ok(over(admin.get(path).await?.json()?))).await.unwrap();
    // The sources were fetched the same way, so git trusts the authority, too.
    assert_eq!(build["status"], "success", "{build:#}");
}
