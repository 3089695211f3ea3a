//! The API of a server from the outside, with the dummy engine.

use beespace_core::change_event::ChangeEvent;
use beespace_core::digest::Digest;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::client::{Client, HttpResponse};
use beespace_tests::gogs::FakeGogs;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const DUMMY: &str = "[engine]\nkind = \"dummy\"\n";
const REPO: &str = "ada/hive";
const BUILDS: &str = "/api/v1/repositories/ada/hive/builds";
const ONE_STEP: &str = "steps:\n  - name: build\n    image: busybox\n    env: { OUTPUT: \"cells filled\" }\n";
const LONG: &str = "steps:\n  - name: long\n    image: busybox\n    env: { SLEEP: 60s }\n";

struct World {
    gogs: FakeGogs,
    beespace: Beespace,
    admin: Client,
}

impl World {
    async fn start(extra: impl Fn(&FakeGogs) -> String) -> Self {
        let gogs = FakeGogs::start().await.unwrap();
        gogs.create_repository(REPO).await.unwrap();
        let beespace = Beespace::start_with(&gogs, "", &format!("{DUMMY}{}", extra(&gogs))).await.unwrap();
        beespace.set_plugin_secret("inbox-key", "a-key-for-the-inbox").await.unwrap();
        beespace.enable(REPO).await.unwrap();
        let admin = beespace.admin().unwrap();
        Self { gogs, beespace, admin }
    }

    async fn push(&self, pipeline: &str) {
        self.gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], "Fill cells").await.unwrap();
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.admin.get(path).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        answer.json().unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> HttpResponse {
        self.admin.post(path, &body).await.unwrap()
    }

    /// Waits until a response of the API meets a condition.
    async fn when(&self, what: &str, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.beespace.wait_for(what, async || Ok(Some(self.admin.get(path).await?.json()?).filter(&wanted))).await.unwrap()
    }
}

fn no_extra_config(_: &FakeGogs) -> String {
    String::new()
}

fn notifier(gogs: &FakeGogs) -> String {
    format!(
        "[[notifier]]\nname = \"inbox\"\nplugin = \"notify-webhook\"\nsettings = {{ url = \"{}\", secret = \"inbox-key\" }}\n\
         grants = {{ hosts = [{{ url = \"{}\", addresses = \"loopback\" }}], secrets = [\"inbox-key\"] }}\n",
        gogs.inbox_url("team"),
        gogs.url()
    )
}

