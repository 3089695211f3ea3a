//! What Gogs sends: the eight payloads, typed, and how they become events.
