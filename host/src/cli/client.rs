//! Talking to a server: its API and nothing else.

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

/// So long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// So long a server may say nothing at all. It may have to ask Gogs, which takes its time; of a long answer each piece starts anew.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// A server's API.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    token: Option<SecretString>,
}

impl Client {
    /// # Errors
    /// [`Failure`] where no client can be made.
    pub fn new(server: Server) -> Result<Self, Failure> {
        Self::with_read_timeout(server, READ_TIMEOUT)
    }

    fn with_read_timeout(server: Server, silence: Duration) -> Result<Self, Failure> {
        // An earlier call in this process has set the same provider: that is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let http = http.connect_timeout(silence.min(CONNECT_TIMEOUT)).read_timeout(silence).build();
        let http = http.map_err(|error| Failure::new(Exit::Bug, error.to_string()))?;
        Ok(Self { http, url: server.url, token: server.token })
    }

    /// The address of a path of the server, for people.
    #[must_use]
    pub fn page_url(&self, path: &str) -> String {
        self.url.join(path).map_or_else(|_| path.to_owned(), |url| url.to_string())
    }

    /// # Errors
    /// [`Failure`]: the server's problem, or that it does not answer.
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

    /// Does what answers nothing.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn change(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> Result<(), Failure> {
        self.send(method, path, body).await.map(drop)
    }

    /// Hands over a long answer as it comes, without its first `skip` bytes; nothing where there are no more yet.
    ///
    /// # Errors
    /// As [`Client::get`]; what `take` returns.
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
        let url = self.url.join(path).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
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
            Err(_) => Err(Failure::new(Exit::Unreachable, format!("{} answered {status}: that is no Beespace", self.url))),
        }
    }

    async fn decode<T: DeserializeOwned>(&self, response: Response) -> Result<T, Failure> {
        let text = response.bytes().await.map_err(|error| self.unreachable_failure(&error))?;
        serde_json::from_slice(&text).map_err(|error| {
            Failure::new(Exit::Bug, format!("{} answered what this version does not understand: {error}", self.url))
                .help("use a command line of the server's version")
        })
    }

    fn unreachable_failure(&self, error: &reqwest::Error) -> Failure {
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        Failure::new(Exit::Unreachable, format!("{} does not answer: {cause}", self.url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
        // It takes connections, as the system does for it, and nobody answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap()).parse().unwrap();
        let client = Client::with_read_timeout(Server { url, token: None }, Duration::from_millis(100)).unwrap();
        let failure = client.get::<()>("/api/v1/user").await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable, "{failure}");
        let failure = client.stream_bytes("/log", 0, |_| Ok(())).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable, "{failure}");
    }
}
