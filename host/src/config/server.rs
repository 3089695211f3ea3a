//! `[server]`: the listen address and the server's URLs.

use std::net::{Ipv4Addr, SocketAddr};

use url::Url;

use super::reader::Section;

/// The listen address and the server's URLs.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The address of the HTTP server.
    pub listen: SocketAddr,
    /// The URL for people: used for links, cookies and the check of the `Origin` header.
    pub public_url: Url,
    /// The URL for Gogs, if it differs from `public_url`.
    pub hook_url: Option<Url>,
    /// Whether anyone can read builds and logs without signing in.
    pub open: bool,
}

impl ServerConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let listen = section.value("listen", SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)));
        let default = Url::parse(&format!("http://{listen}/")).ok()?;
        let public_url = section.value("public_url", default);
        Some(Self { listen, public_url, hook_url: section.optional("hook_url"), open: section.value("open", false) })
    }

    /// The base URL of webhooks.
    #[must_use]
    pub fn hook_base(&self) -> &Url {
        self.hook_url.as_ref().unwrap_or(&self.public_url)
    }

    /// Whether browsers use HTTPS, which determines the attributes of cookies.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.public_url.scheme() == "https"
    }

    /// Whether an attacker on the network can read what people send: HTTP without TLS, unless the server's URL is a loopback address.
    #[must_use]
    pub fn is_unsafe_transport(&self) -> bool {
        let is_loopback = match self.public_url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        !self.is_https() && !is_loopback
    }
}
