//! The command line against a running server: output and exit codes.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use beespace::store::delivery::{Delivery, DeliveryOutcome};
use beespace_core::build::Build;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::{NO_ENV, Process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const DUMMY: &str = "[engine]\nkind = \"dummy\"\n";
const REPO: &str = "ada/hive";
const ONE_STEP: &str = "steps:\n  - name: build\n    image: busybox\n    env: { OUTPUT: \"cells filled\" }\n";

/// A shell of a user with the admin token.
pub(crate) struct Shell {
    home: tempfile::TempDir,
    server: String,
    token: String,
}

/// The exit code and the output of a command.
#[derive(Debug)]
pub(crate) struct CommandResult {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl CommandResult {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Shell {
    pub(crate) fn new(server: &str, token: &str) -> Self {
        Self { home: tempfile::tempdir().unwrap(), server: server.to_owned(), token: token.to_owned() }
    }

    pub(crate) async fn run(&self, line: &str) -> CommandResult {
        self.run_with_input(line, "").await
    }

    pub(crate) fn spawn(&self, line: &str) -> Child {
        self.command(line).spawn().unwrap()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beespace-under-test"));
        command.args(line.split(' ')).current_dir(self.home.path()).kill_on_drop(true);
        command.env("HOME", self.home.path()).env("XDG_CONFIG_HOME", self.home.path());
        command.env("BEESPACE_SERVER", &self.server).env("BEESPACE_TOKEN", &self.token);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn run_with_input(&self, line: &str, input: &str) -> CommandResult {
        run_command(self.command(line), input).await
    }
}

async fn run_command(mut command: Command, input: &str) -> CommandResult {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that reads nothing may have exited already.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    CommandResult { code: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
}

async fn world() -> (FakeGogs, Beespace, Shell) {
    world_with(|_| String::new()).await
}

async fn world_with(extra: impl Fn(&FakeGogs) -> String) -> (FakeGogs, Beespace, Shell) {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start_with(&gogs, "", &format!("{DUMMY}{}", extra(&gogs))).await.unwrap();
    let shell = Shell::new(&beespace.url, &beespace.admin_token().unwrap());
    (gogs, beespace, shell)
}

async fn push(gogs: &FakeGogs, pipeline: &str) {
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], "Fill cells").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_enabled_repaired_and_disabled() {
    let (_gogs, beespace, shell) = world().await;
    for (line, code, expected) in [
        ("repo repair ada/hive", 4, "not enabled"),
        ("repo enable ada/none", 4, "ada/none"),
        ("repo enable ada/hive", 0, "ada/hive"),
        ("repo list", 0, "enabled"),
        ("repo repair ada/hive", 0, "ada/hive"),
        ("repo disable ada/hive", 0, "ada/hive"),
        ("repo list", 0, "disabled"),
        ("repo enable", 2, "--repo"),
    ] {
        let ended = shell.run(line).await;
        assert_eq!(ended.code, code, "{line}: {ended:?}");
        assert!(format!("{}{}", ended.stdout, ended.stderr).contains(expected), "{line}: {ended:?}");
    }
    assert!(beespace.app.forge.hooks(&REPO.parse().unwrap()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_listed_shown_logged_restarted_and_cancelled() {
    let (gogs, beespace, shell) = world().await;
    beespace.enable(REPO).await.unwrap();
    push(&gogs, ONE_STEP).await;
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    let listed = shell.run("build list --repo ada/hive").await;
    assert!(listed.code == 0 && listed.stdout.contains("success"), "{listed:?}");
    let shown = shell.run("build show 1 --repo ada/hive --output json").await;
    assert_eq!(shown.json()["title"], "Fill cells");
    let log = shell.run("build log 1 build --repo ada/hive").await;
    assert!(log.code == 0 && log.stdout.contains("cells filled"), "{log:?}");
    let restarted = shell.run("build restart latest --repo ada/hive").await;
    let page = format!("restarted as ada/hive #2: {}/ada/hive/2\n", beespace.url);
    assert_eq!((restarted.code, &*restarted.stderr), (0, &*page));
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    assert_eq!(shell.run("build show latest --repo ada/hive --output json").await.json()["number"], 2);
    let header = shell.run("build list").await.stdout;
    assert!(header.contains("AGE") && header.contains("DURATION") && header.contains("just now"), "{header}");
    for (line, code, message) in [
        ("build cancel 1 --repo ada/hive", 5, "error: ada/hive #1 is already success\n"),
        ("build show 9 --repo ada/hive", 4, "error: no such build: ada/hive 9\n"),
        ("build show 9 --repo ada/none", 4, "error: no such repository: ada/none\n"),
        ("secret remove none --instance", 4, "error: no such secret: none\n"),
    ] {
        let failed = shell.run(line).await;
        assert!(failed.code == code && failed.stderr.starts_with(message), "{line}: {failed:?}");
    }
    push(&gogs, "steps:\n  - name: long\n    image: busybox\n    env: { SLEEP: 60s }\n").await;
    beespace.wait_for_build(REPO, 3, |build| build.status == Status::Running).await.unwrap();
    assert_eq!(shell.run("build cancel 3 --repo ada/hive").await.code, 0);
    assert_eq!(beespace.wait_until_finished(REPO, 3).await.unwrap().status, Status::Killed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_build_log_prints_each_line_once_under_one_heading_per_step() {
    let (gogs, beespace, shell) = world().await;
    beespace.enable(REPO).await.unwrap();
    // Longer than the polling interval.
    let step =
        |name: &str| format!("  - name: {name}\n    image: busybox\n    env: {{ OUTPUT: \"{name} filled\", SLEEP: 700ms }}\n");
    push(&gogs, &format!("steps:\n{}{}", step("one"), step("two"))).await;
    beespace.wait_for_build(REPO, 1, |_| true).await.unwrap();
    let followed = shell.run("build log 1 --follow --repo ada/hive").await;
    assert_eq!(followed.code, 0, "{followed:?}");
    for (text, expected) in
        [(&followed.stdout, "one filled"), (&followed.stdout, "two filled"), (&followed.stderr, "default · two")]
    {
        assert_eq!(text.matches(expected).count(), 1, "{expected}: {followed:?}");
    }
    assert!(followed.stderr.ends_with("ada/hive #1: success\n"), "{followed:?}");
    let missing = shell.run("build log 1 three --repo ada/hive").await;
    assert!(missing.code == 4 && missing.stderr.contains("1 one, 2 two"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_without_a_log_says_why() {
    let (gogs, beespace, shell) = world().await;
    beespace.enable(REPO).await.unwrap();
    let none = shell.run("build log latest --repo ada/hive").await;
    assert!(none.code == 4 && none.stderr.contains("ada/hive has no builds"), "{none:?}");
    push(&gogs, "stpes: []\n").await;
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    let invalid = shell.run("build log latest --repo ada/hive").await;
    assert!(invalid.code == 4 && invalid.stderr.contains("no log, because the build has not started: error"), "{invalid:?}");
    assert!(invalid.stderr.contains(".beespace.yml has"), "{invalid:?}");
    assert!(!invalid.stderr.contains("--follow"), "a build that is over never gets a log: {invalid:?}");
    let fails = "steps:\n  - { name: first, image: busybox, env: { EXIT_CODE: \"3\" } }\n  - { name: second, image: busybox }\n";
    push(&gogs, fails).await;
    beespace.wait_until_finished(REPO, 2).await.unwrap();
    let skipped = shell.run("build log 2 second --repo ada/hive").await;
    assert!(skipped.code == 4 && skipped.stderr.contains("no log, because step second has not started: skipped"), "{skipped:?}");
    let shown = shell.run("build show 2 --repo ada/hive").await;
    assert_eq!(shown.stdout.matches("the program exited with code 3").count(), 1, "{shown:?}");
    assert!(shown.stdout.contains("step first: the program exited with code 3"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_waiting_for_gogs_can_be_shown_and_cancelled() {
    let (gogs, beespace, shell) = world().await;
    beespace.enable(REPO).await.unwrap();
    gogs.set_offline(true);
    for (index, way) in ["command", "page"].into_iter().enumerate() {
        push(&gogs, &format!("# {way}\n{ONE_STEP}")).await;
        let waiting =
            |build: &&Build| build.number.is_none() && build.reason.as_ref().is_some_and(|why| why.code == "waiting-for-gogs");
        let look = async || Ok(beespace.builds()?.iter().find(waiting).cloned());
        let build = beespace.wait_for("a build that waits", look).await.unwrap();
        let href = format!("/{REPO}/{}", build.id);
        let session = beespace.anonymous().sign_in(&shell.token).await.unwrap();
        let rows = session.get("/").await.unwrap().body;
        assert!(rows.contains(&format!("href=\"{href}\"")), "{rows}");
        let page = session.get(&href).await.unwrap().body;
        assert!(page.contains("Gogs cannot be reached") && page.contains(&format!("action=\"{href}/cancel\"")), "{page}");
        if way == "command" {
            let listed = shell.run("build list").await.stdout;
            assert!(listed.contains(&build.id.to_string()) && listed.contains("Gogs cannot be reached"), "{listed}");
            let shown = shell.run(&format!("build show {} --repo {REPO}", build.id)).await;
            assert!(shown.code == 0 && shown.stdout.contains("Gogs cannot be reached"), "{shown:?}");
            assert_eq!(shell.run(&format!("build cancel {} --repo {REPO}", build.id)).await.code, 0);
        } else {
            let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
            let sent = session.form(&format!("{href}/cancel"), &[("csrf", csrf)]).await.unwrap();
            assert_eq!(sent.status, reqwest::StatusCode::SEE_OTHER, "{sent:?}");
        }
        let number = u64::try_from(index).unwrap() + 1;
        let ended = beespace.wait_until_finished(REPO, number).await.unwrap();
        assert_eq!((ended.id, ended.status), (build.id, Status::Killed));
        assert!(session.get(&href).await.unwrap().status.is_success(), "the address from before stays good");
    }
    gogs.set_offline(false);
    gogs.create_repository("ada/comb").await.unwrap();
    beespace.enable("ada/comb").await.unwrap();
    let id = beespace.builds().unwrap()[0].id;
    assert_eq!(shell.run(&format!("build show {id} --repo ada/comb")).await.code, 4, "it is of another repository");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_reviewed_and_given_for_one_digest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("asks.wasm");
    std::fs::write(&path, beespace_tests::guest_build::approval_guest(2)).unwrap();
    let (gogs, beespace, shell) = world_with(|_| format!("[[policy]]\nname = \"asks\"\nplugin = \"{}\"\n", path.display())).await;
    beespace.enable(REPO).await.unwrap();
    push(&gogs, ONE_STEP).await;
    let build = beespace.wait_for_build(REPO, 1, |build| build.status == Status::Blocked).await.unwrap();
    let subject = beespace.stage(&build).unwrap().approvals[0].subject.to_string();
    let unasked = shell.run("build approve 1 --repo ada/hive").await;
    assert_eq!(unasked.code, 2, "{unasked:?}");
    for shown in ["ada/hive #1", "Fill cells", build.event.sha().unwrap().as_str(), "build: image busybox", &subject] {
        assert!(unasked.stderr.contains(shown), "{shown}: {}", unasked.stderr);
    }
    assert!(beespace.stage(&build).unwrap().approvals[0].approved_by.is_empty(), "there is no approval");
    let other = shell.run(&format!("build approve 1 --subject {} --repo ada/hive", "0".repeat(64))).await;
    assert!(other.code == 5 && other.stderr.contains(&subject), "{other:?}");
    let given = shell.run(&format!("build approve 1 --subject {subject} --repo ada/hive")).await;
    assert_eq!(given.code, 0, "{given:?}");
    assert!(given.stderr.contains("ada/hive #1 still needs 1 more person"), "{given:?}");
    let mut follower = shell.spawn("build log 1 --follow --repo ada/hive");
    let mut stderr = tokio::io::BufReader::new(follower.stderr.take().unwrap()).lines();
    let waits = stderr.next_line().await.unwrap().unwrap();
    assert!(waits.starts_with("blocked: waiting for approval") && waits.contains("1 more person"), "{waits}");
    let declined = shell.run("build decline 1 --reason enough --repo ada/hive").await;
    assert_eq!(declined.code, 0, "{declined:?}");
    let end = stderr.next_line().await.unwrap().unwrap();
    assert!(end.starts_with("ada/hive #1: declined") && end.contains("enough"), "{end}");
    assert_eq!(follower.wait().await.unwrap().code(), Some(5));
    let late = shell.run("build approve 1 --repo ada/hive").await;
    assert!(late.code == 5 && late.stderr.contains("nothing is waiting for approval"), "{late:?}");
}

/// A proxy between a command and a server that counts.
#[derive(Debug, Default)]
struct Wire {
    /// The number of forwarded log responses.
    looks: AtomicUsize,
    /// The bytes of all responses.
    bytes: AtomicUsize,
}

impl Wire {
    async fn to(server: &str) -> (Arc<Self>, String) {
        let server = server.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let wire = Arc::new(Self::default());
        let counted = Arc::clone(&wire);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (counted, mut far) = (Arc::clone(&counted), TcpStream::connect(&server).await.unwrap());
                tokio::spawn(async move {
                    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
                    loop {
                        tokio::select! {
                            Ok(read @ 1..) = near.read(&mut asked) => {
                                let is_look = asked[..read].windows(5).any(|part| part == b"/log?");
                                counted.looks.fetch_add(usize::from(is_look), Relaxed);
                                far.write_all(&asked[..read]).await.unwrap();
                            }
                            Ok(read @ 1..) = far.read(&mut answered) => {
                                counted.bytes.fetch_add(read, Relaxed);
                                near.write_all(&answered[..read]).await.unwrap();
                            }
                            else => return,
                        }
                    }
                });
            }
        });
        (wire, url)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_is_transferred_once() {
    const LONG: usize = 100_000;
    let (gogs, beespace, shell) = world().await;
    beespace.enable(REPO).await.unwrap();
    let (text, step) = ("Q".repeat(LONG), "  - name: long\n    image: busybox\n    env: { SLEEP: 60s, OUTPUT: ");
    push(&gogs, &format!("steps:\n{step}{text} }}\n")).await;
    beespace.wait_for_build(REPO, 1, |build| build.status == Status::Running).await.unwrap();
    let (wire, url) = Wire::to(&beespace.url).await;
    let follower = Shell::new(&url, &shell.token);
    let following = tokio::spawn(async move { follower.run("build log 1 long --follow --repo ada/hive").await });
    let looked_often = async || Ok((wire.looks.load(Relaxed) >= 8).then_some(()));
    beespace.wait_for("eight reads of the log", looked_often).await.unwrap();
    assert_eq!(shell.run("build cancel 1 --repo ada/hive").await.code, 0);
    let followed = following.await.unwrap();
    assert_eq!(followed.stdout.matches('Q').count(), LONG, "{}", followed.stderr);
    let bytes = wire.bytes.load(Relaxed);
    assert!(bytes < 2 * LONG, "{bytes} bytes for a log of {LONG}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_and_notices_are_listed() {
    let (gogs, beespace, shell) = world().await;
    beespace.enable(REPO).await.unwrap();
    push(&gogs, ONE_STEP).await;
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    let listed = shell.run("delivery list --output json").await.json();
    let push = listed.as_array().unwrap().iter().find(|one| one["event"] == "push").unwrap().clone();
    let id = push["id"].as_str().unwrap();
    assert!(shell.run("delivery list").await.stdout.contains("ada/hive #1"), "a delivery names its build");
    assert!(shell.run(&format!("delivery show {id}")).await.stdout.contains("refs/heads/main"));
    assert_eq!(shell.run(&format!("delivery retry {id}")).await.code, 5);
    assert_eq!(shell.run("notice list --output json").await.json(), serde_json::json!([]));
    // Nothing listens at this address, so a request would end with another code.
    let nowhere = Shell::new("http://127.0.0.1:1", "bee_any");
    for (line, valid) in [
        ("notice show 7", "`beespace notice list`"),
        ("delivery retry 7", "`beespace delivery list`"),
        ("build list --status odd", "possible values: pending, "),
        ("build list --limit 0", "1..=100"),
        ("secret set a/b --instance", "letters, digits"),
        ("server --log beespace=loud --config none.toml", "warn,beespace=debug"),
        ("build approve 1 --subject sha256:00 --repo ada/hive", "64 hex digits"),
    ] {
        let refused = nowhere.run(line).await;
        assert!(refused.code == 2 && refused.stderr.contains(valid), "{line}: {refused:?}");
    }
    let unknown = uuid::Uuid::nil();
    assert_eq!(shell.run(&format!("notice show {unknown}")).await.code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_ignored_delivery_builds() {
    let (gogs, beespace, shell) = world().await;
    beespace.enable(REPO).await.unwrap();
    push(&gogs, ONE_STEP).await;
    let first = beespace.wait_until_finished(REPO, 1).await.unwrap();
    // Another webhook sends the same push with a different body.
    let delivery = gogs.deliveries().into_iter().find(|one| one.event == "push").unwrap();
    let mut payload = delivery.payload().unwrap();
    payload["sent_by"] = "another hook".into();
    gogs.send_event(REPO, "push", &payload).unwrap();
    let ignored = beespace
        .wait_for("the delivery to be ignored", async || {
            let all = shell.run("delivery list --output json").await.json();
            Ok(all.as_array().unwrap().iter().find(|one| one["event"] == "push" && one["outcome"] == "ignored").cloned())
        })
        .await
        .unwrap();
    assert!(ignored["reason"].as_str().unwrap().contains("was already processed"), "{ignored}");
    push(&gogs, "steps:\n  - name: other\n    image: busybox\n").await;
    beespace.wait_until_finished(REPO, 2).await.unwrap();

    // The branch has moved, so this push is unknown.
    let id = ignored["id"].as_str().unwrap();
    let replayed = shell.run(&format!("delivery retry {id}")).await;
    assert!(replayed.code == 0 && replayed.stderr.contains("queued again"), "{replayed:?}");
    let again = beespace.wait_until_finished(REPO, 3).await.unwrap();
    assert_eq!((again.status, again.event.sha().unwrap()), (Status::Success, first.event.sha().unwrap()));
    assert_eq!(shell.run(&format!("delivery show {id}")).await.json()["build"], again.id.to_string());
    let refused = shell.run(&format!("delivery retry {id}")).await;
    assert!(refused.code == 5 && refused.stderr.contains("beespace build restart"), "{refused:?}");
    assert_eq!(shell.run(&format!("delivery retry {}", uuid::Uuid::nil())).await.code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_notice_is_shown_and_replayed() {
    let (gogs, beespace, shell) = world_with(|gogs| {
        format!(
            "[[notifier]]\nname = \"inbox\"\nplugin = \"notify-webhook\"\nsettings = {{ url = \"{}\", secret = \"inbox-key\" }}\n\
             grants = {{ hosts = [{{ url = \"{}\", addresses = \"loopback\" }}], secrets = [\"inbox-key\"] }}\n",
            gogs.inbox_url("team"),
            gogs.url()
        )
    })
    .await;
    beespace.set_plugin_secret("inbox-key", "a-key-for-the-inbox").await.unwrap();
    beespace.enable(REPO).await.unwrap();
    gogs.set_inbox_status("team", 400);
    push(&gogs, ONE_STEP).await;
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    let first = async |line: &'static str| Ok(Some(shell.run(line).await.json()[0].clone()).filter(Value::is_object));
    let dead =
        beespace.wait_for("a dead letter", async || first("notice list --state dead_letter --output json").await).await.unwrap();
    let id = dead["id"].as_str().unwrap();
    let shown = shell.run(&format!("notice show {id}")).await.json();
    assert_eq!((&shown["subject"]["kind"], &shown["notifier"]), (&"build.finished".into(), &"inbox".into()));
    assert!(shown["last_error"].as_str().unwrap().contains("400"), "{shown}");

    gogs.set_inbox_status("team", 200);
    let replayed = shell.run(&format!("notice retry {id}")).await;
    assert!(replayed.code == 0 && replayed.stderr.contains("queued again for notifier inbox"), "{replayed:?}");
    let sent = beespace.wait_for("it to be sent", async || first("notice list --state sent --output json").await).await.unwrap();
    assert_eq!((&sent["id"], &sent["idempotency_key"]), (&dead["id"], &dead["idempotency_key"]));
    assert_eq!(shell.run(&format!("notice retry {id}")).await.code, 5);
    assert_eq!(shell.run("notice list --state odd").await.code, 2);
    let all = shell.run("notice retry --notifier inbox").await;
    assert!(all.code == 0 && all.stderr.contains("notifier inbox"), "{all:?}");
    let unknown = shell.run("notice retry --notifier none").await;
    assert!(unknown.code == 4 && unknown.stderr.contains("[[notifier]]"), "{unknown:?}");
    assert_eq!(shell.run("notice retry").await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_read_from_standard_input_and_never_printed() {
    let (_gogs, beespace, shell) = world().await;
    beespace.enable(REPO).await.unwrap();
    let set = shell.run_with_input("secret set token --repo ada/hive", "canary-4711\n").await;
    assert_eq!((set.code, set.stderr.contains("warning")), (0, true), "eleven characters: {set:?}");
    let short = shell.run_with_input("secret set pin --repo ada/hive", "abc\n").await;
    assert!(
        short.code == 2 && short.stderr.contains("secret pin was not stored") && short.stderr.contains("would not be masked"),
        "{short:?}"
    );
    let of_plugins = shell.run_with_input("secret set pin --plugins", "abc\n").await;
    assert!(of_plugins.code == 2 && !of_plugins.stderr.contains("pipeline file"), "{of_plugins:?}");
    let empty = shell.run_with_input("secret set pin --plugins", "\n").await;
    assert!(empty.code == 2 && empty.stderr.contains("the value of secret pin is empty"), "{empty:?}");
    let listed = shell.run("secret list --repo ada/hive").await;
    assert!(listed.stdout.contains("token") && !listed.stdout.contains("canary"), "{listed:?}");
    std::fs::write(shell.home.path().join("deploy.pem"), "first line of a key\nsecond line of a key\n").unwrap();
    let of_file = shell.run("secret set deploy --file deploy.pem --repo ada/hive").await;
    assert!(of_file.code == 0 && of_file.stderr.contains("deploy set"), "{of_file:?}");
    let absent = shell.run("secret set deploy --file absent.pem --repo ada/hive").await;
    assert!(absent.code == 4 && absent.stderr.contains("absent.pem"), "{absent:?}");
    assert_eq!(shell.run("secret remove token --repo ada/hive").await.code, 0);
    assert_eq!(shell.run("secret remove token --repo ada/hive").await.code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_plugins_and_of_the_instance_belong_to_no_repository() {
    let (_gogs, _beespace, shell) = world().await;
    let git = |args: &[&str]| {
        let done = std::process::Command::new("git").args(args).current_dir(shell.home.path()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    for place in ["outside a clone", "inside a clone"] {
        if place == "inside a clone" {
            git(&["init", "--quiet"]);
            git(&["remote", "add", "origin", "http://gogs.local:3000/ada/hive.git"]);
        }
        for (option, scope) in [("--plugins", "plugins"), ("--instance", "the instance")] {
            let set = shell.run_with_input(&format!("secret set dead-key {option}"), "a-value-that-is-long\n").await;
            assert_eq!(set.code, 0, "{place}: {set:?}");
            assert!(set.stderr.starts_with(&format!("secret dead-key set for {scope} at http")), "{place}: {set:?}");
            let listed = shell.run(&format!("secret list {option}")).await;
            assert!(listed.code == 0 && listed.stdout.contains("dead-key"), "{place}: {listed:?}");
            let removed = shell.run(&format!("secret remove dead-key {option}")).await;
            assert!(removed.stderr.starts_with(&format!("secret dead-key removed for {scope} at ")), "{place}: {removed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_builds_names_the_push_that_has_none() {
    let (gogs, beespace, shell) = world().await;
    beespace.enable(REPO).await.unwrap();
    gogs.push(REPO, "main", &[("beespace.yml", ONE_STEP)], "Forget a dot").await.unwrap();
    let is_ignored = |delivery: &Delivery| match &delivery.outcome {
        DeliveryOutcome::Ignored(reason) => reason.code == "no-pipeline-file",
        _ => false,
    };
    let ignored = async || Ok(beespace.app.store.read()?.deliveries(None, None, 10)?.iter().any(is_ignored).then_some(()));
    beespace.wait_for("the push to be ignored", ignored).await.unwrap();
    let listed = shell.run("build list").await;
    assert_eq!(listed.code, 0, "{listed:?}");
    assert!(listed.stderr.contains("the last push to ada/hive has no build: no pipeline file"), "{listed:?}");
    assert!(listed.stderr.contains("rename `beespace.yml` to `.beespace.yml`"), "{listed:?}");
    let filtered = shell.run("build list --status failure").await;
    assert!(!filtered.stderr.contains("has no build"), "{filtered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_exits_with_failure_while_a_check_fails() {
    let (gogs, beespace, shell) = world().await;
    let silent = shell.run("doctor").await;
    assert_eq!(silent.code, 0, "nothing is wrong before the first push: {silent:?}");
    assert!(silent.stdout.contains("beespace repo enable"), "{silent:?}");
    beespace.enable(REPO).await.unwrap();
    push(&gogs, ONE_STEP).await;
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    let well = shell.run("doctor").await;
    assert_eq!(well.code, 0, "{well:?}");
    gogs.set_offline(true);
    let away = shell.run("doctor").await;
    assert!(away.code == 1 && away.stdout.contains("gogs.url"), "{away:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn login_replaces_the_variables_and_protects_the_token_file() {
    let (_gogs, beespace, shell) = world().await;
    let wrong = shell.run_with_input(&format!("login {}", beespace.url), "bee_wrong\n").await;
    assert_eq!(wrong.code, 6, "{wrong:?}");
    let login = shell.run_with_input(&format!("login {}", beespace.url), &format!("{}\n", shell.token)).await;
    assert!(login.code == 0 && login.stderr.contains(&beespace.url), "{login:?}");
    let kept = shell.home.path().join("beespace");
    let file = std::fs::read_dir(&kept).unwrap().next().unwrap().unwrap();
    assert_eq!((mode(&kept), mode(&file.path())), (0o700, 0o600));
    // The environment of this command does not name the server.
    let output = Command::new(env!("CARGO_BIN_EXE_beespace-under-test"))
        .args(["repo", "list"])
        .env_remove("BEESPACE_SERVER")
        .env_remove("BEESPACE_TOKEN")
        .env("XDG_CONFIG_HOME", shell.home.path())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut wrong = shell.command("repo list");
    wrong.env_remove("BEESPACE_SERVER").env("BEESPACE_TOKEN", "bee_wrong");
    let refused = run_command(wrong, "").await;
    assert!(refused.code == 6 && refused.stderr.contains("rejects the token in BEESPACE_TOKEN"), "{refused:?}");
    let nothing = shell.run_with_input(&format!("login {}", beespace.url), "\n").await;
    assert!(nothing.code == 2 && nothing.stderr.contains("no token was given"), "{nothing:?}");
}

/// The configuration file of a server of this machine.
fn config_of(beespace: &Beespace, folder: &std::path::Path, name: &str) -> String {
    let path = folder.join(name);
    let text = format!(
        "[server]\nlisten = \"{}\"\n[data]\ndir = \"{}\"\n[gogs]\nurl = \"http://gogs.local\"\ntoken = \"x\"\n",
        beespace.url.trim_start_matches("http://"),
        beespace.app.config.data.dir.display()
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_server_wins_over_the_saved_login_and_every_change_names_its_server() {
    let (gogs, first, shell) = world().await;
    let second = Beespace::start_with(&gogs, "", DUMMY).await.unwrap();
    let login = shell.run_with_input(&format!("login {}", first.url), &format!("{}\n", shell.token)).await;
    assert_eq!(login.code, 0, "{login:?}");
    let config = config_of(&second, shell.home.path(), "second.toml");
    // No variable names a server, as in a new shell.
    let run = async |line: &str, env: &[(&str, &str)]| {
        let mut command = shell.command(line);
        command.env_remove("BEESPACE_SERVER").env_remove("BEESPACE_TOKEN").envs(env.iter().copied());
        run_command(command, "a-value-that-is-long\n").await
    };
    for (line, env, server) in [
        (format!("secret set one --instance --config {config}"), &[][..], &second.url),
        ("secret set two --instance".to_owned(), &[("BEESPACE_CONFIG", config.as_str())], &second.url),
        ("secret set three --instance".to_owned(), &[], &first.url),
        (format!("secret set four --instance --config {config}"), &[("BEESPACE_SERVER", first.url.as_str())], &second.url),
    ] {
        let set = run(&line, env).await;
        assert!(set.code == 0 && set.stderr.contains(&format!("set for the instance at {server}/")), "{line}: {set:?}");
    }
    let names = run("secret list --instance --output json", &[("BEESPACE_CONFIG", &config)]).await.json();
    let names: Vec<&str> = names.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["four", "one", "two"]);
    let missing = run("secret list --instance --config none.toml", &[]).await;
    assert!(missing.code == 3 && missing.stderr.contains("none.toml"), "a named file is never passed over: {missing:?}");

    let left = run("logout", &[]).await;
    assert!(left.code == 0 && left.stderr.contains(&first.url), "{left:?}");
    let again = run("logout", &[]).await;
    assert!(again.code == 0 && again.stderr.contains("no login is saved"), "{again:?}");
    let unnamed = run("secret list --instance", &[]).await;
    assert!(unnamed.code == 2 && unnamed.stderr.contains("beespace login URL"), "{unnamed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_gets_neither_requests_nor_the_token() {
    let (_gogs, _beespace, shell) = world().await;
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        let mut command = shell.command("repo list");
        command.env(variable, &url);
        let listed = run_command(command, "").await;
        assert!(listed.code == 0 && proxy.accept().is_err(), "{variable}: {listed:?}");
    }
    let refused = shell.run(&format!("repo list --server http://ci.example/ --proxy {url}")).await;
    assert!(refused.code == 2 && refused.stderr.contains("could read the token"), "{refused:?}");
    assert!(proxy.accept().is_err(), "the proxy was called");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_closes_the_output_ends_a_command_quietly() {
    let (gogs, beespace, shell) = world().await;
    beespace.enable(REPO).await.unwrap();
    push(&gogs, ONE_STEP).await;
    beespace.wait_until_finished(REPO, 1).await.unwrap();
    for line in [
        "build list",
        "build list --output json",
        "build show 1 --repo ada/hive",
        "build log 1 --repo ada/hive",
        "build log 1 --follow --repo ada/hive",
        "doctor",
        "config show --config beespace.toml",
        "completions bash",
    ] {
        std::fs::write(shell.home.path().join("beespace.toml"), "[gogs]\nurl = \"http://g\"\ntoken = \"x\"\n").unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = shell.command(line);
        command.stdout(writer);
        let ended = run_command(command, "").await;
        let text: Vec<&str> = ended.stderr.lines().filter(|text| !text.starts_with("──")).collect();
        assert_eq!((ended.code, text), (141, vec![]), "{line}");
    }
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn config_show_prints_the_origin_of_each_value() {
    let shell = Shell::new("", "");
    std::fs::write(shell.home.path().join("beespace.toml"), "[gogs]\nurl = \"http://gogs.local:3000\"\ntoken = \"t0ken\"\n")
        .unwrap();
    let shown = shell.run("config show --origin --config beespace.toml").await;
    assert_eq!(shown.code, 0, "{shown:?}");
    for (key, value, origin) in [
        ("gogs.url", "http://gogs.local:3000", "file, line 2"),
        ("engine.capacity", "2", "default"),
        ("server.hook_url", "unset", "default"),
    ] {
        let line = shown.stdout.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {shown:?}"));
        assert!(line.contains(value) && line.contains(origin), "{line}");
    }
    assert!(!shown.stdout.contains("t0ken"), "{shown:?}");
    let wrong = Shell::new("", "");
    std::fs::write(wrong.home.path().join("beespace.toml"), "[gogs]\nurl = 5\n").unwrap();
    let checked = wrong.run("config check --config beespace.toml").await;
    assert!(checked.code == 3 && checked.stderr.contains("beespace.toml:2:"), "{checked:?}");
}

#[tokio::test]
async fn a_missing_configuration_file_is_reported_as_missing() {
    let shell = Shell::new("", "");
    let checked = shell.run("config check").await;
    assert_eq!(checked.code, 3, "{checked:?}");
    assert!(checked.stderr.contains("beespace.toml, /etc/beespace/beespace.toml: no configuration file exists"), "{checked:?}");
    assert!(!checked.stderr.contains("is missing"), "what a file would contain is not listed: {checked:?}");
}

#[tokio::test]
async fn completions_exist_for_every_shell() {
    let shell = Shell::new("", "");
    for name in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let completions = shell.run(&format!("completions {name}")).await;
        assert!(completions.code == 0 && completions.stdout.contains("delivery"), "{name}: {completions:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthorized_and_unreachable_have_different_exit_codes() {
    let (_gogs, beespace, _shell) = world().await;
    let stranger = Shell::new(&beespace.url, "bee_wrong");
    assert_eq!(stranger.run("build list").await.code, 6);
    // A port that was free a moment ago, so nothing listens on it.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = Shell::new(&format!("http://{free}"), "bee_any").run("build list").await;
    assert_eq!(away.code, 7, "{away:?}");
    assert_eq!(stranger.run("build nonsense").await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_checked_without_a_server() {
    let shell = Shell::new("http://127.0.0.1:9", "bee_any");
    let write = |name: &str, text: &str| std::fs::write(shell.home.path().join(name), text).unwrap();
    write("good.yml", ONE_STEP);
    write("bad.yml", "steps:\n  - name: a\n    imag: busybox\n");
    assert_eq!(shell.run("lint good.yml").await.code, 0);
    let bad = shell.run("lint bad.yml").await;
    assert!(bad.code == 3 && bad.stdout.contains("image"), "{bad:?}");
    assert_eq!(shell.run("lint none.yml").await.code, 4);
    write("bad.toml", "[server]\nlisen = \"127.0.0.1:1\"\n[gogs]\nurl = \"http://gogs.local\"\ntoken = \"x\"\n");
    let config = shell.run("config check --config bad.toml").await;
    assert!(config.code == 3 && config.stderr.contains("listen"), "{config:?}");
    const GOGS: &str = "[gogs]\nurl = \"http://gogs.local\"\ntoken = \"x\"\n[engine]\nkind = \"dummy\"\n";
    let policy = |name: &str, rest: &str| format!("[[policy]]\nname = \"{name}\"\n{rest}\n");
    write("odd.wasm", "no component");
    let bad = [
        policy("typo", "plugin = \"policy-imges\""),
        policy("gone", "plugin = \"./gone.wasm\""),
        policy("odd", "plugin = \"./odd.wasm\""),
        policy("pinned", &format!("plugin = \"policy-images\"\nsha256 = \"{}\"", "0".repeat(64))),
        policy("settings", "plugin = \"policy-images\"\nsettings = { repos = [] }"),
    ];
    write("plugins.toml", &format!("{GOGS}{}", bad.concat()));
    let config = shell.run("config check --config plugins.toml").await;
    assert_eq!(config.code, 3, "{config:?}");
    for name in ["typo", "gone", "odd", "pinned", "settings"] {
        assert!(config.stderr.contains(&format!("[[policy]] \"{name}\"")), "{name}: {}", config.stderr);
    }
    let setting = "plugins.toml:22: [[policy]] \"settings\": `settings.repos`: unknown key `repos`; known keys: `forbidden_tags`";
    assert!(config.stderr.contains(setting), "{}", config.stderr);
    let both = policy("images", "plugin = \"policy-images\"\nmode = \"enforced\"\nsettings = { repos = [] }");
    write("both.toml", &format!("{GOGS}{both}"));
    let config = shell.run("config check --config both.toml").await;
    let is_complete = config.stderr.contains("`enforce`, `warn` or `shadow`") && config.stderr.contains("unknown key `repos`");
    assert!(config.code == 3 && is_complete, "a wrong mode does not hide wrong settings: {config:?}");
    let good = policy("images", "plugin = \"policy-images\"\nsettings = { repositories = [\"docker.io/*\"] }");
    write("right.toml", &format!("{GOGS}{good}"));
    let config = shell.run("config check --config right.toml").await;
    assert!(config.code == 0 && config.stderr.contains("2 plugin bindings"), "policy-forks is bound by default: {config:?}");
    assert!(!shell.home.path().join("data").exists(), "a check leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_line_of_the_log_says_that_the_server_has_stopped() {
    let gogs = FakeGogs::start().await.unwrap();
    let server = Process::start(env!("CARGO_BIN_EXE_beespace-under-test"), &gogs, DUMMY, NO_ENV).await.unwrap();
    server.wait_until_ready().await.unwrap();
    let id = rustix::process::Pid::from_raw(server.id().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let is_last = async || Ok(server.log().trim_end().ends_with("the server has stopped").then_some(()));
    server.wait_for("the last line", is_last).await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_start_says_what_to_do() {
    let shell = Shell::new("", "");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let write = |listen: &str, dir: &str| {
        let text = format!(
            "[server]\nlisten = \"{listen}\"\n[data]\ndir = \"{dir}\"\n[gogs]\nurl = \"http://g\"\ntoken = \"x\"\n{DUMMY}"
        );
        std::fs::write(shell.home.path().join("beespace.toml"), text).unwrap();
    };
    let (address, data) = (taken.local_addr().unwrap().to_string(), shell.home.path().join("data").display().to_string());
    for (listen, dir, message, help) in [
        (address.as_str(), data.as_str(), "Address already in use\n", "`server.listen`"),
        ("127.0.0.1:0", "/proc/beespace", "No such file or directory\n", "`data.dir`"),
    ] {
        write(listen, dir);
        let failed = shell.run("server --config beespace.toml").await;
        assert!(failed.code == 1 && failed.stderr.contains(message) && failed.stderr.contains(help), "{failed:?}");
    }
}
