//! The findings of `beespace doctor`, and the remedies it names.

use beespace::clock::now;
use beespace_core::build::Build;
use beespace_core::status::Status;
use beespace_core::time::Timestamp;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::{Access, FakeGogs, Faults};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::notify;

const DUMMY: &str = "[engine]\nkind = \"dummy\"\n";
const REPO: &str = "ada/hive";
const ONE_STEP: &str = "steps:\n  - name: build\n    image: busybox\n";

async fn world(extra: &str) -> (FakeGogs, Beespace) {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let inbox = notify::webhook("inbox", &gogs.inbox_url("team"), gogs.url());
    let beespace = Beespace::start(&gogs, &format!("{extra}{inbox}")).await.unwrap();
    beespace.set_plugin_secret("key", "a-key-for-the-receiver").await.unwrap();
    beespace.enable(REPO).await.unwrap();
    (gogs, beespace)
}

async fn findings(beespace: &Beespace) -> Value {
    let answer = beespace.admin().unwrap().get("/api/v1/doctor").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json().unwrap()
}

/// The finding about one part.
async fn finding(beespace: &Beespace, part: &str) -> Value {
    let all = findings(beespace).await;
    let found = all.as_array().unwrap().iter().find(|one| one["check"] == part).cloned();
    found.unwrap_or_else(|| panic!("no {part} in {all:#}"))
}

/// Asserts that the part has a problem with these texts in its finding and its remedy.
async fn must_find(beespace: &Beespace, part: &str, detail: &str, help: &str) {
    let found = finding(beespace, part).await;
    assert_eq!(found["level"], "problem", "{found:#}");
    must_say(&found, detail, help);
}

