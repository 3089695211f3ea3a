//! Places at which a test lets the server die as by `kill -9`. Only the feature `fail-points`, which the crate of the tests asks for, arms them;
//! without it a passage is nothing.
//!
//! A library for this lets a program go wrong in its own thread: it panics, waits or returns, and whoever catches that lives on. Here the
//! process has to be gone.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// Whether this build has fail points.
pub const ARMED: bool = cfg!(feature = "fail-points");

/// The variable that says where to die: a place and the number of the passage, as `after/store/run 2`.
pub const VARIABLE: &str = "FAIL_POINT";

/// Which side of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Before,
    /// It is done, and nobody knows yet.
    After,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

/// Dies here where that is told and it is this passage's turn.
pub fn pass(side: Side, whose: &str, act: &str) {
    if !ARMED {
        return;
    }
    if let Some(wish) = target().filter(|wish| wish.name == format!("{side}/{whose}/{act}"))
        && wish.passes_left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // The signal cannot fail to arrive: it is our own process.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

struct Target {
    name: String,
    passes_left: AtomicU64,
}

fn target() -> Option<&'static Target> {
    static WISH: OnceLock<Option<Target>> = OnceLock::new();
    let read = || {
        let told = std::env::var(VARIABLE).ok()?;
        let (place, passage) = told.split_once(' ')?;
        Some(Target { name: place.to_owned(), passes_left: AtomicU64::new(passage.parse().ok()?) })
    };
    WISH.get_or_init(read).as_ref()
}
