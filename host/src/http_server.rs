//! The HTTP server: accepts a limited number of connections, limits the time and the size of each request header, and shuts down
//! gracefully.
//!
//! Gogs sends each delivery once, so deliveries must arrive even while other clients hold all connections. Some places are
//! therefore kept for them: when no other place is free, a connection gets such a place, on which only a delivery is served. And
//! when places run out, old connections are closed after their current request.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::serve::Listener as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// Connections at once. Further ones wait in the accept backlog until one of them closes.
const MAX_CONNECTIONS: usize = 4096;
/// Those of them that are kept for deliveries.
const KEPT_CONNECTIONS: usize = 256;
/// Connections that the system queues for us, at most `net.core.somaxconn`. It silently drops further ones, whose clients retry
/// after 1 s, then with growing delays: with a short backlog, thousands of clients would take minutes to connect.
const ACCEPT_BACKLOG: u32 = 4096;
/// The time for a request header, and the idle time between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The time for a request header on a place that is kept for deliveries: Gogs sends it at once.
const KEPT_HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// The size of a request header.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// A connection whose peer acknowledges nothing for this long is closed.
const PEER_TIMEOUT: Duration = Duration::from_secs(60);

/// Limits of the connections.
#[derive(Debug, Clone, Copy)]
struct ConnectionLimits {
    /// Connections that every route may use.
    general: usize,
    /// Further ones, kept for deliveries.
    kept: usize,
    /// When places run out, a connection of this age is closed after its current request.
    max_age: Duration,
    /// The time until a connection that is to be closed is cut off, for example in the middle of a live log.
    grace: Duration,
    /// The time between two checks whether places are short.
    check_interval: Duration,
    /// See [`HEADER_TIMEOUT`].
    header_timeout: Duration,
    /// See [`KEPT_HEADER_TIMEOUT`].
    kept_header_timeout: Duration,
}

impl ConnectionLimits {
    /// At most half of the files that the process may open are connections; the others are logs, git and the engine.
    fn of_process() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let connections = MAX_CONNECTIONS.min(usize::try_from(files / 2).unwrap_or(usize::MAX));
        let kept = KEPT_CONNECTIONS.min(connections / 8);
        Self {
            general: connections - kept,
            kept,
            max_age: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            check_interval: Duration::from_secs(5),
            header_timeout: HEADER_TIMEOUT,
            kept_header_timeout: KEPT_HEADER_TIMEOUT,
        }
    }
}

/// Binds the address.
///
/// # Errors
/// The system's: the address is in use, no interface has it, or the port is below 1024 and the user may not bind it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // After a restart, connections of the previous process that are still closing must not block the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

/// Serves until `stopping`, then finishes the requests that have already arrived. `is_delivery` recognises the path of a
/// delivery.
pub async fn serve(listener: TcpListener, router: Router, is_delivery: fn(&str) -> bool, stopping: CancellationToken) {
    serve_within(ConnectionLimits::of_process(), listener, router, is_delivery, stopping).await;
}

async fn serve_within(
    limits: ConnectionLimits,
    mut listener: TcpListener,
    router: Router,
    is_delivery: fn(&str) -> bool,
    stopping: CancellationToken,
) {
    let places = Arc::new(Places::new(limits));
    let open = TaskTracker::new();
    while let Some((place, stream)) = stopping.run_until_cancelled(next_connection(&mut listener, &places)).await {
        let connection =
            HttpConnection { router: router.clone(), is_delivery, place: Arc::new(place), stopping: stopping.clone() };
        open.spawn(connection.serve(stream));
    }
    drop(listener);
    open.close();
    open.wait().await;
}

async fn next_connection(listener: &mut TcpListener, places: &Arc<Places>) -> (Place, TcpStream) {
    let place = Arc::clone(places).take().await;
    let (stream, _) = listener.accept().await;
    let socket = SockRef::from(&stream);
    let tuned = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PEER_TIMEOUT)))
        .and_then(|()| socket.set_tcp_user_timeout(Some(PEER_TIMEOUT)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "could not set the timeouts of a connection; it keeps the system's");
    }
    // A general place may have become free while the connection was awaited.
    place.is_general();
    (place, stream)
}

/// The places of all connections.
#[derive(Debug)]
struct Places {
    limits: ConnectionLimits,
    general: Arc<Semaphore>,
    kept: Arc<Semaphore>,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    is_general: bool,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    fn new(limits: ConnectionLimits) -> Self {
        Self { limits, general: Arc::new(Semaphore::new(limits.general)), kept: Arc::new(Semaphore::new(limits.kept)) }
    }

    /// Waits for a place. One that is kept is taken only if no general one is free.
    async fn take(self: Arc<Self>) -> Place {
        let (general, kept) = (Arc::clone(&self.general), Arc::clone(&self.kept));
        let held = tokio::select! {
            biased;
            Ok(permit) = general.acquire_owned() => Held { is_general: true, _permit: permit },
            Ok(permit) = kept.acquire_owned() => Held { is_general: false, _permit: permit },
            // The semaphores are never closed.
            else => std::future::pending().await,
        };
        Place { places: self, held: Mutex::new(held) }
    }

    fn are_short(&self) -> bool {
        self.general.available_permits() <= self.limits.general / 8
    }

    /// Completes when a connection that began now is old and its place is needed.
    async fn wait_until_old(&self) {
        sleep(self.limits.max_age).await;
        while !self.are_short() {
            sleep(self.limits.check_interval).await;
        }
    }
}