fn must_say(found: &Value, detail: &str, help: &str) {
    assert!(found["detail"].as_str().unwrap().contains(detail), "{found:#}");
    assert!(found["help"].as_str().unwrap().contains(help), "{found:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passed_checks_are_listed_and_a_missing_delivery_is_explained() {
    let (gogs, beespace) = world(DUMMY).await;
    for part in ["gogs", "git over HTTP", "engine", "disk", "plugin inbox", "permissions in ada/hive", "webhook of ada/hive"] {
        assert_eq!(finding(&beespace, part).await["level"], "ok", "{part}");
    }
    assert!(finding(&beespace, "plugin inbox").await["detail"].as_str().unwrap().contains("sha256:"));
    // A correct installation before its first push: no check fails, but the missing delivery is explained.
    let heard = finding(&beespace, "deliveries").await;
    assert_eq!(heard["level"], "warning", "{heard:#}");
    must_say(&heard, "no delivery has arrived yet", "LOCAL_NETWORK_ALLOWLIST");
    assert!(findings(&beespace).await.as_array().unwrap().iter().all(|one| one["level"] != "problem"));
    gogs.push(REPO, "main", &[(".beespace.yml", ONE_STEP)], "Fill cells").await.unwrap();
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    let heard = finding(&beespace, "deliveries").await;
    assert!(heard["level"] == "ok" && heard["detail"].as_str().unwrap().contains("just now"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_a_notifier_lacks_is_found_with_the_command_that_sets_it() {
    let (_gogs, beespace) = world(DUMMY).await;
    assert_eq!(finding(&beespace, "secret key of notifier inbox").await["level"], "ok");
    let removed = beespace.admin().unwrap().call(Method::DELETE, "/api/v1/plugin-secrets/key", &json!({})).await.unwrap();
    assert!(removed.status.is_success(), "{removed:?}");
    let lacks = finding(&beespace, "secret key of notifier inbox").await;
    assert_eq!(lacks["level"], "warning", "{lacks:#}");
    must_say(&lacks, "not set for plugins", "beespace secret set key --plugins");
}

#[tokio::test(flavor = "multi_thread")]
async fn git_over_http_that_gogs_disables_is_found_and_named() {
    let (gogs, beespace) = world(DUMMY).await;
    gogs.set_faults(Faults { http_git_disabled: true, ..Faults::default() });
    assert_eq!(finding(&beespace, "gogs").await["level"], "ok", "the API works");
    let sentence = "Interacting with repositories by HTTP protocol is disabled";
    must_find(&beespace, "git over HTTP", sentence, "`DISABLE_HTTP_GIT = false`").await;
    gogs.push(REPO, "main", &[(".beespace.yml", ONE_STEP)], "Fill cells").await.unwrap();
    let waits = |build: &&Build| build.reason.as_ref().is_some_and(|reason| reason.code == "http-git-disabled");
    let named = async || Ok(beespace.builds()?.iter().find(waits).cloned());
    let build = beespace.wait_for("the build to name the setting", named).await.unwrap();
    assert!(build.reason.unwrap().message.contains(sentence));
    must_find(&beespace, "last fetch of ada/hive", sentence, "`DISABLE_HTTP_GIT = false`").await;
    gogs.set_faults(Faults::default());
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert!(findings(&beespace).await.as_array().unwrap().iter().all(|one| one["check"] != "last fetch of ada/hive"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumped_is_a_warning() {
    let (_gogs, beespace) = world(DUMMY).await;
    let months_ago = Timestamp(now().0 - 90 * 86_400_000);
    beespace.app.store.check_clock(months_ago).await.unwrap();
    assert!(findings(&beespace).await.as_array().unwrap().iter().all(|one| one["check"] != "clock"), "no clock was known before");
    beespace.app.store.check_clock(now()).await.unwrap();
    let found = finding(&beespace, "clock").await;
    assert_eq!(found["level"], "warning", "{found:#}");
    must_say(&found, "90 days ahead", "correct it");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_wrong_webhook_is_found() {
    const HOOK: &str = "webhook of ada/hive";
    const REMEDY: &str = "beespace repo repair ada/hive";
    let (gogs, beespace) = world(DUMMY).await;
    let hook = beespace.app.forge.hooks(&REPO.parse().unwrap()).await.unwrap().remove(0);
    let edit = async |change: Value| {
        let url = format!("{}/api/v1/repos/{REPO}/hooks/{}", gogs.url(), hook.id);
        let token = format!("token {}", gogs.token());
        let edited = reqwest::Client::new().patch(url).header("authorization", token).json(&change).send().await.unwrap();
        assert_eq!(edited.status(), StatusCode::OK);
    };
    gogs.set_hook_url(hook.id, &hook.config.url.replace("/-/hook/", "/-/hook/0")).unwrap();
    must_find(&beespace, HOOK, "does not contain the current key", REMEDY).await;
    // The second is what a server on all addresses without a public URL once wrote.
    for elsewhere in ["http://127.0.0.1:9/-/hook/elsewhere", "http://0.0.0.0:8000/-/hook/elsewhere"] {
        gogs.set_hook_url(hook.id, elsewhere).unwrap();
        must_find(&beespace, HOOK, "points to another URL", REMEDY).await;
    }
    gogs.set_hook_url(hook.id, &hook.config.url).unwrap();
    assert_eq!(finding(&beespace, HOOK).await["level"], "ok");
    edit(json!({ "config": {}, "active": false, "events": hook.events })).await;
    must_find(&beespace, HOOK, "is not active in Gogs", REMEDY).await;
    // As if a person had saved the webhook's form with fewer events selected.
    edit(json!({ "config": {}, "active": true, "events": ["push"] })).await;
    must_find(&beespace, HOOK, "is not triggered by every event", REMEDY).await;
    let repaired = beespace.admin().unwrap().call(Method::POST, &format!("/api/v1/repositories/{REPO}/repair"), &json!({})).await;
    assert_eq!(repaired.unwrap().status, StatusCode::OK);
    assert_eq!(finding(&beespace, HOOK).await["level"], "ok");
    let hook = beespace.app.forge.hooks(&REPO.parse().unwrap()).await.unwrap().remove(0);
    beespace.app.forge.delete_hook(&REPO.parse().unwrap(), hook.id).await.unwrap();
    must_find(&beespace, HOOK, "no longer exists in Gogs", REMEDY).await;
    gogs.set_token_revoked(true);
    must_find(&beespace, "gogs", "", "new token").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_lost_its_rights_is_found() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    gogs.grant_access(REPO, "bob", Access::Admin).unwrap();
    let beespace = Beespace::start_as(&gogs, &gogs.token_of("bob").unwrap(), "", DUMMY).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    assert_eq!(finding(&beespace, "permissions in ada/hive").await["level"], "ok");
    gogs.grant_access(REPO, "bob", Access::Write).unwrap();
    must_find(&beespace, "permissions in ada/hive", "is not an administrator", "collaborator with the permission `admin`").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_engine_is_found() {
    let (_gogs, beespace) = world("[engine]\nkind = \"docker\"\nhost = \"unix:///run/no/engine.sock\"\n").await;
    must_find(&beespace, "engine", "/run/no/engine.sock", "`[engine] host` in beespace.toml").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gogs_uses_the_webhook_url_and_people_get_the_public_url() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let way_in = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner = format!("http://{}", way_in.local_addr().unwrap());
    let server = format!("public_url = \"https://ci.example.org/bees\"\nhook_url = \"{inner}\"\nopen = true");
    let inbox = notify::webhook("inbox", &gogs.inbox_url("team"), gogs.url());
    let beespace = Beespace::start_with(&gogs, &server, &format!("{DUMMY}{inbox}")).await.unwrap();
    let server = beespace.url.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = way_in.accept().await {
            let mut to = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    beespace.set_plugin_secret("key", "a-key-for-the-receiver").await.unwrap();
    let enabled = beespace.admin().unwrap().post("/api/v1/repositories", &json!({ "name": REPO })).await.unwrap();
    assert!(enabled.status.is_success(), "{enabled:?}");
    let hook = beespace.app.forge.hooks(&REPO.parse().unwrap()).await.unwrap().remove(0);
    assert!(hook.config.url.starts_with(&format!("{inner}/-/hook/")), "{hook:?}");
    assert_eq!(finding(&beespace, "webhook of ada/hive").await["level"], "ok");
    gogs.push(REPO, "main", &[(".beespace.yml", ONE_STEP)], "Fill cells").await.unwrap();
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
    let notice = gogs.wait_for_inbox("team", 1).await.unwrap().remove(0);
    assert!(notice.body.contains("https://ci.example.org/bees/ada/hive/1") && !notice.body.contains(&inner), "{notice:?}");
}
