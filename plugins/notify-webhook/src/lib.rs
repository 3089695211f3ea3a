//! Notices as HTTP requests: a CloudEvents document by POST, signed as Standard Webhooks describe.
//!
//! The signature is made by the host (`secret.hmac-sha256`), so this plugin never holds the secret; the request leaves through the
//! host's checked egress, so it reaches the granted host and no other.

mod answer;
mod event;
mod request;
mod settings;

#[allow(clippy::all, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "notifier-plugin", generate_all });
}

use bindings::beespace::plugin::secrets::{self, SecretError};
use bindings::beespace::plugin::types::{Diagnostic, Severity};
use bindings::beespace::plugin::{config, log};
use bindings::exports::beespace::plugin::lifecycle;
use bindings::exports::beespace::plugin::notifier::{self, Notice, Receipt, RetryHint, SendError};
use heap as _;
use settings::Settings;

struct Plugin;

impl lifecycle::Guest for Plugin {
    fn validate_config(config: String) -> Result<(), Vec<Diagnostic>> {
        Settings::read(&config).map(drop).map_err(|(pointer, message)| {
            vec![Diagnostic { severity: Severity::High, message, pointer: Some(pointer), file: None, line: None, column: None }]
        })
    }
}

impl notifier::Guest for Plugin {
    fn send(notice: Notice) -> Result<Receipt, SendError> {
        let settings = Settings::read(&config::get()).map_err(|(_, message)| SendError::Misconfigured(message))?;
        let body = event::body(&notice).map_err(SendError::Permanent)?;
        let seconds = (notice.ctx.now_ms / 1_000).to_string();
        let signature = sign(&settings.secret, &event::signed_text(&notice.idempotency_key, &seconds, &body))?;
        let headers = [
            ("content-type", "application/cloudevents+json; charset=utf-8"),
            ("idempotency-key", notice.idempotency_key.as_str()),
            ("webhook-id", notice.idempotency_key.as_str()),
            ("webhook-timestamp", seconds.as_str()),
            ("webhook-signature", signature.as_str()),
        ];
        let answer = request::post(&settings.url, &headers, body.as_bytes()).map_err(answer::of_failure)?;
        let fields = [("status".to_owned(), answer.status.to_string()), ("attempt".to_owned(), notice.attempt.to_string())];
        log::emit(log::Level::Info, "the receiver answered", &fields);
        answer::judge(&answer, &settings.url)?;
        Ok(Receipt { external_id: notice.idempotency_key, url: None, state: Vec::new() })
    }
}

/// `v1,` and the base64 of the HMAC-SHA256.
fn sign(secret: &str, text: &str) -> Result<String, SendError> {
    let unusable = |error: SecretError| match error {
        SecretError::NotFound => {
            SendError::Misconfigured(format!("there is no secret {secret:?}; `beespace secret set {secret} --instance` makes it"))
        }
        SecretError::Denied(why) => SendError::Misconfigured(format!("the secret {secret:?} may not be used here: {why}")),
        SecretError::Unavailable(why) => {
            SendError::Retry(RetryHint { after_ms: None, reason: format!("the secret {secret:?} cannot be had now: {why}") })
        }
    };
    let mac = secrets::open(secret).and_then(|secret| secret.hmac_sha256(text.as_bytes())).map_err(unusable)?;
    Ok(format!("v1,{}", event::base64(&mac)))
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Plugin with_types_in bindings);
