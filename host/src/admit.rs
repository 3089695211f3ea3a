//! Asks policies and keeps what was decided.
