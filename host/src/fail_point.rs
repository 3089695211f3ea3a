//! Fail points: places where a test kills the server, as `kill -9` would. Only the feature `fail-points`, which the test
//! crate enables, arms them; without it a pass does nothing.
//!
//! Why no library? Fail point libraries fail in the program's own thread, by a panic, a delay or an early return, and
//! code that catches that survives. Here the whole process must end.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// Whether this build has fail points.
pub const ARMED: bool = cfg!(feature = "fail-points");

/// The environment variable that selects a fail point: its name and which pass kills the server, as in `after/store/run 2`.
pub const VARIABLE: &str = "FAIL_POINT";

/// Before or after an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Before,
    /// The action is done, and its caller does not know it yet.
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

/// Passes the fail point `side/component/action`; kills the server if it is selected and this is the selected pass.
pub fn pass(side: Side, component: &str, action: &str) {
    if !ARMED {
        return;
    }
    if let Some(target) = target().filter(|target| target.name == format!("{side}/{component}/{action}"))
        && target.passes_left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // The signal cannot fail to arrive: it is our own process.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// The selected fail point.
struct Target {
    name: String,
    passes_left: AtomicU64,
}

fn target() -> Option<&'static Target> {
    static TARGET: OnceLock<Option<Target>> = OnceLock::new();
    let read = || {
        let value = std::env::var(VARIABLE).ok()?;
        let (name, pass) = value.split_once(' ')?;
        Some(Target { name: name.to_owned(), passes_left: AtomicU64::new(pass.parse().ok()?) })
    };
    TARGET.get_or_init(read).as_ref()
}
