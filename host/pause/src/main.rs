//! `beespace-pause`, our only program inside a container. Today it is the first process of pause containers: it owns a stage's
//! network namespace, installs the isolation rules of the network, and then waits until it is stopped.
//!
//! # Usage
//!
//! The arguments are rules, of two words each:
//!
//! | rule | effect |
//! |---|---|
//! | `block metadata` | blocks the metadata services of clouds |
//! | `block 172.18.0.0/16` | blocks these addresses, except those of `allow` rules |
//! | `allow 172.18.0.1/32` | allows these addresses |
//!
//! The program prints `ready` when all rules are in place. If it cannot apply a rule, it prints `cannot RULE` and exits with
//! code 3.
//!
//! `host/build.rs` builds it as a static program without the runtime of Rust's `main`, which would make it a third larger. It is
//! process 1 of its container, for which the kernel ignores every signal without a handler: hence the handlers.

#![no_main]
#![expect(unsafe_code, reason = "the program needs a few functions of the C library, and a dependency for so few is too much")]

#[path = "../../core/src/metadata_service.rs"]
#[expect(
    unreachable_pub,
    dead_code,
    reason = "the host's own list, so that containers and plugins are kept away from the same addresses"
)]
mod metadata_service;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::net::IpAddr;

use metadata_service::METADATA_SERVICES;

const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;

const STDOUT: c_int = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_NETLINK: c_int = 16;
const SOCK_RAW: c_int = 3;
const NETLINK_ROUTE: c_int = 0;
const IPPROTO_TCP: u8 = 6;

