//! Log lines of plugins appear in the server's log.

use beespace_tests::gogs::FakeGogs;
use beespace_tests::guest_build;
use beespace_tests::process::{NO_ENV, Process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_beespace-under-test");
const REPO: &str = "ada/hive";
/// Logs the text at address 1024 at level info.
const LOG_CALL: &str = "(call $emit (i32.const 2) (i32.const 1024) (i32.const 17) (i32.const 0) (i32.const 0)) \
                   (i32.store8 (i32.const 260) (i32.const 1))";

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_of_plugins_appear_in_the_server_log_under_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("says.wasm");
    std::fs::write(&policy, guest_build::policy_at("says", "pipeline.admit", LOG_CALL)).unwrap();
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let notifier = crate::notify::webhook("inbox", &gogs.inbox_url("team"), gogs.url());
    let settings =
        format!("[engine]\nkind = \"dummy\"\n[[policy]]\nname = \"talks\"\nplugin = \"{}\"\n{notifier}", policy.display());
    let server = Process::start(PROGRAM, &gogs, &settings, NO_ENV).await.unwrap();
    server.set_plugin_secret("key", "a-key-for-the-inbox").await.unwrap();
    server.enable(REPO).await.unwrap();
    let file = "steps:\n  - name: build\n    image: busybox\n";
    gogs.push(REPO, "main", &[(".beespace.yml", file)], "Fill cells").await.unwrap();
    gogs.wait_for_inbox("team", 1).await.unwrap();
    let notices = server.admin().unwrap().get("/api/v1/notices").await.unwrap().json().unwrap();
    let decisions =
        server.admin().unwrap().get("/api/v1/repositories/ada/hive/builds/1/decisions").await.unwrap().json().unwrap();
    let expected = [
        ("said by the guest", "talks", &decisions[0]["id"]),
        ("the receiver responded", "inbox", &notices[0]["id"]),
        ("status=200", "inbox", &notices[0]["id"]),
    ];
    for (text, binding, invocation) in expected {
        let invocation = invocation.as_str().unwrap();
        let what = format!("{text:?} of {binding}, {invocation}");
        let is_logged = |line: &str| [text, binding, invocation].iter().all(|part| line.contains(part));
        server.wait_for(&what, async || Ok(server.log().lines().any(is_logged).then_some(()))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_request_is_logged_once_and_without_its_path() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let receiver = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let notifier = crate::notify::webhook("chat", &format!("{receiver}/services/SECRETPART"), &receiver);
    let server = Process::start(PROGRAM, &gogs, &format!("[engine]\nkind = \"dummy\"\n{notifier}"), NO_ENV).await.unwrap();
    server.set_plugin_secret("key", "a-key-for-the-receiver").await.unwrap();
    server.enable(REPO).await.unwrap();
    gogs.push(REPO, "main", &[(".beespace.yml", "steps:\n  - name: build\n    image: busybox\n")], "Fill cells").await.unwrap();
    let notice = server.wait_for("the first attempt to fail", async || {
        let notices = server.admin()?.get("/api/v1/notices").await?.json()?;
        Ok(notices.get(0).filter(|notice| notice["last_error"].is_string()).cloned())
    });
    let notice = notice.await.unwrap();
    assert_eq!(notice["last_error"], format!("{receiver} refused the connection: nothing listens there"));
    assert_eq!(notice["build_label"], "ada/hive #1");
    let attempts = notice["attempts"].as_u64().unwrap();
    let log = server.log();
    let failures = log.lines().filter(|line| line.contains("request failed")).count();
    assert!(u64::try_from(failures).unwrap() >= attempts && !log.contains("wasi_http"), "{log}");
    assert!(!log.contains("SECRETPART"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_one_short_line_with_what_the_author_can_do() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("silent.wasm");
    std::fs::write(&policy, guest_build::policy_at("silent", "pipeline.admit", "unreachable")).unwrap();
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let settings = format!("[engine]\nkind = \"dummy\"\n[[policy]]\nname = \"silent\"\nplugin = \"{}\"\n", policy.display());
    let server = Process::start(PROGRAM, &gogs, &settings, NO_ENV).await.unwrap();
    server.enable(REPO).await.unwrap();
    gogs.push(REPO, "main", &[(".beespace.yml", "steps: [{name: a, image: busybox}]")], "Fill cells").await.unwrap();
    let crash = async || Ok(server.log().lines().find(|line| line.contains("crashed (")).map(str::to_owned));
    let line = server.wait_for("the crash in the log", crash).await.unwrap();
    assert!(line.contains("report panics and exceptions with `log.emit`"), "{line}");
    let log = server.log();
    assert!(line.chars().count() < 400 && !log.contains("wasmtime::") && !log.contains("backtrace"), "{log}");
}
