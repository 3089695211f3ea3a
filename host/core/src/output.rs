//! The output of a step's containers: its streams, and how much of them is stored.

use serde::{Deserialize, Serialize};

/// The source of a piece of a step's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
    /// Written by the host, not by the program: the progress of a pull, the reason why a step ended.
    Host,
}

/// How many bytes of each stream of a container are stored, counted before masking. A re-attached container is followed from
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputOffsets {
    pub stdout: u64,
    pub stderr: u64,
}

impl OutputOffsets {
    /// The end of the output, whatever its length: nothing is read again.
    pub const END: Self = Self { stdout: u64::MAX, stderr: u64::MAX };
}
