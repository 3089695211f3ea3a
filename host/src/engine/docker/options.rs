//! The settings of one Docker engine.

use std::time::Duration;

use ipnet::Ipv4Net;

use super::timeouts::Timeouts;

/// The settings that an instance of Beespace has for its engine.
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// `unix:///var/run/docker.sock` or `tcp://HOST:PORT`.
    pub host: String,
    /// Distinguishes this instance's objects from all others: 1 to 32 lower-case letters and digits, constant for the life of the
    /// store.
    pub instance: String,
    /// CPU time, in thousandths of a CPU, of a container whose plan sets no limit; `None`: unlimited.
    pub cpu_millis: Option<u32>,
    /// Memory limit in bytes of a container whose plan sets none. Swap is not available in addition.
    pub memory: u64,
    /// Process limit of a container whose plan sets none.
    pub pids: u32,
    /// Bytes of output that the engine keeps per container, so that the output can be read again after a crash. More than a log
    /// may have.
    pub log_bytes: u64,
    /// The addresses of stage networks.
    pub network_pool: Ipv4Net,
    /// How many stage networks are made in advance.
    pub prewarmed_networks: usize,
    /// Whether containers may reach the metadata service of the cloud in which the engine runs.
    pub metadata_access: bool,
    /// From TERM to KILL.
    pub grace: Duration,
    /// The time limits of calls to the engine.
    pub timeouts: Timeouts,
}
