//! The subnets of the engine's networks, and the choice of a free one for a stage.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard::models::Network;
use ipnet::{IpNet, Ipv4Net};

/// The prefix length of a stage's subnet: 16 addresses, of which the machine has one and the pause container another, which all
/// containers share.
const PREFIX_LENGTH: u8 = 28;

/// One subnet of a network.
pub(super) struct Subnet {
    pub(super) addresses: IpNet,
    /// The address of the machine in the subnet. No container has it. Many users reach the machine by its address in the engine's
    /// first network.
    pub(super) gateway: Option<IpAddr>,
}

/// A subnet of the pool that no network uses. The search begins at a `random` place, because other processes may be choosing as
/// well.
pub(super) fn free_subnet(pool: Ipv4Net, networks: &[Network], random: u64) -> Option<Ipv4Net> {
    let taken: Vec<IpNet> = networks.iter().flat_map(subnets).map(|subnet| subnet.addresses).collect();
    let is_free = |subnet: &Ipv4Net| {
        let subnet = IpNet::V4(*subnet);
        !taken.iter().any(|taken| taken.contains(&subnet) || subnet.contains(taken))
    };
    let count = 1_u64 << PREFIX_LENGTH.saturating_sub(pool.prefix_len());
    let first = usize::try_from(random % count).ok()?;
    let all = pool.subnets(PREFIX_LENGTH).ok()?;
    all.skip(first).chain(all.take(first)).find(is_free)
}

/// The subnet of a network that we made.
pub(super) fn subnet_of(network: &Network) -> Option<Ipv4Net> {
    subnets(network).find_map(|subnet| if let IpNet::V4(addresses) = subnet.addresses { Some(addresses) } else { None })
}

pub(super) fn subnets(network: &Network) -> impl Iterator<Item = Subnet> {
    let configured = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
    configured.filter_map(|config| {
        let addresses: IpNet = config.subnet.as_deref()?.parse().ok()?;
        let stated = config.gateway.as_deref().and_then(|gateway| gateway.parse().ok());
        // If only part of the subnet is assigned to containers, the machine may have another address than the first.
        let gateway = stated.or_else(|| config.ip_range.is_none().then(|| default_gateway(addresses)));
        Some(Subnet { addresses: addresses.trunc(), gateway })
    })
}

/// The first address of a subnet, which the machine has unless the network states another one.
fn default_gateway(addresses: IpNet) -> IpAddr {
    match addresses.network() {
        IpAddr::V4(network) => Ipv4Addr::from(u32::from(network) | 1).into(),
        IpAddr::V6(network) => Ipv6Addr::from(u128::from(network) | 1).into(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bollard::models::{Ipam, IpamConfig};

    use super::*;

    /// A network with these subnets and gateways.
    pub(in crate::engine::docker) fn network(driver: &str, subnets: &[(&str, Option<&str>)]) -> Network {
        let config = subnets.iter().map(|(subnet, gateway)| IpamConfig {
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
    fn a_free_subnet_is_in_the_pool_and_overlaps_no_network() {
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
