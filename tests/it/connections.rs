//! Slow, endless and very many connections.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use beespace_tests::WAIT_TIMEOUT;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::process::{NO_ENV, Process};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_beespace-under-test");

/// The server's limit of concurrent connections; lower if this is more than half of its file descriptors.
const MAX_CONNECTIONS: usize = 4096;

async fn beespace() -> (FakeGogs, Beespace) {
    let gogs = FakeGogs::start().await.unwrap();
    let beespace = Beespace::start(&gogs, "[engine]\nkind = \"dummy\"\n").await.unwrap();
    (gogs, beespace)
}

async fn connect(beespace: &Beespace) -> TcpStream {
    TcpStream::connect(beespace.url.trim_start_matches("http://")).await.unwrap()
}

/// Everything that the server sends until it closes the connection.
async fn read_to_end(mut stream: TcpStream) -> String {
    let mut response = Vec::new();
    // A reset counts as an end.
    let _ = timeout(WAIT_TIMEOUT, stream.read_to_end(&mut response)).await.expect("the server keeps the connection");
    String::from_utf8_lossy(&response).into_owned()
}

/// Sends an endless request byte by byte. Returns the response, and how long the server kept the connection.
async fn send_slowly(beespace: &Beespace, start: &str, patience: Duration) -> (String, Duration) {
    let (mut read, mut write) = connect(beespace).await.into_split();
    let began = Instant::now();
    write.write_all(start.as_bytes()).await.unwrap();
    let letters = async {
        // With an empty start nothing is sent at all: an idle connection.
        while !start.is_empty() && write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut response = Vec::new();
    let ended = async {
        tokio::select! {
            _ = read.read_to_end(&mut response) => {}
            () = letters => {}
        }
    };
    timeout(patience, ended).await.expect("the server keeps the connection");
    (String::from_utf8_lossy(&response).into_owned(), began.elapsed())
}

#[tokio::test]
async fn a_slow_request_head_is_cut_off() {
    let (_gogs, beespace) = beespace().await;
    for start in ["", "GET /healthz HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
        let (_, took) = send_slowly(&beespace, start, WAIT_TIMEOUT).await;
        assert!(took >= Duration::from_secs(5), "{took:?}");
    }
}

#[tokio::test]
async fn a_slow_request_body_is_cut_off() {
    const REPO: &str = "ada/hive";
    let (gogs, beespace) = beespace().await;
    gogs.create_repository(REPO).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let hook = beespace.app.forge.hooks(&REPO.parse().unwrap()).await.unwrap().remove(0);
    let known_key = hook.config.url.trim_start_matches(&beespace.url);
    let fields = "Host: a\r\nSec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded";
    let slow = async |path: &str, given: Duration| {
        let start = format!("POST {path} HTTP/1.1\r\n{fields}\r\nContent-Length: 100000\r\n\r\ntoken=");
        let (response, took) = send_slowly(&beespace, &start, WAIT_TIMEOUT).await;
        // If only the head were refused, this would not take so long.
        assert!(took >= given / 2, "{path} after {took:?}: {response}");
        // A reset may arrive before the response is read.
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 408"), "{path}: {response}");
        took
    };
    let [two, twenty, sixty] = [2, 20, 60].map(Duration::from_secs);
    let (unknown, known, login) = tokio::join!(slow("/-/hook/a", two), slow(known_key, twenty), slow("/-/login", sixty));
    assert!(unknown < known && known < login, "unknown key {unknown:?}, known key {known:?}, login {login:?}");
}

#[tokio::test]
async fn an_endless_request_head_is_refused_while_it_is_read() {
    let (_gogs, beespace) = beespace().await;
    let mut stream = connect(&beespace).await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    let (mut read, mut write) = stream.split();
    let flood = async {
        let line = format!("X-Bomb: {}\r\n", "b".repeat(4000));
        let mut sent = 0;
        while sent < 64 << 20 && write.write_all(line.as_bytes()).await.is_ok() {
            sent += line.len();
        }
        sent
    };
    let mut response = vec![0; 4096];
    let (sent, read) = tokio::join!(flood, timeout(WAIT_TIMEOUT, read.read(&mut response)));
    let response = String::from_utf8_lossy(&response[..read.unwrap().unwrap_or(0)]).into_owned();
    assert!(response.is_empty() || response.starts_with("HTTP/1.1 431"), "{response}");
    assert!(sent < 16 << 20, "{sent} bytes of a head were taken");
}

#[tokio::test]
async fn request_smuggling_is_refused() {
    let (_gogs, beespace) = beespace().await;
    for head in [
        "POST /-/hook/a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 30\r\n\r\n",
        "POST /-/hook/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        "POST /-/hook/a HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\n",
        "POST /-/hook/a HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n",
    ] {
        let mut stream = connect(&beespace).await;
        stream.write_all(format!("{head}0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let response = read_to_end(stream).await;
        assert!(response.starts_with("HTTP/1.1 400") && response.matches("HTTP/1.1").count() == 1, "{head:?} -> {response}");
    }
    // With both a length and chunks, the chunks count and the connection is not used again.
    let mut stream = connect(&beespace).await;
    let both = "POST /-/hook/a HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    stream.write_all(format!("{both}GET /version HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let response = read_to_end(stream).await;
    assert!(!response.contains("200 OK"), "{response}");
}

/// Connects, with retries while the system's backlog is full: TCP itself would retry more and more rarely and then give up.
async fn connect_until_full(address: SocketAddr) -> TcpStream {
    loop {
        if let Ok(connected) = timeout(Duration::from_secs(5), TcpStream::connect(address)).await {
            return connected.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_do_not_block_other_clients() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let files = usize::try_from(limit.maximum.unwrap_or(u64::MAX)).unwrap();
    // With a lower limit of file descriptors there are fewer connections; a thousand descriptors are left for other tests.
    let (many, places) = (files.saturating_sub(1_000).min(10_000), MAX_CONNECTIONS.min(files / 2));
    let gogs = FakeGogs::start().await.unwrap();
    let server = Process::start(PROGRAM, &gogs, "[engine]\nkind = \"dummy\"\n", NO_ENV).await.unwrap();
    let address: SocketAddr = server.url.trim_start_matches("http://").parse().unwrap();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", server.id().unwrap())).unwrap().count();
    let before = (open(), server.resident_memory().unwrap());
    let mut crowd = JoinSet::new();
    for _ in 0..many {
        crowd.spawn(connect_until_full(address));
    }
    let let_in = async {
        let mut streams = Vec::new();
        while let Some(stream) = crowd.join_next().await {
            streams.push(stream.unwrap());
        }
        streams
    };
    let other_client = async {
        // Many connections are open now; the server never holds all of them at once.
        while open() < before.0 + places.min(1_000) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // While all places are taken, the response is 503 with `Retry-After`.
        let served = async {
            loop {
                let response = reqwest::get(format!("{}/healthz", server.url)).await.unwrap();
                if response.status() != reqwest::StatusCode::SERVICE_UNAVAILABLE {
                    return response.status();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(WAIT_TIMEOUT, served).await.expect("other clients get no response")
    };
    let mut all = std::pin::pin!(async { tokio::join!(timeout(WAIT_TIMEOUT, let_in), other_client) });
    let mut most = before;
    let (streams, answer) = loop {
        tokio::select! {
            ended = &mut all => break ended,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        most = (most.0.max(open()), most.1.max(server.resident_memory().unwrap()));
    };
    assert!(answer.is_success());
    let streams = streams.expect("some connections were never accepted");
    assert!(streams.len() == many && many > places, "{} of {many}", streams.len());
    assert!(most.0 <= before.0 + places + 256, "{} files are open at once, {} before the crowd came", most.0, before.0);
    let grown = most.1 - before.1;
    assert!(grown < 512 << 20, "memory grew by {grown} bytes");
}
