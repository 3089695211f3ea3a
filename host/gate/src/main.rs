//! The only program of ours inside a container. Today it holds a stage's network: it waits, and ends at once when told to.
//!
//! Built by `host/build.rs`, static and without the runtime of Rust's `main`, which would make it a third larger. It is process 1 of its
//! container, for which the kernel ignores every signal that has no handler: hence the handlers.

#![no_main]
#![expect(unsafe_code, reason = "waiting and ending are calls of the C library, and a dependency for four of them is too much")]

use std::ffi::c_int;

const SIGHUP: c_int = 1;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;

unsafe extern "C" {
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn pause() -> c_int;
    fn _exit(code: c_int) -> !;
}

extern "C" fn end(_signal: c_int) {
    // SAFETY: `_exit` may be called in a signal handler (POSIX.1-2017, 2.4.3).
    unsafe { _exit(0) }
}

// SAFETY: the C library's start code looks for exactly this symbol, and nothing else here defines it.
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    for number in [SIGHUP, SIGINT, SIGTERM] {
        // SAFETY: the handler has the type the C library expects and calls nothing but `_exit`.
        unsafe { signal(number, end) };
    }
    loop {
        // SAFETY: has no preconditions; returns only after a handler did.
        unsafe { pause() };
    }
}
