//! What the network of a stage is closed to: the engine's other networks, and the metadata services of clouds, where machines keep what lets them in
//! elsewhere.
//!
//! Engines keep their networks apart, but not at every moment and not every engine: Dockers before 28 take the rule away and put it back whenever any
//! network is made, and Podman has none where nobody asks for it. So a stage's network is closed from within. Those of other stages may be younger
//! than it is, so all have their addresses from one pool, which each is closed to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard::models::Network;
use ipnet::{IpNet, Ipv4Net};

/// What a holder says when it has done what it was told (`host/gate`).
pub(super) const READY: &[u8] = b"held\n";

/// Of the addresses of a stage's network: 16, of which the machine has one and the holder another, whose network the containers share.
const SUBNET_BITS: u8 = 28;

/// What the holder of a network is told, as `host/gate` takes it.
pub(super) fn isolation_rules(metadata_access: bool, pool: Ipv4Net, own: Ipv4Net, networks: &[Network]) -> Vec<String> {
    let mut orders = Vec::new();
    let mut order = |word: &str, what: String| orders.extend([word.to_owned(), what]);
    if !metadata_access {
        order("close", "metadata".to_owned());
    }
    let others = networks.iter().filter(|network| is_bridge(network)).flat_map(subnets);
    for (range, machine) in others.filter(|(range, _)| !IpNet::V4(pool).contains(range)) {
        if let Some(machine) = machine {
            order("open", IpNet::from(machine).to_string());
        }
        order("close", range.to_string());
    }
    order("open", own.to_string());
    order("close", pool.to_string());
    orders
}

/// Addresses of the pool that no network has; elsewhere in it each time, because others may be choosing, too.
pub(super) fn free_subnet(pool: Ipv4Net, networks: &[Network], anywhere: u64) -> Option<Ipv4Net> {
    let taken: Vec<IpNet> = networks.iter().flat_map(subnets).map(|(range, _)| range).collect();
    let is_free = |range: &Ipv4Net| {
        let range = IpNet::V4(*range);
        !taken.iter().any(|taken| taken.contains(&range) || range.contains(taken))
    };
    let count = 1_u64 << SUBNET_BITS.saturating_sub(pool.prefix_len());
    let first = usize::try_from(anywhere % count).ok()?;
    let all = pool.subnets(SUBNET_BITS).ok()?;
    all.skip(first).chain(all.take(first)).find(is_free)
}

/// The addresses of a network that we made.
pub(super) fn subnet_of(network: &Network) -> Option<Ipv4Net> {
    subnets(network).find_map(|(range, _)| if let IpNet::V4(range) = range { Some(range) } else { None })
}

/// Other kinds of networks lead into the one around the machine.
fn is_bridge(network: &Network) -> bool {
    network.driver.as_deref() == Some("bridge")
}

/// The addresses of a network, and that of the machine in it, where containers reach no container: many know the machine by the one that it has in
/// the engine's first network.
fn subnets(network: &Network) -> impl Iterator<Item = (IpNet, Option<IpAddr>)> {
    let configured = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
    configured.filter_map(|range| {
        let addresses: IpNet = range.subnet.as_deref()?.parse().ok()?;
        let stated = range.gateway.as_deref().and_then(|machine| machine.parse().ok());
        // Where only some of the addresses are given out, the machine's is the first of them, or not.
        let machine = stated.or_else(|| range.ip_range.is_none().then(|| default_gateway(addresses)));
        Some((addresses.trunc(), machine))
    })
}

/// The first address, which is the machine's where nothing else is said.
fn default_gateway(addresses: IpNet) -> IpAddr {
    match addresses.network() {
        IpAddr::V4(network) => Ipv4Addr::from(u32::from(network) | 1).into(),
        IpAddr::V6(network) => Ipv6Addr::from(u128::from(network) | 1).into(),
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{Ipam, IpamConfig};

    use super::*;

    fn network(driver: &str, ranges: &[(&str, Option<&str>)]) -> Network {
        let config = ranges.iter().map(|(subnet, gateway)| IpamConfig {
            subnet: Some((*subnet).to_owned()),
            gateway: gateway.map(str::to_owned),
            ..Default::default()
        });
        Network {
            driver: Some(driver.to_owned()),
            ipam: Some(Ipam { config: Some(config.collect()), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn every_other_network_is_closed_but_for_the_machine() {
        let mut partly = network("bridge", &[("10.5.0.0/16", None)]);
        partly.ipam.as_mut().unwrap().config.as_mut().unwrap()[0].ip_range = Some("10.5.5.0/24".to_owned());
        let networks = [
            network("bridge", &[("172.17.0.0/16", None)]),
            network("bridge", &[("198.19.0.16/28", None), ("198.19.0.32/28", None)]),
            partly,
            network("bridge", &[("10.9.0.0/24", Some("10.9.0.254")), ("fd00:9::/64", Some("fd00:9::1"))]),
            network("macvlan", &[("192.168.1.0/24", Some("192.168.1.1"))]),
            network("host", &[]),
            Network::default(),
        ];
        let (pool, own) = ("198.19.0.0/17".parse().unwrap(), "198.19.0.16/28".parse().unwrap());
        let expected = "open 172.17.0.1/32 close 172.17.0.0/16 close 10.5.0.0/16 \
                        open 10.9.0.254/32 close 10.9.0.0/24 open fd00:9::1/128 close fd00:9::/64 \
                        open 198.19.0.16/28 close 198.19.0.0/17";
        assert_eq!(isolation_rules(true, pool, own, &networks).join(" "), expected);
        assert_eq!(isolation_rules(false, pool, own, &networks).join(" "), format!("close metadata {expected}"));
    }

    #[test]
    fn addresses_are_of_the_pool_and_nobody_else_s() {
        let pool = "10.0.0.0/26".parse().unwrap();
        let mut networks = vec![network("bridge", &[("10.0.0.36/30", None)]), network("bridge", &[("172.17.0.0/16", None)])];
        for expected in ["10.0.0.16/28", "10.0.0.48/28", "10.0.0.0/28"] {
            let free = free_subnet(pool, &networks, u64::MAX - 2).unwrap();
            assert_eq!(free.to_string(), expected);
            networks.push(network("bridge", &[(expected, None)]));
            assert_eq!(networks.last().and_then(subnet_of), Some(free));
        }
        assert_eq!(free_subnet(pool, &networks, 0), None);
        assert_eq!(free_subnet(pool, &[network("macvlan", &[("10.0.0.0/8", None)])], 0), None);
    }
}