fn must_be_problem(answer: &HttpResponse, status: StatusCode) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let body = answer.json().unwrap();
    assert_eq!(body["status"], status.as_u16());
    assert_eq!(body["request_id"], answer.header("x-request-id"));
    for text in ["title", "detail", "code"] {
        assert!(!body[text].as_str().unwrap().is_empty(), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_returns_a_problem_with_its_request_id() {
    let world = World::start(no_extra_config).await;
    let anonymous = world.beespace.anonymous();
    must_be_problem(&anonymous.get("/api/v1/builds").await.unwrap(), StatusCode::UNAUTHORIZED);
    let foreign = world.admin.request(Method::POST, "/api/v1/repositories").header("sec-fetch-site", "cross-site");
    must_be_problem(&world.admin.send(foreign.json(&json!({}))).await.unwrap(), StatusCode::FORBIDDEN);
    for path in ["/api/v1/nothing", "/api/v1/repositories/ada/none", &format!("{BUILDS}/7"), "/api/v1/deliveries/7"] {
        must_be_problem(&world.admin.get(path).await.unwrap(), StatusCode::NOT_FOUND);
    }
    for path in ["/api/v1/builds?status=odd", "/api/v1/builds?after=odd", "/api/v1/notices?status=odd"] {
        must_be_problem(&world.admin.get(path).await.unwrap(), StatusCode::BAD_REQUEST);
    }
    must_be_problem(&world.post("/api/v1/repositories", json!({ "name": "no slash" })).await, StatusCode::BAD_REQUEST);
    world.push(LONG).await;
    world.beespace.wait_for_build(REPO, 1, |build| build.status == Status::Running).await.unwrap();
    must_be_problem(&world.post(&format!("{BUILDS}/1/restart"), json!({})).await, StatusCode::CONFLICT);
    must_be_problem(&world.post(&format!("{BUILDS}/1/approve"), json!({})).await, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_listed_shown_and_restarted() {
    let world = World::start(no_extra_config).await;
    world.push(ONE_STEP).await;
    world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    let shown = world.get(&format!("{BUILDS}/1")).await;
    assert_eq!((&shown["status"], &shown["title"]), (&json!("success"), &json!("Fill cells")));
    assert_eq!(shown["stages"][0]["steps"][1]["name"], "build");
    for list in ["/api/v1/builds", BUILDS, "/api/v1/builds?status=success"] {
        assert_eq!(world.get(list).await[0]["id"], shown["id"], "{list}");
    }
    assert_eq!(world.get("/api/v1/builds?status=failure").await, json!([]));
    let again = world.post(&format!("{BUILDS}/1/restart"), json!({})).await;
    assert_eq!(again.json().unwrap()["restarts"], shown["id"], "{again:?}");
    assert_eq!(world.beespace.wait_until_finished(REPO, 2).await.unwrap().status, Status::Success);
    let first = world.admin.get(&format!("{BUILDS}?limit=1")).await.unwrap();
    assert_eq!(first.json().unwrap()[0]["number"], 2);
    let next = first.header("link").trim_start_matches('<').split('>').next().unwrap().to_owned();
    assert_eq!(world.get(&next).await[0]["number"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_stops_and_names_who_cancelled_it() {
    let world = World::start(no_extra_config).await;
    world.push(LONG).await;
    let running = |build: &Value| build["stages"][0]["steps"][1]["status"] == "running";
    world.when("the step to run", &format!("{BUILDS}/1"), running).await;
    assert_eq!(world.post(&format!("{BUILDS}/1/cancel"), json!({})).await.status, StatusCode::OK);
    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Killed, "{build:#?}");
    let shown = world.get(&format!("{BUILDS}/1")).await;
    assert_eq!(shown["stages"][0]["reason"]["message"], "cancelled by admin", "{shown:#}");
    assert_eq!(shown["stages"][0]["steps"][1]["status"], "killed");
    must_be_problem(&world.post(&format!("{BUILDS}/1/cancel"), json!({})).await, StatusCode::CONFLICT);
}

/// A policy that requires this many approvals.
fn asking(folder: &tempfile::TempDir, people: u32) -> String {
    let path = folder.path().join("asks.wasm");
    let guest = beespace_tests::guest_build::approval_guest(people);
    std::fs::write(&path, &guest).unwrap();
    format!("[[policy]]\nname = \"asks\"\nplugin = \"{}\"\nsha256 = \"{}\"\n", path.display(), Digest::of(&guest).hex())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_approvals_is_not_enough_and_the_missing_one_is_shown() {
    const TWO: &str = "2 more people (required by policy \"asks\": said by the guest)";
    const ONE: &str = "1 more person (required by policy \"asks\": said by the guest)";
    let folder = tempfile::tempdir().unwrap();
    let policy = asking(&folder, 2);
    let world = World::start(|_| policy.clone()).await;
    world.push(ONE_STEP).await;
    let blocked = world.beespace.wait_for_build(REPO, 1, |build| build.status == Status::Blocked).await.unwrap();
    assert!(blocked.reason.unwrap().to_string().contains(TWO));
    let waiting = world.get(&format!("{BUILDS}/1")).await["stages"][0]["approvals"][0].clone();
    assert_eq!(
        (&waiting["missing"], &waiting["runs"]),
        (&json!([TWO]), &json!(["build: image busybox", "build: env OUTPUT=cells filled"])),
        "{waiting:#}"
    );
    let first = world.post(&format!("{BUILDS}/1/approve"), json!({ "subject": waiting["subject"] })).await;
    let first = first.json().unwrap();
    assert_eq!((&first["status"], &first["stages"][0]["approvals"][0]["missing"]), (&json!("blocked"), &json!([ONE])));
    let reason = first["reason"].to_string();
    assert!(reason.contains("approved so far by admin") && reason.contains("1 more person"), "{reason}");
    let page = world.admin.get("/ada/hive/1").await.unwrap().body;
    for text in ["Missing: 1 more person", "Approved by admin", "build: image busybox"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    must_be_problem(
        &world.post(&format!("{BUILDS}/1/approve"), json!({ "subject": waiting["subject"] })).await,
        StatusCode::CONFLICT,
    );
    let no = world.post(&format!("{BUILDS}/1/decline"), json!({})).await;
    assert_eq!(no.status, StatusCode::OK, "a no needs no digest: {no:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_subject_is_released_only_by_an_approval_of_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let policy = asking(&folder, 1);
    let world = World::start(|gogs| format!("{policy}{}", notifier(gogs))).await;
    for number in [1, 2] {
        world.push(&format!("name: p{number}\n{ONE_STEP}")).await;
        world.beespace.wait_for_build(REPO, number, |build| build.status == Status::Blocked).await.unwrap();
    }
    let notices = world.gogs.wait_for_inbox("team", 2).await.unwrap();
    assert!(notices.iter().all(|notice| notice.body.contains("approval.requested")), "{notices:?}");
    let waiting = world.get(&format!("{BUILDS}/1")).await["stages"][0]["approvals"][0].clone();
    assert_eq!(waiting["reasons"][0], "asks: said by the guest");

    let other = world.get(&format!("{BUILDS}/2")).await["stages"][0]["approvals"][0]["subject"].clone();
    assert_ne!(other, waiting["subject"]);
    let wrong = world.post(&format!("{BUILDS}/1/approve"), json!({ "subject": other })).await;
    must_be_problem(&wrong, StatusCode::CONFLICT);
    for nothing_exact in [json!({ "subject": "odd" }), json!({}), json!({ "stage": 1 })] {
        must_be_problem(&world.post(&format!("{BUILDS}/1/approve"), nothing_exact).await, StatusCode::BAD_REQUEST);
    }
    let right = world.post(&format!("{BUILDS}/1/approve"), json!({ "subject": waiting["subject"] })).await;
    assert_eq!(right.status, StatusCode::OK, "{right:?}");
    assert_eq!(world.beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Success);

    let no = world.post(&format!("{BUILDS}/2/decline"), json!({ "reason": "not on a Friday" })).await;
    assert_eq!(no.status, StatusCode::OK, "{no:?}");
    let declined = world.beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!(declined.status, Status::Declined);
    assert!(world.get(&format!("{BUILDS}/2")).await.to_string().contains("not on a Friday"));
    assert!(world.beespace.step(&declined, "build").unwrap().started_at.is_none());
    assert!(world.get(&format!("{BUILDS}/1/decisions")).await.to_string().contains("asks"));
}

/// Submits a form of a page, as a browser does.
async fn press(world: &World, page: &str, action: &str, fields: &[(&str, &str)]) {
    let token = world.beespace.admin_token().unwrap();
    let session = world.beespace.anonymous().sign_in(&token).await.unwrap();
    let shown = session.get(page).await.unwrap().body;
    assert!(shown.contains(&format!("action=\"{action}\"")), "{action}: {shown}");
    let csrf = shown.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let fields: Vec<(&str, &str)> = fields.iter().copied().chain([("csrf", csrf)]).collect();
    let sent = session.form(action, &fields).await.unwrap();
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn page_buttons_decline_builds_and_resend_notices() {
    let folder = tempfile::tempdir().unwrap();
    let policy = asking(&folder, 1);
    let world = World::start(|gogs| format!("{policy}{}", notifier(gogs))).await;
    world.gogs.set_inbox_status("team", 400);
    world.push(ONE_STEP).await;
    world.beespace.wait_for_build(REPO, 1, |build| build.status == Status::Blocked).await.unwrap();
    let waiting = world.get(&format!("{BUILDS}/1")).await["stages"][0]["approvals"][0].clone();
    let subject = waiting["subject"].as_str().unwrap();
    press(&world, "/ada/hive/1", "/ada/hive/1/decline", &[("stage", "1"), ("subject", subject)]).await;
    assert_eq!(world.beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Declined);

    let dead = world.when("two dead letters", "/api/v1/notices?status=dead_letter", |all| all[1].is_object()).await[1].clone();
    world.gogs.set_inbox_status("team", 200);
    let id = dead["id"].as_str().unwrap();
    press(&world, "/-/notices", &format!("/-/notices/{id}/retry"), &[]).await;
    world.when("it to be sent", &format!("/api/v1/notices/{id}"), |notice| notice["state"] == "sent").await;

    world.gogs.send_event(REPO, "push", &json!({ "ref": 7 })).unwrap();
    let given_up = |all: &Value| all[0]["outcome"] == "dead_letter";
    let dead = world.when("an unreadable delivery", "/api/v1/deliveries", given_up).await[0].clone();
    let mut changes = world.beespace.app.store.watch();
    let id = dead["id"].as_str().unwrap();
    press(&world, "/-/deliveries", &format!("/-/deliveries/{id}/retry"), &[]).await;
    let again = async {
        loop {
            let event = changes.recv().await.unwrap();
            if matches!(event, ChangeEvent::DeliveryProcessed { delivery, .. } if id == delivery.to_string()) {
                break;
            }
        }
    };
    tokio::time::timeout(beespace_tests::WAIT_TIMEOUT, again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_notice_is_sent_again_on_request() {
    let world = World::start(notifier).await;
    world.gogs.set_inbox_status("team", 400);
    world.push(ONE_STEP).await;
    world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    let dead = world.when("a dead letter", "/api/v1/notices?status=dead_letter", |all| all[0].is_object()).await[0].clone();
    assert!(dead["last_error"].as_str().unwrap().contains("400"), "{dead}");
    let path = format!("/api/v1/notices/{}", dead["id"].as_str().unwrap());
    assert_eq!(world.get(&path).await["subject"]["kind"], "build.finished");
    world.gogs.set_inbox_status("team", 200);
    assert_eq!(world.post(&format!("{path}/retry"), json!({})).await.status, StatusCode::OK);
    let sent = world.when("it to be sent", &path, |notice| notice["state"] == "sent").await;
    assert_eq!(sent["idempotency_key"], dead["idempotency_key"]);
    must_be_problem(&world.post(&format!("{path}/retry"), json!({})).await, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_with_a_build_is_shown_and_not_replayed() {
    let world = World::start(no_extra_config).await;
    world.push(ONE_STEP).await;
    world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    let all = world.get("/api/v1/deliveries").await;
    let push = all.as_array().unwrap().iter().find(|one| one["event"] == "push").unwrap();
    assert_eq!((&push["outcome"], &push["repository"]), (&json!("built"), &json!(REPO)), "{push}");
    let path = format!("/api/v1/deliveries/{}", push["id"].as_str().unwrap());
    assert_eq!(world.get(&path).await["payload"]["ref"], "refs/heads/main");
    must_be_problem(&world.post(&format!("{path}/retry"), json!({})).await, StatusCode::CONFLICT);
    assert_eq!(world.beespace.builds().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_delivery_is_processed_again_on_request() {
    let world = World::start(no_extra_config).await;
    world.gogs.send_event(REPO, "push", &json!({ "ref": 7 })).unwrap();
    let given_up = |all: &Value| all[0]["outcome"] == "dead_letter";
    let dead = world.when("it to be given up", "/api/v1/deliveries", given_up).await[0].clone();
    let path = format!("/api/v1/deliveries/{}", dead["id"].as_str().unwrap());
    let mut changes = world.beespace.app.store.watch();
    let replayed = world.post(&format!("{path}/retry"), json!({})).await;
    assert_eq!(replayed.status, StatusCode::OK, "{replayed:?}");
    let processed = async {
        loop {
            let event = changes.recv().await.unwrap();
            if matches!(event, ChangeEvent::DeliveryProcessed { delivery, .. } if dead["id"] == delivery.to_string()) {
                break;
            }
        }
    };
    tokio::time::timeout(beespace_tests::WAIT_TIMEOUT, processed).await.unwrap();
    assert_eq!(world.get(&path).await["outcome"], "dead_letter", "it is as unreadable as before");
    assert_eq!(world.gogs.deliveries().len(), 1, "no request was sent to Gogs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnecting_event_client_receives_a_resync_event() {
    let world = World::start(no_extra_config).await;
    for (last, begins) in [(Some("7"), true), (Some("from another server"), true), (None, false)] {
        let request = world.admin.request(Method::GET, "/api/v1/events");
        let request = last.into_iter().fold(request, |request, last| request.header("last-event-id", last));
        let mut events = request.send().await.unwrap();
        assert_eq!(events.headers()["content-type"], "text/event-stream");
        // A client without a resync event receives this first.
        let push = format!("name: p{}\n{ONE_STEP}", last.unwrap_or("none").len());
        world.push(&push).await;
        let first = events.chunk().await.unwrap().unwrap();
        let first = String::from_utf8_lossy(&first);
        assert_eq!(first.starts_with("event: resync\ndata: {}\n\n"), begins, "{last:?}: {first}");
        assert!(begins || first.starts_with("event: change\n"), "{first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_can_be_set_and_never_read() {
    const CANARY: &str = "canary-7f3a9c51e0d2";
    let world = World::start(no_extra_config).await;
    let path = "/api/v1/repositories/ada/hive/secrets";
    let set = world.admin.call(Method::PUT, &format!("{path}/token"), &json!({ "value": CANARY })).await.unwrap();
    assert_eq!((set.status, &set.json().unwrap()["weakness"]), (StatusCode::OK, &Value::Null), "{set:?}");
    assert_eq!(world.get(path).await[0]["name"], "token");
    let bad = world.admin.call(Method::PUT, &format!("{path}/a%20b"), &json!({ "value": CANARY })).await.unwrap();
    must_be_problem(&bad, StatusCode::BAD_REQUEST);
    for (value, why) in [("abc", "not be masked"), (" a \n", "not be masked"), ("long enough\0", "NUL")] {
        let refused = world.admin.call(Method::PUT, &format!("{path}/bad"), &json!({ "value": value })).await.unwrap();
        must_be_problem(&refused, StatusCode::BAD_REQUEST);
        assert!(refused.body.contains(why), "{value:?}: {refused:?}");
    }
    assert_eq!(world.get(path).await.as_array().unwrap().len(), 1, "what cannot be masked is not kept");
    world.push("steps:\n  - name: tell\n    image: busybox\n    env: { OUTPUT: { from_secret: token } }\n").await;
    let build = world.beespace.wait_until_finished(REPO, 1).await.unwrap();
    assert_eq!(build.status, Status::Success, "{build:#?}");
    let log = world.beespace.log(&build, "tell").await.unwrap();
    assert!(log.iter().any(|line| line.contains("********")), "{log:#?}");
    let page = "/ada/hive/1";
    for path in [path, BUILDS, &format!("{BUILDS}/1"), &format!("{BUILDS}/1/decisions"), "/api/v1/deliveries", page] {
        let answer = world.admin.get(path).await.unwrap();
        assert!(answer.status.is_success() && !answer.body.contains(CANARY), "{path}: {answer:?}");
    }
    for path in [&format!("{BUILDS}/1/stages/1/steps/1/log"), &format!("{page}/1/1")] {
        let answer = world.admin.get(path).await.unwrap();
        assert!(answer.body.contains("********") && !answer.body.contains(CANARY), "{path}: {answer:?}");
    }
    let mut looked_at = 0;
    let mut folders = vec![world.beespace.app.config.data.dir.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()), "{:?}", entry.path());
            looked_at += 1;
        }
    }
    assert!(looked_at > 3);
    let removed = world.admin.call(Method::DELETE, &format!("{path}/token"), &json!({})).await.unwrap();
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    assert_eq!(world.get(path).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stage_starts_on_a_full_disk_and_the_reason_is_shown() {
    let world = World::start(|_| "[limits]\nfree_disk = \"8000000GiB\"\n".to_owned()).await;
    world.push(ONE_STEP).await;
    let waits = |build: &Value| build["stages"][0]["reason"]["code"] == "disk-full";
    let build = world.when("the stage to wait for disk space", &format!("{BUILDS}/1"), waits).await;
    assert_eq!(build["stages"][0]["status"], "pending");
    let ready = world.admin.get("/readyz?verbose").await.unwrap();
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.body.contains("[-] disk: ") && ready.body.contains("[+] store: open"), "{}", ready.body);
    let page = world.admin.get("/ada/hive/1").await.unwrap().body;
    assert!(page.contains("and stages need"), "{page}");
    let list = world.admin.get("/").await.unwrap().body;
    assert!(list.contains("The server is low on disk space"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_lists_each_part_and_hides_details_from_anonymous_users() {
    let world = World::start(no_extra_config).await;
    let response = world.admin.get("/readyz?verbose").await.unwrap();
    assert_eq!(response.status, StatusCode::OK, "{response:?}");
    let stranger = world.beespace.anonymous().get("/readyz?verbose").await.unwrap().body;
    for part in ["store", "workers", "engine", "plugins", "disk"] {
        assert!(response.body.contains(&format!("[+] {part}: ")), "{}", response.body);
        assert!(stranger.contains(&format!("[+] {part}\n")), "{stranger}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_administrators_see_deliveries_and_notices() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start(&gogs, &format!("{DUMMY}{}", notifier(&gogs))).await.unwrap();
    beespace.set_plugin_secret("inbox-key", "a-key-for-the-inbox").await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let admin = beespace.admin().unwrap();
    let listening = |client: &Client| client.request(Method::GET, "/api/v1/events").send();
    let (mut theirs, mut ours) = (listening(&beespace.anonymous()).await.unwrap(), listening(&admin).await.unwrap());
    gogs.push(REPO, "main", &[(".beespace.yml", ONE_STEP)], "Fill cells").await.unwrap();
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    let (mut admin_events, mut anonymous_events) = (String::new(), String::new());
    while !admin_events.contains("notice_changed") {
        admin_events.push_str(&String::from_utf8_lossy(&ours.chunk().await.unwrap().unwrap()));
    }
    assert!(admin_events.contains("delivery_stored") && admin_events.contains("delivery_processed"), "{admin_events}");
    // Everything before the second build has been sent by now.
    gogs.push(REPO, "main", &[(".beespace.yml", &format!("name: again\n{ONE_STEP}"))], "Fill more").await.unwrap();
    let second = beespace.wait_for_build(REPO, 2, |_| true).await.unwrap().id.to_string();
    while !anonymous_events.contains(&second) {
        anonymous_events.push_str(&String::from_utf8_lossy(&theirs.chunk().await.unwrap().unwrap()));
    }
    assert!(anonymous_events.contains("build_finished") && anonymous_events.contains("event: resync"), "{anonymous_events}");
    for secret in ["delivery", "notice"] {
        assert!(!anonymous_events.contains(secret), "{secret}: {anonymous_events}");
    }
}
