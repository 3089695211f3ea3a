//! Connections: a bounded number at once, each with a bounded time for the head of a request, all ended in order at a stop.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections at once. The next ones wait until one of them ends.
const MAX_CONNECTIONS: usize = 4096;
/// Connections that the system holds until there is a place, as many as `net.core.somaxconn` lets it. Those beyond are dropped without a
/// word, and their peers come again after a second, then after longer and longer ones: a crowd of thousands would take minutes to get in.
const ACCEPT_BACKLOG: u32 = 4096;
/// For the head of a request, and between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a request's head.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// A peer that takes nothing of what is sent to it for so long is gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(60);

/// Takes the address.
///
/// # Errors
/// The system's: another process has it, no such interface, a port below 1024 without the right to it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A server that starts again does not wait for the last connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

/// Answers until `stopping`, and then until what was asked before is answered.
pub async fn serve(mut listener: TcpListener, router: Router, stopping: CancellationToken) {
    let places = Arc::new(Semaphore::new(connection_limit()));
    let open = GracefulShutdown::new();
    let service = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADER_BYTES);
    while let Some((place, stream)) = stopping.run_until_cancelled(next_connection(&mut listener, &places)).await {
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
            drop(place);
        });
    }
    drop(listener);
    open.shutdown().await;
}

async fn next_connection(listener: &mut TcpListener, places: &Arc<Semaphore>) -> (OwnedSemaphorePermit, TcpStream) {
    let Ok(place) = Arc::clone(places).acquire_owned().await else { return pending().await };
    let (stream, _) = listener.accept().await;
    let socket = SockRef::from(&stream);
    let tuned = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PEER_TIMEOUT)))
        .and_then(|()| socket.set_tcp_user_timeout(Some(PEER_TIMEOUT)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a connection keeps the system's own limits");
    }
    (place, stream)
}

/// Half of the files that the process may open at most are connections; the other half are logs, git, the engine.
fn connection_limit() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    MAX_CONNECTIONS.min(usize::try_from(files / 2).unwrap_or(usize::MAX))
}

/// Lets the process open as many files as its system lets it: by habit the first limit is far below that.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
