//! `[engine]`: the engine that runs the containers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use ipnet::Ipv4Net;

use super::reader::Section;
use super::value::{Kind, Value};

/// A part of the addresses that are reserved for tests of networks (RFC 2544), which private networks hardly ever use.
const NETWORK_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 19, 0, 0), 17);

/// The engine, and how many stages it runs.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Concurrent stages; further stages wait.
    pub capacity: NonZeroU16,
    /// Labels that pipelines can ask for.
    pub labels: BTreeMap<String, String>,
    pub kind: EngineKind,
}

/// The kind of the engine, with the settings of that kind.
#[derive(Debug, Clone)]
pub enum EngineKind {
    Docker(DockerConfig),
    /// Runs no containers and obeys a few variables: for tests and for trying policies. It has no settings.
    Dummy,
}

/// The settings of a Docker engine.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The address of the engine's API: `unix:///var/run/docker.sock`, `tcp://10.0.0.7:2375`.
    pub host: String,
    /// How many networks are created in advance for future stages.
    pub prewarmed_networks: u16,
    /// The addresses of stage networks, 16 for each. Containers reach none of them except those of their own stage.
    pub network_pool: Ipv4Net,
    /// Whether containers may reach the metadata service of the cloud in which the engine runs. It hands out the machine's
    /// credentials.
    pub metadata_access: bool,
}

/// The values of `kind`.
#[derive(Clone, Copy)]
enum KindName {
    Docker,
    Dummy,
}

impl Value for KindName {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "`docker` (Docker, or Podman through its Docker-compatible socket: set `host` to it) or \
                                    `dummy` (runs no containers; for trying policies)";
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

/// `gpu=true,zone=a`.
#[derive(Clone, Default)]
struct Labels(BTreeMap<String, String>);

impl Value for Labels {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "labels such as `\"gpu=true,zone=a\"`";
    fn parse(text: &str) -> Option<Self> {
        let label = |label: &str| {
            let (name, value) = label.trim().split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty())?;
            Some((name.to_owned(), value.to_owned()))
        };
        text.split(',').filter(|label| !label.trim().is_empty()).map(label).collect::<Option<_>>().map(Self)
    }
    fn show(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
    }
}

impl EngineConfig {
    /// Reads every key, whatever the kind, so that a key of another kind is not reported as unknown.
    pub(super) fn read(section: &mut Section<'_, '_>) -> Self {
        let kind = section.value("kind", KindName::Docker);
        let host = section.value("host", "unix:///var/run/docker.sock".to_owned());
        let capacity = section.value("capacity", NonZeroU16::MIN.saturating_add(1));
        let labels = section.value("labels", Labels::default()).0;
        let docker = DockerConfig {
            host,
            prewarmed_networks: section.value("prewarmed_networks", 2),
            network_pool: section.value("network_pool", NETWORK_POOL),
            metadata_access: section.value("metadata_access", false),
        };
        let kind = match kind {
            KindName::Docker => EngineKind::Docker(docker),
            KindName::Dummy => EngineKind::Dummy,
        };
        Self { capacity, labels, kind }
    }

    /// Operating system and architecture of the containers, as engines name them. The pause container is built for the server's
    /// own architecture, so an engine of another one runs no stage.
    #[must_use]
    pub fn platform(&self) -> String {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        format!("linux/{architecture}")
    }

    /// The address of the engine's API, if it has one.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.kind {
            EngineKind::Docker(docker) => Some(&docker.host),
            EngineKind::Dummy => None,
        }
    }
}
