//! Metrics of webhook deliveries.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

/// The response to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HookResponse {
    Accepted,
    /// The same delivery is already stored.
    Duplicate,
    /// The key is unknown, or the signature is missing or wrong. The response does not reveal which.
    Refused,
    TooLarge,
    /// The body did not arrive completely, or not in time.
    Incomplete,
    /// Too many bodies arrived at once.
    Busy,
    /// The delivery could not be stored. A person can redeliver it from Gogs.
    NotStored,
}

impl HookResponse {
    /// The response as the label of its metric.
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::Incomplete => "incomplete",
            Self::Busy => "busy",
            Self::NotStored => "not_stored",
        }
    }
}

/// Responses to deliveries, and the work that it took to verify them. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct WebhookMetrics {
    responses: Family<[(&'static str, &'static str); 1], Counter>,
    signatures: Counter,
    signed_bytes: Counter,
}

impl WebhookMetrics {
    /// Adds the metrics to those of `/metrics`.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("webhook_deliveries", "Webhook deliveries by response", self.responses.clone());
        registry.register("webhook_signatures", "Signatures computed, for known and unknown webhooks", self.signatures.clone());
        let bytes = self.signed_bytes.clone();
        registry.register_with_unit("webhook_signed", "Bytes over which signatures were computed", Unit::Bytes, bytes);
    }

    /// A delivery got this response.
    pub fn responded(&self, response: HookResponse) {
        self.responses.get_or_create(&[("response", response.as_str())]).inc();
    }

    /// The number of deliveries that got this response.
    #[must_use]
    pub fn count(&self, response: HookResponse) -> u64 {
        self.responses.get_or_create(&[("response", response.as_str())]).get()
    }

    /// A signature over a body of this length was computed.
    pub fn signed(&self, bytes: usize) {
        self.signatures.inc();
        self.signed_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// The number of signatures computed, and of the bytes that they cover.
    #[must_use]
    pub fn signature_work(&self) -> (u64, u64) {
        (self.signatures.get(), self.signed_bytes.get())
    }
}