impl Place {
    /// Whether every route may be served. A kept place becomes a general one as soon as one is free.
    fn is_general(&self) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.is_general
            && let Ok(permit) = Arc::clone(&self.places.general).try_acquire_owned()
        {
            *held = Held { is_general: true, _permit: permit };
        }
        held.is_general
    }
}

/// One connection.
struct HttpConnection {
    router: Router,
    is_delivery: fn(&str) -> bool,
    place: Arc<Place>,
    stopping: CancellationToken,
}

impl HttpConnection {
    async fn serve(self, stream: TcpStream) {
        let Self { router, is_delivery, place, stopping } = self;
        let (places, began_general) = (Arc::clone(&place.places), place.is_general());
        let respond = |request: Request<Incoming>| {
            let (router, path) = (router.clone(), request.uri().path());
            let is_served = place.is_general() || is_delivery(path);
            async move {
                let response = if is_served { router.oneshot(request).await? } else { busy() };
                Ok::<_, Infallible>(if began_general { response } else { closing(response) })
            }
        };
        let mut http = http1::Builder::new();
        let header_timeout = if began_general { places.limits.header_timeout } else { places.limits.kept_header_timeout };
        http.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(MAX_HEADER_BYTES);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service_fn(respond)));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = places.wait_until_old() => {
                connection.as_mut().graceful_shutdown();
                // Its client can come back for what is left.
                timeout(places.limits.grace, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection failed");
        }
    }
}

/// The response to a request other than a delivery when only kept places are left.
fn busy() -> Response {
    let text = "All connections of the server are in use. Try again in a few seconds.\n";
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], text).into_response()
}

/// The response after which the connection is closed.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Raises the limit of open files to the maximum that the system allows. The default is usually far below.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Longer than any of these tests takes; a test that reaches it fails.
    const PATIENCE: Duration = Duration::from_secs(60);
    const GET: &str = "GET /page HTTP/1.1\r\nhost: a\r\n\r\n";
    const POST: &str = "POST /hook HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";

    async fn server(max_age: Duration) -> SocketAddr {
        let limits = ConnectionLimits {
            general: 4,
            kept: 2,
            max_age,
            grace: max_age,
            check_interval: Duration::from_millis(10),
            header_timeout: PATIENCE,
            kept_header_timeout: Duration::from_millis(100),
        };
        let endless = || async {
            let parts = futures::stream::once(async { Ok::<_, Infallible>("part") });
            axum::body::Body::from_stream(futures::StreamExt::chain(parts, futures::stream::pending()))
        };
        let router = Router::new()
            .route("/page", get(|| async { "page" }))
            .route("/hook", post(|| async { "hook" }))
            .route("/endless", get(endless));
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_within(limits, listener, router, |path| path == "/hook", CancellationToken::new()));
        address
    }

    /// Sends a request and returns what is read first of the response; empty if the connection was closed.
    async fn ask(stream: &mut TcpStream, request: &str) -> String {
        let mut response = vec![0; 1024];
        // A closed connection fails to write or ends the response.
        let _ = stream.write_all(request.as_bytes()).await;
        let read = timeout(PATIENCE, stream.read(&mut response)).await.expect("no response").unwrap_or(0);
        String::from_utf8_lossy(&response[..read]).into_owned()
    }

    async fn connected(address: SocketAddr, request: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let response = ask(&mut stream, request).await;
        (stream, response)
    }

    #[tokio::test]
    async fn deliveries_arrive_while_other_clients_hold_all_general_places() {
        let address = server(PATIENCE).await;
        let mut crowd = Vec::new();
        for _ in 0..4 {
            let (stream, response) = connected(address, GET).await;
            assert!(response.starts_with("HTTP/1.1 200"), "{response}");
            crowd.push(stream);
        }
        // Silent connections hold kept places only for the time of a short header.
        let silent = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        for _ in 0..3 {
            let (_, response) = connected(address, POST).await;
            assert!(response.starts_with("HTTP/1.1 200") && response.contains("connection: close"), "{response}");
        }
        let (_, response) = connected(address, GET).await;
        assert!(response.starts_with("HTTP/1.1 503") && response.contains("retry-after"), "{response}");
        drop((crowd.pop(), silent));
        let again = async {
            while !connected(address, GET).await.1.starts_with("HTTP/1.1 200") {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, again).await.expect("a free place serves every route");
    }

    #[tokio::test]
    async fn while_places_are_short_busy_connections_end_and_others_get_in() {
        let address = server(Duration::from_millis(50)).await;
        for number in 0..4 {
            let request = if number == 0 { GET.replace("page", "endless") } else { GET.to_owned() };
            let (mut stream, response) = connected(address, &request).await;
            assert!(response.starts_with("HTTP/1.1 200"), "{response}");
            // Requests without a pause, or a response without an end.
            tokio::spawn(async move { while !ask(&mut stream, GET).await.is_empty() {} });
        }
        let admitted = async { while !connected(address, GET).await.1.starts_with("HTTP/1.1 200") {} };
        timeout(PATIENCE, admitted).await.expect("nobody makes room");
    }

    #[tokio::test]
    async fn a_connection_stays_open_while_there_are_places() {
        let address = server(Duration::from_millis(1)).await;
        let (mut stream, _) = connected(address, GET).await;
        for _ in 0..20 {
            sleep(Duration::from_millis(10)).await;
            assert!(ask(&mut stream, GET).await.starts_with("HTTP/1.1 200"));
        }
    }
}
