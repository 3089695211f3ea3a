//! A place for notifications to arrive at: what was received, and what to answer.

use serde::Serialize;

/// One request to `POST /practice/inbox/{name}`.
#[derive(Debug, Clone, Serialize)]
pub struct Received {
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// As text; bytes that are no UTF-8 are replaced.
    pub body: String,
}

impl Received {
    /// The first header of this name, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) received: Vec<Received>,
    /// What the next requests are answered with.
    pub(super) status: u16,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { received: Vec::new(), status: 200 }
    }
}
