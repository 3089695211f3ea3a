//! Outgoing `wasi:http` under the control of the host. Eight rules, each with a test:
//!
//! 1. only known methods; `http` only if the rule allows it; no user information in the authority;
//! 2. exactly the scheme, host and port of an egress rule;
//! 3. one lookup, and every resolved address must belong to the rule's class ([`address_filter`]);
//! 4. the connection goes to a checked address; the name is not resolved again;
//! 5. limits for concurrent requests, requests per call, header time, time per body frame, and body size;
//! 6. redirects are not followed: the plugin receives them, and its next request is checked again;
//! 7. placeholders are replaced by secrets once the destination is known ([`placeholder`]); hop-by-hop and `x-beespace-*` headers
//!    are removed;
//! 8. every request is logged with its method, host and status, but without path and query: they may be a credential.

pub(crate) mod address_filter;
mod connect;
mod destination;
pub(crate) mod placeholder;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, Method, Request};
use tokio::sync::Semaphore;
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpHooks};
use zeroize::Zeroizing;

use crate::grant::{EgressRule, EgressScheme, normalize_host};
use crate::ports::secrets::SecretValue;
pub(crate) use connect::Tls;
use connect::{Driver, SendResult};
use destination::Destination;
use placeholder::Placeholders;

/// Maximum number of concurrent requests of one binding.
const MAX_CONCURRENT_REQUESTS: usize = 8;
/// Timeout from the DNS lookup to the response headers. It is shorter than the total time of a notifier, so that the notifier can
/// still return an error.
const HEADER_TIMEOUT: Duration = Duration::from_secs(8);

/// The destinations that one binding may reach. Shared by all calls of the binding.
pub(crate) struct Outbound {
    label: Arc<str>,
    rules: Vec<EgressRule>,
    /// Addresses of the server and its engines, which are never a permitted destination.
    own_addresses: Arc<[SocketAddr]>,
    slots: Arc<Semaphore>,
    tls: Arc<Tls>,
}

impl Outbound {
    pub(crate) fn new(label: Arc<str>, rules: Vec<EgressRule>, own_addresses: Arc<[SocketAddr]>, tls: Arc<Tls>) -> Self {
        Self { label, rules, own_addresses, slots: Arc::new(Semaphore::new(MAX_CONCURRENT_REQUESTS)), tls }
    }
}

/// The outgoing requests of one call.
pub(crate) struct Egress {
    outbound: Option<Arc<Outbound>>,
    requests_left: u32,
    placeholders: Arc<Placeholders>,
}

impl Egress {
    pub(crate) fn new(outbound: Option<Arc<Outbound>>, requests: u32) -> Self {
        Self { outbound, requests_left: requests, placeholders: Arc::default() }
    }

    /// Creates a placeholder that stands for the secret in the request headers of this call.
    pub(crate) fn add_placeholder(&mut self, secret: &SecretValue) -> wasmtime::Result<String> {
        Ok(Arc::make_mut(&mut self.placeholders).add(secret)?)
    }

    /// Adds the value to those that [`Self::mask`] removes from the output of the plugin.
    pub(crate) fn mask_value(&mut self, value: Zeroizing<Vec<u8>>) {
        Arc::make_mut(&mut self.placeholders).mask_value(value);
    }

    /// Replaces the values of the secrets that this call has opened.
    pub(crate) fn mask(&self, text: &str) -> String {
        self.placeholders.mask(text)
    }
}

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

/// Checks, connects and sends one request, and logs the result.
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
        placeholders.substitute_path(request.uri_mut(), &destination.host)?;
        let slot = outbound.slots.clone().acquire_owned().await.map_err(|_| Error::ConnectionLimitReached)?;
        let addresses = outbound.resolve(&destination).await?;
        let stream = connect::open(&addresses, &destination, &outbound.tls).await?;
        connect::exchange(stream, request, slot, frame_time).await
    })
    .await
    .unwrap_or(Err(Error::ConnectionTimeout));
    let (host, duration_ms) = (uri.host().unwrap_or(""), started.elapsed().as_millis());
    match &sent {
        Ok((response, _)) => {
            let status = response.status().as_u16();
            // The size as the response announces it. The actual body is capped.
            let bytes = response.headers().get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
            tracing::info!(plugin = %outbound.label, %method, host, status, bytes, duration_ms, "a plugin sent a request");
        }
        Err(error) => {
            tracing::warn!(plugin = %outbound.label, %method, host, %error, duration_ms, "a plugin's request failed");
        }
    }
    sent
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

    /// Resolves the host. A request makes exactly one lookup.
    async fn resolve(&self, destination: &Destination) -> Result<Vec<SocketAddr>, Error> {
        let resolved = tokio::net::lookup_host((destination.host.as_str(), destination.port)).await;
        self.check_addresses(destination, resolved.map_err(|_| Error::DnsError { rcode: None, info_code: None })?.collect())
    }

    /// Requires that every resolved address is permitted, not only the one that would be used.
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
    use crate::grant::AddressClass;

    #[test]
    fn one_forbidden_address_blocks_the_whole_name() {
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
