//! Tests that need root, because they mount a small disk for a server.

mod disk_full;
