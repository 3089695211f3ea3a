//! The handle of a loaded notifier, which makes one attempt to deliver one notice.

use std::sync::Arc;
use std::time::Duration;

use beespace_core::digest::Document;
use beespace_core::notice::Receipt;
use beespace_core::plugin_context::PluginContext;

use crate::bindings::notifier::NotifierPluginPre;
use crate::bindings::notifier::exports::beespace::plugin::notifier as wit;
use crate::call::CallOutcome;
use crate::convert::from_wit::{OutputReader, is_web_url};
use crate::convert::to_wit;
use crate::error::PluginError;
use crate::load::{BindingSpec, Host, LinkedComponent, incompatible};
use crate::load_error::LoadError;
use crate::manifest::Kind;
use crate::plugin::{Loaded, Plugin};
use crate::sanitize::sanitize;
use crate::state::State;

/// Maximum size of the state that a notifier keeps for the next notice with the same ordering key.
const MAX_STATE_BYTES: usize = 64 << 10;

/// One attempt to deliver one notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeInput {
    /// Identical for every attempt.
    pub idempotency_key: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    pub ordering_key: String,
    pub sequence: u64,
    pub context: PluginContext,
    /// `beespace.notice/v1`.
    pub subject: Document,
    /// The receipt of the last delivered notice with the same ordering key.
    pub previous: Option<Receipt>,
    /// Links for people: names and absolute URLs.
    pub links: Vec<(String, String)>,
}

/// Why a notice was not delivered, or why its delivery is uncertain.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// Not delivered. Retry, but not before `after` if it is given.
    #[error("{reason}")]
    Retry { after: Option<Duration>, reason: String },
    /// Not delivered. Do not retry.
    #[error("{0}")]
    Permanent(String),
    /// Not delivered, because the configuration of the binding is wrong. Suspend the binding.
    #[error("{0}")]
    Misconfigured(String),
    /// The plugin failed, so the notice may have been delivered.
    #[error(transparent)]
    Unknown(#[from] PluginError),
}

/// A loaded and bound notifier. It is cheap to clone, and calls of clones run concurrently.
#[derive(Debug, Clone)]
pub struct Notifier(Arc<Loaded<NotifierPluginPre<State>>>);

impl Host {
    /// Loads a notifier from the bytes of its component.
    ///
    /// # Errors
    /// [`LoadError`] with the cause and the remedy. Nothing stays loaded then.
    pub async fn load_notifier(&self, component: Vec<u8>, spec: BindingSpec) -> Result<Notifier, LoadError> {
        let check_exports = |linked: &LinkedComponent| NotifierPluginPre::new(linked.pre.clone()).map_err(incompatible);
        Ok(Notifier(Arc::new(self.load(component, Kind::Notifier, &spec, check_exports).await?)))
    }
}

impl Notifier {
    /// Identity of the plugin.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.0.bound.plugin
    }

    /// Makes one attempt to deliver the notice.
    pub async fn send(&self, notice: NoticeInput) -> CallOutcome<Receipt, SendError> {
        let previous = notice.previous.as_ref().map_or(0, |receipt| receipt.state.len());
        if let Err(error) = self.0.bound.check_input([notice.subject.json.len(), previous]) {
            return CallOutcome::failed(error.into());
        }
        let loaded = self.0.clone();
        let answer = self.0.bound.call(move |store| {
            Box::pin(async move {
                let notifier = loaded.exports.instantiate_async(&mut *store).await?;
                let result = notifier.beespace_plugin_notifier().call_send(&mut *store, &notice.into()).await?;
                // A server may echo a secret, which must not reach the store.
                let mask = |text: &str| store.data().egress.mask(text);
                Ok(result.map_err(|error| send_error(error, mask)).map(|receipt| masked(receipt, mask)))
            })
        });
        answer.await.map_result(|result| self.read(result?))
    }

    fn read(&self, result: Result<wit::Receipt, SendError>) -> Result<Receipt, SendError> {
        let receipt = result?;
        let mut reader = OutputReader::new(&self.plugin().label, self.0.bound.limits.output_bytes);
        reader.check_count("bytes of state", receipt.state.len(), MAX_STATE_BYTES)?;
        Ok(Receipt {
            external_id: reader.sentence(&receipt.external_id)?,
            url: receipt.url.filter(|url| is_web_url(url)),
            state: receipt.state,
        })
    }
}

fn send_error(error: wit::SendError, mask: impl Fn(&str) -> String) -> SendError {
    let clean = |text: String| sanitize(&mask(&text), 1 << 10);
    match error {
        wit::SendError::Retry(hint) => {
            SendError::Retry { after: hint.after_ms.map(Duration::from_millis), reason: clean(hint.reason) }
        }
        wit::SendError::Permanent(reason) => SendError::Permanent(clean(reason)),
        wit::SendError::Misconfigured(reason) => SendError::Misconfigured(clean(reason)),
    }
}

fn masked(receipt: wit::Receipt, mask: impl Fn(&str) -> String) -> wit::Receipt {
    wit::Receipt { external_id: mask(&receipt.external_id), url: receipt.url.map(|url| mask(&url)), state: receipt.state }
}

impl From<NoticeInput> for wit::Notice {
    fn from(notice: NoticeInput) -> Self {
        Self {
            idempotency_key: notice.idempotency_key,
            attempt: notice.attempt,
            thread: notice.ordering_key,
            seq: notice.sequence,
            ctx: to_wit::context(&notice.context),
            subject: to_wit::document(&notice.subject),
            previous: notice.previous.as_ref().map(to_wit::receipt),
            links: notice.links,
        }
    }
}
