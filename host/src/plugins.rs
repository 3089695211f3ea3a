//! The plugins this instance has, bound as the configuration says.
