//! Everything that must survive: one redb file.
