//! A step's log as browsers, the command line and `curl` get it.

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::response::sse::Event as SseEvent;
use axum::routing::get;
use beespace::api::log::{LogQuery, log_text};
use beespace::api::log_stream::log_stream;
use beespace::log::{LogReader, LogStore, LogWriter};
use beespace_core::mask::Secrets;
use beespace_core::output::Stream;
use beespace_core::time::Timestamp;
use futures::StreamExt as _;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

use crate::log::STEP;

/// One log behind the two handlers, over a real socket.
struct Case {
    _dir: tempfile::TempDir,
    store: LogStore,
    address: String,
    client: reqwest::Client,
    /// True as soon as the step is finished.
    over: watch::Sender<bool>,
    /// Each message is a change of the build.
    changes: broadcast::Sender<()>,
}

#[derive(Clone)]
struct Served {
    reader: LogReader,
    over: watch::Receiver<bool>,
    changes: broadcast::Sender<()>,
}

async fn text(State(served): State<Served>, Query(query): Query<LogQuery>, headers: HeaderMap) -> Response {
    log_text(&served.reader, "o-r 1/tests", "/o/r/1/tests", &query, &headers).await.unwrap()
}

async fn stream(State(mut served): State<Served>, Query(query): Query<LogQuery>, headers: HeaderMap) -> Response {
    let changes = BroadcastStream::new(served.changes.subscribe()).map(|_| SseEvent::default().event("change").data("{}"));
    let over = async move {
        let _ = served.over.wait_for(|over| *over).await;
    };
    log_stream(served.reader, "/o/r/1/tests", &query, &headers, changes, over).await.unwrap()
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    name: String,
    id: Option<u64>,
    data: serde_json::Value,
}

/// A stream being read.
struct Events {
    response: reqwest::Response,
    buffer: String,
}

