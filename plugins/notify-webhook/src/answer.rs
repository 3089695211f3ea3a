//! What an answer means: arrived, try again, never try again, or something an administrator must mend.

use crate::bindings::exports::beespace::plugin::notifier::{RetryHint, SendError};
use crate::bindings::wasi::http::types::ErrorCode;
use crate::settings::Url;

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) location: Option<String>,
    /// Its beginning, for people.
    pub(crate) text: String,
}

/// Why nothing came back.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request could not even be made.
    Request(&'static str),
    Http(ErrorCode),
}

/// `Ok` where the notice has arrived.
pub(crate) fn judge(answer: &Answer, url: &Url) -> Result<(), SendError> {
    let said = if answer.text.is_empty() { String::new() } else { format!(": {}", answer.text) };
    let words = format!("{url} answered {}{said}", answer.status);
    match answer.status {
        200..=299 => Ok(()),
        408 | 425 | 429 | 500..=599 => Err(SendError::Retry(RetryHint { after_ms: retry_after_ms(answer), reason: words })),
        300..=399 => {
            let place = answer.location.as_deref().unwrap_or("another address");
            Err(SendError::Misconfigured(format!("{words}, a redirect to {place}: put that address into the settings")))
        }
        401 | 403 => Err(SendError::Misconfigured(format!("{words}: check the secret on both sides"))),
        404 | 405 | 410 => Err(SendError::Misconfigured(format!("{words}: check the `url` in the settings"))),
        _ => Err(SendError::Permanent(words)),
    }
}

/// Seconds only: a date would need a clock that both sides share.
fn retry_after_ms(answer: &Answer) -> Option<u64> {
    answer.retry_after.as_deref()?.trim().parse::<u64>().ok()?.checked_mul(1_000)
}

/// What the host denies stays denied until someone changes a grant; everything else may go better next time.
pub(crate) fn of_failure(failure: Failure) -> SendError {
    match failure {
        Failure::Request(why) => SendError::Misconfigured(why.to_owned()),
        Failure::Http(ErrorCode::HttpRequestDenied) => {
            SendError::Misconfigured("the host of `url` is not granted: name it in `grants.hosts` of the binding".to_owned())
        }
        Failure::Http(ErrorCode::DestinationIpProhibited) => SendError::Misconfigured(
            "the host of `url` stands for an address that is not granted: grant it with `addresses = \"private\"` or `\"loopback\"`".to_owned(),
        ),
        Failure::Http(ErrorCode::HttpRequestUriInvalid) => SendError::Misconfigured("the `url` in the settings is not valid".to_owned()),
        Failure::Http(ErrorCode::TlsCertificateError) => SendError::Retry(RetryHint {
            after_ms: None,
            reason: "the certificate of the host of `url` is not trusted on Beespace's machine, or is for another name: nothing was sent; \
                     renew it there, or let the machine trust its issuer (`update-ca-certificates`) and restart Beespace"
                .to_owned(),
        }),
        Failure::Http(other) => SendError::Retry(RetryHint { after_ms: None, reason: format!("the request failed: {other}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(status: u16) -> String {
        let url = Url { is_https: true, authority: "x.example".to_owned(), path_with_query: "/secret-path".to_owned() };
        let answer = Answer { status, retry_after: Some("120".to_owned()), text: "no".to_owned(), ..Answer::default() };
        match judge(&answer, &url) {
            Ok(()) => "arrived".to_owned(),
            Err(SendError::Retry(hint)) => format!("retry after {:?}", hint.after_ms),
            Err(SendError::Permanent(words)) => {
                assert!(!words.contains("secret-path"));
                words
            }
            Err(SendError::Misconfigured(_)) => "misconfigured".to_owned(),
        }
    }

    #[test]
    fn each_status_means_one_thing() {
        for (statuses, meaning) in [
            (&[200, 201, 202, 204][..], "arrived"),
            (&[408, 425, 429, 500, 502, 503, 504], "retry after Some(120000)"),
            (&[301, 302, 307, 308, 401, 403, 404, 405, 410], "misconfigured"),
            (&[400], "https://x.example answered 400: no"),
            (&[422], "https://x.example answered 422: no"),
        ] {
            for status in statuses {
                assert_eq!(word(*status), meaning, "{status}");
            }
        }
    }

    #[test]
    fn what_the_host_denies_is_not_tried_again() {
        assert!(matches!(of_failure(Failure::Http(ErrorCode::HttpRequestDenied)), SendError::Misconfigured(_)));
        assert!(matches!(of_failure(Failure::Http(ErrorCode::ConnectionRefused)), SendError::Retry(_)));
    }
}
