//! An HTTP client of a server: with a token, with a session cookie, or anonymous.

use anyhow::Context as _;
use reqwest::header::{self, HeaderMap};
use reqwest::{Method, RequestBuilder, StatusCode, redirect};
use serde_json::Value;

/// An HTTP client. Redirects are returned, not followed.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    cookie: Option<String>,
}

/// A response with its whole body.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl HttpResponse {
    /// The text of a header; empty if it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// The body is not JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("{}: {}", self.status, self.body))
    }
}

impl Client {
    /// A client without credentials. `base` is the URL of the server, without a slash at the end.
    #[must_use]
    pub fn new(base: &str) -> Self {
        // An earlier call in this process may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // These options cannot fail; if they did, the first request would show it.
        let http = reqwest::Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap_or_default();
        Self { http, base: base.to_owned(), token: None, cookie: None }
    }

    /// The same client with a token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// The same client with a cookie, as `name=value`.
    #[must_use]
    pub fn with_cookie(self, cookie: &str) -> Self {
        Self { cookie: Some(cookie.to_owned()), ..self }
    }

    /// Signs in like a browser and returns a client with the session cookie.
    ///
    /// # Errors
    /// The server refuses the sign-in.
    pub async fn sign_in(&self, token: &str) -> anyhow::Result<Self> {
        let answer = self.form("/-/login", &[("token", token), ("next", "/")]).await?;
        let cookie = answer.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        anyhow::ensure!(answer.status == StatusCode::SEE_OTHER && cookie.contains('='), "no session: {answer:?}");
        Ok(self.clone().with_cookie(&cookie))
    }

    /// Its cookie, as `name=value`.
    #[must_use]
    pub fn cookie(&self) -> Option<&str> {
        self.cookie.as_deref()
    }

    /// A request with the client's credentials; [`Client::send`] sends it.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let request = self.token.iter().fold(request, |request, token| request.bearer_auth(token));
        self.cookie.iter().fold(request, |request, cookie| request.header(header::COOKIE, cookie))
    }

    /// # Errors
    /// There is no response.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<HttpResponse> {
        let response = request.send().await?;
        Ok(HttpResponse { status: response.status(), headers: response.headers().clone(), body: response.text().await? })
    }

    /// Status and headers only, for responses whose body may never end.
    ///
    /// # Errors
    /// There is no response.
    pub async fn send_for_headers(&self, request: RequestBuilder) -> anyhow::Result<HttpResponse> {
        let response = request.send().await?;
        Ok(HttpResponse { status: response.status(), headers: response.headers().clone(), body: String::new() })
    }

    /// # Errors
    /// There is no response.
    pub async fn get(&self, path: &str) -> anyhow::Result<HttpResponse> {
        self.send(self.request(Method::GET, path)).await
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// There is no response.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<HttpResponse> {
        self.send(self.request(method, path).json(body)).await
    }

    /// Sends JSON with POST.
    ///
    /// # Errors
    /// There is no response.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<HttpResponse> {
        self.call(Method::POST, path, body).await
    }

    /// Sends a form like a page of this server.
    ///
    /// # Errors
    /// There is no response.
    pub async fn form(&self, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<HttpResponse> {
        self.send(self.request(Method::POST, path).header(header::ORIGIN, &self.base).form(fields)).await
    }
}
