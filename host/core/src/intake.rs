//! What to do about an event: build it, or ignore it with a reason.
