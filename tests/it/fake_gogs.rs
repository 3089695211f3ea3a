//! The fake Gogs behaves as the recordings of a real one.

use std::time::{Duration, Instant};

use beespace_core::verify::verify;
use beespace_tests::gogs::{Access, Delivery, FakeGogs, Faults, Settings};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const ZERO: &str = "0000000000000000000000000000000000000000";
const SECRET: &str = "s3cret";

/// A fake Gogs with the repository `acme/app`.
struct World {
    gogs: FakeGogs,
    client: reqwest::Client,
}

async fn world() -> World {
    world_with(Settings::default()).await
}

async fn world_with(settings: Settings) -> World {
    // The client needs a provider even without TLS. Another test may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let gogs = FakeGogs::start_with(settings).await.unwrap();
    gogs.create_repository("acme/app").await.unwrap();
    World { gogs, client: reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap() }
}

impl World {
    /// Status and JSON (null if there is none) of an API call with this `Authorization`.
    async fn call_as(&self, authorization: &str, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request =
            self.client.request(method, format!("{}{path}", self.gogs.url())).header("authorization", authorization);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.call_as(&format!("token {}", self.gogs.token()), method, path, body).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, None).await
    }

    /// Creates a webhook of `acme/app` for all events of a push. Returns its id.
    async fn hook(&self, url: &str, content_type: &str) -> u64 {
        let config = json!({ "url": url, "content_type": content_type, "secret": SECRET });
        let body = json!({ "type": "gogs", "active": true, "events": ["push", "create", "delete", "release"], "config": config });
        let (status, hook) = self.call(Method::POST, "/api/v1/repos/acme/app/hooks", Some(body)).await;
        assert_eq!(status, StatusCode::CREATED);
        hook["id"].as_u64().unwrap()
    }

    /// Creates a webhook that points to the inbox.
    async fn inbox_hook(&self) -> u64 {
        self.hook(&self.gogs.inbox_url("hook"), "json").await
    }

    async fn push(&self, branch: &str, files: &[(&str, &str)], message: &str) -> String {
        self.gogs.push("acme/app", branch, files, message).await.unwrap()
    }

    /// The events after the first `skip` deliveries.
    async fn events_of(&self, skip: usize) -> Vec<(String, Value)> {
        let deliveries = self.gogs.wait_until_delivered().await.unwrap();
        deliveries.iter().skip(skip).map(|it| (it.event.clone(), it.payload().unwrap())).collect()
    }
}

fn events(received: &[(String, Value)]) -> Vec<&str> {
    received.iter().map(|(event, _)| event.as_str()).collect()
}

fn ids(push: &Value) -> Vec<&str> {
    push["commits"].as_array().unwrap().iter().map(|commit| commit["id"].as_str().unwrap()).collect()
}

/// Runs git as a developer does.
async fn git(folder: &std::path::Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = tokio::process::Command::new("git");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
    let output = command.current_dir(folder).args(arguments).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

struct Recorded {
    headers: Vec<String>,
    event: String,
    payload: Value,
}

fn recorded() -> Vec<Recorded> {
    let path = format!("{}/fixtures/gogs/deliveries-v0.14.3.jsonl", env!("CARGO_MANIFEST_DIR"));
    let records = std::fs::read_to_string(path).unwrap();
    let record = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        let headers: Vec<(String, String)> = serde_json::from_value(record["headers"].clone()).unwrap();
        let event = headers.iter().find(|(name, _)| name == "X-Gogs-Event").unwrap().1.clone();
        let payload = serde_json::from_str(record["raw_json"].as_str().unwrap()).unwrap();
        Recorded { headers: headers.into_iter().map(|(name, _)| name).collect(), event, payload }
    };
    records.lines().map(record).collect()
}

/// The keys in their order, with the kinds of their values. A list is represented by its first element.
fn shape(value: &Value, place: &str, into: &mut Vec<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    into.push(format!("{place}: {kind}"));
    match value {
        Value::Array(list) => list.iter().take(1).for_each(|first| shape(first, &format!("{place}[]"), into)),
        Value::Object(map) => map.iter().for_each(|(key, value)| shape(value, &format!("{place}.{key}"), into)),
        _ => {}
    }
}

