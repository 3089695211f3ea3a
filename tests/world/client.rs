//! Whoever calls a server: a program with a token, a browser with a cookie, or nobody in particular.

use anyhow::Context as _;
use reqwest::header::{self, HeaderMap};
use reqwest::{Method, RequestBuilder, StatusCode, redirect};
use serde_json::Value;

/// A caller. Redirects are answers like others, and are not followed.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    cookie: Option<String>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl HttpResponse {
    /// A header's text; empty where it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("{}: {}", self.status, self.body))
    }
}

impl Client {
    /// One that brings nothing; `base` is where the server answers, without a slash at the end.
    #[must_use]
    pub fn new(base: &str) -> Self {
        // An earlier call in this process has set the same provider: that is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // These options build everywhere, and with the defaults the first call would tell.
        let http = reqwest::Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap_or_default();
        Self { http, base: base.to_owned(), token: None, cookie: None }
    }

    /// The same caller with a token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// The same caller with a cookie, as `name=value`.
    #[must_use]
    pub fn with_cookie(self, cookie: &str) -> Self {
        Self { cookie: Some(cookie.to_owned()), ..self }
    }

    /// Signs in as a browser does, and returns who it is then.
    ///
    /// # Errors
    /// It is not let in.
    pub async fn sign_in(&self, token: &str) -> anyhow::Result<Self> {
        let answer = self.form("/-/login", &[("token", token), ("next", "/")]).await?;
        let cookie = answer.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        anyhow::ensure!(answer.status == StatusCode::SEE_OTHER && cookie.contains('='), "no session: {answer:?}");
        Ok(self.clone().with_cookie(&cookie))
    }

    /// The cookie it brings, as `name=value`.
    #[must_use]
    pub fn cookie(&self) -> Option<&str> {
        self.cookie.as_deref()
    }

    /// A request to fill in; [`Client::send`] sends it.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let request = self.token.iter().fold(request, |request, token| request.bearer_auth(token));
        self.cookie.iter().fold(request, |request, cookie| request.header(header::COOKIE, cookie))
    }

    /// # Errors
    /// Nobody answers.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<HttpResponse> {
        let response = request.send().await?;
        Ok(HttpResponse { status: response.status(), headers: response.headers().clone(), body: response.text().await? })
    }

    /// The status and the headers, without waiting for a body that may never end.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn send_for_headers(&self, request: RequestBuilder) -> anyhow::Result<HttpResponse> {
        let response = request.send().await?;
        Ok(HttpResponse { status: response.status(), headers: response.headers().clone(), body: String::new() })
    }

    /// # Errors
    /// Nobody answers.
    pub async fn get(&self, path: &str) -> anyhow::Result<HttpResponse> {
        self.send(self.request(Method::GET, path)).await
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<HttpResponse> {
        self.send(self.request(method, path).json(body)).await
    }

    /// Sends JSON with POST.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<HttpResponse> {
        self.call(Method::POST, path, body).await
    }

    /// Sends a form, as a page of this server does.
    ///
    /// # Errors
    /// Nobody answers.
    pub async fn form(&self, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<HttpResponse> {
        self.send(self.request(Method::POST, path).header(header::ORIGIN, &self.base).form(fields)).await
    }
}
