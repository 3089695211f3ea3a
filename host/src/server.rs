//! The running server: its components start in order and stop in the opposite order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use beespace_core::error_cause::root_cause;
use tokio::net::TcpListener;

use crate::app::App;
pub use crate::app::StartError;
use crate::clock::now;
use crate::config::Config;
use crate::webhook::Webhook;
use crate::{background, encryption, http_server, router, shutdown, webhook_secret};

/// Serves until SIGTERM or SIGINT; SIGHUP is ignored.
///
/// # Errors
/// Why the server cannot start, and what to do.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    if config.server.is_unsafe_transport() {
        let url = &config.server.public_url;
        tracing::warn!(%url, "the server is reachable without encryption: an attacker on the network path can read tokens");
    }
    shutdown::ignore_hangup()?;
    http_server::raise_file_limit();
    let address = config.server.listen;
    let listener = http_server::bind(address).map_err(|error| cannot_listen(address, &error))?;
    let app = App::open(config).await?;
    let signals = tokio::spawn(shutdown::on_signal(app.stopping.clone()));
    run(app, listener).await?;
    signals.abort();
    Ok(())
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> StartError {
    let help = match error.kind() {
        io::ErrorKind::AddrInUse => "stop the other program, perhaps another server, or set `server.listen` to another address",
        io::ErrorKind::PermissionDenied => {
            "set `server.listen` to a port from 1024 on, or give the server's user the right to it"
        }
        _ => "set `server.listen` to an address of this machine",
    };
    StartError { message: format!("cannot listen on {address}: {}", root_cause(error)), help: help.to_owned() }
}

/// Runs the background tasks and responds to requests until `app.stopping`.
///
/// # Errors
/// As [`serve`].
pub async fn run(app: Arc<App>, listener: TcpListener) -> anyhow::Result<()> {
    let router = router(&app)?;
    // The configuration has been read again, so a suspended notifier may have been fixed.
    app.store.resume_all_bindings(now()).await?;
    let mut tasks = background::start(&app);
    tracing::info!(listen = %listener.local_addr()?, public_url = %app.config.server.public_url, "Beespace is ready");
    tokio::select! {
        () = http_server::serve(listener, router, is_delivery, app.stopping.clone()) => {}
        // Log streams stay open until they are closed here; their clients reconnect to the next process by themselves.
        () = async { app.stopping.cancelled().await; tokio::time::sleep(shutdown::REQUEST_GRACE).await; } => {}
    }
    let drained = tokio::time::timeout(shutdown::DRAIN_TIMEOUT, async { while tasks.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("some work is still in progress; the next start resumes it");
    }
    tasks.shutdown().await;
    // Open connections also hold the store, so dropping this handle would not close it.
    app.store.close().await;
    Ok(())
}

/// Whether a path is that of a delivery, with or without the path of `server.public_url` before it.
fn is_delivery(path: &str) -> bool {
    path.contains(webhook_secret::PATH_PREFIX)
}

/// The router of the server.
///
/// # Errors
/// The secret that stands in for unknown webhooks cannot be created.
pub fn router(app: &Arc<App>) -> anyhow::Result<Router> {
    let webhook = Webhook::new(app.store.clone(), encryption::Key::clone(&app.key), app.metrics.deliveries.clone(), now)?;
    Ok(router::router(app, webhook.router()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_reported_with_a_remedy() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = http_server::bind(address).map_err(|error| cannot_listen(address, &error)).unwrap_err();
        assert_eq!(error.message, format!("cannot listen on {address}: Address already in use"));
        assert!(error.help.contains("`server.listen`"), "{}", error.help);
    }
}
