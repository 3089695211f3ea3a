//! `[engine]`: what runs the containers.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use ipnet::Ipv4Net;

use super::reader::Section;
use super::value::{Kind, Value};

/// A piece of what is set apart for tests of networks (RFC 2544), so that hardly anybody's own network is in it.
const NETWORK_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 19, 0, 0), 17);

/// Which engine runs plans, and how many stages at once.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    pub kind: EngineKind,
    /// Address of the engine's API: `unix:///var/run/docker.sock`, `tcp://10.0.0.7:2375`.
    pub host: String,
    /// Stages at once; the rest wait.
    pub capacity: NonZeroU16,
    /// Networks that are made ahead of time for the stages to come.
    pub prewarmed_networks: u16,
    /// The addresses of stages' networks, 16 for each. Containers reach none of them but those of their own stage.
    pub network_pool: Ipv4Net,
    /// Whether containers may reach the metadata service of the cloud that the engine runs in: it hands out the machine's credentials.
    pub metadata_access: bool,
}

/// The engines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    Docker,
    /// Runs nothing and obeys a few variables: for tests and for trying policies.
    Dummy,
}

impl Value for EngineKind {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "`docker` or `dummy`";
    fn parse(text: &str) -> Option<Self> {
        match text {
            "docker" => Some(Self::Docker),
            "dummy" => Some(Self::Dummy),
            _ => None,
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Docker => "docker".to_owned(),
            Self::Dummy => "dummy".to_owned(),
        }
    }
}

impl EngineConfig {
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        Self {
            kind: section.value("kind", EngineKind::Docker),
            host: section.value("host", "unix:///var/run/docker.sock".to_owned()),
            capacity: section.value("capacity", NonZeroU16::MIN.saturating_add(1)),
            prewarmed_networks: section.value("standby", 2),
            network_pool: section.value("network_pool", NETWORK_POOL),
            metadata_access: section.value("metadata_access", false),
        }
    }
}
