//! Who is asking: nobody, or whoever holds the admin token, by itself or through a browser's session that began with it.
//!
//! A session is 256 random bits in a cookie; the store keeps only their hash. It ends after 8 hours without use and after 7 days.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use beespace_core::digest::Digest;
use beespace_core::policy::approval::ADMIN_ID;
use beespace_core::time::Timestamp;

use crate::api::problem::Problem;
use crate::config::ServerConfig;
use crate::http_state::AppState;
use crate::store::session::Session;

const IDLE_TIMEOUT: Duration = Duration::from_secs(8 * 3_600);
const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);
/// How stale `last_seen_at` may be: not every page view is worth a write.
const TOUCH_INTERVAL: Duration = Duration::from_secs(600);

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    Anonymous,
    /// `csrf` is what forms of the session carry; none where a token came with the request itself.
    Admin {
        csrf: Option<String>,
    },
}

impl Principal {
    #[must_use]
    pub fn is_admin(&self) -> bool {
        matches!(self, Self::Admin { .. })
    }

    /// The name under which what they do is kept.
    #[must_use]
    pub fn id(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Admin { .. } => ADMIN_ID,
        }
    }

    /// The proof that forms of this session carry.
    #[must_use]
    pub fn csrf(&self) -> &str {
        match self {
            Self::Admin { csrf: Some(csrf) } => csrf,
            _ => "",
        }
    }
}

/// The cookie's name: browsers hold `__Host-` to this very host, without a path or a parent domain, over TLS only.
fn cookie_name(server: &ServerConfig) -> &'static str {
    if server.is_https() { "__Host-beespace" } else { "beespace" }
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

/// Finds out who is asking. A wrong token is nobody.
pub async fn authenticate(front: &AppState, headers: &HeaderMap) -> Principal {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        let is_admin = token.is_some_and(|token| front.is_admin_token(token));
        return if is_admin { Principal::Admin { csrf: None } } else { Principal::Anonymous };
    }
    let Some(token) = cookie(headers, cookie_name(&front.config.server)) else { return Principal::Anonymous };
    let key = Digest::of(token);
    let Ok(Some(session)) = front.store.read().and_then(|read| read.session(key)) else { return Principal::Anonymous };
    let now = front.now();
    if now.since(session.last_seen_at) > IDLE_TIMEOUT || now.since(session.created_at) > MAX_AGE {
        return Principal::Anonymous;
    }
    if now.since(session.last_seen_at) > TOUCH_INTERVAL
        && let Err(error) = front.store.put_session(key, Session { last_seen_at: now, ..session }).await
    {
        tracing::warn!(%error, "a session's last use was not noted");
    }
    Principal::Admin { csrf: Some(csrf_token(token)) }
}

/// Begins a session and says what cookie the browser gets.
///
/// # Errors
/// [`Problem`] where the store or the machine's randomness fails.
pub async fn begin(front: &AppState) -> Result<HeaderValue, Problem> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| Problem::internal(&error))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    let now = front.now();
    let oldest = |ago: Duration| Timestamp(now.0.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)));
    front.store.expire_sessions(oldest(IDLE_TIMEOUT), oldest(MAX_AGE)).await?;
    let session = Session { principal: ADMIN_ID.to_owned(), created_at: now, last_seen_at: now };
    front.store.put_session(Digest::of(&token), session).await?;
    set_cookie(&front.config.server, &token, MAX_AGE.as_secs())
}

/// Ends the session of this request and says how the browser forgets it.
///
/// # Errors
/// [`Problem`] where the store fails.
pub async fn delete(front: &AppState, headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    if let Some(token) = cookie(headers, cookie_name(&front.config.server)) {
        front.store.remove_session(Digest::of(token)).await?;
    }
    set_cookie(&front.config.server, "", 0)
}

fn set_cookie(server: &ServerConfig, value: &str, max_age: u64) -> Result<HeaderValue, Problem> {
    let secure = if server.is_https() { "; Secure" } else { "" };
    let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age}{secure}", cookie_name(server));
    HeaderValue::from_str(&text).map_err(|error| Problem::internal(&error))
}
