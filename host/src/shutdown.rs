//! Shutdown: stop intake, drain or hand over, close. Long work is handed over: its rows stay in the store, its containers
//! keep running, and the next process re-attaches to them.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long workers may take until their work can be handed over.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests in progress may take to end.
pub const REQUEST_GRACE: Duration = Duration::from_secs(2);

/// Keeps the process running on SIGHUP, which service managers send for `reload` and a terminal sends when it closes. The
/// configuration is read at the start only, because policies must not change while a stage runs under their decisions.
///
/// # Errors
/// The process cannot install the signal handler.
pub fn ignore_hangup() -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::warn!("SIGHUP: ignored; restart the server to apply a changed configuration (running containers continue)");
        }
    });
    Ok(())
}

/// Cancels `stopping` on SIGTERM or SIGINT.
///
/// # Errors
/// The process cannot install the signal handlers.
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
