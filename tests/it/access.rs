//! Access control: every route of the table, called by every kind of caller.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::{get, post};
use beespace::access::{Access, RULES, Right, Rule};
use beespace::store::repository::Repository;
use beespace::store::session::Session;
use beespace::{api, router};
use beespace_core::digest::Digest;
use beespace_tests::beespace::Beespace;
use beespace_tests::client::{Client, HttpResponse};
use beespace_tests::gogs::FakeGogs;
use reqwest::{Method, StatusCode, header};

const DUMMY: &str = "[engine]\nkind = \"dummy\"\n";

async fn world(server: &str) -> (FakeGogs, Beespace) {
    let gogs = FakeGogs::start().await.unwrap();
    let beespace = Beespace::start_with(&gogs, server, DUMMY).await.unwrap();
    (gogs, beespace)
}

/// The path of a route with a value for each of its parameters.
fn filled(path: &str) -> String {
    let id = uuid::Uuid::nil().to_string();
    let holes = [("{key}", "0"), ("{owner}", "ada"), ("{name}", "hive"), ("{number}", "1"), ("{stage}", "1"), ("{step}", "1")];
    let path = holes.iter().fold(path.to_owned(), |path, (hole, value)| path.replace(hole, value));
    path.replace("{id}", &id)
        .replace("{notifier}", "inbox")
        .replace("{secret}", "token")
        .replace("{schedule}", "nightly")
        .replace("{file}", "none.css")
}

fn is_page(rule: &Rule) -> bool {
    !rule.path.starts_with("/api/") && !matches!(rule.path, "/healthz" | "/readyz" | "/version" | "/metrics" | "/-/hook/{key}")
}

async fn ask(client: &Client, beespace: &Beespace, rule: &Rule, csrf: &str) -> HttpResponse {
    let request = client.request(rule.method.clone(), &filled(rule.path));
    let request = if rule.method.is_safe() { request } else { request.header(header::ORIGIN, &beespace.url) };
    let request = match (rule.method.is_safe(), is_page(rule)) {
        (true, _) => request,
        (false, true) => request.form(&[("csrf", csrf)]),
        (false, false) => request.json(&serde_json::json!({})),
    };
    client.send_for_headers(request).await.unwrap()
}