fn assert_shape_was_recorded(event: &str, payload: &Value) {
    let mut made = Vec::new();
    shape(payload, "", &mut made);
    let shapes = recorded().into_iter().filter(|record| record.event == event).map(|record| {
        let mut shape_of_record = Vec::new();
        shape(&record.payload, "", &mut shape_of_record);
        shape_of_record
    });
    assert!(shapes.into_iter().any(|known| known == made), "no {event} of this shape was recorded: {made:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_have_the_recorded_shapes() {
    let world = world().await;
    world.inbox_hook().await;
    world.push("master", &[("a.txt", "1")], "first").await;
    world.push("master", &[("a.txt", "2")], "second").await;
    world.push("topic", &[("b/c.txt", "1")], "on a branch").await;
    world.gogs.tag("acme/app", "topic", "v1", Some("annotated")).await.unwrap();
    world.gogs.delete_branch("acme/app", "topic").await.unwrap();
    let received = world.events_of(0).await;
    assert_eq!(events(&received), ["create", "push", "push", "create", "push", "create", "delete"]);
    for (event, payload) in &received {
        assert_shape_was_recorded(event, payload);
    }
    let empty: Vec<bool> = received.iter().map(|(_, payload)| payload["repository"]["empty"].as_bool().unwrap()).collect();
    assert_eq!(empty, [true, true, false, false, false, false, false], "the very first push reports an empty repository");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_matches_the_recording_byte_for_byte_and_verifies() {
    let world = world().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.hook(&format!("http://{}/-/hook/key?x=1", listener.local_addr().unwrap()), "json").await;
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        loop {
            stream.read_buf(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                return (head.to_owned(), body.to_owned());
            }
        }
    });
    world.push("master", &[("a & b.txt", "1")], "<first>").await;
    let (head, body) = receiver.await.unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    assert_eq!(line, "POST /-/hook/key?x=1 HTTP/1.1");
    let headers: Vec<(&str, &str)> = headers.lines().map(|header| header.split_once(": ").unwrap()).collect();
    assert_eq!(headers.iter().map(|(name, _)| *name).collect::<Vec<_>>(), recorded()[0].headers);
    let header = |wanted: &str| headers.iter().find(|(name, _)| *name == wanted).unwrap().1;
    assert_eq!((header("User-Agent"), header("Content-Type")), ("GogsServer", "application/json"));
    assert_eq!(header("X-Gogs-Delivery"), header("X-Github-Delivery"));
    assert!(body.starts_with("{\n  \"ref\": \"master\",\n  \"ref_type\": \"branch\","));
    assert!(verify(body.into_bytes(), SECRET.as_bytes(), Some(header("X-Gogs-Signature"))).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_signed_over_its_decoded_payload() {
    let world = world().await;
    world.hook(&world.gogs.inbox_url("form"), "form").await;
    world.push("master", &[("a.txt", "1")], "ünï & + %").await;
    let received = world.gogs.wait_for_inbox("form", 2).await.unwrap();
    let [_, push] = received.as_slice() else { panic!("create and push") };
    assert_eq!(push.header("content-type"), Some("application/x-www-form-urlencoded"));
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(push.body.as_bytes()).into_owned().collect();
    let [(name, payload)] = fields.as_slice() else { panic!("one field") };
    assert_eq!(name, "payload");
    assert!(verify(payload.clone().into_bytes(), SECRET.as_bytes(), push.header("x-gogs-signature")).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_branch_is_created_then_pushed_with_at_most_five_ancestors() {
    let world = world().await;
    let mut commits = Vec::new();
    for number in 0..7 {
        commits.push(world.push("main", &[("n", &number.to_string())], &format!("commit {number}")).await);
    }
    world.inbox_hook().await;
    let head = world.push("topic/one", &[("t", "1")], "topic").await;
    let received = world.events_of(0).await;
    let [(create, created), (push, pushed)] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!((create.as_str(), push.as_str()), ("create", "push"));
    assert_eq!((&created["ref"], &created["ref_type"], &created["sha"]), (&json!("topic/one"), &json!("branch"), &json!("")));
    assert_eq!(created["default_branch"], "main", "the first branch that was pushed is the default one");
    assert_eq!(
        (&pushed["ref"], &pushed["before"], &pushed["after"]),
        (&json!("refs/heads/topic/one"), &json!(ZERO), &json!(head))
    );
    assert_eq!(pushed["compare_url"], "");
    assert_eq!(ids(pushed), [&head, &commits[6], &commits[5], &commits[4], &commits[3]]);
    assert_eq!((&pushed["pusher"]["username"], &pushed["sender"]["username"]), (&json!("ada"), &json!("ada")));
    assert_eq!(pushed["commits"][0]["author"]["username"], "ada");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_force_push_lists_added_and_removed_commits() {
    let world = world().await;
    world.push("master", &[("a", "1")], "kept").await;
    let gone = world.push("master", &[("a", "2")], "gone").await;
    world.inbox_hook().await;
    let new = world.gogs.force_push("acme/app", "master", &[("a", "3")], "new").await.unwrap();
    let received = world.events_of(0).await;
    assert_eq!(events(&received), ["push"]);
    let mut listed = ids(&received[0].1);
    listed.sort_unstable();
    let mut expected = [gone.as_str(), new.as_str()];
    expected.sort_unstable();
    assert_eq!(listed, expected);
    assert_eq!(received[0].1["compare_url"], format!("{}/acme/app/compare/{gone}...{new}", world.gogs.url()));
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_deletions_send_no_push_event() {
    let world = world().await;
    let head = world.push("master", &[("a", "1")], "first").await;
    world.inbox_hook().await;
    let light = world.gogs.tag("acme/app", "master", "v1", None).await.unwrap();
    let object = world.gogs.tag("acme/app", "master", "rel/2", Some("two")).await.unwrap();
    assert_eq!(light, head);
    assert_ne!(object, head, "an annotated tag is reported with its own id");
    world.push("gone", &[], "nothing").await;
    world.gogs.delete_branch("acme/app", "gone").await.unwrap();
    let received = world.events_of(0).await;
    assert_eq!(events(&received), ["create", "create", "create", "push", "delete"]);
    assert_eq!(
        (&received[0].1["ref"], &received[0].1["ref_type"], &received[0].1["sha"]),
        (&json!("v1"), &json!("tag"), &json!(light))
    );
    assert_eq!((&received[1].1["ref"], &received[1].1["sha"]), (&json!("rel/2"), &json!(object)));
    assert_eq!((&received[4].1["ref"], &received[4].1["pusher_type"]), (&json!("gone"), &json!("user")));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_refs_count_as_branches_with_their_full_name() {
    let world = world().await;
    world.push("master", &[("a", "1")], "first").await;
    world.inbox_hook().await;
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("master").await.unwrap();
    copy.git(&["push", "--quiet", "origin", "HEAD:refs/foo/bar", "HEAD:refs/heads/z"]).await.unwrap();
    let received = world.events_of(0).await;
    assert_eq!(events(&received), ["create", "push", "create", "push"], "ref by ref");
    let refs: Vec<_> = received.iter().map(|(_, payload)| payload["ref"].as_str().unwrap()).collect();
    let mut sorted = [&refs[..2], &refs[2..]];
    sorted.sort_unstable();
    assert_eq!(sorted, [["refs/foo/bar", "refs/foo/bar"], ["z", "refs/heads/z"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn author_names_end_at_the_first_space_and_renames_are_not_listed() {
    let world = world().await;
    world.push("master", &[("with space.txt", "1"), ("日本語 ファイル.txt", "2"), ("old.txt", "the same\n")], "first").await;
    world.inbox_hook().await;
    let mut copy = world.gogs.clone_repository("acme/app").await.unwrap();
    copy.checkout("master").await.unwrap();
    copy.git(&["mv", "old.txt", "new.txt"]).await.unwrap();
    copy.git(&["rm", "--quiet", "with space.txt"]).await.unwrap();
    copy.commit(&[("日本語 ファイル.txt", "3"), ("q\"uote\\back.txt", "4")], "second").await.unwrap();
    copy.git(&["push", "--quiet", "origin", "HEAD:refs/heads/master"]).await.unwrap();
    let received = world.events_of(0).await;
    let commit = &received[0].1["commits"][0];
    assert_eq!(commit["added"], json!(["\"q\\\"uote\\\\back.txt\""]));
    assert_eq!(commit["removed"], json!(["with"]));
    assert_eq!(commit["modified"], json!(["日本語"]));
    assert_eq!(commit["message"], "second\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_have_the_quirks_of_gogs() {
    let world = world().await;
    let hooks = "/api/v1/repos/acme/app/hooks";
    let config = json!({ "url": "http://127.0.0.1:1/a", "content_type": "json", "secret": SECRET });
    let (status, minimal) = world.call(Method::POST, hooks, Some(json!({ "type": "gogs", "config": config }))).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!((&minimal["active"], &minimal["events"]), (&json!(false), &json!(["push"])));
    assert_eq!(minimal["created_at"], "0001-01-01T00:00:00Z");
    assert_eq!(minimal["config"], json!({ "content_type": "json", "url": "http://127.0.0.1:1/a" }), "no secret");
    let unknown = json!({ "type": "gogs", "config": config, "events": ["status"] });
    assert_eq!(world.call(Method::POST, hooks, Some(unknown)).await.1["events"], json!([]));
    for refused in [
        json!({ "type": "github", "config": config }),
        json!({ "type": "gogs", "config": { "content_type": "json" } }),
        json!({ "type": "gogs", "config": { "url": "http://x" } }),
        json!({ "type": "gogs", "config": { "url": "http://x", "content_type": "xml" } }),
    ] {
        let (status, answer) = world.call(Method::POST, hooks, Some(refused)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer["message"].is_string());
    }
    let one = format!("{hooks}/{}", minimal["id"]);
    assert_eq!(world.get(&one).await.0, StatusCode::NOT_FOUND, "Gogs shows no single hook");
    let edit =
        json!({ "config": { "url": world.gogs.inbox_url("moved"), "content_type": "json", "secret": "other" }, "active": true });
    let (status, edited) = world.call(Method::PATCH, &one, Some(edit)).await;
    assert_eq!((status, &edited["events"]), (StatusCode::OK, &json!(["push"])));
    world.push("master", &[("a", "1")], "first").await;
    let [push] = world.gogs.wait_for_inbox("moved", 1).await.unwrap().try_into().unwrap();
    let verified =
        |secret: &str| verify(push.body.clone().into_bytes(), secret.as_bytes(), push.header("x-gogs-signature")).is_some();
    assert!(verified(SECRET) && !verified("other"), "a new secret is ignored");
    for _ in 0..2 {
        assert_eq!(world.call(Method::DELETE, &one, None).await.0, StatusCode::NO_CONTENT, "also when it is gone");
    }
    assert_eq!(world.get(hooks).await.1.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_authorization_scheme_is_accepted() {
    let world = world().await;
    let token = world.gogs.token();
    let (status, user) = world.get("/api/v1/user").await;
    assert_eq!((status, &user["username"], &user["login"]), (StatusCode::OK, &json!("ada"), &json!("ada")));
    for refused in [format!("Token {token}"), format!("Bearer {token}"), format!("token  {token} x"), format!("token {ZERO}")] {
        let answer = world.call_as(&refused, Method::GET, "/api/v1/user", None).await;
        assert_eq!(answer, (StatusCode::UNAUTHORIZED, Value::Null), "{refused}");
    }
    assert_eq!(world.call_as("", Method::GET, &format!("/api/v1/user?token={token}"), None).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get("/api/v1/repos/acme/none").await, (StatusCode::NOT_FOUND, Value::Null));
    assert_eq!(world.client.get(format!("{}/healthcheck", world.gogs.url())).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_are_those_of_the_caller() {
    let world = world().await;
    world.gogs.create_private_repository("acme/secret").await.unwrap();
    let writer = world.gogs.create_user("wim").unwrap();
    world.gogs.grant_access("acme/secret", "wim", Access::Write).unwrap();
    let (bob, eve) = (world.gogs.token_of("bob").unwrap(), world.gogs.token_of("eve").unwrap());
    for (token, permissions) in [
        (world.gogs.token(), json!({ "admin": true, "push": true, "pull": true })),
        (&writer, json!({ "admin": false, "push": true, "pull": true })),
        (&bob, json!({ "admin": false, "push": false, "pull": true })),
    ] {
        let token = format!("token {token}");
        let (status, repository) = world.call_as(&token, Method::GET, "/api/v1/repos/ACME/Secret", None).await;
        assert_eq!((status, &repository["permissions"]), (StatusCode::OK, &permissions));
    }
    let eve = format!("token {eve}");
    assert_eq!(world.call_as(&eve, Method::GET, "/api/v1/repos/acme/secret", None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.call_as(&eve, Method::GET, "/api/v1/user/repos", None).await.1, json!([]), "public ones are not hers");
    let bob = format!("token {bob}");
    assert_eq!(
        world.call_as(&bob, Method::GET, "/api/v1/repos/acme/app/hooks", None).await,
        (StatusCode::FORBIDDEN, Value::Null)
    );
    assert_eq!(world.call_as(&bob, Method::GET, "/api/v1/user/repos", None).await.1.as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn branch_names_may_contain_slashes() {
    let world = world().await;
    assert_eq!(world.get("/api/v1/repos/acme/app/branches").await, (StatusCode::OK, json!([])));
    let sha = world.push("a/b", &[("f", "1")], "first").await;
    let (status, branch) = world.get("/api/v1/repos/acme/app/branches/a/b").await;
    assert_eq!((status, &branch["name"], &branch["commit"]["id"]), (StatusCode::OK, &json!("a/b"), &json!(sha)));
    assert_eq!((&branch["commit"]["url"], &branch["commit"]["added"]), (&json!("Not implemented"), &Value::Null));
    assert_eq!(world.get("/api/v1/repos/acme/app/branches/nope").await, (StatusCode::NOT_FOUND, Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn git_accepts_the_token_as_user_or_password_and_private_repositories_require_it() {
    let world = world().await;
    world.gogs.create_private_repository("acme/secret").await.unwrap();
    let sha = world.gogs.push("acme/secret", "master", &[("a", "1")], "first").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let host = world.gogs.url().strip_prefix("http://").unwrap().to_owned();
    let (bob, eve) = (world.gogs.token_of("bob").unwrap(), world.gogs.token_of("eve").unwrap());
    for credentials in [format!("{bob}:x-oauth-basic"), format!("whoever:{bob}")] {
        let listed =
            git(folder.path(), &["ls-remote", &format!("http://{credentials}@{host}/acme/secret.git"), "refs/heads/master"])
                .await;
        assert_eq!(listed.unwrap(), format!("{sha}\trefs/heads/master"));
    }
    let url = world.gogs.url();
    git(folder.path(), &["ls-remote", &format!("{url}/acme/secret.git")]).await.unwrap_err();
    git(folder.path(), &["ls-remote", &format!("http://{eve}:x@{host}/acme/secret.git")]).await.unwrap_err();
    git(folder.path(), &["ls-remote", &format!("{url}/acme/app.git")]).await.unwrap();
    git(folder.path(), &["clone", "--quiet", &format!("http://{bob}:x@{host}/acme/secret.git"), "copy"]).await.unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("copy/a")).unwrap(), "1");
    let refused = git(&folder.path().join("copy"), &["push", "origin", "HEAD:refs/heads/mine"]).await.unwrap_err();
    assert!(refused.contains("403"), "a reader does not push: {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreferenced_sha_cannot_be_fetched() {
    let world = world().await;
    let old = world.push("master", &[("a", "1")], "first").await;
    let tip = world.push("master", &[("a", "2")], "second").await;
    let folder = tempfile::tempdir().unwrap();
    git(folder.path(), &["init", "--quiet", "--bare", "."]).await.unwrap();
    let url = format!("{}/acme/app.git", world.gogs.url());
    // Current git requests protocol v2, with which any sha can be fetched; Gogs ignores that.
    let refused = git(folder.path(), &["-c", "protocol.version=2", "fetch", "--depth=1", &url, &old]).await.unwrap_err();
    assert!(refused.contains("unadvertised object"), "{refused}");
    git(folder.path(), &["fetch", "--quiet", &url, &tip]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_delivery_is_not_retried_and_redirects_are_not_followed() {
    let world = world().await;
    world.inbox_hook().await;
    for status in [302, 500] {
        world.gogs.set_inbox_status("hook", status);
        let before = world.gogs.deliveries().len();
        world.push("master", &[("a", &status.to_string())], "change").await;
        let delivered = world.gogs.wait_until_delivered().await.unwrap();
        let statuses: Vec<_> = delivered.iter().skip(before).map(|it| (it.attempts.len(), it.status())).collect();
        assert!(statuses.iter().all(|one| *one == (1, Some(status))), "{statuses:?}");
    }
    assert_eq!(world.gogs.inbox("hook").len(), world.gogs.deliveries().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_receiver_delays_all_others() {
    let world = world_with(Settings { delivery_timeout: Duration::from_secs(3), ..Settings::default() }).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_hook = world.hook(&format!("http://{}/", silent.local_addr().unwrap()), "json").await;
    world.inbox_hook().await;
    let started = Instant::now();
    world.push("master", &[("a", "1")], "first").await;
    let delivered = world.gogs.wait_until_delivered().await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(6), "two were waited for");
    for delivery in &delivered {
        assert_eq!(delivery.status(), (delivery.hook != silent_hook).then_some(200));
        assert_eq!(delivery.attempts.len(), 1);
    }
    assert!(delivered[0].attempts[0].error.as_ref().unwrap().contains("no answer within"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_repeats_id_body_and_signature() {
    let world = world().await;
    world.inbox_hook().await;
    world.push("master", &[("a", "1")], "first").await;
    let delivered = world.gogs.wait_until_delivered().await.unwrap();
    let uuid = &delivered[1].uuid;
    let url = format!("{}/control/deliveries/{uuid}/redeliver", world.gogs.url());
    assert_eq!(world.client.post(url).send().await.unwrap().status(), StatusCode::ACCEPTED);
    let received = world.gogs.wait_for_inbox("hook", 3).await.unwrap();
    assert_eq!(received[1].body, received[2].body);
    assert_eq!(received[1].headers, received[2].headers);
    let twice = |all: &[Delivery]| all.iter().any(|it| it.uuid == *uuid && it.attempts.len() == 2);
    world.gogs.wait_for_deliveries("the second attempt", twice).await.unwrap();
    world.gogs.redeliver("unknown").unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_button_sends_a_push_that_moved_nothing() {
    let world = world().await;
    let hook = world.inbox_hook().await;
    world.gogs.test_hook(hook).await.unwrap();
    let head = world.push("master", &[("a", "1")], "first").await;
    world.gogs.test_hook(hook).await.unwrap();
    let received = world.events_of(0).await;
    assert_eq!(events(&received), ["push", "create", "push", "push"]);
    for (payload, (sha, message)) in
        [&received[0].1, &received[3].1].into_iter().zip([(ZERO, "This is a fake commit"), (&head, "first\n")])
    {
        assert_shape_was_recorded("push", payload);
        assert_eq!((&payload["before"], &payload["after"], &payload["compare_url"]), (&json!(sha), &json!(sha), &json!("")));
        assert_eq!(payload["commits"][0]["message"], message);
        assert_eq!(payload["commits"][0]["timestamp"], "0001-01-01T00:00:00Z");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_can_be_injected_and_its_own_pushes_still_work() {
    let world = world().await;
    world.inbox_hook().await;
    world.gogs.set_offline(true);
    assert_eq!(world.get("/api/v1/user").await.0, StatusCode::SERVICE_UNAVAILABLE);
    world.push("master", &[("a", "1")], "while away").await;
    assert_eq!(world.gogs.wait_for_inbox("hook", 2).await.unwrap().len(), 2);
    world.gogs.set_offline(false);
    world.gogs.set_token_revoked(true);
    assert_eq!(world.get("/api/v1/user").await.0, StatusCode::UNAUTHORIZED);
    world.push("master", &[("a", "2")], "with a dead token").await;
    world.gogs.set_faults(Faults { login_prohibited: true, ..Faults::default() });
    assert_eq!(world.get("/api/v1/user").await, (StatusCode::OK, Value::Null), "a page, not JSON");
    world.gogs.set_faults(Faults { redirects: true, ..Faults::default() });
    assert_eq!(world.get("/api/v1/user").await.0, StatusCode::SEE_OTHER);
    world.gogs.set_faults(Faults::default());
    world.gogs.set_delay(Duration::from_millis(50));
    let asked = Instant::now();
    assert_eq!(world.get("/api/v1/user").await.0, StatusCode::OK);
    assert!(asked.elapsed() >= Duration::from_millis(50));
    world.gogs.set_faults(Faults { deliveries_paused: true, ..Faults::default() });
    let before = world.gogs.deliveries().len();
    world.push("master", &[("a", "3")], "stalled").await;
    let waiting = world.gogs.deliveries();
    assert!(waiting.iter().skip(before).all(|it| it.attempts.is_empty()) && waiting.len() > before);
    world.gogs.set_faults(Faults::default());
    world.gogs.wait_until_delivered().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_repository_keeps_its_id_and_sends_no_event() {
    let world = world().await;
    world.inbox_hook().await;
    let (_, before) = world.get("/api/v1/repos/acme/app").await;
    world.gogs.rename("acme/app", "product").unwrap();
    assert_eq!(world.get("/api/v1/repos/acme/app").await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.get("/api/v1/repos/acme/product").await.1["id"], before["id"]);
    assert!(world.gogs.deliveries().is_empty());
    world.gogs.push("acme/product", "master", &[("a", "1")], "first").await.unwrap();
    world.gogs.send_event("acme/product", "release", &json!({ "action": "published" })).unwrap();
    let received = world.events_of(0).await;
    assert_eq!(events(&received), ["create", "push", "release"]);
    assert_eq!(received[1].1["repository"]["full_name"], "acme/product");
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_ids_are_reproducible() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let world = world().await;
        let first = world.push("main", &[("a", "1")], "first").await;
        runs.push([first, world.push("main", &[("a", "2")], "second").await]);
    }
    assert_eq!(runs[0], runs[1]);
}
