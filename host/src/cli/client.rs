//! HTTP client of the server's API.

use std::time::Duration;

use beespace_core::error_cause::root_cause;
use futures::StreamExt as _;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::exit::{Exit, Failure};
use super::server_and_repository::Server;
use super::token::Token;
use crate::http_problem::Problem;

/// How long establishing a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may send nothing. The limit is long because the server may have to wait for Gogs, and each received chunk
/// restarts it.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    token: Option<Token>,
    proxy: Option<Url>,
}

impl Client {
    /// Connects to the server directly. The proxies of the environment are not used: a server on this machine or in its network
    /// is not behind them, and they could read the token. A proxy that was given for Beespace gets encrypted requests only.
    ///
    /// # Errors
    /// [`Failure`] if the HTTP client cannot be created, or a proxy was given for a server without https.
    pub fn new(server: Server) -> Result<Self, Failure> {
        Self::with_read_timeout(server, READ_TIMEOUT)
    }

    fn with_read_timeout(server: Server, silence: Duration) -> Result<Self, Failure> {
        // An earlier call in this process may have installed the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bug = |error: reqwest::Error| Failure::new(Exit::Bug, error.to_string());
        let mut http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        let proxy = server.proxy.filter(|_| !is_loopback(&server.url));
        if let Some(proxy) = &proxy {
            if server.url.scheme() != "https" {
                let help = "use the https:// URL of the server, or unset BEESPACE_PROXY";
                let message = format!("the proxy {proxy} could read the token, because {} is not encrypted", server.url);
                return Err(Failure::new(Exit::Usage, message).help(help));
            }
            http = http.proxy(reqwest::Proxy::https(proxy.clone()).map_err(bug)?);
        }
        let http = http.connect_timeout(silence.min(CONNECT_TIMEOUT)).read_timeout(silence).build();
        Ok(Self { http: http.map_err(bug)?, url: server.url, token: server.token, proxy })
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The URL of a page, to show to people. `path` is a path that the server returned, so the path of the server's URL is part
    /// of it.
    #[must_use]
    pub fn page_url(&self, path: &str) -> String {
        self.url.join(path).map_or_else(|_| path.to_owned(), |url| url.to_string())
    }

    /// # Errors
    /// [`Failure`] if the server is unreachable or responds with a problem.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.decode(self.send(Method::GET, path, None::<&()>).await?).await
    }

