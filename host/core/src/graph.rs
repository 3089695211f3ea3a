//! The order of steps: who may start, who is skipped, who is waited for.
