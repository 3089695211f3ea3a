//! A store whose disk refuses writes: nothing is accepted that cannot be stored, the reason is shown, and work continues when
//! space is available.

use std::path::Path;

use beespace::store::delivery::Deliveries as _;
use beespace::store::{Store, tables};
use beespace_tests::client::{Client, HttpResponse};
use beespace_tests::gogs::{Delivery, FakeGogs};
use beespace_tests::process::{NO_ENV, Process};
use redb::ReadableTableMetadata as _;
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_beespace-under-test");
const REPO: &str = "ada/hive";
const BUILDS: &str = "/api/v1/repositories/ada/hive/builds";
const ONE_STEP: &str = "steps:\n  - name: build\n    image: busybox\n";

/// Limits the file size of the process to `bytes`, or to the limit of this process. Writes beyond it fail as on a full disk,
/// and setting the limit requires no privileges.
fn limit_files(server: &Process, bytes: Option<u64>) {
    let ours = rustix::process::getrlimit(Resource::Fsize);
    let limit = Rlimit { current: bytes.or(ours.current), maximum: ours.maximum };
    rustix::process::prlimit(Pid::from_raw(server.id().unwrap()), Resource::Fsize, limit).unwrap();
}

/// Sends a delivery again and returns the whole response.
async fn send(server: &Process, delivery: &Delivery) -> HttpResponse {
    let client = Client::new(&server.url);
    let mut request = client.request(Method::POST, delivery.url.strip_prefix(&server.url).unwrap());
    for (name, value) in delivery.headers.iter().filter(|(name, _)| !["Host", "Content-Length", "Accept-Encoding"].contains(name))
    {
        request = request.header(*name, value);
    }
    client.send(request.body(delivery.body.clone())).await.unwrap()
}

async fn ready(admin: &Client) -> anyhow::Result<HttpResponse> {
    admin.get("/readyz").await
}

/// Checks the file of a closed store: it is intact, the probe left nothing in it, and each accepted delivery is
/// stored once, as it was signed.
pub(crate) fn is_whole_with(file: &Path, taken: &[Delivery]) {
    let mut database = redb::Database::open(file).unwrap();
    assert!(database.check_integrity().unwrap(), "the file is as it should be");
    let read = redb::ReadableDatabase::begin_read(&database).unwrap();
    assert_eq!(read.open_table(tables::PROBE).unwrap().len().unwrap(), 0, "what it was tried with is gone");
    drop((read, database));

    let store = Store::open(file).unwrap();
    let read = store.read().unwrap();
    let kept = read.deliveries(None, None, usize::MAX).unwrap();
    for delivery in taken {
        let bodies = kept.iter().filter(|kept| kept.forge_id == delivery.uuid).map(|kept| read.delivery_body(kept.id).unwrap());
        assert_eq!(bodies.collect::<Vec<_>>(), [Some(delivery.json.clone().into_bytes())], "delivery {}", delivery.uuid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_cannot_be_stored_is_refused_and_builds_once_when_redelivered() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let server = Process::start(PROGRAM, &gogs, "[engine]\nkind = \"dummy\"\n", NO_ENV).await.unwrap();
    let admin = server.admin().unwrap();
    let enabled = admin.post("/api/v1/repositories", &json!({ "name": REPO })).await.unwrap();
    assert!(enabled.status.is_success(), "{enabled:?}");
    assert_eq!(ready(&admin).await.unwrap().status, StatusCode::OK);

    // Less than the size of the file, so that not even an existing page can be rewritten.
    limit_files(&server, Some(4096));
    gogs.push(REPO, "main", &[(".beespace.yml", ONE_STEP)], "Fill cells").await.unwrap();
    let deliveries = gogs.wait_until_delivered().await.unwrap();
    assert_eq!(deliveries.iter().map(Delivery::status).collect::<Vec<_>>(), [Some(503); 2], "the branch and its push");
    let refused = send(&server, deliveries.last().unwrap()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert!(refused.json().unwrap()["help"].as_str().unwrap().starts_with("redeliver it"), "{refused:?}");
    let not_ready = ready(&admin).await.unwrap();
    assert_eq!(not_ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(not_ready.body.contains("[-] store: the store is unavailable: "), "{}", not_ready.body);
    let figures = admin.get("/metrics").await.unwrap().body;
    let expected = format!("beespace_webhook_deliveries_total{{response=\"not_stored\"}} {}\n", deliveries.len() + 1);
    assert!(figures.contains(&expected), "{figures}");

    limit_files(&server, None);
    let is_ready = async || Ok(ready(&admin).await?.status.is_success().then_some(()));
    server.wait_for("the store to be open again", is_ready).await.unwrap();
    for attempts in [2, 3] {
        for delivery in &deliveries {
            gogs.redeliver(&delivery.uuid).unwrap();
        }
        let again = |all: &[Delivery]| all.iter().all(|delivery| delivery.attempts.len() == attempts);
        let deliveries = gogs.wait_for_deliveries("all to be sent again", again).await.unwrap();
        assert_eq!(deliveries.iter().map(Delivery::status).collect::<Vec<_>>(), [Some(202); 2]);
        let over =
            async || Ok(Some(admin.get(&format!("{BUILDS}/1")).await?.json()?).filter(|build| build["finished_at"].is_string()));
        assert_eq!(server.wait_for("the end of the build", over).await.unwrap()["status"], "success");
    }
    assert_eq!(admin.get(BUILDS).await.unwrap().json().unwrap().as_array().unwrap().len(), 1);

    let left = server.stop().await.unwrap();
    is_whole_with(&left.path().join("data/beespace.redb"), &deliveries);
}
