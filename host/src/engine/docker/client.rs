//! The line to the engine: made when it is first needed, and no call on it without its own limit of time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beespace_core::time::Timestamp;
use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper::Uri;
use tokio::sync::OnceCell;

use super::timeouts::{CallKind, Timeouts};
use crate::engine::{EngineError, now};

/// bollard's own limit, above all of ours: a call that is longer in the making is cut off by ours, which says what it was.
const LIBRARY_TIMEOUT_SECONDS: u64 = 60 * 60;
/// The oldest API we know to work: Docker 20.10.
const MIN_API_VERSION: (usize, usize) = (1, 41);
/// An engine that goes away notices ends a little before and after we notice that it is away: its clock may be another one, too.
const OUTAGE_MARGIN: Duration = Duration::from_secs(2);
/// Who has answered for so long was not away all the time.
const NEW_OUTAGE_AFTER: Duration = Duration::from_secs(90);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Client {
    host: Arc<str>,
    docker: Arc<OnceCell<Docker>>,
    timeouts: Timeouts,
    outage: Arc<Mutex<Option<Outage>>>,
}

/// When the engine was away last: from the first question without an answer to the next answer.
#[derive(Debug, Clone, Copy)]
struct Outage {
    first: Timestamp,
    last: Timestamp,
    is_over: bool,
}

impl Client {
    pub(super) fn new(host: &str, waits: Timeouts) -> Result<Self, EngineError> {
        if !host.starts_with("unix://") && !host.starts_with("tcp://") && !host.starts_with("http://") {
            return Err(EngineError::InvalidAddress { host: host.to_owned() });
        }
        Ok(Self { host: host.into(), docker: Arc::default(), timeouts: waits, outage: Arc::default() })
    }

    /// The engine, with the version of the API that both sides speak. An engine that is down now is asked again next time.
    pub(super) async fn api(&self) -> Result<&Docker, EngineError> {
        self.docker.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Docker, EngineError> {
        let connected = if self.host.starts_with("unix://") {
            Docker::connect_with_socket(&self.host, LIBRARY_TIMEOUT_SECONDS, API_DEFAULT_VERSION)
        } else {
            Docker::connect_with_http(&self.host, LIBRARY_TIMEOUT_SECONDS, API_DEFAULT_VERSION)
        };
        let docker = connected.map_err(|error| self.map_error("connect", error))?;
        let docker = self.call("version", CallKind::Quick, docker.negotiate_version()).await?;
        let version = docker.client_version();
        if (version.major_version, version.minor_version) < MIN_API_VERSION {
            return Err(EngineError::TooOld { api: version.to_string(), wanted: "1.41 (Docker 20.10)" });
        }
        let prefix = format!("/v{version}");
        Ok(docker.with_request_modifier(move |request| with_version_prefix(&prefix, request)))
    }

    /// Waits for an answer, but not for ever.
    pub(super) async fn call<T>(
        &self,
        call: &'static str,
        wait: CallKind,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineError> {
        let after = self.timeouts.for_call(wait);
        match tokio::time::timeout(after, answer).await {
            Ok(Ok(answer)) => {
                self.note_reachable();
                Ok(answer)
            }
            Ok(Err(error)) => Err(self.map_error(call, error)),
            Err(_) => Err(EngineError::TimedOut { call, after }),
        }
    }

    /// Whether the engine was away at this time, as far as anybody has asked it then.
    pub(super) fn was_unreachable_at(&self, at: Timestamp) -> bool {
        let outage = *self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        outage.is_some_and(|outage| outage.first <= at + OUTAGE_MARGIN && at <= outage.last + OUTAGE_MARGIN)
    }

    /// The engine has hung up, or does not answer.
    pub(super) fn note_unreachable(&self) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        let same = outage.filter(|outage| !outage.is_over || now.since(outage.last) <= NEW_OUTAGE_AFTER);
        *outage = Some(Outage { first: same.map_or(now, |outage| outage.first), last: now, is_over: false });
    }

    /// It answers.
    fn note_reachable(&self) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outage) = outage.as_mut().filter(|outage| !outage.is_over) {
            (outage.last, outage.is_over) = (now(), true);
        }
    }

    pub(super) fn map_error(&self, call: &'static str, error: Error) -> EngineError {
        match error {
            Error::DockerResponseServerError { status_code: 400, message } if message.contains("client version") => {
                EngineError::TooNew { message }
            }
            Error::DockerResponseServerError { status_code, message } => {
                EngineError::Refused { call, status: status_code, message }
            }
            // Said in the middle of a stream whose headers were fine.
            Error::DockerStreamError { error } => EngineError::Refused { call, status: 500, message: error },
            Error::RequestTimeoutError => EngineError::TimedOut { call, after: Duration::from_secs(LIBRARY_TIMEOUT_SECONDS) },
            Error::IOError { .. }
            | Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }
            | Error::SocketNotFoundError(_) => {
                self.note_unreachable();
                EngineError::Unreachable { host: self.host.to_string(), cause: root_cause(&error) }
            }
            other => EngineError::InvalidResponse { call, cause: other.to_string() },
        }
    }
}

/// Says in the request's path which version of the API it is. The library knows the version and leaves it out of its paths, and without one an engine
/// speaks its newest.
fn with_version_prefix(prefix: &str, mut request: BollardRequest) -> BollardRequest {
    let mut parts = request.uri().clone().into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", |path| path.as_str());
    parts.path_and_query = format!("{prefix}{path}").parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// The cause that says most: of "client error: tcp connect error: Connection refused" the last part.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// What is not there any more needs no removing.
pub(super) fn ignore_not_found(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::Refused { status: 404, .. }) => Ok(()),
        other => other,
    }
}

/// `Some` where the engine knows it.
pub(super) fn optional<T>(result: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(EngineError::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
