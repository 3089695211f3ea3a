//! The fake Gogs as a program of its own.

use std::net::SocketAddr;
use std::process::Stdio;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncBufReadExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn the_program_prints_its_address_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_fake-gogs"));
    command.args(["--listen", "127.0.0.1:0", "--token", &"a1".repeat(20), "--dir"]).arg(folder.path().join("gogs"));
    let mut program = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let line = tokio::io::BufReader::new(program.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&ready["owner"], &ready["token"]), (&json!("ada"), &json!("a1".repeat(20))));
    let url = ready["url"].as_str().unwrap();
    let address: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
    assert!(address.ip().is_loopback());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let made = client.post(format!("{url}/control/repos")).json(&json!({ "name": "app" })).send().await.unwrap();
    assert_eq!(made.status(), StatusCode::CREATED);
    assert_eq!(made.json::<Value>().await.unwrap()["full_name"], "ada/app");
    for (path, status) in [("/", 200), ("/ada/app", 200), ("/ada/none", 404), ("/ada/app/commit/abc", 404)] {
        assert_eq!(client.get(format!("{url}{path}")).send().await.unwrap().status().as_u16(), status, "{path}");
    }
    let noted = client.post(format!("{url}/control/inbox/notes")).header("x-one", "1").body("hello").send().await.unwrap();
    assert_eq!(noted.status(), StatusCode::OK);
    let notes: Value = client.get(format!("{url}/control/inbox/notes")).send().await.unwrap().json().await.unwrap();
    assert_eq!(notes[0]["body"], "hello");
    assert!(notes[0]["headers"].as_array().unwrap().contains(&json!(["x-one", "1"])));
}
