//! `wasi:http` on the host's terms. Eight rules, each with a reason and a test:
//!
//! 1. known methods only; `http` only where the rule says so; no user in the authority;
//! 2. exactly the scheme, host and port of a rule;
//! 3. one lookup, and every address it gives must be of the rule's class ([`address`]);
//! 4. the connection goes to a checked address, never to the name again;
//! 5. a place for each request, a number of requests, a time for the head, for each frame and a size for the body;
//! 6. no redirect is followed: the plugin gets it, and its next request is checked again;
//! 7. placeholders become secrets now that the destination is known ([`placeholder`]), hop-by-hop and `x-beespace-*` headers go;
//! 8. every request is logged, without its query.

pub(crate) mod address_filter;
mod connect;
pub(crate) mod placeholder;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, Method, Request, Response};
use tokio::sync::Semaphore;
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpHooks};
use zeroize::Zeroizing;

use crate::grant::{AddressClass, EgressRule, EgressScheme, normalize_host};
use crate::host_functions::secrets::SecretValue;
pub(crate) use connect::Tls;
use placeholder::Placeholders;

/// Requests of one binding under way at a time.
const MAX_CONCURRENT_REQUESTS: usize = 8;
/// From the lookup to the head of the answer. Less than a notifier's whole time, so that it can still say what happened.
const HEADER_TIMEOUT: Duration = Duration::from_secs(8);

/// Where the requests of one binding may go. Shared by its calls.
pub(crate) struct Outbound {
    label: Arc<str>,
    rules: Vec<EgressRule>,
    /// Our own listeners and engines: never a destination.
    own_addresses: Arc<[SocketAddr]>,
    slots: Arc<Semaphore>,
    tls: Arc<Tls>,
}

impl Outbound {
    pub(crate) fn new(label: Arc<str>, rules: Vec<EgressRule>, own_addresses: Arc<[SocketAddr]>, tls: Arc<Tls>) -> Self {
        Self { label, rules, own_addresses, slots: Arc::new(Semaphore::new(MAX_CONCURRENT_REQUESTS)), tls }
    }
}

/// The outgoing side of one call.
pub(crate) struct Egress {
    outbound: Option<Arc<Outbound>>,
    requests_left: u32,
    placeholders: Arc<Placeholders>,
}

impl Egress {
    pub(crate) fn new(outbound: Option<Arc<Outbound>>, requests: u32) -> Self {
        Self { outbound, requests_left: requests, placeholders: Arc::default() }
    }

    /// A token that stands for the secret in this call's headers.
    pub(crate) fn add_placeholder(&mut self, secret: &SecretValue) -> wasmtime::Result<String> {
        Ok(Arc::make_mut(&mut self.placeholders).add(secret)?)
    }

    /// From now on [`Self::mask`] takes the value out of what the plugin says.
    pub(crate) fn mask_value(&mut self, value: Zeroizing<Vec<u8>>) {
        Arc::make_mut(&mut self.placeholders).mask_value(value);
    }

    /// `text` without the values of the secrets that this call opened.
    pub(crate) fn mask(&self, text: &str) -> String {
        self.placeholders.mask(text)
    }
}

type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;
type SendResult = Result<(Response<WasiBody>, Driver), Error>;

impl WasiHttpHooks for Egress {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(|name: &HeaderName| {
            DEFAULT_FORBIDDEN_HEADERS.contains(name) || name == http::header::EXPECT || name.as_str().starts_with("x-beespace-")
        })
    }

    fn default_scheme(&mut self) -> Option<http::uri::Scheme> {
        None
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Driver,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        let Some(left) = self.requests_left.checked_sub(1) else {
            return Box::new(async { Err(Error::ConnectionLimitReached) });
        };
        self.requests_left = left;
        let Some(outbound) = self.outbound.clone() else {
            return Box::new(async { Err(Error::HttpRequestDenied) });
        };
        Box::new(send(outbound, self.placeholders.clone(), request, options))
    }
}

