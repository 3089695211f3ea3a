//! Scalar values: the accepted text of each type, and how `config show` displays it.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use beespace_core::units;
use ipnet::Ipv4Net;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

/// The TOML type of a key. In the environment, every value is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Boolean,
}

/// A value that is written as a TOML scalar.
pub(super) trait Value: Sized {
    const KIND: Kind;
    /// The accepted values, for error messages: `HOST:PORT`.
    const EXPECTED: &'static str;
    fn parse(text: &str) -> Option<Self>;
    fn show(&self) -> String;
}

impl Value for String {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a non-empty string";
    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Boolean;
    const EXPECTED: &'static str = "true or false";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for NonZeroU16 {
    const KIND: Kind = Kind::Integer;
    const EXPECTED: &'static str = "a whole number from 1 to 65535";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for NonZeroU32 {
    const KIND: Kind = Kind::Integer;
    const EXPECTED: &'static str = "a whole number from 1 to 4294967295";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u16 {
    const KIND: Kind = Kind::Integer;
    const EXPECTED: &'static str = "a whole number from 0 to 65535";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for PathBuf {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a path";
    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for SocketAddr {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "ADDRESS:PORT such as `127.0.0.1:8000` or `[::]:8000`";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// The networks that no host of the internet is in: for private use (RFC 1918), for carriers (RFC 6598), for tests of networks
/// (RFC 2544). A pool of other addresses would hide the hosts that have them from containers.
const PRIVATE_NETWORKS: [Ipv4Net; 5] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
];

impl Value for Ipv4Net {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "the addresses of a private network with a prefix from /8 to /24, such as `10.200.0.0/16`: \
                                    a part of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10 or 198.18.0.0/15";
    fn parse(text: &str) -> Option<Self> {
        let addresses = text.parse::<Self>().ok()?;
        let is_private = PRIVATE_NETWORKS.iter().any(|network| network.contains(&addresses));
        (is_private && addresses.trunc() == addresses && (8..=24).contains(&addresses.prefix_len())).then_some(addresses)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Url {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a URL with http:// or https:// and without user, query and fragment";
    fn parse(text: &str) -> Option<Self> {
        let url = Self::parse(text).ok()?;
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        (matches!(url.scheme(), "http" | "https") && url.has_host() && plain).then_some(url)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Duration {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a duration above zero, such as `90s`, `10m` or `1h30m`";
    fn parse(text: &str) -> Option<Self> {
        units::parse_duration(text).filter(|duration| !duration.is_zero())
    }
    fn show(&self) -> String {
        units::format_duration(*self)
    }
}

/// A path that does not depend on the directory in which a command runs.
pub(super) struct AbsolutePath(pub(super) PathBuf);

impl Value for AbsolutePath {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "an absolute path, which begins with `/`";
    fn parse(text: &str) -> Option<Self> {
        let path = PathBuf::from(text);
        path.is_absolute().then_some(Self(path))
    }
    fn show(&self) -> String {
        self.0.show()
    }
}

/// A size in bytes, which may be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

impl Value for Size {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = units::SIZE_EXPECTED;
    fn parse(text: &str) -> Option<Self> {
        units::parse_size(text).map(Self)
    }
    fn show(&self) -> String {
        units::format_size(self.0)
    }
}

/// A size in bytes above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PositiveSize(pub(super) u64);

impl Value for PositiveSize {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a size above zero, such as `512MiB` or `2GB`";
    fn parse(text: &str) -> Option<Self> {
        units::parse_size(text).filter(|bytes| *bytes > 0).map(Self)
    }
    fn show(&self) -> String {
        units::format_size(self.0)
    }
}

/// The memory of a container in bytes: at least as much as Docker requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepMemory(pub(super) u64);

impl Value for StepMemory {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a size of at least 6MiB, such as `4GiB`";
    fn parse(text: &str) -> Option<Self> {
        units::parse_size(text).filter(|bytes| *bytes >= 6 << 20).map(Self)
    }
    fn show(&self) -> String {
        units::format_size(self.0)
    }
}

/// The memory of git in bytes: at least as much as git needs for small repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GitMemory(pub(super) u64);

impl Value for GitMemory {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a size of at least 64MiB, such as `1GiB`";
    fn parse(text: &str) -> Option<Self> {
        units::parse_size(text).filter(|bytes| *bytes >= 64 << 20).map(Self)
    }
    fn show(&self) -> String {
        units::format_size(self.0)
    }
}

/// CPU time, in thousandths of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cpus(pub(super) u32);

impl Value for Cpus {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a number of CPUs such as `\"2\"` or `\"0.5\"`";
    fn parse(text: &str) -> Option<Self> {
        units::parse_cpus(text).map(Self)
    }
    fn show(&self) -> String {
        units::format_cpus(self.0)
    }
}

impl Value for SecretString {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a non-empty string";
    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text.to_owned()))
    }
    /// Displays the length, never the value.
    fn show(&self) -> String {
        format!("(secret, {} characters)", self.expose_secret().chars().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_have_at_most_three_decimals_and_are_not_zero() {
        let millis = |text| Cpus::parse(text).map(|Cpus(millis)| millis);
        assert_eq!(["2", "0.5", "1.25", "0.001"].map(millis), [Some(2_000), Some(500), Some(1_250), Some(1)]);
        assert_eq!(["0", "0.0", "", ".5", "1.", "1.2345", "-1", "2 CPUs", "4294968"].map(millis), [None; 9]);
        for text in ["2", "0.5", "1.25", "10", "0.001"] {
            assert_eq!(Cpus::parse(text).map(|cpus| cpus.show()).as_deref(), Some(text));
        }
    }
}
