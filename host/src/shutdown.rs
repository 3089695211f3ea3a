//! Stop intake, drain or hand over, close. Work that takes long is handed over: its rows stay in the store, its containers run on, and
//! the next process adopts them.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long workers get to come to a point where they can be handed over.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests that are being answered get.
pub const REQUEST_GRACE: Duration = Duration::from_secs(2);

/// Cancels `stopping` on SIGTERM or SIGINT.
///
/// # Errors
/// Where the process may not listen to signals.
pub async fn on_signal(stopping: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = stopping.cancelled() => {}
    }
    stopping.cancel();
    Ok(())
}
