//! The only program of ours inside a container. Today it holds a stage's network: it waits, and ends at once when told to. With the
//! argument `guard` it closes that network to the metadata services of clouds first, and ends with 3 where it cannot.
//!
//! Built by `host/build.rs`, static and without the runtime of Rust's `main`, which would make it a third larger. It is process 1 of its
//! container, for which the kernel ignores every signal that has no handler: hence the handlers.

#![no_main]
#![expect(unsafe_code, reason = "waiting and ending are calls of the C library, and a dependency for a few of them is too much")]

use std::ffi::{CStr, c_char, c_int, c_void};

const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_NETLINK: c_int = 16;
const SOCK_RAW: c_int = 3;
const NETLINK_ROUTE: c_int = 0;
const IPPROTO_TCP: u8 = 6;

const RTM_NEWRULE: u16 = 32;
/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE`
const NEW: u16 = 0x605;
const FRA_DST: u16 = 1;
const FRA_PRIORITY: u16 = 6;
const FRA_IP_PROTO: u16 = 22;
const FRA_DPORT_RANGE: u16 = 24;
const FR_ACT_BLACKHOLE: u8 = 6;
const EEXIST: i32 = 17;

/// Before the rule that looks into the main table, and behind the one for the machine's own addresses.
const PRIORITY: u32 = 100;

/// Nearly every cloud has its service at 169.254.169.254, and some have more of them nearby.
const LINK_LOCAL: [u8; 4] = [169, 254, 0, 0];
const ALIBABA: [u8; 4] = [100, 100, 100, 200];
/// fd00:ec2::254
const AMAZON_V6: [u8; 16] = [0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54];

/// How this ends where the network cannot be closed.
const NOT_CLOSED: c_int = 3;

unsafe extern "C" {
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn pause() -> c_int;
    fn _exit(code: c_int) -> !;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn send(socket: c_int, bytes: *const c_void, length: usize, flags: c_int) -> isize;
    fn recv(socket: c_int, bytes: *mut c_void, length: usize, flags: c_int) -> isize;
}

extern "C" fn end(_signal: c_int) {
    // SAFETY: `_exit` may be called in a signal handler (POSIX.1-2017, 2.4.3).
    unsafe { _exit(0) }
}

// SAFETY: the C library's start code looks for exactly this symbol, and nothing else here defines it.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    // SAFETY: the C library hands over `count` strings that end with NUL and live as long as the process.
    let guards = count > 1 && unsafe { CStr::from_ptr(*arguments.add(1)) } == c"guard";
    if guards && !close_metadata() {
        return NOT_CLOSED;
    }
    for number in [SIGHUP, SIGINT, SIGTERM] {
        // SAFETY: the handler has the type the C library expects and calls nothing but `_exit`.
        unsafe { signal(number, end) };
    }
    loop {
        // SAFETY: has no preconditions; returns only after a handler did.
        unsafe { pause() };
    }
}

/// Lets no TCP through to where clouds keep a machine's credentials. Names may be resolved there (port 53, and anything but TCP): on some clouds
/// the same address does that.
fn close_metadata() -> bool {
    let below = [(FRA_DST, &LINK_LOCAL[..]), (FRA_DPORT_RANGE, &ports(1, 52))];
    let above = [(FRA_DST, &LINK_LOCAL[..]), (FRA_DPORT_RANGE, &ports(54, 65_534))];
    // A network without IPv6 takes no rule for it, and needs none.
    forbid(AF_INET6, 128, &[(FRA_DST, &AMAZON_V6)]);
    forbid(AF_INET, 16, &below) && forbid(AF_INET, 16, &above) && forbid(AF_INET, 32, &[(FRA_DST, &ALIBABA)])
}

fn ports(first: u16, last: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), last.to_ne_bytes());
    [a, b, c, d]
}

/// Adds a rule that drops TCP to a prefix of so many bits.
fn forbid(family: u8, bits: u8, wanted: &[(u16, &[u8])]) -> bool {
    let mut message = Vec::with_capacity(128);
    // struct nlmsghdr (the length comes last), struct fib_rule_hdr
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&RTM_NEWRULE.to_ne_bytes());
    message.extend_from_slice(&NEW.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[family, bits, 0, 0, 0, 0, 0, FR_ACT_BLACKHOLE, 0, 0, 0, 0]);
    let common = [(FRA_PRIORITY, &PRIORITY.to_ne_bytes()[..]), (FRA_IP_PROTO, &[IPPROTO_TCP][..])];
    for (kind, value) in common.iter().chain(wanted) {
        let length = u16::try_from(4 + value.len()).unwrap_or_default();
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(value);
        message.resize(message.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(message.len()).unwrap_or_default();
    if let Some(place) = message.first_chunk_mut() {
        *place = length.to_ne_bytes();
    }
    matches!(ask(&message), Some(0 | EEXIST))
}

/// What the kernel answers to a message: 0, or the number of its error.
fn ask(message: &[u8]) -> Option<i32> {
    let mut answer = [0; 256];
    // SAFETY: the pointers are to buffers of the lengths that are given.
    let length = unsafe {
        let netlink = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
        if netlink < 0 || send(netlink, message.as_ptr().cast(), message.len(), 0) < 0 {
            return None;
        }
        recv(netlink, answer.as_mut_ptr().cast(), answer.len(), 0)
    };
    // struct nlmsghdr, then the error, negated
    let error = answer.get(16..20).filter(|_| length >= 20)?;
    Some(-i32::from_ne_bytes(error.try_into().ok()?))
}
