//! Output of steps: framed files with an index, and live followers.
