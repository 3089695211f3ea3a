//! The metrics of webhook deliveries.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

/// How deliveries were answered, and the cost of verifying them.
#[derive(Debug, Clone, Default)]
pub struct WebhookMetrics {
    responses: Family<Labels, Counter>,
    signatures: Counter,
    signed_bytes: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    response: HookResponse,
}

/// How a delivery was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum HookResponse {
    Accepted,
    /// The same delivery was stored before.
    Duplicate,
    /// The key is unknown, or the signature is missing or wrong; the response does not reveal which.
    Refused,
    TooLarge,
    /// The body did not arrive whole, or not in time.
    Incomplete,
    /// Too many deliveries arrived at once.
    Busy,
    /// The delivery could not be stored. A person can redeliver it from Gogs.
    NotStored,
}

impl WebhookMetrics {
    /// The number of deliveries with this response.
    #[must_use]
    pub fn of(&self, response: HookResponse) -> u64 {
        self.responses.get_or_create(&Labels { response }).get()
    }

    /// The number of signatures that were computed, and of the bytes that they cover.
    #[must_use]
    pub fn signature_work(&self) -> (u64, u64) {
        (self.signatures.get(), self.signed_bytes.get())
    }

    /// Counts a response.
    pub fn record_response(&self, response: HookResponse) {
        self.responses.get_or_create(&Labels { response }).inc();
    }

    /// Counts a signature over a body of this length.
    pub fn record_signature(&self, bytes: usize) {
        self.signatures.inc();
        self.signed_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Adds the families to the registry of `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("webhook_deliveries", "Webhook deliveries by response", self.responses.clone());
        registry.register("webhook_signatures", "Signatures computed, for existing and unknown hooks", self.signatures.clone());
        let bytes = self.signed_bytes.clone();
        registry.register_with_unit("webhook_signed", "Bytes over which signatures were computed", Unit::Bytes, bytes);
    }
}
