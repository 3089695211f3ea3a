//! The front door of notifiers: one attempt to bring one notice to the outside.

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
use crate::load::{BindingSpec, Host, incompatible, with_binding};
use crate::load_error::LoadError;
use crate::manifest::Kind;
use crate::plugin::{BoundPlugin, Plugin};
use crate::sanitize::sanitize;
use crate::state::State;

/// Bytes of what a notifier keeps for its next notice of the same thread.
const MAX_STATE_BYTES: usize = 64 << 10;

/// One notice, one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeInput {
    /// The same for every attempt.
    pub idempotency_key: String,
    /// From 1.
    pub attempt: u32,
    pub ordering_key: String,
    pub sequence: u64,
    pub context: PluginContext,
    /// `beespace.notice/v1`.
    pub subject: Document,
    /// What the last successful attempt in this thread returned.
    pub previous: Option<Receipt>,
    /// Names and absolute URLs.
    pub links: Vec<(String, String)>,
}

/// Why a notice was not delivered, or nobody knows whether it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// Surely not delivered; try again, not before `after` where it is given.
    #[error("{reason}")]
    Retry { after: Option<Duration>, reason: String },
    /// Never try again.
    #[error("{0}")]
    Permanent(String),
    /// The binding's configuration is wrong: suspend it.
    #[error("{0}")]
    Misconfigured(String),
    /// The plugin failed on its way, so the notice may have arrived.
    #[error(transparent)]
    Unknown(#[from] PluginError),
}

/// A notifier, loaded and bound. Cheap to clone; calls of clones run side by side.
#[derive(Debug, Clone)]
pub struct Notifier(Arc<Inner>);

struct Inner {
    bound: BoundPlugin,
    pre: NotifierPluginPre<State>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bound.fmt(f)
    }
}

impl Host {
    /// Loads a notifier from the bytes of its component.
    ///
    /// # Errors
    /// [`LoadError`] with what is wrong and what to do; nothing of it stays loaded.
    pub async fn load_notifier(&self, component: Vec<u8>, spec: BindingSpec) -> Result<Notifier, LoadError> {
        let load = async {
            let prepared = self.link(component, Kind::Notifier, &spec).await?;
            let pre = NotifierPluginPre::new(prepared.pre.clone()).map_err(incompatible)?;
            Ok(Notifier(Arc::new(Inner { bound: self.bind(prepared).await?, pre })))
        };
        load.await.map_err(with_binding(&spec.name))
    }
}

impl Notifier {
    /// Who it is.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.0.bound.plugin
    }

    /// Makes one attempt.
    pub async fn send(&self, notice: NoticeInput) -> CallOutcome<Receipt, SendError> {
        let previous = notice.previous.as_ref().map_or(0, |receipt| receipt.state.len());
        if let Err(error) = self.0.bound.check_input([notice.subject.json.len(), previous]) {
            return CallOutcome::failed(error.into());
        }
        let inner = self.0.clone();
        let answer = self.0.bound.call(None, move |store| {
            Box::pin(async move {
                let notifier = inner.pre.instantiate_async(&mut *store).await?;
                let said = notifier.beespace_plugin_notifier().call_send(&mut *store, &notice.into()).await?;
                // What a server echoed must not bring a secret into our store.
                let mask = |text: &str| store.data().egress.mask(text);
                Ok(said.map_err(|error| send_error(error, mask)).map(|receipt| masked(receipt, mask)))
            })
        });
        answer.await.map_result(|said| self.read(said?))
    }

    fn read(&self, said: Result<wit::Receipt, SendError>) -> Result<Receipt, SendError> {
        let receipt = said?;
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
    let words = |text: String| sanitize(&mask(&text), 1 << 10);
    match error {
        wit::SendError::Retry(hint) => {
            SendError::Retry { after: hint.after_ms.map(Duration::from_millis), reason: words(hint.reason) }
        }
        wit::SendError::Permanent(reason) => SendError::Permanent(words(reason)),
        wit::SendError::Misconfigured(reason) => SendError::Misconfigured(words(reason)),
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
