//! `build log --follow` while the server is away.

use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::tcp_proxy::{ProxyState, TcpProxy, Upstream};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::cli::Shell;

const REPO: &str = "ada/hive";

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_continues_after_the_server_was_away() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start(&gogs, "[engine]\nkind = \"dummy\"\n").await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let pipeline = "steps:\n  - name: one\n    image: busybox\n    env: { OUTPUT: \"one filled\", SLEEP: 2s }\n  \
                    - name: two\n    image: busybox\n    env: { OUTPUT: \"two filled\", EXIT_CODE: 3 }\n";
    gogs.push(REPO, "main", &[(".beespace.yml", pipeline)], "Fill cells").await.unwrap();
    let server = beespace.url.trim_start_matches("http://").parse().unwrap();
    let proxy = TcpProxy::to(Upstream::Tcp(server)).await.unwrap();
    let shell = Shell::new(&format!("http://{}", proxy.address()), &beespace.admin_token().unwrap());

    beespace.wait_for_build(REPO, 1, |build| build.status == Status::Running).await.unwrap();
    let mut follower = shell.spawn("build log 1 --follow --repo ada/hive");
    let (mut stdout, mut stderr) =
        (BufReader::new(follower.stdout.take().unwrap()).lines(), BufReader::new(follower.stderr.take().unwrap()).lines());
    let mut printed = Vec::new();
    while printed.last().is_none_or(|line| line != "one filled") {
        printed.push(stdout.next_line().await.unwrap().unwrap());
    }
    proxy.set(ProxyState::Cut);
    let mut messages = Vec::new();
    while messages.last().is_none_or(|line: &String| !line.ends_with("; trying again")) {
        messages.push(stderr.next_line().await.unwrap().unwrap());
    }
    // The build ends while nobody can ask.
    assert_eq!(beespace.wait_until_finished(REPO, 1).await.unwrap().status, Status::Failure);
    proxy.set(ProxyState::Open);
    let mut rest = String::new();
    stdout.into_inner().read_to_string(&mut rest).await.unwrap();
    printed.extend(rest.lines().map(str::to_owned));
    for line in ["one filled", "two filled"] {
        assert_eq!(printed.iter().filter(|printed| *printed == line).count(), 1, "{line}: {printed:?}");
    }
    assert_eq!(follower.wait().await.unwrap().code(), Some(1), "the code of the build");
    while let Some(line) = stderr.next_line().await.unwrap() {
        messages.push(line);
    }
    assert_eq!(messages.iter().filter(|line| line.contains("trying again")).count(), 1, "{messages:?}");
    assert!(messages.last().unwrap().starts_with("ada/hive #1: failure"), "{messages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_responded_is_not_waited_for() {
    let gogs = FakeGogs::start().await.unwrap();
    let beespace = Beespace::start(&gogs, "[engine]\nkind = \"dummy\"\n").await.unwrap();
    let server = beespace.url.trim_start_matches("http://").parse().unwrap();
    let proxy = TcpProxy::to(Upstream::Tcp(server)).await.unwrap();
    proxy.set(ProxyState::Cut);
    let shell = Shell::new(&format!("http://{}", proxy.address()), &beespace.admin_token().unwrap());
    assert_eq!(shell.run("build log 1 --follow --repo ada/hive").await.code, 7);
}
