//! The HTTP server: accepts a limited number of connections, limits the time and the size of each request header, and shuts down
//! gracefully.

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

/// Connections at once. Further ones wait in the accept backlog until one of them closes.
const MAX_CONNECTIONS: usize = 4096;
/// Connections that the system queues for us, at most `net.core.somaxconn`. It silently drops further ones, whose clients retry after
/// 1 s, then with growing delays: with a short backlog, thousands of clients would take minutes to connect.
const ACCEPT_BACKLOG: u32 = 4096;
/// The time for a request header, and the idle time between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The size of a request header.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// A connection whose peer acknowledges nothing for this long is closed.
const PEER_TIMEOUT: Duration = Duration::from_secs(60);

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

/// Serves until `stopping`, then finishes the requests that have already arrived.
pub async fn serve(mut listener: TcpListener, router: Router, stopping: CancellationToken) {
    let permits = Arc::new(Semaphore::new(connection_limit()));
    let open = GracefulShutdown::new();
    let service = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADER_BYTES);
    while let Some((permit, stream)) = stopping.run_until_cancelled(next_connection(&mut listener, &permits)).await {
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection failed");
            }
            drop(permit);
        });
    }
    drop(listener);
    open.shutdown().await;
}

async fn next_connection(listener: &mut TcpListener, permits: &Arc<Semaphore>) -> (OwnedSemaphorePermit, TcpStream) {
    let Ok(permit) = Arc::clone(permits).acquire_owned().await else { return pending().await };
    let (stream, _) = listener.accept().await;
    let socket = SockRef::from(&stream);
    let tuned = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PEER_TIMEOUT)))
        .and_then(|()| socket.set_tcp_user_timeout(Some(PEER_TIMEOUT)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "could not set the timeouts of a connection; it keeps the system's");
    }
    (permit, stream)
}

/// At most half of the files that the process may open are connections; the others are logs, git and the engine.
fn connection_limit() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    MAX_CONNECTIONS.min(usize::try_from(files / 2).unwrap_or(usize::MAX))
}

/// Raises the limit of open files to the maximum that the system allows. The default is usually far below.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}