fn is_refused(answer: &HttpResponse) -> bool {
    let signs_in = answer.header("location").starts_with("/-/login");
    signs_in || matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// The sign-in form reports a missing token by itself, and a delivery is authenticated by its signature.
fn authenticates_itself(rule: &Rule) -> bool {
    rule.access == Access::Hook || (rule.method == Method::POST && rule.path == "/-/login")
}

async fn walk(client: &Client, beespace: &Beespace, csrf: &str, may: impl Fn(&Rule) -> bool) {
    for rule in RULES.iter().filter(|rule| !authenticates_itself(rule)) {
        let answer = ask(client, beespace, rule, csrf).await;
        assert_eq!(!is_refused(&answer), may(rule), "{} {}: {answer:?}", rule.method, rule.path);
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{} {}", rule.method, rule.path);
    }
}

fn needs_only_reading(rule: &Rule) -> bool {
    matches!(rule.access, Access::Reader | Access::Repository(Right::Read))
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_users_read_nothing_on_a_closed_server() {
    let (_gogs, beespace) = world("").await;
    let anonymous = beespace.anonymous();
    walk(&anonymous, &beespace, "", |rule| rule.access == Access::Anonymous).await;
    for rule in RULES.iter().filter(|rule| !matches!(rule.access, Access::Anonymous | Access::Hook)) {
        let answer = ask(&anonymous, &beespace, rule, "").await;
        let is_led_to_the_form = is_page(rule) && rule.method == Method::GET;
        let expected = if is_led_to_the_form { StatusCode::SEE_OTHER } else { StatusCode::UNAUTHORIZED };
        assert_eq!(answer.status, expected, "{} {}", rule.method, rule.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_users_read_an_open_server_and_change_nothing() {
    let (_gogs, beespace) = world("open = true").await;
    walk(&beespace.anonymous(), &beespace, "", |rule| rule.access == Access::Anonymous || needs_only_reading(rule)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_token_allows_everything_except_page_forms() {
    let (_gogs, beespace) = world("").await;
    let admin = beespace.admin().unwrap();
    // A form belongs to a session, whose CSRF token it carries; programs use the API.
    let is_form = |rule: &Rule| is_page(rule) && rule.method == Method::POST && rule.access != Access::Anonymous;
    walk(&admin, &beespace, "", |rule| !is_form(rule)).await;
    let wrong = beespace.anonymous().with_token("bee_0000000000000000000000000000000000000000");
    walk(&wrong, &beespace, "", |rule| rule.access == Access::Anonymous).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_server_refuses_a_wrong_token_instead_of_ignoring_it() {
    let (_gogs, beespace) = world("open = true").await;
    let stranger = beespace.anonymous();
    assert_eq!(stranger.get("/api/v1/builds").await.unwrap().status, StatusCode::OK);
    let refused = stranger.with_token("bee_0000000000000000000000000000000000000000").get("/api/v1/builds").await.unwrap();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{refused:?}");
    assert_eq!(refused.json().unwrap()["code"], "invalid-token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_authenticates_the_identity_that_is_stored_with_it_and_an_unknown_kind_is_refused() {
    let (_gogs, beespace) = world("").await;
    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    let (_, token) = session.cookie().unwrap().split_once('=').unwrap();
    let key = Digest::of(token);
    let stored = beespace.app.store.read().unwrap().session(key).unwrap().unwrap();
    assert_eq!((stored.principal_kind.as_str(), stored.principal_id.as_str()), ("admin", "admin"));
    let csrf = csrf(session.cookie().unwrap());
    for kind in ["user", "anonymous", "Admin", ""] {
        let row = Session { principal_kind: kind.to_owned(), principal_id: "admin".to_owned(), ..stored.clone() };
        beespace.app.store.put_session(key, row).await.unwrap();
        for rule in RULES.iter().filter(|rule| !authenticates_itself(rule) && rule.path != "/-/logout") {
            let answer = ask(&session, &beespace, rule, &csrf).await;
            assert_eq!(!is_refused(&answer), rule.access == Access::Anonymous, "{kind:?}: {} {}", rule.method, rule.path);
        }
        let user = session.get("/api/v1/user").await.unwrap().json().unwrap();
        assert_eq!((&user["id"], &user["is_admin"]), (&"anonymous".into(), &false.into()), "{kind:?}");
    }
    let other = Session { principal_id: "ops".to_owned(), ..stored };
    beespace.app.store.put_session(key, other).await.unwrap();
    assert_eq!(session.get("/api/v1/user").await.unwrap().json().unwrap()["id"], "ops");
}

/// The Rust files in a folder and its subfolders.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// A handler gets repositories and builds through the extractors of `authorized.rs`, after the caller's right was checked.
#[test]
fn no_handler_looks_up_a_repository_or_a_build_by_name() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src");
    for path in sources(&source.join("api")).into_iter().chain(sources(&source.join("web"))) {
        let text = std::fs::read_to_string(&path).unwrap();
        for lookup in [".repository_by_name(", ".build_by_number(", ".find_repository(", ".find_build("] {
            assert!(!text.contains(lookup), "{} calls {lookup}..)", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_checks_nothing_runs_only_for_a_caller_with_the_right() {
    let (gogs, beespace) = world("open = true").await;
    for name in ["ada/hive", "ada/secret"] {
        gogs.create_private_repository(name).await.unwrap();
        beespace.enable(name).await.unwrap();
    }
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let careless = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready("leaked")
    };
    let routes = Router::new()
        .route("/{owner}/{name}/{number}", get(careless.clone()))
        .route("/api/v1/repositories/{owner}/{name}/builds/{number}/cancel", post(careless));
    let (url, serving) = serve(router::with_middleware(&beespace.app, routes)).await;
    let (anonymous, admin) = (Client::new(&url), Client::new(&url).with_token(&beespace.admin_token().unwrap()));
    let cancel = "/api/v1/repositories/ada/secret/builds/1/cancel";
    let read = anonymous.get("/ada/secret/1").await.unwrap();
    let request = anonymous.request(Method::POST, cancel).header(header::ORIGIN, &url);
    let changed = anonymous.send(request).await.unwrap();
    assert_eq!((read.status, changed.status), (StatusCode::NOT_FOUND, StatusCode::UNAUTHORIZED));
    assert!(!read.body.contains("leaked") && !changed.body.contains("leaked"));
    assert_eq!(runs.load(Ordering::SeqCst), 0, "neither handler began");
    assert_eq!(admin.get("/ada/secret/1").await.unwrap().body, "leaked");
    assert_eq!(admin.post(cancel, &serde_json::json!({})).await.unwrap().body, "leaked");
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    serving.abort();
}

const PIPELINE: &str = "steps:\n  - name: build\n    image: busybox\n";

/// A path of the private repository `ada/secret`, or a list.
fn private(path: &str) -> String {
    filled(path).replace("ada/hive", "ada/secret")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_server_hides_private_repositories_from_anonymous_callers() {
    let (gogs, beespace) = world("open = true").await;
    gogs.create_repository("ada/hive").await.unwrap();
    gogs.create_private_repository("ada/secret").await.unwrap();
    for name in ["ada/hive", "ada/secret"] {
        beespace.enable(name).await.unwrap();
        gogs.push(name, "main", &[(".beespace.yml", PIPELINE)], &format!("Fill {name}")).await.unwrap();
        beespace.wait_until_finished(name, 1).await.unwrap();
    }
    let (anonymous, admin) = (beespace.anonymous(), beespace.admin().unwrap());
    for rule in RULES.iter().filter(|rule| rule.method == Method::GET && needs_only_reading(rule)) {
        // Streams do not end; the next test reads them.
        if rule.path.ends_with("/events") || rule.path.ends_with("/stream") {
            continue;
        }
        let path = private(rule.path);
        let answer = anonymous.get(&path).await.unwrap();
        let is_list = rule.access == Access::Reader;
        assert_eq!(answer.status, if is_list { StatusCode::OK } else { StatusCode::NOT_FOUND }, "{path}: {answer:?}");
        for trace in ["ada/secret", "/ada/secret", "Fill ada/secret"] {
            assert!(!is_list || !answer.body.contains(trace), "{path} shows {trace}");
        }
        assert_eq!(admin.get(&path).await.unwrap().status, StatusCode::OK, "{path}");
    }
    let stream = "/api/v1/repositories/ada/secret/builds/1/stages/1/steps/1/log/stream";
    assert_eq!(anonymous.get(stream).await.unwrap().status, StatusCode::NOT_FOUND);
    assert_eq!(anonymous.get("/api/v1/events?repository=ada/secret").await.unwrap().status, StatusCode::NOT_FOUND);
    let (hidden, missing) = (anonymous.get("/ada/secret").await.unwrap(), anonymous.get("/ada/none").await.unwrap());
    let without_id = |answer: &HttpResponse| answer.body.replace(answer.header("x-request-id"), "").replace("secret", "none");
    assert_eq!(without_id(&hidden), without_id(&missing), "a private repository looks like one that does not exist");
    for path in ["/", "/ada", "/api/v1/builds", "/api/v1/repositories"] {
        assert!(anonymous.get(path).await.unwrap().body.contains("ada/hive"), "{path} shows the public repository");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anonymous_event_stream_is_silent_about_a_repository_that_became_private() {
    let (gogs, beespace) = world("open = true").await;
    for name in ["ada/later", "ada/secret"] {
        gogs.create_repository(name).await.unwrap();
        beespace.enable(name).await.unwrap();
    }
    let client = beespace.anonymous();
    let mut stream = client.request(Method::GET, "/api/v1/events").send().await.unwrap();
    let mut events = String::new();
    let mut read_until = async |id: &str| {
        while !events.contains(id) {
            let chunk = tokio::time::timeout(beespace_tests::WAIT_TIMEOUT, stream.chunk()).await.expect("no event").unwrap();
            events.push_str(&String::from_utf8_lossy(&chunk.unwrap()));
        }
        events.clone()
    };
    let build = async |name: &str, number: u64| {
        gogs.push(name, "main", &[(".beespace.yml", PIPELINE)], "Fill cells").await.unwrap();
        beespace.wait_until_finished(name, number).await.unwrap().id.to_string()
    };
    let public = build("ada/secret", 1).await;
    read_until(&public).await;
    gogs.set_private("ada/secret", true).unwrap();
    let id = beespace.build("ada/secret", 1).unwrap().unwrap().event.repository.id;
    let hide = |row: Option<Repository>| Ok(Repository { is_private: true, ..row.unwrap() });
    beespace.app.store.change_repository(id, hide).await.unwrap();
    let restart = "/api/v1/repositories/ada/secret/builds/1/restart";
    let restarted = beespace.admin().unwrap().post(restart, &serde_json::json!({})).await.unwrap();
    let private = restarted.json().unwrap()["id"].as_str().unwrap().to_owned();
    beespace.wait_until_finished("ada/secret", 2).await.unwrap();
    let last = build("ada/later", 1).await;
    let events = read_until(&last).await;
    assert!(!events.contains(&private), "{events}");
    assert_eq!(client.get("/ada/secret").await.unwrap().status, StatusCode::NOT_FOUND);
    gogs.set_private("ada/secret", false).unwrap();
    beespace.enable("ada/secret").await.unwrap();
    assert_eq!(client.get("/ada/secret").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_the_rights_of_the_token_until_it_ends() {
    let (_gogs, beespace) = world("").await;
    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    let csrf = csrf(session.cookie().unwrap());
    for rule in RULES.iter().filter(|rule| !authenticates_itself(rule) && rule.path != "/-/logout") {
        let answer = ask(&session, &beespace, rule, &csrf).await;
        assert!(!is_refused(&answer), "{} {}: {answer:?}", rule.method, rule.path);
    }
    let ended = session.form("/-/logout", &[("csrf", &csrf)]).await.unwrap();
    assert_eq!(ended.status, StatusCode::SEE_OTHER);
    assert!(ended.header("set-cookie").contains("Max-Age=0"), "{ended:?}");
    assert_eq!(session.get("/api/v1/doctor").await.unwrap().status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_admin_token_ends_every_session() {
    let (_gogs, mut beespace) = world("").await;
    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    let cookie = session.cookie().unwrap().to_owned();
    let status = async |beespace: &Beespace| {
        let client = beespace.anonymous();
        let request = client.request(Method::GET, "/api/v1/doctor").header("cookie", &cookie);
        client.send(request).await.unwrap().status
    };
    assert_eq!(status(&beespace).await, StatusCode::OK);
    beespace = beespace.restart().await.unwrap();
    assert_eq!(status(&beespace).await, StatusCode::OK, "a restart alone ends no session");
    std::fs::write(beespace.app.config.data.admin_token_path(), format!("bee_{}", "0".repeat(64))).unwrap();
    beespace = beespace.restart().await.unwrap();
    assert_eq!(status(&beespace).await, StatusCode::UNAUTHORIZED);
}

/// The CSRF token of a session's forms; only pages of the session contain it.
fn csrf(cookie: &str) -> String {
    let (_, token) = cookie.split_once('=').unwrap();
    Digest::of_parts([b"beespace form".as_slice(), token.as_bytes()]).hex()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_page_cannot_use_the_session_cookie_to_change_anything() {
    let (_gogs, beespace) = world("").await;
    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("x-nothing", "at all"),
    ] {
        for path in ["/api/v1/repositories", "/ada/hive/1/restart", "/-/logout"] {
            let request =
                session.request(Method::POST, path).header(name, value).json(&serde_json::json!({ "name": "ada/hive" }));
            let answer = session.send(request).await.unwrap();
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} with {name}: {value}: {answer:?}");
        }
    }
    let without_proof = session.form("/ada/hive/1/restart", &[]).await.unwrap();
    assert_eq!(without_proof.status, StatusCode::FORBIDDEN);
    assert_eq!(session.get("/api/v1/doctor").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_and_other_hosts_cannot_read_the_cookie() {
    let (_gogs, plain) = world("").await;
    let (_gogs, safe) = world("public_url = \"https://ci.example.org\"").await;
    for (beespace, name, is_secure) in [(plain, "beespace-", false), (safe, "__Host-beespace-", true)] {
        let token = beespace.admin_token().unwrap();
        let answer = beespace.anonymous().form("/-/login", &[("token", &token)]).await.unwrap();
        let cookie = answer.header("set-cookie");
        assert!(cookie.starts_with(name), "{cookie}");
        for attribute in ["; Path=/", "; HttpOnly", "; SameSite=Lax"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        assert_eq!(cookie.contains("; Secure"), is_secure, "{cookie}");
        assert!(!cookie.contains("Domain"), "{cookie}");
    }
}

/// A browser sends the cookies of a host to every port of it.
#[tokio::test(flavor = "multi_thread")]
async fn signing_in_to_another_server_of_the_host_ends_no_session() {
    let (_gogs, first) = world("").await;
    let (_gogs, second) = world("").await;
    let mut names = std::collections::BTreeSet::new();
    let mut jar = Vec::new();
    for beespace in [&first, &second] {
        let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
        let cookie = session.cookie().unwrap().to_owned();
        names.insert(cookie.split('=').next().unwrap().to_owned());
        jar.push(cookie);
    }
    assert_eq!(names.len(), 2, "a cookie of one would replace that of the other: {names:?}");
    for beespace in [&first, &second] {
        let client = beespace.anonymous().with_cookie(&jar.join("; "));
        assert_eq!(client.get("/api/v1/doctor").await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_in_redirects_only_to_this_server() {
    let (_gogs, beespace) = world("").await;
    let token = beespace.admin_token().unwrap();
    let anonymous = beespace.anonymous();
    for next in ["//evil", "/\\evil", "https:evil", "https://evil", "/a\r\nSet-Cookie: a=b", "\t//evil", ""] {
        let answer = anonymous.form("/-/login", &[("token", &token), ("next", next)]).await.unwrap();
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/"), "{next:?}");
        assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 1);
    }
    let answer = anonymous.form("/-/login", &[("token", &token), ("next", "/ada/hive?x=1")]).await.unwrap();
    assert_eq!(answer.header("location"), "/ada/hive?x=1");
    let wrong = anonymous.form("/-/login", &[("token", "guess"), ("next", "//evil")]).await.unwrap();
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(!wrong.body.contains("//evil") && wrong.header("set-cookie").is_empty());
    let led = anonymous.get("/ada/hive?status=failure").await.unwrap();
    assert_eq!(led.header("location"), "/-/login?next=%2Fada%2Fhive%3Fstatus%3Dfailure");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_session_row_cannot_be_used_to_sign_in() {
    let (_gogs, beespace) = world("").await;
    let token = beespace.admin_token().unwrap();
    let cookie = beespace.anonymous().form("/-/login", &[("token", &token)]).await.unwrap().header("set-cookie").to_owned();
    let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
    let value = value.to_owned();
    let kept = Digest::of(&value);
    assert!(beespace.app.store.read().unwrap().session(kept).unwrap().is_some());
    for stolen in [kept.hex(), kept.to_string(), hex::encode(kept.0)] {
        let thief = beespace.anonymous().with_cookie(&format!("{name}={stolen}"));
        assert_eq!(thief.get("/api/v1/doctor").await.unwrap().status, StatusCode::UNAUTHORIZED, "{stolen}");
    }
    let file = std::fs::read(beespace.app.config.data.dir.join("beespace.redb")).unwrap();
    for secret in [&value, &token] {
        assert!(!file.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_cookie_never_becomes_a_session() {
    let (_gogs, beespace) = world("").await;
    let own = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    let (name, _) = own.cookie().unwrap().split_once('=').unwrap();
    let planted = beespace.anonymous().with_cookie(&format!("{name}=chosen-by-somebody-else"));
    let signed_in = planted.sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    assert_ne!(signed_in.cookie(), planted.cookie());
    assert_eq!(signed_in.get("/api/v1/doctor").await.unwrap().status, StatusCode::OK);
    assert_eq!(planted.get("/api/v1/doctor").await.unwrap().status, StatusCode::UNAUTHORIZED);
}

/// The routes that `.route("PATH", get(..).post(..))` registers in a source file.
fn registered(source: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src").join(source)).unwrap();
    let routes = text.split(".route(").skip(1).flat_map(|call| {
        // The next call, or the end of the chain, ends this one.
        let call = call.split(['\n', ';']).next().unwrap();
        let (path, methods) = call.split_once(',').unwrap();
        let path = path.trim().trim_matches('"').to_owned();
        let methods = ["get", "post", "put", "delete", "patch"].into_iter().filter(move |m| methods.contains(&format!("{m}(")));
        methods.map(move |method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    });
    routes.collect()
}

#[test]
fn every_access_row_is_a_route_and_every_route_has_a_row() {
    let rows: BTreeSet<(String, String)> = RULES.iter().map(|rule| (rule.method.to_string(), rule.path.to_owned())).collect();
    let mut routes: BTreeSet<(String, String)> = registered("web/mod.rs").into_iter().chain(registered("api/mod.rs")).collect();
    routes.insert(("POST".to_owned(), format!("{}{{key}}", beespace::webhook_secret::PATH_PREFIX)));
    let document = serde_json::to_value(api::document()).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        routes.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    assert_eq!(rows, routes);
}

/// Serves a router.
async fn serve(router: Router) -> (String, tokio::task::JoinHandle<std::io::Result<()>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, tokio::spawn(async move { axum::serve(listener, router).await }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_without_an_access_row_is_refused() {
    let (_gogs, beespace) = world("open = true").await;
    let forgotten = Router::new().route("/api/v1/forgotten", get(|| async { "leaked" }));
    let (url, serving) = serve(router::router(&beespace.app, forgotten)).await;
    for client in [Client::new(&url), Client::new(&url).with_token(&beespace.admin_token().unwrap())] {
        let answer = client.get("/api/v1/forgotten").await.unwrap();
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{answer:?}");
        assert!(!answer.body.contains("leaked"));
    }
    serving.abort();
}
