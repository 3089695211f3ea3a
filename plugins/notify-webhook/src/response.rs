//! Interprets a response: delivered, retry, permanent failure, or a misconfiguration that an administrator must fix.

use crate::bindings::exports::beespace::plugin::notifier::{RetryHint, SendError};
use crate::bindings::wasi::http::types::ErrorCode;
use crate::settings::Url;

/// The receiver's response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) location: Option<String>,
    /// The beginning of the body, for people.
    pub(crate) text: String,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request could not be built.
    Request(&'static str),
    Http(ErrorCode),
}

/// Returns `Ok` if the receiver accepted the notice.
pub(crate) fn interpret(response: &Response, url: &Url) -> Result<(), SendError> {
    let text = if response.text.is_empty() { String::new() } else { format!(": {}", response.text) };
    let summary = format!("{url} answered {}{text}", response.status);
    match response.status {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => Err(SendError::Retry(RetryHint { after_ms: retry_after_ms(response), reason: summary })),
        300..=399 => {
            let target = response.location.as_deref().unwrap_or("another address");
            Err(SendError::Misconfigured(format!("{summary}, a redirect to {target}: set `url` to the new address")))
        }
        401 | 403 => Err(SendError::Misconfigured(format!("{summary}: check the secret on both sides"))),
        404 | 405 | 410 => Err(SendError::Misconfigured(format!("{summary}: check the `url` in the settings"))),
        _ => Err(SendError::Permanent(summary)),
    }
}

/// Reads `Retry-After` in seconds. The date form is ignored, because it needs synchronised clocks.
fn retry_after_ms(response: &Response) -> Option<u64> {
    response.retry_after.as_deref()?.trim().parse::<u64>().ok()?.checked_mul(1_000)
}

/// A request that the host denied stays denied until an administrator changes a grant. Every other failure may be temporary.
pub(crate) fn from_failure(failure: Failure) -> SendError {
    match failure {
        Failure::Request(why) => SendError::Misconfigured(why.to_owned()),
        Failure::Http(ErrorCode::HttpRequestDenied) => {
            SendError::Misconfigured("the host of `url` is not granted: add it to the binding's `grants.hosts`".to_owned())
        }
        Failure::Http(ErrorCode::DestinationIpProhibited) => SendError::Misconfigured(
            "the host of `url` resolves to an address that is not granted: \
             set `addresses = \"private\"` or `\"loopback\"` in its grant"
                .to_owned(),
        ),
        Failure::Http(ErrorCode::HttpRequestUriInvalid) => {
            SendError::Misconfigured("the `url` in the settings is invalid".to_owned())
        }
        Failure::Http(ErrorCode::TlsCertificateError) => SendError::Retry(RetryHint {
            after_ms: None,
            reason: "nothing was sent: the TLS certificate of the host of `url` is not trusted by Beespace's machine \
                     or belongs to another name. \
                     Renew the certificate, or add its issuer to the machine's trust store \
                     (`update-ca-certificates`) and restart Beespace"
                .to_owned(),
        }),
        Failure::Http(other) => SendError::Retry(RetryHint { after_ms: None, reason: format!("the request failed: {other}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning_of(status: u16) -> String {
        let url = Url { is_https: true, authority: "x.example".to_owned(), path_with_query: "/secret-path".to_owned() };
        let response = Response { status, retry_after: Some("120".to_owned()), text: "no".to_owned(), ..Response::default() };
        match interpret(&response, &url) {
            Ok(()) => "delivered".to_owned(),
            Err(SendError::Retry(hint)) => format!("retry after {:?}", hint.after_ms),
            Err(SendError::Permanent(reason)) => {
                assert!(!reason.contains("secret-path"));
                reason
            }
            Err(SendError::Misconfigured(_)) => "misconfigured".to_owned(),
        }
    }

    #[test]
    fn each_status_means_one_thing() {
        for (statuses, meaning) in [
            (&[200, 201, 202, 204][..], "delivered"),
            (&[408, 425, 429, 500, 502, 503, 504], "retry after Some(120000)"),
            (&[301, 302, 307, 308, 401, 403, 404, 405, 410], "misconfigured"),
            (&[400], "https://x.example answered 400: no"),
            (&[422], "https://x.example answered 422: no"),
        ] {
            for status in statuses {
                assert_eq!(meaning_of(*status), meaning, "{status}");
            }
        }
    }

    #[test]
    fn a_request_that_the_host_denies_is_not_retried() {
        assert!(matches!(from_failure(Failure::Http(ErrorCode::HttpRequestDenied)), SendError::Misconfigured(_)));
        assert!(matches!(from_failure(Failure::Http(ErrorCode::ConnectionRefused)), SendError::Retry(_)));
    }
}
