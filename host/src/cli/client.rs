//! HTTP client of the server's API.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::exit::{Exit, Failure};
use super::target::Server;
use crate::problem::Problem;

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
    token: Option<SecretString>,
}

impl Client {
    /// # Errors
    /// [`Failure`] if the HTTP client cannot be created.
    pub fn new(server: Server) -> Result<Self, Failure> {
        Self::with_read_timeout(server, READ_TIMEOUT)
    }

    fn with_read_timeout(server: Server, silence: Duration) -> Result<Self, Failure> {
        // An earlier call in this process may have installed the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let http = http.connect_timeout(silence.min(CONNECT_TIMEOUT)).read_timeout(silence).build();
        let http = http.map_err(|error| Failure::new(Exit::Bug, error.to_string()))?;
        Ok(Self { http, url: server.url, token: server.token })
    }

    /// The URL of a page, to show to people. `path` is a path that the server returned, so the path of the server's URL is part of it.
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
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        })
    }

    async fn check_status(&self, response: Response) -> Result<Response, Failure> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        match response.json::<Problem>().await {
            Ok(problem) => Err(problem.into()),
            Err(_) => Err(Failure::new(
                Exit::Unreachable,
                format!("{} responded with {status}, but is not a Beespace server", self.url),
            )),
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
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        Failure::new(Exit::Unreachable, format!("{} is unreachable: {cause}", self.url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_never_responds_times_out() {
        // The system accepts connections for the listener, but nothing ever responds.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap()).parse().unwrap();
        let client = Client::with_read_timeout(Server { url, token: None }, Duration::from_millis(100)).unwrap();
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
            let client = Client::new(Server { url: server.parse().unwrap(), token: None }).unwrap();
            let request = client.request(Method::GET, "/api/v1/user").unwrap().build().unwrap();
            assert_eq!(request.url().as_str(), api);
            // The server returns the whole path of a page.
            let path = page.strip_prefix("http://ci.example").unwrap();
            assert_eq!(client.page_url(path), page);
        }
    }
}