/// Checks, connects and sends; says in the log what became of it.
async fn send(
    outbound: Arc<Outbound>,
    placeholders: Arc<Placeholders>,
    mut request: Request<WasiBody>,
    options: Option<RequestOptions>,
) -> SendResult {
    let (started, method, uri) = (Instant::now(), request.method().clone(), request.uri().clone());
    let head_time = options.as_ref().and_then(|options| options.first_byte_timeout).unwrap_or(HEADER_TIMEOUT).min(HEADER_TIMEOUT);
    let frame_time = options.and_then(|options| options.between_bytes_timeout);
    let sent = tokio::time::timeout(head_time, async {
        let destination = outbound.check(&request)?;
        placeholders.substitute(request.headers_mut(), &destination.host)?;
        let place = outbound.slots.clone().acquire_owned().await.map_err(|_| Error::ConnectionLimitReached)?;
        let addresses = outbound.resolve(&destination).await?;
        let stream = connect::open(&addresses, &destination, &outbound.tls).await?;
        connect::exchange(stream, request, place, frame_time).await
    })
    .await
    .unwrap_or(Err(Error::ConnectionTimeout));
    let (host, path, duration_ms) = (uri.host().unwrap_or(""), uri.path(), started.elapsed().as_millis());
    match &sent {
        Ok((response, _)) => {
            let status = response.status().as_u16();
            // As the answer says itself; what comes is capped.
            let bytes = response.headers().get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
            tracing::info!(plugin = %outbound.label, %method, host, path, status, bytes, duration_ms, "a plugin sent a request");
        }
        Err(error) => {
            tracing::warn!(plugin = %outbound.label, %method, host, path, %error, duration_ms, "a plugin's request failed");
        }
    }
    sent
}

/// A request's destination, checked against the rules but not yet against addresses.
pub(crate) struct Destination {
    pub(crate) scheme: EgressScheme,
    /// As [`normalize_host`] has it.
    pub(crate) host: String,
    pub(crate) port: u16,
    class: AddressClass,
}

impl Outbound {
    fn check(&self, request: &Request<WasiBody>) -> Result<Destination, Error> {
        let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        if !known.contains(request.method()) {
            return Err(Error::HttpRequestMethodInvalid);
        }
        let scheme = match request.uri().scheme_str() {
            Some("https") => EgressScheme::Https,
            Some("http") => EgressScheme::Http,
            _ => return Err(Error::HttpRequestUriInvalid),
        };
        let authority = request.uri().authority().ok_or(Error::HttpRequestUriInvalid)?;
        if authority.as_str().contains('@') {
            return Err(Error::HttpRequestUriInvalid);
        }
        let host = normalize_host(authority.host());
        let port = authority.port_u16().unwrap_or(scheme.default_port());
        let rule = self.rules.iter().find(|rule| rule.covers(scheme, &host, port)).ok_or(Error::HttpRequestDenied)?;
        Ok(Destination { scheme, class: rule.class, host, port })
    }

    /// The one lookup.
    async fn resolve(&self, destination: &Destination) -> Result<Vec<SocketAddr>, Error> {
        let found = tokio::net::lookup_host((destination.host.as_str(), destination.port)).await;
        self.check_addresses(destination, found.map_err(|_| Error::DnsError { rcode: None, info_code: None })?.collect())
    }

    /// Everything that a lookup gave must be permitted, not only what would be connected to.
    fn check_addresses(&self, destination: &Destination, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Error> {
        if found.is_empty() {
            return Err(Error::DestinationNotFound);
        }
        if found.iter().all(|address| address_filter::classify(address.ip()) == Some(destination.class) && !self.is_own(*address))
        {
            Ok(found)
        } else {
            Err(Error::DestinationIpProhibited)
        }
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        let is_ours = |own: &SocketAddr| {
            own.ip() == address.ip() || own.ip().is_unspecified() && address_filter::is_local_address(address.ip())
        };
        self.own_addresses.iter().any(|own| own.port() == address.port() && is_ours(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_that_is_not_permitted_forbids_a_name() {
        let own = ["93.184.216.9:443".parse().unwrap()];
        let outbound = Outbound::new("policy".into(), Vec::new(), own.into(), Arc::default());
        let host = "hive.example".to_owned();
        let destination = Destination { scheme: EgressScheme::Https, host, port: 443, class: AddressClass::Public };
        let permit = |found: &[&str]| {
            let found = found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 443)).collect();
            outbound.check_addresses(&destination, found)
        };
        assert_eq!(permit(&["93.184.216.7", "93.184.216.8"]).unwrap().len(), 2);
        for found in [&["93.184.216.7", "10.0.0.1"], &["127.0.0.1", "93.184.216.7"], &["93.184.216.7", "93.184.216.9"]] {
            assert!(matches!(permit(found), Err(Error::DestinationIpProhibited)), "{found:?}");
        }
        assert!(matches!(permit(&[]), Err(Error::DestinationNotFound)));
    }
}
