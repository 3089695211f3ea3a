//! Untrusted text, wherever a user can enter it: it is always shown as text, and it cannot change who is credited with an action.

use std::process::Stdio;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use beespace::encryption::Key;
use beespace::store::Store;
use beespace::webhook_secret::secret_aad;
use beespace_core::sanitize;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::client::Client;
use beespace_tests::gogs::{Access, FakeGogs};
use beespace_tests::process::Process;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::process::Command;

use crate::pages::world;

const PROGRAM: &str = env!("CARGO_BIN_EXE_beespace-under-test");
const REPO: &str = "ada/hive";

/// Markup, terminal escapes, and characters that reorder or hide text.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&\u{1b}[2J\u{9b}31m\u{7}\u{202e}\u{200b}";
/// The part that must remain visible; otherwise the text was not shown at all.
const HOSTILE_MARK: &str = "onerror=alert(1)";

/// Adds hostile text to every string of a payload, except ids and names that are used for lookups.
fn poison(value: &mut Value, path: &str, poisoned: &mut usize) {
    match value {
        Value::String(text) => {
            let is_id = text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let finds =
                ["/ref", "/repository/name", "/repository/full_name", "/repository/owner/username", "/repository/owner/login"];
            if !is_id && !finds.contains(&path) && !path.ends_with("_at") && !path.ends_with("/timestamp") {
                text.push_str(HOSTILE);
                *poisoned += 1;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| poison(item, &format!("{path}/-"), poisoned)),
        Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| poison(field, &format!("{path}/{name}"), poisoned)),
        _ => {}
    }
}

/// In JSON, which is valid YAML, every character can be written in ASCII.
fn quoted(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    quoted.chars().map(|c| if c.is_ascii() { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) }).collect()
}

