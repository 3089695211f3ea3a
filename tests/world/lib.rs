//! The world that Beespace is tested in.
