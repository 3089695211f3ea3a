//! The command line in a terminal: prompts, and what is not echoed.

use std::path::Path;
use std::process::Stdio;

use beespace_core::sanitize;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

/// Runs a command in a pseudo-terminal.
fn begin(beespace: &Beespace, home: &Path, command: &str) -> Child {
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &format!("{} {command}", env!("CARGO_BIN_EXE_beespace-under-test")), "/dev/null"]);
    terminal.env("HOME", home).env("XDG_CONFIG_HOME", home);
    terminal.env("BEESPACE_SERVER", &beespace.url).env("BEESPACE_TOKEN", beespace.admin_token().unwrap());
    terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// Runs a command in a pseudo-terminal, types `line` after `prompt`, and returns everything that the terminal showed.
async fn typed(beespace: &Beespace, command: &str, prompt: &str, line: &str) -> (Option<i32>, String) {
    let home = tempfile::tempdir().unwrap();
    let mut terminal = begin(beespace, home.path(), command);
    let (mut keys, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains(prompt) {
        assert!(screen.read_buf(&mut shown).await.unwrap() > 0, "{}", String::from_utf8_lossy(&shown));
    }
    keys.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    screen.read_to_end(&mut shown).await.unwrap();
    (terminal.wait().await.unwrap().code(), String::from_utf8_lossy(&shown).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typed_secret_is_not_echoed() {
    let gogs = FakeGogs::start().await.unwrap();
    let beespace = Beespace::start(&gogs, "[engine]\nkind = \"dummy\"\n").await.unwrap();
    let (code, shown) = typed(&beespace, "secret set key --instance", "Value: ", "canary-of-a-terminal").await;
    assert!(code == Some(0) && shown.contains("key set") && !shown.contains("canary"), "{code:?}: {shown}");
    let listed = beespace.admin().unwrap().get("/api/v1/secrets").await.unwrap().body;
    assert!(listed.contains("\"key\"") && !listed.contains("canary"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_can_colour_the_terminal_and_do_nothing_else() {
    const REPO: &str = "ada/hive";
    let (gogs, beespace) = crate::pages::world().await;
    let output = "\\u001b]0;title\\u0007\\u001b]52;c;Y2VsbHM=\\u0007\\u001b[2J\\u001b[31mred\\u001b[0m\\u0007";
    let pipeline = format!("steps: [{{ name: build, image: busybox, env: {{ OUTPUT: \"{output}\" }} }}]");
    gogs.push(REPO, "main", &[(".beespace.yml", &pipeline)], "Fill cells").await.unwrap();
    let build = beespace.wait_until_finished(REPO, 1).await.unwrap();
    let kept = beespace.log(&build, "build").await.unwrap();
    assert!(kept.iter().any(|line| line.starts_with("\u{1b}]0;title\u{7}")), "{kept:?}");
    let home = tempfile::tempdir().unwrap();
    let mut terminal = begin(&beespace, home.path(), "build log 1 build --repo ada/hive");
    let mut shown = String::new();
    terminal.stdout.take().unwrap().read_to_string(&mut shown).await.unwrap();
    assert!(terminal.wait().await.unwrap().success() && shown.contains("\u{1b}[31mred\u{1b}[0m"), "{shown:?}");
    let rest = shown.replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
    assert!(!rest.chars().any(|c| sanitize::is_unsafe(c) && !matches!(c, '\r' | '\n')), "{shown:?}");
    assert!(!rest.contains("title") && !rest.contains("Y2VsbHM="), "{shown:?}");
}
