//! A TCP proxy between a program and its server. It can count, pause, stall, refuse and cut the traffic.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The end of a request line. It is missed if it is split between two reads, which does not happen: a head fits into one.
const REQUEST_LINE_END: &[u8] = b" HTTP/1.1\r\n";

/// The response to a refused request.
const ERROR_RESPONSE: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: 26\r\n\
connection: close\r\n\r\n{\"message\":\"not possible\"}";

/// A request that does not reach the server.
#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused;

/// The state of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyState {
    Open,
    /// Connections stay open and nothing is forwarded, as with a stopped server.
    Paused,
    /// Connections are closed, new ones immediately.
    Cut,
}

/// Whether data is forwarded now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    Free,
    Stalled,
}

/// The address of the server.
#[derive(Debug, Clone)]
pub enum Upstream {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Conditions that change the state or stop a request.
#[derive(Debug, Default)]
struct Triggers {
    /// A request with this text pauses the proxy before it reaches the server.
    pause_marker: Option<String>,
    /// Requests with this text wait; others pass.
    stall_marker: Option<String>,
    /// Requests with any of these texts get an error response and never reach the server.
    refused_markers: Vec<String>,
    /// The state after this many bytes of responses.
    response_limit: Option<(usize, ProxyState)>,
}

#[derive(Debug)]
struct Shared {
    server: Upstream,
    flow: watch::Sender<ProxyState>,
    triggers: Mutex<Triggers>,
    connections: AtomicUsize,
    requests: AtomicUsize,
    refused: AtomicUsize,
    /// The number of waiting requests.
    stalled: watch::Sender<usize>,
}

/// A proxy with its own address on the loopback interface. It closes when dropped.
#[derive(Debug)]
pub struct TcpProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    _stop: DropGuard,
}

impl TcpProxy {
    /// # Errors
    /// No port is free.
    pub async fn to(server: Upstream) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (flow, _) = watch::channel(ProxyState::Open);
        let shared = Arc::new(Shared {
            server,
            flow,
            triggers: Mutex::default(),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            stalled: watch::channel(0).0,
        });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(Arc::clone(&shared), listener)));
        Ok(Self { shared, address, _stop: stop.drop_guard() })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of HTTP requests so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The number of connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Sets the state and clears all conditions.
    pub fn set(&self, flow: ProxyState) {
        *self.triggers() = Triggers::default();
        self.shared.stalled.send_replace(0);
        self.shared.flow.send_replace(flow);
    }

    /// Pauses the proxy when a request contains `marker`.
    pub fn pause_at(&self, marker: &str) {
        self.triggers().pause_marker = Some(marker.to_owned());
    }

    /// Makes every request that contains `marker` wait until the state is set.
    pub fn stall_at(&self, marker: &str) {
        self.triggers().stall_marker = Some(marker.to_owned());
    }

    /// The number of waiting requests.
    #[must_use]
    pub fn stalled(&self) -> usize {
        *self.shared.stalled.borrow()
    }

    /// Refuses every request that contains `marker` with status 500, in addition to those refused already.
    pub fn refuse(&self, marker: &str) {
        self.triggers().refused_markers.push(marker.to_owned());
    }

    /// Refuses no request any more.
    pub fn clear_refusals(&self) {
        self.triggers().refused_markers.clear();
    }

    /// The number of refused requests so far.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Changes the state after about this many more bytes of responses.
    pub fn set_state_after(&self, answers: usize, flow: ProxyState) {
        self.triggers().response_limit = Some((answers, flow));
    }

    /// Whether the proxy is paused, by a marker or by [`Self::set`].
    #[must_use]
    pub fn is_paused(&self) -> bool {
        *self.shared.flow.borrow() == ProxyState::Paused
    }

    /// Waits until the proxy has this state.
    pub async fn wait_until(&self, flow: ProxyState) {
        // This cannot fail: the sender lives as long as `self`.
        let _ = self.shared.flow.subscribe().wait_for(|now| *now == flow).await;
    }

    fn triggers(&self) -> MutexGuard<'_, Triggers> {
        self.shared.triggers()
    }
}

impl Shared {
    fn triggers(&self) -> MutexGuard<'_, Triggers> {
        self.triggers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_request(&self, bytes: &[u8]) -> Result<Passage> {
        let requests = bytes.windows(REQUEST_LINE_END.len()).filter(|window| window == &REQUEST_LINE_END).count();
        self.requests.fetch_add(requests, Ordering::SeqCst);
        let mut triggers = self.triggers();
        let has = |marker: &String| bytes.windows(marker.len()).any(|window| window == marker.as_bytes());
        if triggers.refused_markers.iter().any(has) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(Refused.into());
        }
        if triggers.pause_marker.as_ref().is_some_and(has) {
            triggers.pause_marker = None;
            self.flow.send_replace(ProxyState::Paused);
        }
        if triggers.stall_marker.as_ref().is_some_and(has) {
            self.stalled.send_modify(|stalled| *stalled += 1);
            return Ok(Passage::Stalled);
        }
        Ok(Passage::Free)
    }

    fn on_response(&self, bytes: usize) -> Result<Passage> {
        let mut triggers = self.triggers();
        if let Some((left, flow)) = &mut triggers.response_limit {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.flow.send_replace(*flow);
                triggers.response_limit = None;
            }
        }
        Ok(Passage::Free)
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    // Dropped with the proxy, which closes every connection.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(serve(Arc::clone(&shared), client));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(shared: Arc<Shared>, client: TcpStream) -> Result<()> {
    // A stopped engine still accepts connections, and so does this.
    let (from_client, to_client) = client.into_split();
    match &shared.server {
        Upstream::Tcp(address) => {
            let (from_server, to_server) = TcpStream::connect(address).await?.into_split();
            forward_both(&shared, (from_client, to_server), (from_server, to_client)).await
        }
        Upstream::Unix(path) => {
            let (from_server, to_server) = UnixStream::connect(path).await?.into_split();
            forward_both(&shared, (from_client, to_server), (from_server, to_client)).await
        }
    }
}

async fn forward_both<A: AsyncRead + Unpin, B: AsyncWrite + Unpin, C: AsyncRead + Unpin, D: AsyncWrite + Unpin>(
    shared: &Shared,
    mut up: (A, B),
    mut down: (C, D),
) -> Result<()> {
    let asked = forward(shared, &mut up, |bytes| shared.on_request(bytes));
    let answered = forward(shared, &mut down, |bytes| shared.on_response(bytes.len()));
    let ended = tokio::try_join!(asked, answered);
    if ended.as_ref().is_err_and(|error| error.is::<Refused>()) {
        down.1.write_all(ERROR_RESPONSE).await?;
        return Ok(down.1.shutdown().await?);
    }
    ended.map(drop)
}

async fn forward(
    shared: &Shared,
    (from, to): &mut (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    look: impl Fn(&[u8]) -> Result<Passage>,
) -> Result<()> {
    let mut flow = shared.flow.subscribe();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = tokio::select! {
            length = from.read(&mut buffer) => length?,
            _ = flow.wait_for(|flow| *flow == ProxyState::Cut) => return Ok(()),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        if look(bytes)? == Passage::Stalled {
            shared.stalled.subscribe().wait_for(|stalled| *stalled == 0).await?;
        }
        if *flow.wait_for(|flow| *flow != ProxyState::Paused).await? == ProxyState::Cut {
            return Ok(());
        }
        if bytes.is_empty() {
            to.shutdown().await?;
            return Ok(());
        }
        to.write_all(bytes).await?;
    }
}
