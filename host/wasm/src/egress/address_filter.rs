//! Classifies IP addresses and excludes those that no request may reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use beespace_core::metadata_service::is_metadata_service;

use crate::grant::AddressClass;

/// Returns the class of an address. `None` means that no rule can allow it: cloud metadata services, link-local, unspecified,
/// multicast, broadcast, reserved, documentation, benchmarking, and IPv6 forms with an embedded IPv4 address.
pub(crate) fn classify(address: IpAddr) -> Option<AddressClass> {
    // The kernel treats `::ffff:10.0.0.1` as 10.0.0.1, so this function does too.
    match address.to_canonical() {
        address if is_metadata_service(address) => None,
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

/// Whether the address belongs to this machine. Only such an address can be bound.
pub(crate) fn is_local_address(address: IpAddr) -> bool {
    UdpSocket::bind((address.to_canonical(), 0)).is_ok()
}

fn classify_v4(address: Ipv4Addr) -> Option<AddressClass> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (127, _, _) => Some(AddressClass::Loopback),
        (10, _, _) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Some(AddressClass::Private),
        (0 | 224.., _, _) | (169, 254, _) | (192, 0, 0) | (198, 18..=19, _) => None,
        _ if address.is_documentation() => None,
        _ => Some(AddressClass::Public),
    }
}

fn classify_v6(address: Ipv6Addr) -> Option<AddressClass> {
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(AddressClass::Loopback),
        // IPv4-compatible, unspecified.
        [0, 0, 0, 0, 0, 0, _, _] => None,
        // Services of AWS for its machines, within the unique local range.
        [0xfd00, 0x0ec2, ..] => None,
        [0xfc00..=0xfdff, ..] => Some(AddressClass::Private),
        // NAT64: the well-known prefix and the one for local use.
        [0x64, 0xff9b, ..] => None,
        // Teredo, benchmarking and other special ranges; documentation; 6to4.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => None,
        // Global unicast is 2000::/3. All other ranges are link-local, site-local, multicast or unassigned.
        [0x2000..=0x3fff, ..] => Some(AddressClass::Public),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_range_is_classified() {
        let cases = [
            (
                None,
                "0.0.0.0 0.1.2.3 169.254.169.254 192.0.0.170 192.0.2.1 198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1 240.0.0.1 \
                 255.255.255.255",
            ),
            (None, "168.63.129.16 100.100.100.200 ::ffff:168.63.129.16 fd20:ce::254 fd00:c1::a9fe:a9fe"),
            (
                None,
                ":: ::7f00:1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1:: 2001::1 2001:db8::1 fe80::1 fec0::1 ff02::1 \
                 fd00:ec2::254 ::ffff:169.254.169.254 100::1",
            ),
            (Some(AddressClass::Loopback), "127.0.0.1 127.255.0.3 ::1 ::ffff:127.0.0.1"),
            (Some(AddressClass::Private), "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 fd12::1 ::ffff:10.0.0.1"),
            (Some(AddressClass::Public), "1.1.1.1 172.32.0.1 100.128.0.1 192.0.1.1 2606:4700::1111 2a00::1 ::ffff:1.1.1.1"),
        ];
        for (class, addresses) in cases {
            for address in addresses.split(' ') {
                assert_eq!(classify(address.parse().unwrap()), class, "{address}");
            }
        }
    }

    #[test]
    fn only_addresses_of_this_machine_are_local() {
        let is_ours = |address: &str| is_local_address(address.parse().unwrap());
        assert!(is_ours("127.0.0.1") && is_ours("::ffff:127.0.0.1"));
        assert!(!is_ours("192.0.2.1"));
    }
}
