//! One request to Gogs: URL, token, limits, and the meaning of the response.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use beespace_core::error_cause::root_cause;
use beespace_core::ids::RepositoryName;
use beespace_core::units::format_size;
use reqwest::{Certificate, Client, Method, Response, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use url::Url;

use super::ForgeError;
use crate::source::ForgeCredentials;

/// Requests at once. Gogs starts git for many of them and has no rate limit, so the limit is here.
const MAX_CONCURRENT_REQUESTS: usize = 4;
/// The longest response. A list of all branches or webhooks is much shorter.
const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;

/// The client of this server's Gogs instance. Clones share connections and the limit of requests at once.
#[derive(Debug, Clone)]
pub struct Forge {
    base: Url,
    token: SecretString,
    http: Client,
    request_permits: Arc<Semaphore>,
}

/// The purpose of a request, for its errors: the subject (`repository acme/app`) and the action (`add a webhook to acme/app`).
pub(super) struct Purpose {
    pub(super) subject: String,
    pub(super) action: String,
}

impl Forge {
    /// `base` is the URL of Gogs with its sub-path. `ca_file` has certificates to trust in addition to the system's.
    ///
    /// # Errors
    /// [`ForgeError::Setup`] if the certificates cannot be read.
    pub fn new(base: Url, token: SecretString, ca_file: Option<&Path>) -> Result<Self, ForgeError> {
        // The provider is set once per process; a second call fails and changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("beespace/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(30));
        let client = match ca_file {
            Some(path) => client.tls_certs_merge(certificates(path)?),
            None => client,
        };
        let http =
            client.build().map_err(|error| ForgeError::Setup(format!("cannot create the HTTP client for Gogs: {error}")))?;
        Ok(Self { base, token, http, request_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_REQUESTS)) })
    }

    /// The clone URL of a repository. It is built from the configuration, because a payload could name any URL.
    #[must_use]
    pub fn clone_url(&self, name: &RepositoryName) -> Url {
        self.url(&[name.owner(), &format!("{}.git", name.name())])
    }

    /// The credentials for that URL.
    #[must_use]
    pub fn access(&self) -> ForgeCredentials {
        ForgeCredentials::token(self.token.clone())
    }

    /// The configured URL of Gogs.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str], purpose: Purpose) -> Result<T, ForgeError> {
        let body = self.send(Method::GET, path, None, purpose).await?;
        self.decode(&body)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &serde_json::Value,
        purpose: Purpose,
    ) -> Result<T, ForgeError> {
        let body = self.send(Method::POST, path, Some(body), purpose).await?;
        self.decode(&body)
    }

    pub(super) async fn delete(&self, path: &[&str], purpose: Purpose) -> Result<(), ForgeError> {
        self.send(Method::DELETE, path, None, purpose).await.map(drop)
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&serde_json::Value>,
        purpose: Purpose,
    ) -> Result<Vec<u8>, ForgeError> {
        let closed = |_| ForgeError::Setup("the HTTP client is closed".to_owned());
        let _permit = self.request_permits.acquire().await.map_err(closed)?;
        let path: Vec<&str> = ["api", "v1"].into_iter().chain(path.iter().copied()).collect();
        let mut token = header::HeaderValue::from_str(&format!("token {}", self.token.expose_secret()))
            .map_err(|_| ForgeError::Setup("the token contains characters that are not allowed in a header".to_owned()))?;
        token.set_sensitive(true);
        let request = self.http.request(method, self.url(&path)).header(header::AUTHORIZATION, token);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let response = request.send().await.map_err(|error| self.connection_error(error))?;
        self.read_response(response, purpose).await
    }

    async fn read_response(&self, mut response: Response, purpose: Purpose) -> Result<Vec<u8>, ForgeError> {
        let status = response.status();
        let is_json = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("application/json"));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.connection_error(error))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_RESPONSE_BYTES {
                return Err(self.unexpected_response(format!("it is longer than {}", format_size(MAX_RESPONSE_BYTES as u64))));
            }
        }
        match status {
            StatusCode::UNAUTHORIZED => Err(ForgeError::Unauthorized),
            StatusCode::FORBIDDEN => Err(ForgeError::Forbidden(purpose.action)),
            StatusCode::NOT_FOUND => Err(ForgeError::NotFound(purpose.subject)),
            status if status.is_redirection() => Err(ForgeError::Redirected),
            status if status.is_server_error() => {
                Err(self.unreachable(format!("Gogs, or a proxy in front of it, responded with {status}")))
            }
            status if !status.is_success() => {
                Err(ForgeError::Refused { what: purpose.action, status: status.as_u16(), message: error_message(&body) })
            }
            // To a user who is prohibited from signing in, Gogs sends a page with status 200 on every route.
            _ if !is_json && !body.is_empty() => Err(self.unexpected_response("it is a page instead of JSON")),
            _ => Ok(body),
        }
    }

    fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ForgeError> {
        serde_json::from_slice(body).map_err(|error| {
            tracing::debug!(%error, "a response of Gogs could not be decoded");
            self.unexpected_response("its JSON has other fields")
        })
    }

    fn connection_error(&self, error: reqwest::Error) -> ForgeError {
        let error = error.without_url();
        self.unreachable(if error.is_timeout() { "it did not respond in time".to_owned() } else { root_cause(&error) })
    }

    fn unreachable(&self, cause: String) -> ForgeError {
        ForgeError::Unreachable { url: self.base.to_string(), cause }
    }

    fn unexpected_response(&self, cause: impl Into<String>) -> ForgeError {
        ForgeError::UnexpectedResponse { url: self.base.to_string(), cause: cause.into() }
    }

    /// The URL of a path whose segments are encoded, whatever they contain.
    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url.set_query(None);
        url.set_fragment(None);
        url
    }
}

/// The text of `{"message": …}`, without control characters and at most 200 characters long.
fn error_message(body: &[u8]) -> String {
    let body = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = body.as_ref().and_then(|body| body.get("message")).and_then(serde_json::Value::as_str);
    message.unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect()
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, ForgeError> {
    let unreadable = |error: &dyn std::fmt::Display| ForgeError::Setup(format!("cannot read {}: {error}", path.display()));
    let pem = std::fs::read(path).map_err(|error| unreadable(&error))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| unreadable(&error))?;
    if certificates.is_empty() {
        return Err(ForgeError::Setup(format!("{} contains no certificate", path.display())));
    }
    Ok(certificates)
}
