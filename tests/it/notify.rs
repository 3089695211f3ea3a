//! Notifiers whose receiver hangs, is misconfigured, or crashes the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use beespace_core::notice::{Notice, NoticeState};
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use tokio::net::TcpListener;

const REPO: &str = "ada/hive";
const ENGINE: &str = "[engine]\nkind = \"dummy\"\n";

/// A binding of a notifier that posts to `url` on `host`.
pub fn webhook(name: &str, url: &str, host: &str) -> String {
    format!(
        "[[notifier]]\nname = \"{name}\"\nplugin = \"notify-webhook\"\nsettings = {{ url = \"{url}\", secret = \"key\" }}\n\
         grants = {{ hosts = [{{ url = \"{host}\", addresses = \"loopback\" }}], secrets = [\"key\"] }}\n"
    )
}

async fn world(gogs: &FakeGogs, notifiers: &str) -> Beespace {
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start(gogs, &format!("{ENGINE}{notifiers}")).await.unwrap();
    beespace.set_plugin_secret("key", "a-key-for-the-receiver").await.unwrap();
    beespace.enable(REPO).await.unwrap();
    beespace
}

async fn build(gogs: &FakeGogs, beespace: &Beespace, number: u64) {
    let file = format!("name: p{number}\nsteps:\n  - name: build\n    image: busybox\n");
    gogs.push(REPO, "main", &[(".beespace.yml", &file)], "Fill cells").await.unwrap();
    assert_eq!(beespace.wait_until_finished(REPO, number).await.unwrap().status, Status::Success);
}

/// Oldest first.
fn notices(beespace: &Beespace, binding: &str) -> anyhow::Result<Vec<Notice>> {
    let mut notices = beespace.app.store.read()?.notices(None, None, 1_000)?;
    notices.retain(|notice| notice.binding == binding);
    notices.reverse();
    Ok(notices)
}

/// Waits until this many notices exist and are suspended.
async fn wait_until_suspended(beespace: &Beespace, count: usize) -> Vec<Notice> {
    let suspended = beespace.wait_for("the notices to be suspended", async || {
        let all = notices(beespace, "inbox")?;
        let are_suspended = all.len() == count && all.iter().all(|notice| notice.state == NoticeState::Suspended);
        Ok(are_suspended.then_some(all))
    });
    suspended.await.unwrap()
}

