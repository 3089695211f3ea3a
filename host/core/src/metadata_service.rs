//! The metadata services of clouds, which hand out the credentials of a machine to everything that runs on it.
//!
//! This file uses only the standard library, because `host/pause` compiles it too: containers and plugins are kept away from the
//! same addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses of metadata services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataService {
    pub address: IpAddr,
    /// All addresses whose first `bits` are those of `address`.
    pub bits: u8,
    /// Port 53 of the same address resolves names for the machine.
    pub resolves_names: bool,
}

/// All known metadata services.
pub const METADATA_SERVICES: [MetadataService; 6] = [
    // Nearly every cloud has its metadata service at 169.254.169.254, and some have others nearby.
    MetadataService { address: IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), bits: 16, resolves_names: true },
    // Azure's WireServer: certificates and settings of the machine.
    MetadataService { address: IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)), bits: 32, resolves_names: true },
    // Alibaba Cloud.
    MetadataService { address: IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), bits: 32, resolves_names: false },
    // Amazon.
    MetadataService {
        address: IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254)),
        bits: 128,
        resolves_names: false,
    },
    // Google.
    MetadataService { address: IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), bits: 128, resolves_names: true },
    // Oracle.
    MetadataService {
        address: IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
        bits: 128,
        resolves_names: true,
    },
];

impl MetadataService {
    /// Whether an address is in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(range), IpAddr::V4(address)) => (range.to_bits() ^ address.to_bits()).leading_zeros() >= self.bits.into(),
            (IpAddr::V6(range), IpAddr::V6(address)) => (range.to_bits() ^ address.to_bits()).leading_zeros() >= self.bits.into(),
            _ => false,
        }
    }
}

/// Whether an address is that of a metadata service.
#[must_use]
pub fn is_metadata_service(address: IpAddr) -> bool {
    METADATA_SERVICES.iter().any(|service| service.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_of_every_known_cloud_are_in_the_list() {
        let is_listed = |address: &str| is_metadata_service(address.parse().unwrap());
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
        ] {
            assert!(is_listed(address), "{address}");
        }
        for address in ["169.253.255.255", "168.63.129.17", "100.100.100.201", "fd00:ec2::253", "fd20:ce::255", "1.1.1.1", "::1"]
        {
            assert!(!is_listed(address), "{address}");
        }
    }
}
