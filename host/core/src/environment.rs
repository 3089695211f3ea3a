//! The variables that every step gets: one table.
