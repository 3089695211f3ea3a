//! The destination of a request.

use crate::grant::{AddressClass, EgressScheme};

/// The destination of a request. It matches a rule, but its addresses are not checked yet.
pub(super) struct Destination {
    pub(super) scheme: EgressScheme,
    /// In the form of [`crate::grant::normalize_host`].
    pub(super) host: String,
    pub(super) port: u16,
    /// The class of addresses that the rule permits.
    pub(super) class: AddressClass,
}
