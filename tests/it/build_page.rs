//! The page of a build: what it shows of policies that only watch, of approvals, and of failures that do not count.

use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use reqwest::StatusCode;
use serde_json::Value;

const REPO: &str = "ada/hive";
const PAGE: &str = "/ada/hive/1";
const API: &str = "/api/v1/repositories/ada/hive/builds/1";
const ONE_STEP: &str = "steps:\n  - name: build\n    image: docker.io/library/busybox:1\n";

/// A server with the dummy engine, and with a build of this pipeline.
async fn world(config: &str, pipeline: &str) -> (FakeGogs, Beespace) {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start(&gogs, &format!("[engine]\nkind = \"dummy\"\n{config}")).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], "Fill cells").await.unwrap();
    (gogs, beespace)
}

/// A policy that denies the image of [`ONE_STEP`], in this mode.
fn denying(mode: &str) -> String {
    format!(
        "[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\nmode = \"{mode}\"\n\
         settings = {{ repositories = [\"ghcr.io/*\"] }}\n"
    )
}

async fn page(beespace: &Beespace) -> String {
    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    session.get(PAGE).await.unwrap().body
}

async fn shown(beespace: &Beespace) -> Value {
    beespace.admin().unwrap().get(API).await.unwrap().json().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_in_mode_shadow_is_shown_under_decisions_alone() {
    let (_gogs, beespace) = world(&denying("shadow"), ONE_STEP).await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
    let page = page(&beespace).await;
    let (before, decisions) = page.split_once("aria-label=\"Decisions\"").unwrap();
    let (decisions, file) = decisions.split_once("aria-label=\"Pipeline file\"").unwrap();
    let file = file.split("</section>").next().unwrap();
    assert!(decisions.contains(">denies</span>") && decisions.contains("<span class=\"tag\">shadow</span>"), "{decisions}");
    assert!(!before.contains("ghcr.io") && !before.contains("images"), "{before}");
    assert!(!file.contains("class=\"note") && !file.contains(" marked "), "{file}");
    assert!(!file.contains("<details open>"), "the file is folded: {file}");
    assert_eq!(shown(&beespace).await.get("warnings"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_in_mode_warn_warns_on_the_page_and_in_the_api() {
    let (_gogs, beespace) = world(&denying("warn"), ONE_STEP).await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
    let page = page(&beespace).await;
    let (before, file) = page.split_once("aria-label=\"Pipeline file\"").unwrap();
    assert_eq!(before.matches("Warning: policy &#34;images&#34; would deny this").count(), 1, "{before}");
    assert!(file.contains("marked s-pending") && file.contains("note s-pending\"><span>Warning: "), "{file}");
    assert!(!file.contains("s-declined"), "it looks like a denial: {file}");
    let warnings = shown(&beespace).await["warnings"].clone();
    assert_eq!(warnings.as_array().map(Vec::len), Some(1), "{warnings}");
    assert!(warnings[0].as_str().unwrap().starts_with("policy \"images\" would deny this: "), "{warnings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_shown_with_person_time_and_reason_and_the_forms_ask_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("asks.wasm");
    std::fs::write(&path, beespace_tests::guest_build::approval_guest(1)).unwrap();
    let policy = format!("[[policy]]\nname = \"asks\"\nplugin = \"{}\"\n", path.display());
    let (_gogs, beespace) = world(&policy, ONE_STEP).await;
    beespace.wait_for_build(REPO, 1, |build| build.status == Status::Blocked).await.unwrap();

    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    let blocked = session.get(PAGE).await.unwrap().body;
    let panel = blocked.split("aria-label=\"Missing approval\"").nth(1).unwrap().split("</section>").next().unwrap();
    assert_eq!(panel.matches("said by the guest").count(), 1, "the reason is there once: {panel}");
    for action in ["approve", "decline"] {
        let form = panel.split(&format!("action=\"{PAGE}/{action}\"")).nth(1).unwrap().split("</form>").next().unwrap();
        assert!(form.contains("name=\"reason\"") && form.contains("<button"), "{form}");
    }
    let asks = panel.matches("<details class=\"answer\">").count();
    assert_eq!(asks, 2, "a press of a button alone changes nothing: {panel}");

    let long = "x".repeat(1_001);
    let value = |name: &str| panel.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap().split('"').next().unwrap();
    let fields = |reason| [("csrf", value("csrf")), ("stage", value("stage")), ("subject", value("subject")), ("reason", reason)];
    let long = session.form(&format!("{PAGE}/approve"), &fields(&long)).await.unwrap();
    assert_eq!(long.status, StatusCode::BAD_REQUEST, "{long:?}");
    let sent = session.form(&format!("{PAGE}/approve"), &fields(" looks <b>fine</b> ")).await.unwrap();
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{sent:?}");
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);

    let done = session.get(PAGE).await.unwrap().body;
    assert!(done.contains("The pipeline was approved by admin, <time "), "{done}");
    assert!(done.contains(": looks &#60;b&#62;fine&#60;/b&#62;</div>"), "{done}");
    let given = shown(&beespace).await["stages"][0]["approvals"][0]["given"].clone();
    assert_eq!((&given[0]["by"], &given[0]["reason"]), (&"admin".into(), &"looks <b>fine</b>".into()), "{given}");
    assert!(given[0]["at"].as_str().unwrap().ends_with('Z'), "{given}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_does_not_count_is_marked() {
    let step = |name: &str, more: &str| format!("  - name: {name}\n    image: busybox\n{more}");
    let failing = "    failure: ignore\n    env: { EXIT_CODE: 9, OUTPUT: \"error: no wax\" }\n";
    let pipeline = format!("steps:\n{}{}", step("wax", failing), step("fill", ""));
    let (_gogs, beespace) = world("", &pipeline).await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);
    let page = page(&beespace).await;
    assert_eq!(page.matches(">failure ignored</span>").count(), 1, "{page}");
    assert!(page.contains(">wax</a> <span class=\"tag\""), "the step that failed is marked: {page}");
    let ignored: Vec<bool> = shown(&beespace).await["stages"][0]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["failure_ignored"].as_bool().unwrap())
        .collect();
    assert_eq!(ignored, [false, true, false], "clone, wax, fill");
    assert!(page.contains("error: no wax") && page.contains("Open the whole log</a>"), "{page}");
    assert!(page.contains("Excerpt: all "), "{page}");
    let log = beespace.anonymous().get("/ada/hive/1/1/1").await.unwrap().body;
    assert!(log.contains(">failure ignored</span>"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_secrets_are_marked_in_the_file_with_a_command_to_copy() {
    let pipeline =
        format!("{ONE_STEP}    env: {{ TOKEN: {{ from_secret: registry_token }}, KEY: {{ from_secret: deploy_key }} }}\n");
    let (_gogs, beespace) = world("", &pipeline).await;
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Error);
    let page = page(&beespace).await;
    let file = page.split("aria-label=\"Pipeline file\"").nth(1).unwrap();
    assert!(file.contains("<details open>") && file.contains("class=\"l marked s-error\" id=\"F4\""), "{file}");
    for name in ["registry_token", "deploy_key"] {
        let command = format!("<code>beespace secret set {name} --repo {REPO}</code>");
        assert_eq!(file.matches(&command).count(), 1, "{command}: {file}");
    }
    let list = beespace.anonymous().get("/").await.unwrap().body;
    assert!(list.contains("; and 1 more"), "{list}");
}