const RTM_NEWRULE: u16 = 32;
/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE`
const NEW_RULE_FLAGS: u16 = 0x605;
const FRA_DST: u16 = 1;
const FRA_PRIORITY: u16 = 6;
const FRA_IP_PROTO: u16 = 22;
const FRA_DPORT_RANGE: u16 = 24;
const FR_ACT_TO_TBL: u8 = 1;
/// The sender gets an error at once instead of a timeout.
const FR_ACT_PROHIBIT: u8 = 8;
const RT_TABLE_MAIN: u8 = 254;

const EEXIST: i32 = 17;
/// The errors of a kernel, or a network, without IPv6 for an IPv6 rule.
const NO_SUCH_FAMILY: [i32; 2] = [95, 97];

/// All rules precede the rule for the main routing table and follow the one for the machine's own addresses. The rules for
/// metadata services come first, so that no `allow` rule of a network opens the way to them.
const METADATA: Rule = Rule { priority: 100, action: FR_ACT_PROHIBIT, table: 0 };
const ALLOW: Rule = Rule { priority: 101, action: FR_ACT_TO_TBL, table: RT_TABLE_MAIN };
const BLOCK: Rule = Rule { priority: 102, action: FR_ACT_PROHIBIT, table: 0 };

/// The exit code if a rule cannot be applied.
const RULE_FAILED: c_int = 3;

unsafe extern "C" {
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn pause() -> c_int;
    fn _exit(code: c_int) -> !;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn send(socket: c_int, bytes: *const c_void, length: usize, flags: c_int) -> isize;
    fn recv(socket: c_int, bytes: *mut c_void, length: usize, flags: c_int) -> isize;
    fn write(file: c_int, bytes: *const c_void, length: usize) -> isize;
    fn close(file: c_int) -> c_int;
}

extern "C" fn exit_on_signal(_signal: c_int) {
    // SAFETY: `_exit` may be called in a signal handler (POSIX.1-2017, 2.4.3).
    unsafe { _exit(0) }
}

// SAFETY: the C library's start code calls exactly this symbol, and nothing else here defines it.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    for number in [SIGHUP, SIGINT, SIGTERM] {
        // SAFETY: the handler has the type that the C library expects, and calls only `_exit`.
        unsafe { signal(number, exit_on_signal) };
    }
    let count = usize::try_from(count).unwrap_or_default();
    // SAFETY: the C library passes `count` strings that end with NUL and live as long as the process.
    let arguments = (1..count).map(|index| unsafe { CStr::from_ptr(*arguments.add(index)) }.to_str().unwrap_or_default());
    let arguments: Vec<&str> = arguments.collect();
    for rule in arguments.chunks(2) {
        let is_applied = match *rule {
            ["block", "metadata"] => block_metadata(),
            ["block", prefix] => parse(prefix).is_some_and(|prefix| BLOCK.add(prefix, &[])),
            ["allow", prefix] => parse(prefix).is_some_and(|prefix| ALLOW.add(prefix, &[])),
            _ => false,
        };
        if !is_applied {
            print(&["cannot ", &rule.join(" "), "\n"].concat());
            return RULE_FAILED;
        }
    }
    print("ready\n");
    loop {
        // SAFETY: it has no preconditions, and returns only after a handler has returned.
        unsafe { pause() };
    }
}

fn print(text: &str) {
    // SAFETY: the pointer and the length belong to the same string. An error does not matter: there may be no reader.
    unsafe { write(STDOUT, text.as_ptr().cast(), text.len()) };
}

/// Blocks TCP to the metadata services of clouds, which hand out the machine's credentials. All protocols but TCP stay open, and
/// port 53 where the same address also resolves names.
fn block_metadata() -> bool {
    let tcp = (FRA_IP_PROTO, &[IPPROTO_TCP][..]);
    METADATA_SERVICES.iter().all(|service| {
        let prefix = Prefix { address: service.address, bits: service.bits };
        if !service.resolves_names {
            return METADATA.add(prefix, &[tcp]);
        }
        METADATA.add(prefix, &[tcp, (FRA_DPORT_RANGE, &ports(1, 52))])
            && METADATA.add(prefix, &[tcp, (FRA_DPORT_RANGE, &ports(54, 65_534))])
    })
}

fn ports(first: u16, last: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), last.to_ne_bytes());
    [a, b, c, d]
}

/// All addresses whose first `bits` are those of `address`.
#[derive(Clone, Copy)]
struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// `172.18.0.0/16`
fn parse(text: &str) -> Option<Prefix> {
    let (address, bits) = text.split_once('/')?;
    Some(Prefix { address: address.parse().ok()?, bits: bits.parse().ok()? })
}

/// A rule of the kernel's policy routing: what happens to packets for some addresses.
struct Rule {
    priority: u32,
    action: u8,
    table: u8,
}

impl Rule {
    /// Adds the rule for these addresses and the other conditions. Returns whether the rule is in place.
    fn add(&self, prefix: Prefix, conditions: &[(u16, &[u8])]) -> bool {
        let (family, bytes) = match &prefix.address {
            IpAddr::V4(address) => (AF_INET, &address.octets()[..]),
            IpAddr::V6(address) => (AF_INET6, &address.octets()[..]),
        };
        let mut message = Vec::with_capacity(128);
        // struct nlmsghdr (the length comes last), struct fib_rule_hdr
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&RTM_NEWRULE.to_ne_bytes());
        message.extend_from_slice(&NEW_RULE_FLAGS.to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(&[family, prefix.bits, 0, 0, self.table, 0, 0, self.action, 0, 0, 0, 0]);
        let common = [(FRA_DST, bytes), (FRA_PRIORITY, &self.priority.to_ne_bytes())];
        for (kind, value) in common.iter().chain(conditions) {
            let length = u16::try_from(4 + value.len()).unwrap_or_default();
            message.extend_from_slice(&length.to_ne_bytes());
            message.extend_from_slice(&kind.to_ne_bytes());
            message.extend_from_slice(value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(message.len()).unwrap_or_default();
        if let Some(first) = message.first_chunk_mut() {
            *first = length.to_ne_bytes();
        }
        match request(&message) {
            Some(0 | EEXIST) => true,
            Some(error) => family == AF_INET6 && NO_SUCH_FAMILY.contains(&error),
            None => false,
        }
    }
}

/// Sends a message to the kernel and returns its response: 0, or the number of an error.
fn request(message: &[u8]) -> Option<i32> {
    let mut response = [0; 256];
    // SAFETY: each pointer and length belong to the same buffer.
    let length = unsafe {
        let netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
        let is_sent = netlink >= 0 && send(netlink, message.as_ptr().cast(), message.len(), 0) >= 0;
        let length = if is_sent { recv(netlink, response.as_mut_ptr().cast(), response.len(), 0) } else { -1 };
        close(netlink);
        length
    };
    // struct nlmsghdr, then the error, negated
    let error = response.get(16..20).filter(|_| length >= 20)?;
    Some(-i32::from_ne_bytes(error.try_into().ok()?))
}
