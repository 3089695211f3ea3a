//! The connection of one request: to a checked address, with TLS for the host name, and with limits for time and size.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, WasiBody};

use super::destination::Destination;
use crate::grant::EgressScheme;

/// Maximum size of a response body.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
/// Maximum size of a request body.
const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Maximum time between two frames of a response body.
const FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// The TLS configuration. It trusts the machine's certificates, including those of a company, and is loaded on first use.
#[derive(Default)]
pub(crate) struct Tls(OnceLock<Option<Arc<rustls::ClientConfig>>>);

impl Tls {
    fn config(&self) -> Result<Arc<rustls::ClientConfig>, Error> {
        self.0
            .get_or_init(|| client_config().map_err(|error| tracing::error!("TLS is unavailable: {error}")).ok())
            .clone()
            .ok_or_else(|| Error::InternalError(Some("the machine's certificates could not be read".to_owned())))
    }
}

fn client_config() -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Transfers the rest of an exchange. It ends with the connection.
pub(super) type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;
/// The response headers with the body, and the driver that must run until the body is read.
pub(super) type SendResult = Result<(Response<WasiBody>, Driver), Error>;

/// A plain or an encrypted byte stream.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

/// An open connection.
pub(super) struct Connection(Box<dyn Stream>);

/// Connects to one of the checked `addresses`. The host name is used only to verify the certificate.
pub(super) async fn open(addresses: &[SocketAddr], destination: &Destination, tls: &Tls) -> Result<Connection, Error> {
    let stream = TcpStream::connect(addresses).await.map_err(Error::Connect)?;
    match destination.scheme {
        EgressScheme::Http => Ok(Connection(Box::new(stream))),
        EgressScheme::Https => {
            let name = rustls::pki_types::ServerName::try_from(destination.host.clone());
            let name = name.map_err(|_| Error::HttpRequestUriInvalid)?;
            let connector = tokio_rustls::TlsConnector::from(tls.config()?);
            Ok(Connection(Box::new(connector.connect(name, stream).await.map_err(tls_error)?)))
        }
    }
}

fn tls_error(error: std::io::Error) -> Error {
    let rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match rustls {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        _ => Error::Tls(error),
    }
}

/// Sends the request and waits for the response headers. The returned driver transfers the rest and holds the request slot.
pub(super) async fn exchange(
    opened: Connection,
    request: Request<WasiBody>,
    slot: OwnedSemaphorePermit,
    frame_time: Option<Duration>,
) -> SendResult {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 << 10)
        .max_headers(64)
        .handshake(TokioIo::new(opened.0))
        .await?;
    let request = origin_form(request)?;
    let mut connection = Box::pin(connection);
    let mut closed = None;
    let answer = {
        let mut answer = std::pin::pin!(sender.send_request(request));
        loop {
            tokio::select! {
                answer = &mut answer => break answer.map_err(request_error)?,
                ended = &mut connection, if closed.is_none() => closed = Some(ended),
            }
        }
    };
    let frame_time = frame_time.unwrap_or(FRAME_TIMEOUT).min(FRAME_TIMEOUT);
    let answer = answer.map(|body| TimedBody::new(body, frame_time).boxed_unsync());
    let driver: Driver = Box::new(async move {
        let ended = match closed {
            Some(ended) => ended,
            None => connection.await,
        };
        drop(slot);
        ended.map_err(Error::from)
    });
    Ok((answer, driver))
}

/// Reports an oversized request body as such, not as a connection error.
fn request_error(error: hyper::Error) -> Error {
    match std::error::Error::source(&error).and_then(|source| source.downcast_ref()) {
        Some(Error::HttpRequestBodySize(size)) => Error::HttpRequestBodySize(*size),
        _ => Error::Hyper(error),
    }
}

/// Rewrites the URI to `/path?query`, the form that an origin server expects in the request line. `Host` is already set.
fn origin_form(request: Request<WasiBody>) -> Result<Request<WasiBody>, Error> {
    let (mut head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    head.uri = target.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let body = Limited::new(body, MAX_REQUEST_BYTES).map_err(|error| match error.downcast::<Error>() {
        Ok(of_the_guest) => *of_the_guest,
        Err(_) => Error::HttpRequestBodySize(u64::try_from(MAX_REQUEST_BYTES).ok()),
    });
    Ok(Request::from_parts(head, body.boxed_unsync()))
}

/// A response body with a maximum size and a timeout for each frame.
struct TimedBody {
    body: Limited<Incoming>,
    frame_time: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl TimedBody {
    fn new(body: Incoming, frame_time: Duration) -> Self {
        Self { body: Limited::new(body, MAX_RESPONSE_BYTES), frame_time, deadline: Box::pin(tokio::time::sleep(frame_time)) }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            let next = Instant::now() + self.frame_time;
            self.deadline.as_mut().reset(next);
            return Poll::Ready(frame.map(|frame| frame.map_err(body_error)));
        }
        self.deadline.as_mut().poll(context).map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }
}

fn body_error(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match error.downcast::<hyper::Error>() {
        Ok(error) => Error::Hyper(*error),
        Err(_) => Error::HttpResponseBodySize(u64::try_from(MAX_RESPONSE_BYTES).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::AddressClass;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Reads the body of a response. The test server sends `answer` and then keeps the connection open without sending more.
    async fn body_of(answer: Vec<u8>) -> Result<usize, Error> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(&answer).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        let slot = Arc::new(tokio::sync::Semaphore::new(1)).acquire_owned().await.unwrap();
        let request = Request::get("http://there/").body(body).unwrap();
        let time = Some(Duration::from_millis(200));
        let (answer, driver) = exchange(Connection(Box::new(stream)), request, slot, time).await.unwrap();
        let driver = tokio::spawn(Pin::from(driver));
        let read = answer.into_body().collect().await.map(|body| body.to_bytes().len());
        driver.abort();
        server.abort();
        read
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_the_size_limit() {
        let answer = |length: usize| {
            let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
            answer.resize(answer.len() + length, b'x');
            answer
        };
        assert_eq!(body_of(answer(MAX_RESPONSE_BYTES)).await.unwrap(), MAX_RESPONSE_BYTES);
        assert!(matches!(body_of(answer(MAX_RESPONSE_BYTES + 1)).await, Err(Error::HttpResponseBodySize(_))));
    }

    #[tokio::test]
    async fn a_stalled_body_times_out() {
        let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun".to_vec();
        assert!(matches!(body_of(begun).await, Err(Error::ConnectionReadTimeout)));
    }

    #[tokio::test]
    async fn a_connection_uses_the_checked_address_without_another_lookup() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // This name cannot be resolved.
        let destination = Destination {
            scheme: EgressScheme::Http,
            host: "hive.invalid".to_owned(),
            port: address.port(),
            class: AddressClass::Loopback,
        };
        let (checked, tls) = ([address], Tls::default());
        let (opened, accepted) = tokio::join!(open(&checked, &destination, &tls), listener.accept());
        assert!(opened.is_ok() && accepted.is_ok());
    }
}