impl Events {
    /// The next event; `None` when the server closed the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let field =
                    |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(|text| text.trim().to_owned()));
                let event = field("event:").map(|name| Event {
                    name,
                    id: field("id:").map(|id| id.parse().unwrap()),
                    data: serde_json::from_str(&field("data:").unwrap()).unwrap(),
                });
                self.buffer = rest.to_owned();
                if event.is_some() {
                    return event;
                }
                continue;
            }
            let chunk = tokio::time::timeout(beespace_tests::WAIT_TIMEOUT, self.response.chunk()).await.unwrap().unwrap()?;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn all(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

impl Case {
    async fn new() -> Self {
        // The client needs a provider even without TLS. Another test may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::new(dir.path());
        let (over, is_over) = watch::channel(false);
        let changes = broadcast::Sender::new(8);
        let served = Served { reader: store.reader(STEP), over: is_over, changes: changes.clone() };
        let router = Router::new().route("/log", get(text)).route("/log/stream", get(stream)).with_state(served);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { _dir: dir, store, address, client: reqwest::Client::new(), over, changes }
    }

    async fn writer(&self) -> LogWriter {
        self.store.writer(STEP, Secrets::none(), u64::MAX).await.unwrap()
    }

    /// A log of these lines, finished.
    async fn with(lines: &str) -> Self {
        let case = Self::new().await;
        let writer = case.writer().await;
        writer.write(Stream::Stdout, Timestamp(1_000), lines.to_owned()).await.unwrap();
        writer.finish(Timestamp(2_000), None).await.unwrap();
        case
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let mut request = self.client.get(format!("{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn events(&self, query: &str, last_id: Option<u64>) -> Events {
        let id = last_id.map(|id| id.to_string());
        let headers: Vec<(&str, &str)> = id.iter().map(|id| ("Last-Event-ID", id.as_str())).collect();
        let response = self.get(&format!("/log/stream{query}"), &headers).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no", "a proxy must not hold the events back");
        Events { response, buffer: String::new() }
    }
}

#[tokio::test]
async fn the_text_response_is_the_plain_log() {
    let case = Case::with("one\n<script>two</script>\nthree").await;
    let response = case.get("/log", &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
        (header::ACCEPT_RANGES, "bytes"),
        (header::CONTENT_LENGTH, "30"),
    ] {
        assert_eq!(response.headers()[&name], value, "{name}");
    }
    assert!(!response.headers().contains_key(header::CONTENT_DISPOSITION));
    assert_eq!(response.text().await.unwrap(), "one\n<script>two</script>\nthree");

    let download = case.get("/log?download=true", &[]).await;
    assert_eq!(download.headers()[header::CONTENT_DISPOSITION], "attachment; filename=\"o-r-1-tests.log\"");
}

#[tokio::test]
async fn line_tail_and_byte_ranges_select_from_the_same_text() {
    let case = Case::with("one\ntwo\nthree\nfour\n").await;
    for (query, expected) in [
        ("?from=2", "two\nthree\nfour\n"),
        ("?from=2&lines=2", "two\nthree\n"),
        ("?tail=1", "four\n"),
        ("?tail=0", ""),
        ("?tail=99", "one\ntwo\nthree\nfour\n"),
        ("?from=99", ""),
        ("?from=0&lines=1", "one\n"),
    ] {
        let response = case.get(&format!("/log{query}"), &[]).await;
        assert_eq!((response.status(), response.text().await.unwrap().as_str()), (StatusCode::OK, expected), "{query}");
    }
    for (range, status, content_range, expected) in [
        ("bytes=4-6", 206, "bytes 4-6/19", "two"),
        ("bytes=-5", 206, "bytes 14-18/19", "four\n"),
        ("bytes=14-", 206, "bytes 14-18/19", "four\n"),
        ("bytes=19-", 416, "bytes */19", ""),
    ] {
        let response = case.get("/log", &[("Range", range)]).await;
        assert_eq!(response.status().as_u16(), status, "{range}");
        assert_eq!(response.headers()[header::CONTENT_RANGE], content_range, "{range}");
        assert_eq!(response.text().await.unwrap(), expected, "{range}");
    }
    assert_eq!(case.get("/log?fom=2", &[]).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_log_without_output_is_empty() {
    let case = Case::new().await;
    let response = case.get("/log", &[]).await;
    assert_eq!((response.status(), response.text().await.unwrap().as_str()), (StatusCode::OK, ""));
    let body: serde_json::Value = case.get("/log?format=json", &[]).await.json().await.unwrap();
    assert_eq!(body, serde_json::json!({"lines": [], "position": 0, "line_count": 0, "end": null}));
}

#[tokio::test]
async fn json_and_rows_carry_number_stream_and_time() {
    let case = Case::new().await;
    let writer = case.writer().await;
    writer.write(Stream::Stdout, Timestamp(1_000), "plain\n").await.unwrap();
    writer.write(Stream::Stderr, Timestamp(2_500), "\x1b[31merror: <bad>\x1b[0m\n").await.unwrap();
    writer.finish(Timestamp(3_000), None).await.unwrap();

    let body: serde_json::Value = case.get("/log?format=json&from=2", &[]).await.json().await.unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "lines": [{
                "line": 2, "stream": "stderr", "at_ms": 2_500, "text": "\u{1b}[31merror: <bad>\u{1b}[0m",
                "begins": true, "ends": true, "continues": false,
            }],
            "position": 2,
            "line_count": 2,
            "end": {"incomplete": false, "dropped_bytes": 0},
        })
    );
    let rows = case.get("/log?format=html&tail=1", &[]).await;
    assert_eq!(rows.headers()["beespace-log-position"], "2");
    assert_eq!(
        rows.text().await.unwrap(),
        "<div class=\"l stderr bad\" id=\"L2\"><a href=\"/o/r/1/tests?from=1#L2\" tabindex=\"-1\">2</a><time>1.5s</time>\
         <span><span class=\"a-f1\">error: &lt;bad&gt;</span></span></div>"
    );
}

#[tokio::test]
async fn lines_are_streamed_while_the_step_runs_and_the_end_is_reported() {
    let case = Case::new().await;
    let mut events = case.events("", None).await;
    let writer = case.writer().await;
    writer.write(Stream::Stdout, Timestamp(1), "hello ").await.unwrap();
    let event = events.next().await.unwrap();
    assert_eq!((event.name.as_str(), event.id, &event.data["text"]), ("line", Some(1), &"hello ".into()));
    writer.write(Stream::Stdout, Timestamp(2), "world\n").await.unwrap();
    writer.finish(Timestamp(3), Some("the engine went away".to_owned())).await.unwrap();
    let rest = events.all().await;
    let rest_texts: Vec<_> =
        rest.iter().map(|event| (event.name.as_str(), event.data["text"].as_str().unwrap_or_default())).collect();
    assert_eq!(rest_texts, [("line", "world"), ("line", "this log is incomplete: the engine went away"), ("end", "")]);
    assert_eq!(rest[2].data, serde_json::json!({"incomplete": true, "dropped_bytes": 0}));
}

#[tokio::test]
async fn a_reconnecting_client_misses_and_repeats_nothing() {
    let case = Case::new().await;
    let writer = case.writer().await;
    for n in 0..9 {
        writer.write(Stream::Stdout, Timestamp(n), format!("{n} begins,")).await.unwrap();
        writer.flush().await.unwrap();
        writer.write(Stream::Stdout, Timestamp(n), " ends\n").await.unwrap();
    }
    writer.finish(Timestamp(99), None).await.unwrap();
    let all = case.events("", None).await.all().await;
    let last = all.len() as u64 - 1;
    for seen in 1..last {
        let again = case.events("?from=1", Some(seen)).await.all().await;
        assert_eq!(again, all[usize::try_from(seen).unwrap()..], "after {seen}");
    }
    // The client has everything: this status makes an `EventSource` stop reconnecting.
    let over = case.get("/log/stream", &[("Last-Event-ID", &last.to_string())]).await;
    assert_eq!(over.status(), StatusCode::NO_CONTENT);
    // A page that shows the complete log receives the end event.
    let end = case.events(&format!("?after={last}"), None).await.all().await;
    assert_eq!(end.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["end"]);
    assert_eq!(case.events("?tail=1", None).await.all().await.first(), all.iter().find(|event| event.data["line"] == 9));
}

#[tokio::test]
async fn rows_of_a_growing_line_replace_each_other_after_a_reconnect() {
    let case = Case::new().await;
    let writer = case.writer().await;
    writer.write(Stream::Stdout, Timestamp(0), "first\n\x1b[32m10%").await.unwrap();
    writer.flush().await.unwrap();
    let mut events = case.events("?format=html", None).await;
    assert!(events.next().await.unwrap().data["html"].as_str().unwrap().contains(">first<"));
    let ten = events.next().await.unwrap();
    assert!(ten.data["line"] == 2 && ten.data["html"].as_str().unwrap().contains("<span class=\"a-f2\">10%</span>"));
    drop(events);
    writer.write(Stream::Stdout, Timestamp(0), "\r20%").await.unwrap();
    writer.flush().await.unwrap();
    let mut events = case.events("?format=html", ten.id).await;
    let twenty = events.next().await.unwrap();
    assert!(twenty.data["line"] == 2 && twenty.data["html"].as_str().unwrap().contains("<span class=\"a-f2\">20%</span>"));
    writer.finish(Timestamp(1), None).await.unwrap();
    assert_eq!(events.next().await.unwrap().name, "end");
}

#[tokio::test]
async fn the_stream_of_a_page_carries_changes_until_the_log_ends() {
    let case = Case::new().await;
    let (mut page, mut program) = (case.events("?format=html", None).await, case.events("", None).await);
    case.changes.send(()).unwrap();
    assert_eq!(page.next().await.unwrap().name, "change");
    let writer = case.writer().await;
    writer.write(Stream::Stdout, Timestamp(0), "line\n").await.unwrap();
    writer.finish(Timestamp(1), None).await.unwrap();
    let names = |events: Vec<Event>| events.into_iter().map(|event| event.name).collect::<Vec<_>>();
    assert_eq!(names(page.all().await), ["row", "end"]);
    assert_eq!(program.next().await.unwrap().name, "line", "a program gets no changes");
}

#[tokio::test]
async fn a_page_that_is_far_behind_gets_the_last_lines_only() {
    let text: String = (1..=100_000).map(|n| format!("line {n}\n")).collect();
    let case = Case::with(&text).await;
    // A line that two frames share comes in two fragments.
    let lines = |events: Vec<Event>| {
        let mut lines: Vec<u64> = events.iter().filter_map(|event| event.data["line"].as_u64()).collect();
        lines.dedup();
        lines
    };
    let page = lines(case.events("?format=html&after=7", None).await.all().await);
    assert_eq!(page, (98_001..=100_000).collect::<Vec<_>>());
    // What is not far behind is not skipped, and a program gets all.
    let near = lines(case.events("?format=html&from=98501", None).await.all().await);
    assert_eq!(near, (98_501..=100_000).collect::<Vec<_>>());
    assert_eq!(lines(case.events("?format=json&from=50001", None).await.all().await).len(), 50_000);
}

#[tokio::test]
async fn a_stream_without_a_log_ends_with_its_step() {
    let case = Case::new().await;
    let mut events = case.events("", None).await;
    case.over.send(true).unwrap();
    let end = events.next().await.unwrap();
    assert_eq!((end.name.as_str(), &end.data["incomplete"]), ("end", &true.into()));
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn the_end_of_a_step_truncates_nothing() {
    let case = Case::with("one\ntwo\n").await;
    case.over.send(true).unwrap();
    let names: Vec<String> = case.events("", None).await.all().await.into_iter().map(|event| event.name).collect();
    assert_eq!(names, ["line", "line", "end"]);
}
