//! Gogs' POST: cap, key, signature, durable, 202.