/// A receiver that accepts connections and never responds: its address, and the largest number of concurrent connections.
async fn silent() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (open, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let largest = most.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            open.fetch_add(1, Ordering::SeqCst);
            let (counted, most) = (open.clone(), most.clone());
            tokio::spawn(async move {
                // The end of a connection that was just abandoned arrives a moment later.
                tokio::time::sleep(Duration::from_millis(100)).await;
                most.fetch_max(counted.load(Ordering::SeqCst), Ordering::SeqCst);
            });
            let open = open.clone();
            tokio::spawn(async move {
                // Ends when the client closes the connection.
                let _ = tokio::io::copy(&mut connection, &mut tokio::io::sink()).await;
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, largest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_receiver_does_not_use_the_slots_of_others() {
    const BUILDS: usize = 12;
    let (hangs, most) = silent().await;
    let gogs = FakeGogs::start().await.unwrap();
    let notifiers = [webhook("hangs", &format!("{hangs}/hook"), &hangs), webhook("inbox", &gogs.inbox_url("team"), gogs.url())];
    let beespace = world(&gogs, &notifiers.concat()).await;
    for number in 1..=BUILDS {
        build(&gogs, &beespace, number.try_into().unwrap()).await;
    }
    let sent = beespace.wait_for("every notice of the other", async || {
        let inbox = notices(&beespace, "inbox")?;
        Ok(inbox.iter().all(|notice| notice.state == NoticeState::Sent).then_some(inbox))
    });
    assert_eq!(sent.await.unwrap().len(), BUILDS);
    let hanging = notices(&beespace, "hangs").unwrap();
    assert_eq!(hanging.iter().filter(|notice| notice.state != NoticeState::Sent).count(), BUILDS);
    // On a slow machine the first attempts may have timed out one after the other; all of them are repeated.
    let slots = beespace::plugins::SLOTS_PER_NOTIFIER;
    let are_used = async || Ok((most.load(Ordering::SeqCst) >= slots).then_some(()));
    beespace.wait_for("the hanging receiver to use its slots", are_used).await.unwrap();
    // A slow machine may report the end of an abandoned connection after the next one has begun.
    assert!(most.load(Ordering::SeqCst) < BUILDS, "the hanging receiver uses only its own slots: {most:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misconfigured_notifier_is_suspended_with_a_reason_and_continues_in_order() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.set_inbox_status("team", 401);
    let beespace = world(&gogs, &webhook("inbox", &gogs.inbox_url("team"), gogs.url())).await;
    for number in 1..=3 {
        build(&gogs, &beespace, number).await;
    }
    let all = wait_until_suspended(&beespace, 3).await;
    let first = all[0].clone();
    let attempts = gogs.inbox("team").len();
    build(&gogs, &beespace, 4).await;
    wait_until_suspended(&beespace, 4).await;
    assert_eq!(gogs.inbox("team").len(), attempts, "nothing more is sent");

    let admin = beespace.admin().unwrap();
    let findings = admin.get("/api/v1/doctor").await.unwrap().json().unwrap();
    let finding = findings.as_array().unwrap().iter().find(|finding| finding["check"] == "notifier inbox").unwrap();
    assert_eq!(finding["level"], "problem");
    assert!(finding["detail"].as_str().unwrap().contains("401"), "{finding}");
    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    let page = session.get("/-/notices").await.unwrap().body;
    assert!(page.contains("A notifier is suspended") && page.contains("401"), "{page}");

    gogs.set_inbox_status("team", 200);
    let replayed = admin.post(&format!("/api/v1/notices/{}/retry", first.id), &serde_json::json!({})).await.unwrap();
    assert!(replayed.status.is_success(), "{replayed:?}");
    beespace
        .wait_for("all to be sent", async || {
            let all = notices(&beespace, "inbox")?;
            Ok(all.iter().all(|notice| notice.state == NoticeState::Sent).then_some(()))
        })
        .await
        .unwrap();
    assert!(!session.get("/-/notices").await.unwrap().body.contains("A notifier is suspended"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_notifier_is_retried_after_a_restart() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.set_inbox_status("team", 404);
    let beespace = world(&gogs, &webhook("inbox", &gogs.inbox_url("team"), gogs.url())).await;
    for number in 1..=3 {
        build(&gogs, &beespace, number).await;
    }
    wait_until_suspended(&beespace, 3).await;
    let moved = webhook("inbox", &gogs.inbox_url("other"), gogs.url());
    let beespace = beespace.restart_with(&format!("{ENGINE}{moved}")).await.unwrap();
    gogs.wait_for_inbox("other", 3).await.unwrap();
    drop(beespace);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_refuses_is_found_and_its_notices_are_sent_after_the_repair() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.set_inbox_status("team", 503);
    let beespace = world(&gogs, &webhook("inbox", &gogs.inbox_url("team"), gogs.url())).await;
    build(&gogs, &beespace, 1).await;
    let admin = beespace.admin().unwrap();
    let finding = beespace.wait_for("the finding", async || {
        let findings = admin.get("/api/v1/doctor").await?.json()?;
        Ok(findings.as_array().unwrap().iter().find(|finding| finding["check"] == "notifier inbox").cloned())
    });
    let finding = finding.await.unwrap();
    assert_eq!(finding["level"], "warning");
    let (detail, help) = (finding["detail"].as_str().unwrap(), finding["help"].as_str().unwrap());
    assert!(detail.starts_with("1 notice is pending") && detail.contains("503"), "{detail}");
    assert!(help.contains("beespace notice retry --notifier inbox"), "{help}");

    gogs.set_inbox_status("team", 200);
    let nothing = serde_json::json!({});
    let retried = admin.post("/api/v1/notifiers/inbox/retry", &nothing).await.unwrap();
    assert_eq!(retried.status, reqwest::StatusCode::NO_CONTENT, "{retried:?}");
    let is_sent = async || Ok((notices(&beespace, "inbox")?[0].state == NoticeState::Sent).then_some(()));
    beespace.wait_for("the notice to be sent", is_sent).await.unwrap();
    let unknown = admin.post("/api/v1/notifiers/none/retry", &nothing).await.unwrap();
    assert_eq!(unknown.status, reqwest::StatusCode::NOT_FOUND, "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notifier_keeps_state_only_if_the_configuration_allows_it() {
    let world = "package test:guest; world keeper { import beespace:plugin/kv@0.1.0; export beespace:plugin/lifecycle@0.1.0; \
                 export beespace:plugin/notifier@0.1.0; }";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keeper.wasm");
    std::fs::write(&path, beespace_tests::guest_build::dummy("keeper", Some(world), "notifier")).unwrap();
    let gogs = FakeGogs::start().await.unwrap();
    let start = async |grants: &str| {
        let notifier = format!("[[notifier]]\nname = \"keeper\"\nplugin = \"{}\"\n{grants}", path.display());
        format!("{:#}", Beespace::start(&gogs, &format!("{ENGINE}{notifier}")).await.unwrap_err())
    };
    let denied = start("").await;
    let expected = "the plugin needs `grants.kv` (to store data between calls): set grants = { kv = true }";
    assert!(denied.contains(expected), "{denied}");
    // The dummy traps as soon as it is called, which shows that it was linked.
    let granted = start("grants = { kv = true }\n").await;
    assert!(!granted.contains("grants.kv") && granted.contains("keeper"), "{granted}");
}
