//! `[server]`: the listen address and the server's URLs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::Url;

use super::reader::Section;
use super::value::{Kind, Value};

/// The listen address and the server's URLs.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The address of the HTTP server.
    pub listen: SocketAddr,
    /// The URL for commands on the server's own machine. A server that listens on all addresses also listens on the loopback one.
    pub local_url: Url,
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
        if listen.ip().is_unspecified() && !section.is_set("public_url") {
            let help = "`listen` accepts connections on all addresses, but browsers and Gogs need one URL; \
                for example: public_url = \"https://ci.example.org\"";
            section.missing("public_url", help);
        }
        let local_url = Url::parse(&format!("http://{}/", reachable_locally(listen))).ok()?;
        let public_url = section.value("public_url", ClientUrl(local_url.clone())).0;
        let hook_url = section.optional::<ClientUrl>("hook_url").map(|url| url.0);
        Some(Self { listen, local_url, public_url, hook_url, open: section.value("open", false) })
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

    /// Whether an attacker on the network can read what people send: HTTP without TLS, unless the server's URL is a loopback
    /// address.
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

/// The address at which a program on this machine reaches a server that listens on `address`.
fn reachable_locally(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A URL that clients call, so its host is not the address that stands for all addresses.
struct ClientUrl(Url);

impl Value for ClientUrl {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str =
        "a URL that clients can call, with http:// or https:// and without user, query and fragment; not 0.0.0.0 or [::]";
    fn parse(text: &str) -> Option<Self> {
        let url = <Url as Value>::parse(text)?;
        let is_unspecified = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_unspecified(),
            Some(url::Host::Ipv6(address)) => address.is_unspecified(),
            Some(url::Host::Domain(_)) | None => false,
        };
        (!is_unspecified).then_some(Self(url))
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use beespace_core::diagnostic::Diagnostic;

    fn read(server: &str) -> Result<String, Vec<Diagnostic>> {
        let env = [("BEESPACE_GOGS__TOKEN".to_owned(), "t".to_owned())];
        let text = format!("[server]\n{server}\n[gogs]\nurl = \"http://gogs.example\"\n");
        Config::read(&text, None, env).map(|loaded| loaded.config.server.public_url.to_string())
    }

    #[test]
    fn a_server_on_all_addresses_needs_a_public_url() {
        for listen in ["0.0.0.0:8000", "[::]:8000"] {
            let problems = read(&format!("listen = \"{listen}\"")).unwrap_err();
            let [problem] = problems.as_slice() else { panic!("{problems:?}") };
            assert_eq!((problem.code.as_str(), problem.message.as_str()), ("missing-key", "`server.public_url` is missing"));
            let help = problem.help.as_deref().unwrap();
            assert!(help.contains("public_url = ") && help.contains("BEESPACE_SERVER__PUBLIC_URL"), "{help}");
            let named = read(&format!("listen = \"{listen}\"\npublic_url = \"http://ci.example:8000\""));
            assert_eq!(named.unwrap(), "http://ci.example:8000/");
            for key in ["public_url", "hook_url"] {
                let written = format!("listen = \"127.0.0.1:8000\"\n{key} = \"http://{listen}/\"");
                let problems = read(&written).unwrap_err();
                assert!(problems.len() == 1 && problems[0].message.contains("not 0.0.0.0 or [::]"), "{problems:?}");
            }
        }
        assert_eq!(read("listen = \"127.0.0.1:8000\"").unwrap(), "http://127.0.0.1:8000/");
    }
}
