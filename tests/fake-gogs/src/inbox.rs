//! A receiver for notices: the received requests, and the status of its responses.

use serde::Serialize;

/// One request to `POST /control/inbox/{name}`.
#[derive(Debug, Clone, Serialize)]
pub struct Received {
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// As text; bytes that are not UTF-8 are replaced.
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
    /// The status of the next responses.
    pub(super) status: u16,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { received: Vec::new(), status: 200 }
    }
}
