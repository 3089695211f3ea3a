//! Tests that need root, because they mount a small disk for a server. Some need a container engine, too.

mod disk_full;
