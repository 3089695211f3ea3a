//! Authentication: the admin token in the `Authorization` header, or a browser session that began with it.
//!
//! A session is 256 random bits in a cookie; the store keeps only their hash, and the identity that the session authenticates. It
//! ends after 8 hours without a request, after 7 days in any case, and when the admin token is replaced.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use beespace_core::digest::Digest;
use beespace_core::time::Timestamp;

use crate::app::App;
use crate::clock::now;
use crate::config::ServerConfig;
use crate::http_problem::Problem;
use crate::principal::{Principal, PrincipalKind};
use crate::store::session::Session;
use crate::urls;

const IDLE_TIMEOUT: Duration = Duration::from_secs(8 * 3_600);
const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);
/// The precision of `last_seen_at`: a write per page view would be wasteful.
const TOUCH_INTERVAL: Duration = Duration::from_secs(600);

/// Hexadecimal digits of the instance's id in the name of the cookie. The last ones of a UUID of version 7 are random.
const INSTANCE_DIGITS: usize = 8;

/// The name of the cookie. Browsers accept the prefix `__Host-` over TLS only, and bind such a cookie to this host: no parent
/// domain and no path can set it. Below a path the cookie is bound to the path instead; browsers accept the prefix `__Secure-`
/// over TLS only. Cookies are shared between the ports of a host, so the name contains the instance: signing in to one of several
/// servers on a host does not sign out of the others.
fn cookie_name(app: &App) -> String {
    let server = &app.config.server;
    let prefix = match (server.is_https(), urls::base_path(&server.public_url).is_empty()) {
        (true, true) => "__Host-",
        (true, false) => "__Secure-",
        (false, _) => "",
    };
    let id = app.instance.as_simple().to_string();
    format!("{prefix}beespace-{}", id.get(id.len().saturating_sub(INSTANCE_DIGITS)..).unwrap_or(&id))
}

fn cookie_path(server: &ServerConfig) -> &str {
    Some(urls::base_path(&server.public_url)).filter(|base| !base.is_empty()).unwrap_or("/")
}

fn csrf_token(token: &str) -> String {
    Digest::of_parts([b"beespace form".as_slice(), token.as_bytes()]).hex()
}

/// The value of a cookie.
#[must_use]
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Authenticates a request. A wrong token makes the caller anonymous, even beside a valid cookie.
pub async fn authenticate(app: &App, headers: &HeaderMap) -> Principal {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        let is_admin = token.is_some_and(|token| app.admin_token.matches(token));
        return if is_admin { Principal::admin() } else { Principal::anonymous() };
    }
    let token = cookie(headers, &cookie_name(app));
    match token {
        Some(token) => of_session(app, token).await.unwrap_or_else(Principal::anonymous),
        None => Principal::anonymous(),
    }
}

/// The identity that the store keeps for a session token; none if there is no such session, if it has ended, if the admin token
/// was replaced since, or if its kind is unknown.
async fn of_session(app: &App, token: &str) -> Option<Principal> {
    let key = Digest::of(token);
    let session = app.store.read().and_then(|read| read.session(key)).ok().flatten()?;
    let now = now();
    if now.since(session.last_seen_at) > IDLE_TIMEOUT || now.since(session.created_at) > MAX_AGE {
        return None;
    }
    if session.token_fingerprint != Some(app.admin_token.fingerprint()) {
        return None;
    }
    let Some(kind) = PrincipalKind::of_session(&session.principal_kind) else {
        tracing::error!(kind = %session.principal_kind, "a session of an unknown kind was refused");
        return None;
    };
    let principal = Principal::of_session(kind, session.principal_id.clone(), csrf_token(token));
    if now.since(session.last_seen_at) > TOUCH_INTERVAL
        && let Err(error) = app.store.put_session(key, Session { last_seen_at: now, ..session }).await
    {
        tracing::warn!(%error, "could not store when a session was last used");
    }
    Some(principal)
}

/// Creates a session for an identity and returns the cookie for its browser. The row takes the identity's kind and id.
///
/// # Errors
/// [`Problem`] if the store or the system's random generator fails.
pub async fn create(app: &App, principal: &Principal) -> Result<HeaderValue, Problem> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| Problem::internal(&error))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    let now = now();
    let before = |age: Duration| Timestamp(now.0.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
    app.store.expire_sessions(before(IDLE_TIMEOUT), before(MAX_AGE)).await?;
    let session = Session {
        principal_kind: principal.kind().as_str().to_owned(),
        principal_id: principal.id().to_owned(),
        token_fingerprint: Some(app.admin_token.fingerprint()),
        created_at: now,
        last_seen_at: now,
    };
    app.store.put_session(Digest::of(&token), session).await?;
    set_cookie(app, &token, MAX_AGE.as_secs())
}

/// Deletes the session of this request and returns the cookie that makes its browser forget it.
///
/// # Errors
/// [`Problem`] if the store fails.
pub async fn delete(app: &App, headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    if let Some(token) = cookie(headers, &cookie_name(app)) {
        app.store.remove_session(Digest::of(token)).await?;
    }
    set_cookie(app, "", 0)
}

fn set_cookie(app: &App, value: &str, max_age: u64) -> Result<HeaderValue, Problem> {
    let secure = if app.config.server.is_https() { "; Secure" } else { "" };
    let (name, path) = (cookie_name(app), cookie_path(&app.config.server));
    let text = format!("{name}={value}; Path={path}; HttpOnly; SameSite=Lax; Max-Age={max_age}{secure}");
    HeaderValue::from_str(&text).map_err(|error| Problem::internal(&error))
}
