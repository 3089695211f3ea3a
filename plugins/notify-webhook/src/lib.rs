//! Sends notices as HTTP requests: a CloudEvents document by POST, signed according to Standard Webhooks.
//!
//! The host computes the signature (`secret.hmac-sha256`), so this plugin never holds the secret. The host also checks the
//! destination of the request, so that it reaches only the granted host.

mod event;
mod failure;
mod request;
mod response;
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
use plugin_allocator as _;
use request::Target;
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
        report_panics();
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
        let hidden_path = settings.path_secret.as_deref().map(path_of_secret).transpose()?;
        let target = Target {
            is_https: settings.url.is_https,
            authority: &settings.url.authority,
            path_with_query: hidden_path.as_deref().unwrap_or(&settings.url.path_with_query),
        };
        let answer = request::post(&target, &headers, body.as_bytes());
        let response = answer.map_err(|failure| failure::interpret(failure, &settings.url))?;
        let fields = [("status".to_owned(), response.status.to_string()), ("attempt".to_owned(), notice.attempt.to_string())];
        log::emit(log::Level::Info, "the receiver responded", &fields);
        response::interpret(&response, &settings.url)?;
        Ok(Receipt { external_id: notice.idempotency_key, url: None, state: Vec::new() })
    }
}

/// Logs the message and place of a panic. The host adds them to its error; without this it knows only that the plugin aborted.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| log::emit(log::Level::Error, &panic.to_string(), &[])));
}

/// A path that stands for the value of the secret. The host replaces it when it sends the request.
fn path_of_secret(name: &str) -> Result<String, SendError> {
    let secret = secrets::open(name).map_err(|error| unusable(name, error))?;
    Ok(format!("/{}", secret.placeholder()))
}

/// Why a secret cannot be used.
fn unusable(secret: &str, error: SecretError) -> SendError {
    match error {
        SecretError::NotFound => SendError::Misconfigured(format!(
            "the secret {secret:?} does not exist; create it with `beespace secret set {secret} --plugins`"
        )),
        SecretError::Denied(why) => SendError::Misconfigured(format!("the secret {secret:?} cannot be used: {why}")),
        SecretError::Unavailable(why) => SendError::Retry(RetryHint {
            after_ms: None,
            reason: format!("the secret {secret:?} is currently unavailable: {why}"),
        }),
    }
}

/// Computes the signature: `v1,` followed by the base64 of the HMAC-SHA256.
fn sign(secret: &str, text: &str) -> Result<String, SendError> {
    let mac = secrets::open(secret).and_then(|secret| secret.hmac_sha256(text.as_bytes()));
    let mac = mac.map_err(|error| unusable(secret, error))?;
    Ok(format!("v1,{}", event::base64(&mac)))
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Plugin with_types_in bindings);
