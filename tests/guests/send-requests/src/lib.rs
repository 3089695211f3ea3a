//! A notifier that sends the requests that its settings describe: `{ authority, method, headers: [name, …], body: bytes, times,
//! at_once: bool }`. The id of its receipt is a JSON array: the names of the headers that the host refused, then the status or
//! error code of each request.

#[allow(clippy::all, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "notifier-plugin", generate_all });
}

use bindings::beespace::plugin::config;
use bindings::beespace::plugin::types::Diagnostic;
use bindings::exports::beespace::plugin::lifecycle;
use bindings::exports::beespace::plugin::notifier::{self, Notice, Receipt, SendError};
use bindings::wasi::http::outgoing_handler;
use bindings::wasi::http::types::{ErrorCode, Fields, FutureIncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme};
use serde_json::{Value, json};

/// The maximum that `blocking-write-and-flush` accepts at a time, in bytes.
const CHUNK: usize = 4_096;

struct Plugin;

impl lifecycle::Guest for Plugin {
    fn validate_config(_config: String) -> Result<(), Vec<Diagnostic>> {
        Ok(())
    }
}

impl notifier::Guest for Plugin {
    fn send(_notice: Notice) -> Result<Receipt, SendError> {
        let settings: Value = serde_json::from_str(&config::get()).map_err(|error| SendError::Permanent(error.to_string()))?;
        let times = settings.get("times").and_then(Value::as_u64).unwrap_or(1);
        let mut results = Vec::new();
        if settings.get("at_once") == Some(&Value::Bool(true)) {
            let pending: Vec<_> = (0..times).map(|_| begin(&settings, &mut results)).collect();
            results.extend(pending.into_iter().map(end));
        } else {
            for _ in 0..times {
                let pending = begin(&settings, &mut results);
                results.push(end(pending));
            }
        }
        Ok(Receipt { external_id: Value::Array(results).to_string(), url: None, state: Vec::new() })
    }
}

fn begin(settings: &Value, refused: &mut Vec<Value>) -> Result<FutureIncomingResponse, ErrorCode> {
    let text = |name: &str| settings.get(name).and_then(Value::as_str).unwrap_or_default();
    let fields = Fields::new();
    for name in settings.get("headers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if fields.append(name, b"set-by-the-guest").is_err() {
            refused.push(json!(name));
        }
    }
    let request = OutgoingRequest::new(fields);
    let is_valid = request.set_method(&method(text("method"))).is_ok()
        && request.set_scheme(Some(&Scheme::Http)).is_ok()
        && request.set_authority(Some(text("authority"))).is_ok()
        && request.set_path_with_query(Some("/hook")).is_ok();
    let body = request.body().ok().filter(|_| is_valid).ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let pending = outgoing_handler::handle(request, None)?;
    let length = settings.get("body").and_then(Value::as_u64).unwrap_or(0);
    // The response reports a failed write.
    let _ = write(body, usize::try_from(length).unwrap_or(usize::MAX));
    Ok(pending)
}

fn write(body: OutgoingBody, mut left: usize) -> Result<(), ErrorCode> {
    let stream = body.write().map_err(|()| ErrorCode::InternalError(None))?;
    while left > 0 {
        let length = left.min(CHUNK);
        stream.blocking_write_and_flush(&vec![b'x'; length]).map_err(|_| ErrorCode::ConnectionTerminated)?;
        left -= length;
    }
    drop(stream);
    OutgoingBody::finish(body, None)
}

fn end(pending: Result<FutureIncomingResponse, ErrorCode>) -> Value {
    let future = match pending {
        Ok(future) => future,
        Err(code) => return json!(format!("{code:?}")),
    };
    future.subscribe().block();
    match future.get() {
        Some(Ok(Ok(response))) => json!(response.status()),
        Some(Ok(Err(code))) => json!(format!("{code:?}")),
        other => json!(format!("{other:?}")),
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Plugin with_types_in bindings);