    /// # Errors
    /// As [`Client::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.decode(self.send(Method::POST, path, Some(body)).await?).await
    }

    /// # Errors
    /// As [`Client::get`].
    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.decode(self.send(Method::PUT, path, Some(body)).await?).await
    }

    /// Sends a request and ignores the body of the response.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn execute(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<(), Failure> {
        self.send(method, path, body).await.map(drop)
    }

    /// Streams a response to `take` from byte `skip` on; `take` is not called if there are no bytes after `skip` yet.
    ///
    /// # Errors
    /// As [`Client::get`], and errors of `take`.
    pub async fn stream_bytes(
        &self,
        path: &str,
        skip: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut request = self.request(Method::GET, path)?;
        if skip > 0 {
            request = request.header(header::RANGE, format!("bytes={skip}-"));
        }
        let response = request.send().await.map_err(|error| self.unreachable_failure(&error))?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(());
        }
        let mut chunks = self.check_status(response).await?.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            take(&chunk.map_err(|error| self.unreachable_failure(&error))?)?;
        }
        Ok(())
    }

    async fn send(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<Response, Failure> {
        let request = self.request(method, path)?;
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        self.check_status(request.send().await.map_err(|error| self.unreachable_failure(&error))?).await
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Failure> {
        let url = format!("{}{path}", self.url.as_str().trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        let request = self.http.request(method, url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.value.expose_secret()),
            None => request,
        })
    }

    async fn check_status(&self, response: Response) -> Result<Response, Failure> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        match response.json::<Problem>().await {
            Ok(problem) => Err(self.failure_of(problem)),
            Err(_) => {
                Err(Failure::new(Exit::Unreachable, format!("{} is not a Beespace server: it responded with {status}", self.url)))
            }
        }
    }

    /// The server does not know where the token came from and what the command could do instead.
    fn failure_of(&self, problem: Problem) -> Failure {
        let status = problem.status_code();
        let failure = Failure::from(problem);
        match (status, &self.token) {
            (StatusCode::UNAUTHORIZED, Some(token)) => {
                let message = format!("{} rejects the token {}", self.url, token.source);
                Failure::new(Exit::Auth, message).help(token.source.remedy(&self.url))
            }
            (StatusCode::UNAUTHORIZED, None) => {
                let help = "run `beespace login URL`, set BEESPACE_TOKEN, or pass --config FILE on the server's machine";
                Failure::new(Exit::Auth, format!("{} requires a token", self.url)).help(help)
            }
            (StatusCode::NOT_FOUND, _) if failure.message.starts_with("no such repository") => {
                failure.help("`beespace repo list` shows the enabled ones, and `beespace repo enable OWNER/NAME` enables another")
            }
            _ => failure,
        }
    }

    async fn decode<T: DeserializeOwned>(&self, response: Response) -> Result<T, Failure> {
        let text = response.bytes().await.map_err(|error| self.unreachable_failure(&error))?;
        serde_json::from_slice(&text).map_err(|error| {
            Failure::new(Exit::Bug, format!("cannot decode the response of {}: {error}", self.url))
                .help("use the same version of `beespace` as the server")
        })
    }

    fn unreachable_failure(&self, error: &reqwest::Error) -> Failure {
        let cause = root_cause(error);
        let way = self.proxy.as_ref().map_or_else(String::new, |proxy| format!(" through the proxy {proxy}"));
        Failure::new(Exit::Unreachable, format!("{} is unreachable{way}: {cause}", self.url))
    }
}

/// Whether the URL names this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind_proxy(url: &str) -> Result<Client, Failure> {
        Client::new(Server { url: url.parse().unwrap(), token: None, proxy: Some("http://proxy.example:3128/".parse().unwrap()) })
    }

    #[test]
    fn a_proxy_gets_encrypted_requests_only_and_none_for_this_machine() {
        let failure = behind_proxy("http://ci.example/").unwrap_err();
        assert!(failure.exit == Exit::Usage && failure.message.contains("could read the token"), "{failure}");
        assert!(behind_proxy("https://ci.example/").unwrap().proxy.is_some());
        for local in ["http://127.0.0.1:8000/", "https://localhost/", "https://ci.localhost/", "http://[::1]:8000/"] {
            assert_eq!(behind_proxy(local).unwrap().proxy, None, "{local}");
        }
    }

    #[tokio::test]
    async fn a_server_that_never_responds_times_out() {
        // The system accepts connections for the listener, but nothing ever responds.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap()).parse().unwrap();
        let client = Client::with_read_timeout(Server { url, token: None, proxy: None }, Duration::from_millis(100)).unwrap();
        let failure = client.get::<()>("/api/v1/user").await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable, "{failure}");
        let failure = client.stream_bytes("/log", 0, |_| Ok(())).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable, "{failure}");
    }

    #[test]
    fn paths_are_appended_to_the_path_of_the_server() {
        for (server, api, page) in [
            ("http://ci.example/", "http://ci.example/api/v1/user", "http://ci.example/ada/hive"),
            ("http://ci.example/tools/ci", "http://ci.example/tools/ci/api/v1/user", "http://ci.example/tools/ci/ada/hive"),
            ("http://ci.example/tools/ci/", "http://ci.example/tools/ci/api/v1/user", "http://ci.example/tools/ci/ada/hive"),
        ] {
            let client = Client::new(Server { url: server.parse().unwrap(), token: None, proxy: None }).unwrap();
            let request = client.request(Method::GET, "/api/v1/user").unwrap().build().unwrap();
            assert_eq!(request.url().as_str(), api);
            // The server returns the whole path of a page.
            let path = page.strip_prefix("http://ci.example").unwrap();
            assert_eq!(client.page_url(path), page);
        }
    }
}
