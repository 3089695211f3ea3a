//! One POST through `wasi:http`.

use crate::bindings::wasi::http::outgoing_handler;
use crate::bindings::wasi::http::types::{ErrorCode, Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme};
use crate::bindings::wasi::io::streams::StreamError;
use crate::failure::Failure;
use crate::response::Response;

/// The maximum that `blocking-write-and-flush` accepts at a time, in bytes.
const CHUNK: usize = 4_096;

/// Bytes of the response body that are read: enough for a sentence.
const MAX_TEXT: u64 = 256;

/// The address of a request: the path may hold the placeholder of a secret.
pub(crate) struct Target<'a> {
    pub(crate) is_https: bool,
    pub(crate) authority: &'a str,
    pub(crate) path_with_query: &'a str,
}

pub(crate) fn post(target: &Target<'_>, headers: &[(&str, &str)], body: &[u8]) -> Result<Response, Failure> {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).map_err(|_| Failure::Request("a request header was rejected"))?;
    }
    fields
        .append("content-length", body.len().to_string().as_bytes())
        .map_err(|_| Failure::Request("a request header was rejected"))?;
    let request = OutgoingRequest::new(fields);
    let scheme = if target.is_https { Scheme::Https } else { Scheme::Http };
    let is_valid = request.set_method(&Method::Post).is_ok()
        && request.set_scheme(Some(&scheme)).is_ok()
        && request.set_authority(Some(target.authority)).is_ok()
        && request.set_path_with_query(Some(target.path_with_query)).is_ok();
    let outgoing = request.body().ok().filter(|_| is_valid).ok_or(Failure::Request("the `url` in the settings is invalid"))?;
    // The request is sent first; the host reads the body from the stream while sending.
    let pending = outgoing_handler::handle(request, None).map_err(Failure::Http)?;
    let written = write(outgoing, body);
    pending.subscribe().block();
    match (pending.get(), written) {
        (Some(Ok(Ok(response))), _) => Ok(read(&response)),
        (Some(Ok(Err(error))), _) | (_, Err(error)) => Err(Failure::Http(error)),
        (Some(Err(())) | None, Ok(())) => Err(Failure::Http(ErrorCode::HttpResponseIncomplete)),
    }
}

/// A receiver may respond and close the connection before it has read the whole body. Its response then counts, not this error.
fn write(outgoing: OutgoingBody, body: &[u8]) -> Result<(), ErrorCode> {
    let stream = outgoing.write().map_err(|()| ErrorCode::InternalError(None))?;
    for chunk in body.chunks(CHUNK) {
        stream.blocking_write_and_flush(chunk).map_err(|_| ErrorCode::ConnectionTerminated)?;
    }
    drop(stream);
    OutgoingBody::finish(outgoing, None)
}

fn read(response: &IncomingResponse) -> Response {
    let headers = response.headers();
    let header = |name: &str| headers.get(name).into_iter().next().map(|value| text(&value));
    let (retry_after, location) = (header("retry-after"), header("location"));
    Response { status: response.status(), retry_after, location, text: beginning(response) }
}

fn beginning(response: &IncomingResponse) -> String {
    let Ok(body) = response.consume() else { return String::new() };
    let Ok(stream) = body.stream() else { return String::new() };
    match stream.blocking_read(MAX_TEXT) {
        Ok(bytes) => text(&bytes),
        Err(StreamError::Closed | StreamError::LastOperationFailed(_)) => String::new(),
    }
}

/// Reduces the bytes to one printable line.
fn text(bytes: &[u8]) -> String {
    let words: Vec<String> = String::from_utf8_lossy(bytes).split_whitespace().map(str::to_owned).collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(200).collect()
}
