//! The isolation rules of a stage's network. They block the engine's other networks and the metadata services of clouds, which
//! hand out the machine's credentials.
//!
//! Engines isolate their networks from each other, but not at every moment, and not every engine does: Docker before 28 removes
//! the rule and adds it again whenever any network is made, and Podman isolates only on request. Therefore a pause container
//! installs rules inside each stage's network. Networks of other stages may be younger than the rules; hence all stage networks
//! have their addresses from one pool, which every one of them blocks.

use bollard::models::Network;
use ipnet::{IpNet, Ipv4Net};

use super::subnet::subnets;

/// The output of `beespace-pause` (`host/pause`) when all its rules are in place.
pub(super) const READY: &[u8] = b"ready\n";

/// The isolation rules of a new network, as arguments of `beespace-pause`. `own` is the network's subnet, `networks` are all
/// networks of the engine.
pub(super) fn isolation_rules(metadata_access: bool, pool: Ipv4Net, own: Ipv4Net, networks: &[Network]) -> Vec<String> {
    let mut rules = Vec::new();
    let mut add = |action: &str, addresses: String| rules.extend([action.to_owned(), addresses]);
    if !metadata_access {
        add("block", "metadata".to_owned());
    }
    let others = networks.iter().filter(|network| is_bridge(network)).flat_map(subnets);
    for other in others.filter(|other| !IpNet::V4(pool).contains(&other.addresses)) {
        if let Some(gateway) = other.gateway {
            add("allow", IpNet::from(gateway).to_string());
        }
        add("block", other.addresses.to_string());
    }
    add("allow", own.to_string());
    add("block", pool.to_string());
    rules
}

/// Networks of other drivers have no addresses of their own: they lead into the network around the machine.
fn is_bridge(network: &Network) -> bool {
    network.driver.as_deref() == Some("bridge")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::docker::subnet::tests::network;

    #[test]
    fn every_other_network_is_blocked_except_its_gateway() {
        let mut partial = network("bridge", &[("10.5.0.0/16", None)]);
        partial.ipam.as_mut().unwrap().config.as_mut().unwrap()[0].ip_range = Some("10.5.5.0/24".to_owned());
        let networks = [
            network("bridge", &[("172.17.0.0/16", None)]),
            network("bridge", &[("198.19.0.16/28", None), ("198.19.0.32/28", None)]),
            partial,
            network("bridge", &[("10.9.0.0/24", Some("10.9.0.254")), ("fd00:9::/64", Some("fd00:9::1"))]),
            network("macvlan", &[("192.168.1.0/24", Some("192.168.1.1"))]),
            network("host", &[]),
            Network::default(),
        ];
        let (pool, own) = ("198.19.0.0/17".parse().unwrap(), "198.19.0.16/28".parse().unwrap());
        let expected = "allow 172.17.0.1/32 block 172.17.0.0/16 block 10.5.0.0/16 \
                        allow 10.9.0.254/32 block 10.9.0.0/24 allow fd00:9::1/128 block fd00:9::/64 \
                        allow 198.19.0.16/28 block 198.19.0.0/17";
        assert_eq!(isolation_rules(true, pool, own, &networks).join(" "), expected);
        assert_eq!(isolation_rules(false, pool, own, &networks).join(" "), format!("block metadata {expected}"));
    }
}
