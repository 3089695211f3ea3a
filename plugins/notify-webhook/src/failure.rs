//! Why a request got no response, in words, with the host that it was for.

use crate::bindings::exports::beespace::plugin::notifier::{RetryHint, SendError};
use crate::bindings::wasi::http::types::ErrorCode;
use crate::settings::Url;

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request could not be built.
    Request(&'static str),
    Http(ErrorCode),
}

/// A request that the host denied stays denied until an administrator changes a grant. Every other failure may be temporary.
pub(crate) fn interpret(failure: Failure, url: &Url) -> SendError {
    let code = match failure {
        Failure::Request(why) => return SendError::Misconfigured(why.to_owned()),
        Failure::Http(code) => code,
    };
    match code {
        ErrorCode::HttpRequestDenied => {
            SendError::Misconfigured(format!("{url} is not granted: add it to the binding's `grants.hosts`"))
        }
        ErrorCode::DestinationIpProhibited => SendError::Misconfigured(format!(
            "the host of {url} has an address that is not granted: set `addresses = \"private\"` or `\"loopback\"` in its grant"
        )),
        ErrorCode::HttpRequestUriInvalid => SendError::Misconfigured("the `url` in the settings is invalid".to_owned()),
        ErrorCode::ConfigurationError => SendError::Misconfigured(
            "the secret that `path_secret` names is not the path of a URL, such as /services/T000/B000: set it again".to_owned(),
        ),
        other => SendError::Retry(RetryHint { after_ms: None, reason: format!("{url} {}", words(&other)) }),
    }
}

/// What happened, as the end of a sentence that begins with the receiver's address.
fn words(code: &ErrorCode) -> String {
    let text = match code {
        ErrorCode::DnsTimeout | ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => {
            "could not be reached: its host name could not be resolved"
        }
        ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => "could not be reached: there is no route to it",
        ErrorCode::ConnectionRefused => "refused the connection: nothing listens there",
        ErrorCode::ConnectionTerminated => "closed the connection before it responded",
        ErrorCode::ConnectionTimeout | ErrorCode::HttpResponseTimeout => "did not respond in time",
        ErrorCode::ConnectionReadTimeout | ErrorCode::ConnectionWriteTimeout => "stopped in the middle of its response",
        ErrorCode::ConnectionLimitReached => "got no request: too many requests of this notifier are in progress",
        ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => "could not be reached: the TLS handshake failed",
        ErrorCode::TlsCertificateError => {
            "got no request: its TLS certificate is not trusted by Beespace's machine or belongs to another name. Renew the \
             certificate, or add its issuer to the machine's trust store (`update-ca-certificates`) and restart Beespace"
        }
        ErrorCode::HttpResponseIncomplete | ErrorCode::HttpProtocolError => "sent a response that is not HTTP",
        ErrorCode::HttpRequestBodySize(_) => "got no request: the notice is too large",
        ErrorCode::InternalError(Some(why)) => return format!("could not be reached: {why}"),
        other => return format!("could not be reached ({})", split_name(&format!("{other:?}"))),
    };
    text.to_owned()
}

/// Turns `ErrorCode::HttpResponseHeaderSize(None)` into `http response header size`.
fn split_name(name: &str) -> String {
    let name = name.rsplit("::").next().unwrap_or(name);
    let mut words = String::new();
    for letter in name.chars().take_while(char::is_ascii_alphanumeric) {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url() -> Url {
        Url { is_https: true, authority: "x.example".to_owned(), path_with_query: "/secret-path".to_owned() }
    }

    fn text(code: ErrorCode) -> String {
        match interpret(Failure::Http(code), &url()) {
            SendError::Retry(hint) => hint.reason,
            SendError::Permanent(reason) | SendError::Misconfigured(reason) => reason,
        }
    }

    #[test]
    fn a_request_that_the_host_denies_is_not_retried() {
        let denied = interpret(Failure::Http(ErrorCode::HttpRequestDenied), &url());
        assert!(matches!(denied, SendError::Misconfigured(_)));
        assert!(matches!(interpret(Failure::Http(ErrorCode::ConnectionRefused), &url()), SendError::Retry(_)));
    }

    #[test]
    fn an_error_names_the_receiver_in_plain_words() {
        assert_eq!(text(ErrorCode::ConnectionRefused), "https://x.example refused the connection: nothing listens there");
        assert_eq!(
            text(ErrorCode::HttpResponseHeaderSize(crate::bindings::wasi::http::types::FieldSizePayload {
                field_name: None,
                field_size: None
            })),
            "https://x.example could not be reached (http response header size)"
        );
        for code in [ErrorCode::ConnectionTimeout, ErrorCode::LoopDetected, ErrorCode::TlsCertificateError] {
            let text = text(code);
            assert!(text.starts_with("https://x.example ") && !text.contains("ErrorCode") && !text.contains("secret"), "{text}");
        }
    }
}
