//! The server is killed in the middle of things, as by a power cut, and started again on what is there.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use beespace_tests::client::Client;
use beespace_tests::docker;
use beespace_tests::gogs::PracticeGogs;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

const REPO: &str = "ada/hive";
const BUILDS: &str = "/api/v1/repositories/ada/hive/builds";
/// Only a failing test waits as long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Each kill comes at another place of a build's way.
const KILLS: u64 = 8;
/// Lines of the counting step, 50 ms each.
const LINES: u64 = 12;

/// A server of its own process.
pub struct Server {
    folder: tempfile::TempDir,
    url: String,
    child: Option<Child>,
}

impl Server {
    pub fn new(gogs: &PracticeGogs, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The port stays the same across kills: Gogs' hook names it.
        let address = free_address();
        let data = folder.path().join("data");
        let (gogs_url, token) = (gogs.url(), gogs.token());
        std::fs::write(folder.path().join("token"), token).unwrap();
        let config = format!(
            "[server]\nlisten = \"{address}\"\nopen = true\n[data]\ndir = \"{}\"\n[gogs]\nurl = \"{gogs_url}\"\n\
             token_file = \"{}\"\n{settings}\n",
            data.display(),
            folder.path().join("token").display()
        );
        std::fs::write(folder.path().join("beespace.toml"), config).unwrap();
        Self { folder, url: format!("http://{address}"), child: None }
    }

    pub async fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beespace-under-test"));
        command.env("BEESPACE_LIMITS__FREE_DISK", "16MiB");
        command.arg("server").arg("--config").arg(self.folder.path().join("beespace.toml"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        self.child = Some(command.stdin(Stdio::null()).stderr(log).kill_on_drop(true).spawn().unwrap());
        wait("the server to answer", async || {
            Client::new(&self.url).get("/healthz").await.is_ok_and(|answer| answer.status.is_success())
        })
        .await;
    }

    async fn kill(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    pub fn admin(&self) -> Client {
        let token = std::fs::read_to_string(self.folder.path().join("data/admin.token")).unwrap();
        Client::new(&self.url).with_token(token.trim())
    }

    pub async fn builds(&self) -> Vec<Value> {
        let Ok(answer) = self.admin().get(&format!("{BUILDS}?limit=100")).await else { return Vec::new() };
        answer.json().unwrap_or_default().as_array().cloned().unwrap_or_default()
    }
}

/// A port below those that the system gives to whoever asks for any: it stays free while the server is down.
fn free_address() -> std::net::SocketAddr {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let bind = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).ok()?.local_addr().ok();
    (first..first + 1_000).find_map(bind).unwrap()
}

pub async fn wait(what: &str, fact: impl AsyncFn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !fact().await {
        assert!(Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_over(build: &Value) -> bool {
    build["number"].is_u64() && !matches!(build["status"].as_str(), Some("pending" | "running" | "blocked"))
}

/// What of a build is left in the engine, of each kind.
async fn left_over(build: &str) -> String {
    let mut left = String::new();
    for arguments in [["ps", "-aq"], ["network", "ls"], ["volume", "ls"]] {
        let filter = format!("label=beespace.build={build}");
        let output = Command::new("docker")
            .args(["--host", docker::HOST])
            .args(arguments)
            .args(if arguments[0] == "ps" { vec![] } else { vec!["-q"] })
            .args(["--filter", &filter])
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        left.push_str(&String::from_utf8(output.stdout).unwrap());
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_every_push_builds_exactly_once_and_nothing_is_left() {
    let image = docker::image().await.unwrap();
    let gogs = PracticeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let mut server = Server::new(&gogs, "[engine]\nkind = \"docker\"");
    server.start().await;
    let enabled = server.admin().post("/api/v1/repositories", &json!({ "name": REPO })).await.unwrap();
    assert!(enabled.status.is_success(), "{enabled:?}");
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    for kill in 1..=KILLS {
        let count = format!("i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.05; done");
        let pipeline = json!({ "name": format!("p{kill}"), "steps": [{ "name": "count", "image": image, "run": count }] });
        gogs.push(REPO, "main", &[(".beespace.yml", &pipeline.to_string())], &format!("Push {kill}")).await.unwrap();
        gogs.delivered().await.unwrap();
        // From right after the delivery to about the end of the build.
        let moment = (seed.wrapping_mul(2_654_435_761).wrapping_add(kill * 7919) % 200) + 200 * (kill - 1);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        server.kill().await;
        server.start().await;
        // One kill a build: the fifth death in a row with the same row in hand would rightly end as a dead letter.
        let wanted = usize::try_from(kill).unwrap();
        wait("the end of the build", async || {
            let builds = server.builds().await;
            builds.len() == wanted && builds.iter().all(is_over)
        })
        .await;
    }
    let log = std::fs::read_to_string(server.log_path()).unwrap();
    for build in server.builds().await {
        let number = build["number"].as_u64().unwrap();
        let text = server.admin().get(&format!("{BUILDS}/{number}/stages/1/steps/1/log")).await.unwrap().body;
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("line ")).collect();
        let expected: Vec<String> = (1..=LINES).map(|line| format!("line {line}")).collect();
        assert_eq!(build["status"], "success", "{build:#}\n{text}\n{log}");
        assert_eq!(lines, expected, "no line is lost, and none is there twice: {text}");
        let id = build["id"].as_str().unwrap().to_owned();
        wait("an engine without leftovers", async || left_over(&id).await.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_ends_the_server_is_given_up_after_five_attempts() {
    let gogs = PracticeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let deadly = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", deadly.local_addr().unwrap());
    let notifier = crate::notify::webhook("deadly", &format!("{host}/hook"), &host);
    let mut server = Server::new(&gogs, &format!("[engine]\nkind = \"dummy\"\n{notifier}"));
    server.start().await;
    let secret = server
        .admin()
        .call(reqwest::Method::PUT, "/api/v1/secrets/key", &json!({ "value": "a-key-for-the-receiver" }))
        .await
        .unwrap();
    assert!(secret.status.is_success(), "{secret:?}");
    let enabled = server.admin().post("/api/v1/repositories", &json!({ "name": REPO })).await.unwrap();
    assert!(enabled.status.is_success(), "{enabled:?}");
    let pipeline = "steps:\n  - name: build\n    image: busybox\n";
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], "Fill cells").await.unwrap();
    for attempt in 1..=5 {
        let arrives = tokio::time::timeout(PATIENCE, deadly.accept());
        let connection = arrives.await.unwrap_or_else(|_| panic!("attempt {attempt} never came")).unwrap();
        server.kill().await;
        drop(connection);
        server.start().await;
    }
    wait("the end of the notice", async || {
        let Ok(answer) = server.admin().get("/api/v1/notices").await else { return false };
        let notice = answer.json().unwrap_or_default()[0].clone();
        notice["state"] == "dead" && notice["attempts"] == 5
    })
    .await;
}
