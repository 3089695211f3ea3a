//! Metrics of webhook deliveries.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

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
    pub fn responded(&self, response: &'static str) {
        self.responses.get_or_create(&[("response", response)]).inc();
    }

    /// The number of deliveries that got this response.
    #[must_use]
    pub fn count(&self, response: &'static str) -> u64 {
        self.responses.get_or_create(&[("response", response)]).get()
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
