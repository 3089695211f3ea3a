//! Interprets a response: delivered, retry, permanent failure, or a misconfiguration that an administrator must fix.

use crate::bindings::exports::beespace::plugin::notifier::{RetryHint, SendError};
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

/// Returns `Ok` if the receiver accepted the notice.
pub(crate) fn interpret(response: &Response, url: &Url) -> Result<(), SendError> {
    let text = if response.text.is_empty() { String::new() } else { format!(": {}", response.text) };
    let summary = format!("{url} responded with {}{text}", response.status);
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
            (&[400], "https://x.example responded with 400: no"),
            (&[422], "https://x.example responded with 422: no"),
        ] {
            for status in statuses {
                assert_eq!(meaning_of(*status), meaning, "{status}");
            }
        }
    }
}
