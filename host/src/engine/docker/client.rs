//! The connection to the engine. It is made when it is first needed, and every call on it has a time limit of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beespace_core::error_cause::root_cause;
use beespace_core::time::Timestamp;
use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use hyper::Uri;
use tokio::sync::OnceCell;
use tokio::time::sleep;

use super::timeouts::{CallKind, Timeouts};
use crate::clock::now;
use crate::engine::EngineError;

/// bollard's own time limit. It is longer than all of ours, because only our limits report which call took too long.
const LIBRARY_TIMEOUT_SECONDS: u64 = 60 * 60;
/// The oldest API version that is known to work: Docker 20.10.
const MIN_API_VERSION: (usize, usize) = (1, 41);
/// An engine that goes down records container exits slightly before and after we notice the outage, and its clock may differ from
/// ours.
const OUTAGE_MARGIN: Duration = Duration::from_secs(2);
/// An engine that has responded for this long was not down in between: a failure after it begins a new outage.
const NEW_OUTAGE_AFTER: Duration = Duration::from_secs(90);

/// How often a removal is retried while something blocks it, and the delay between two attempts.
pub(super) const MAX_REMOVAL_TRIES: u32 = 20;
pub(super) const REMOVAL_DELAY: Duration = Duration::from_millis(100);

/// A client of one engine's API. Cheap to clone; the clones share the connection.
#[derive(Debug, Clone)]
pub(super) struct Client {
    host: Arc<str>,
    docker: Arc<OnceCell<Docker>>,
    timeouts: Timeouts,
    outage: Arc<Mutex<Option<Outage>>>,
}

/// The engine's latest outage: from the first call without a response to the next response.
#[derive(Debug, Clone, Copy)]
struct Outage {
    first: Timestamp,
    last: Timestamp,
    is_over: bool,
}

impl Client {
    pub(super) fn new(host: &str, timeouts: Timeouts) -> Result<Self, EngineError> {
        if !host.starts_with("unix://") && !host.starts_with("tcp://") && !host.starts_with("http://") {
            return Err(EngineError::InvalidAddress { host: host.to_owned() });
        }
        Ok(Self { host: host.into(), docker: Arc::default(), timeouts, outage: Arc::default() })
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// The API, in the newest version that both sides speak. If the engine is down now, the next call tries to connect again.
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
        let docker = match self.call("version", CallKind::Quick, docker.negotiate_version()).await {
            // Every engine has this route, so another program listens there.
            Err(EngineError::Refused { status: 404, .. }) => {
                return Err(EngineError::NotAnEngine { host: self.host.to_string() });
            }
            negotiated => negotiated?,
        };
        let version = docker.client_version();
        if (version.major_version, version.minor_version) < MIN_API_VERSION {
            return Err(EngineError::TooOld { api: version.to_string(), wanted: "1.41 (Docker 20.10)" });
        }
        let prefix = format!("/v{version}");
        Ok(docker.with_request_modifier(move |request| with_version_prefix(&prefix, request)))
    }

    /// Waits for the response to a call, but no longer than the time limit of its kind.
    pub(super) async fn call<T>(
        &self,
        call: &'static str,
        kind: CallKind,
        response: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineError> {
        let after = self.timeouts.for_call(kind);
        match tokio::time::timeout(after, response).await {
            Ok(Ok(response)) => {
                self.note_reachable();
                Ok(response)
            }
            Ok(Err(error)) => Err(self.map_error(call, error)),
            Err(_) => Err(EngineError::TimedOut { call, after }),
        }
    }

    /// Removes something. Retries while something that is itself being removed blocks the removal; an absent object is not an
    /// error.
    pub(super) async fn remove_with_retry<F: Future<Output = Result<(), Error>>>(
        &self,
        call: &'static str,
        remove: impl Fn() -> F,
    ) -> Result<(), EngineError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match ignore_not_found(self.call(call, CallKind::Slow, remove()).await) {
                Err(EngineError::Refused { status: 403 | 409 | 500, .. }) if tries < MAX_REMOVAL_TRIES => {
                    sleep(REMOVAL_DELAY).await;
                }
                other => return other,
            }
        }
    }

    /// Whether the engine was down at this time, as far as calls at that time have shown.
    pub(super) fn was_unreachable_at(&self, at: Timestamp) -> bool {
        let outage = *self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        outage.is_some_and(|outage| outage.first <= at + OUTAGE_MARGIN && at <= outage.last + OUTAGE_MARGIN)
    }

    /// Records that the engine closed a connection or does not respond.
    pub(super) fn note_unreachable(&self) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        let same = outage.filter(|outage| !outage.is_over || now.since(outage.last) <= NEW_OUTAGE_AFTER);
        *outage = Some(Outage { first: same.map_or(now, |outage| outage.first), last: now, is_over: false });
    }

    /// Records that the engine responds.
    fn note_reachable(&self) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outage) = outage.as_mut().filter(|outage| !outage.is_over) {
            (outage.last, outage.is_over) = (now(), true);
        }
    }

    /// Converts an error of the library, and records an outage if it shows one.
    pub(super) fn map_error(&self, call: &'static str, error: Error) -> EngineError {
        match error {
            Error::DockerResponseServerError { status_code: 400, message } if message.contains("client version") => {
                EngineError::TooNew { message }
            }
            Error::DockerResponseServerError { status_code, message } => {
                EngineError::Refused { call, status: status_code, message }
            }
            // Reported inside a stream whose headers were fine.
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

/// Adds the API version to a request's path. The library negotiates the version but omits it from its paths, and an engine uses
/// its newest version for a path without one.
fn with_version_prefix(prefix: &str, mut request: BollardRequest) -> BollardRequest {
    let mut parts = request.uri().clone().into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", |path| path.as_str());
    parts.path_and_query = format!("{prefix}{path}").parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// The result of a removal, where an absent object is not an error.
fn ignore_not_found(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::Refused { status: 404, .. }) => Ok(()),
        other => other,
    }
}

/// The result of a lookup: `None` if the engine does not know the object.
pub(super) fn optional<T>(result: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(EngineError::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