/// Runs a command with the admin token. Returns its standard output and standard error.
async fn command(beespace: &Beespace, line: &str) -> String {
    let mut command = Command::new(PROGRAM);
    let home = tempfile::tempdir().unwrap();
    command.args(line.split(' ')).env("HOME", home.path()).env("XDG_CONFIG_HOME", home.path());
    command.env("BEESPACE_SERVER", &beespace.url).env("BEESPACE_TOKEN", beespace.admin_token().unwrap());
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    format!("{}{}", String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn is_text(place: &str, shown: &str) {
    assert!(!shown.contains("<img src=x"), "{place} has markup: {shown}");
    let obeyed: Vec<char> = shown.chars().filter(|c| sanitize::is_unsafe(*c) && !matches!(c, '\n' | '\t')).collect();
    assert!(obeyed.is_empty(), "{place} hides {obeyed:?}: {shown}");
}

async fn is_text_everywhere(beespace: &Beespace, builds: u64) {
    let session = beespace.anonymous().sign_in(&beespace.admin_token().unwrap()).await.unwrap();
    let mut pages: Vec<String> = ["/", "/ada", "/ada/hive", "/-/deliveries", "/-/notices"].map(str::to_owned).to_vec();
    for build in 1..=builds {
        pages.push(format!("/ada/hive/{build}"));
        let steps = beespace.build(REPO, build).unwrap().and_then(|build| beespace.stage(&build).ok());
        pages.extend(steps.into_iter().flat_map(|stage| stage.steps).map(|step| format!("/ada/hive/{build}/1/{}", step.number)));
    }
    for page in &pages {
        let answer = session.get(page).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{page}");
        is_text(page, &answer.body);
    }
    let mut lines = vec!["repo list".to_owned(), "build list".to_owned(), "delivery list".to_owned(), "notice list".to_owned()];
    lines.push("doctor".to_owned());
    lines.extend((1..=builds).map(|build| format!("build show {build} --repo {REPO}")));
    for delivery in beespace.admin().unwrap().get("/api/v1/deliveries").await.unwrap().json().unwrap().as_array().unwrap() {
        lines.push(format!("delivery show {}", delivery["id"].as_str().unwrap()));
    }
    for line in &lines {
        let output = command(beespace, line).await;
        assert!(!output.contains("Usage:"), "{line}: {output}");
        let output = output.replace("<img src=x", "");
        is_text(line, &output);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_from_gogs_is_always_escaped() {
    let (gogs, beespace) = world().await;
    let fine = "steps:\n  - name: build\n    image: busybox\n";
    gogs.push(REPO, "main", &[(".beespace.yml", fine)], "Fill cells").await.unwrap();
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    // The next push is sent by hand, with content that Gogs would never write.
    let hook = beespace.app.forge.hooks(&REPO.parse().unwrap()).await.unwrap().remove(0);
    gogs.set_hook_url(hook.id, &format!("{}/nowhere", beespace.url)).unwrap();
    gogs.push(REPO, "main", &[("cells", "4")], "Fill more").await.unwrap();
    let sent = gogs.wait_until_delivered().await.unwrap();
    let mut payload = sent.iter().rfind(|delivery| delivery.event == "push").unwrap().payload().unwrap();
    gogs.set_hook_url(hook.id, &hook.config.url).unwrap();
    let mut poisoned = 0;
    poison(&mut payload, "", &mut poisoned);
    assert!(poisoned > 20, "{payload:#}");
    gogs.send_event(REPO, "push", &payload).unwrap();
    let build = beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!(build.status, Status::Success, "{:?}", build.reason);
    // For other and unreadable events, only the reason is shown.
    for event in ["pull_request", "release", "create", "issues"] {
        gogs.send_event(REPO, event, &payload).unwrap();
    }
    let mut broken = payload.clone();
    broken["after"] = Value::String(HOSTILE.to_owned());
    gogs.send_event(REPO, "push", &broken).unwrap();
    gogs.send_event(REPO, "<img src=x onerror=alert(1)>", &payload).unwrap();
    let all = async || {
        let deliveries = beespace.admin()?.get("/api/v1/deliveries").await?.json()?;
        let waits = |one: &Value| one["outcome"] == "waiting";
        Ok(deliveries.as_array().is_some_and(|all| all.len() >= 8 && !all.iter().any(waits)).then_some(()))
    };
    beespace.wait_for("every delivery to be settled", all).await.unwrap();
    let page = beespace.anonymous().get("/ada/hive/2").await.unwrap().body;
    assert!(page.contains(HOSTILE_MARK), "{page}");
    is_text_everywhere(&beespace, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_from_repositories_and_containers_is_always_escaped() {
    let (gogs, beespace) = world().await;
    let hostile = quoted(HOSTILE);
    let step = |fields: &str| format!("{{ \"steps\": [{{ \"name\": \"build\", \"image\": \"busybox\", {fields} }}] }}");
    let markup = quoted("<img src=x onerror=alert(1)>");
    for file in [
        // The output of a container, and the engine's message about one that does not start.
        step(&format!("\"env\": {{ \"OUTPUT\": {hostile}, \"EXIT_CODE\": \"1\" }}")),
        step(&format!("\"env\": {{ \"FAIL_START\": {hostile} }}")),
        // A valid file with hostile names.
        step(&format!("\"run\": {hostile}, \"workdir\": \"<web>\", \"env\": {{ \"A\": {hostile} }}")),
        step(&format!("\"image\": {hostile}")).replace("\"image\": \"busybox\",", ""),
        step(&format!("\"when\": {{ \"branch\": {hostile} }}")),
        // An invalid file, whose diagnostics quote it.
        format!("{{ \"name\": {hostile}, \"steps\": [{{ \"name\": {hostile}, \"image\": \"busybox\" }}] }}"),
        format!("{{ \"name\": {markup}, \"steps\": [{{ \"name\": {markup}, \"image\": \"busybox\" }}] }}"),
        format!("{{ {hostile}: 1, \"steps\": {hostile} }}"),
        step(&format!("{hostile}: {hostile}, \"needs\": [{hostile}], \"timeout\": {hostile}, \"failure\": {hostile}")),
        step(&format!("\"with\": {{ {hostile}: 1 }}, \"uses\": {hostile}")),
        "steps: [ <img src=x onerror=alert(1)> \u{202e} : ] ]".to_owned(),
    ] {
        gogs.push(REPO, "main", &[(".beespace.yml", &file)], &format!("Say {HOSTILE}")).await.unwrap();
    }
    let builds = 11;
    let mut ends = Vec::new();
    for number in 1..=builds {
        let build = beespace.wait_until_finished(REPO, number).await.unwrap();
        let page = beespace.anonymous().get(&format!("/ada/hive/{number}")).await.unwrap().body;
        assert!(page.contains(HOSTILE_MARK), "build {number} is {}: {page}", build.status);
        ends.push((build.status, build.files.first().is_some_and(|file| file.diagnostics.is_empty()), build.reason));
    }
    assert!(ends.iter().filter(|(_, is_right, _)| *is_right).count() > 3, "{ends:#?}");
    is_text_everywhere(&beespace, builds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_commit_author_does_not_replace_the_pusher() {
    let (gogs, beespace) = world().await;
    let token = gogs.create_user("mallory").unwrap();
    gogs.grant_access(REPO, "mallory", Access::Write).unwrap();
    gogs.push(REPO, "main", &[(".beespace.yml", "steps:\n  - name: build\n    image: busybox\n")], "Fill cells").await.unwrap();
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    let mut copy = gogs.clone_repository(REPO).await.unwrap();
    copy.checkout("main").await.unwrap();
    // Author, committer and trailer of the commit all name Ada.
    copy.write(&[("cells", "5")]).unwrap();
    copy.git(&["add", "."]).await.unwrap();
    copy.git(&["commit", "--quiet", "-m", "Fill cells\n\nSigned-off-by: Ada Lovelace <ada@example.com>"]).await.unwrap();
    copy.git(&["push", "--quiet", &gogs.clone_url(REPO, &token).unwrap(), "HEAD:refs/heads/main"]).await.unwrap();
    let build = beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!(build.event.sender.login, "mallory", "{build:#?}");
    assert_eq!(build.head.as_ref().unwrap().author.name, "Ada Lovelace");
    let reported = beespace.admin().unwrap().get("/api/v1/repositories/ada/hive/builds/2").await.unwrap().json().unwrap();
    assert_eq!((&reported["actor"], &reported["author"]), (&"mallory".into(), &"Ada Lovelace".into()), "{reported:#}");
    let page = beespace.anonymous().get("/ada/hive/2").await.unwrap().body;
    let pushed_by = page.split("Pushed by").nth(1).unwrap().split("</div>").next().unwrap();
    assert!(pushed_by.contains("<dd>mallory") && pushed_by.contains("commit author: Ada Lovelace"), "{pushed_by}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_log_contains_no_secret_and_no_terminal_escape() {
    const VALUE: &str = "canary-of-a-secret-5b1e";
    const WRONG: &str = "canary-of-a-wrong-token-77c0";
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_private_repository(REPO).await.unwrap();
    let settings = "[engine]\nkind = \"dummy\"\n";
    let server = Process::start(PROGRAM, &gogs, settings, &[("BEESPACE_LOG", "debug")]).await.unwrap();
    server.set_secret("token", VALUE).await.unwrap();
    server.enable(REPO).await.unwrap();
    gogs.set_token_revoked(true);
    let file = format!(
        "steps:\n  - {{ name: tell, image: busybox, env: {{ OUTPUT: {{ from_secret: token }} }} }}\n  \
         - {{ name: start, image: busybox, env: {{ FAIL_START: {} }} }}\n",
        quoted(HOSTILE)
    );
    gogs.push(REPO, "main", &[(".beespace.yml", &file)], &format!("Say {HOSTILE}")).await.unwrap();
    let deliveries = gogs.wait_until_delivered().await.unwrap();
    let mut payload = deliveries.iter().rfind(|delivery| delivery.event == "push").unwrap().payload().unwrap();
    poison(&mut payload, "", &mut 0);
    gogs.send_event(REPO, "push", &payload).unwrap();
    let deliveries = gogs.wait_until_delivered().await.unwrap();

    let admin = server.admin().unwrap();
    let list = async |path: &str| anyhow::Ok(admin.get(path).await?.json()?.as_array().cloned().unwrap_or_default());
    let settled = async || {
        let all = list("/api/v1/deliveries").await?;
        Ok((all.len() == deliveries.len() && all.iter().all(|one| one["outcome"] != "waiting")).then_some(()))
    };
    server.wait_for("every delivery to be settled", settled).await.unwrap();
    let waits = |build: &Value| build["reason"]["message"].as_str().is_some_and(|message| message.contains("next attempt"));
    let refused = async || Ok(list("/api/v1/builds").await?.iter().any(waits).then_some(()));
    server.wait_for("the build to wait for Gogs", refused).await.unwrap();
    gogs.set_token_revoked(false);
    let over = async || Ok(list("/api/v1/builds").await?.iter().any(|one| one["finished_at"].is_string()).then_some(()));
    server.wait_for("the end of the build", over).await.unwrap();
    let step = admin.get("/api/v1/repositories/ada/hive/builds/1/stages/1/steps/1/log").await.unwrap().body;
    assert!(step.contains("********"), "{step}");
    let stranger = Client::new(&server.url);
    let wrong = stranger.form("/-/login", &[("token", WRONG), ("next", "/")]).await.unwrap();
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    let wrong = stranger.with_token(WRONG).get("/api/v1/builds").await.unwrap();
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    let is_logged = async || Ok(server.log().contains("sign-in with a wrong token").then_some(()));
    server.wait_for("the wrong token to be logged", is_logged).await.unwrap();

    let (log, admin_token) = (server.log(), std::fs::read_to_string(server.data().join("admin.token")).unwrap());
    let data = server.stop().await.unwrap();
    let data = data.path().join("data");
    let key_file = std::fs::read_to_string(data.join("key")).unwrap();
    let repository = Store::open(&data.join("beespace.redb")).unwrap().read().unwrap().repositories().unwrap().remove(0);
    let hook = repository.hook.unwrap();
    let key = Key::load_or_create(&data.join("key"), None).unwrap();
    let secret = key.open(&secret_aad(repository.id, hook.key), &hook.secret).unwrap();
    let sent = BASE64_STANDARD.encode(&gogs.token()[..39]);
    for (what, secret) in [
        ("the token for Gogs", gogs.token()),
        ("the token for Gogs, as git sends it", sent.as_str()),
        ("the admin token", admin_token.trim()),
        ("the key of the hook", deliveries[0].url.rsplit('/').next().unwrap()),
        ("the secret of the hook", std::str::from_utf8(&secret).unwrap()),
        ("the key of the instance", key_file.trim().split_once(':').unwrap().1),
        ("the value of a secret", VALUE),
        ("what was not the admin token", WRONG),
    ] {
        assert!(secret.len() > 20 && !log.contains(secret), "{what}: {log}");
    }
    assert!(log.contains("DEBUG"), "{log}");
    is_text("the log", &log.replace("<img src=x", ""));
}
