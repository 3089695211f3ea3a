//! The command line on a terminal: what it asks for, and what it does not show.

use std::process::Stdio;

use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::PracticeGogs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// Runs a command on a terminal of its own, types `line` once `prompt` is there, and returns all that the terminal showed.
async fn typed(beespace: &Beespace, command: &str, prompt: &str, line: &str) -> (Option<i32>, String) {
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &format!("{} {command}", env!("CARGO_BIN_EXE_beespace-under-test")), "/dev/null"]);
    terminal.env("HOME", home.path()).env("XDG_CONFIG_HOME", home.path());
    terminal.env("BEESPACE_SERVER", &beespace.url).env("BEESPACE_TOKEN", beespace.admin_token().unwrap());
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
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
async fn a_secret_is_asked_for_and_does_not_show_while_it_is_typed() {
    let gogs = PracticeGogs::start().await.unwrap();
    let beespace = Beespace::start(&gogs, "[engine]\nkind = \"dummy\"\n").await.unwrap();
    let (code, shown) = typed(&beespace, "secret set key --instance", "value: ", "canary-of-a-terminal").await;
    assert!(code == Some(0) && shown.contains("key is set") && !shown.contains("canary"), "{code:?}: {shown}");
    let listed = beespace.admin().unwrap().get("/api/v1/secrets").await.unwrap().body;
    assert!(listed.contains("\"key\"") && !listed.contains("canary"), "{listed}");
}
