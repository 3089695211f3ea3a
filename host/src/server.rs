//! The running server: what lives long, started in order and stopped in the opposite one.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use tokio::net::TcpListener;

use crate::app::App;
use crate::clock::now;
use crate::config::Config;
use crate::webhook::Webhook;
use crate::{http_server, queues, router, seal, shutdown};

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the server from starting, in words that say what to do.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    if config.server.is_unsafe_transport() {
        let url = &config.server.public_url;
        tracing::warn!(%url, "people reach it unencrypted: whoever listens on the way can read tokens");
    }
    http_server::raise_file_limit();
    let address = config.server.listen;
    let listener = http_server::bind(address).with_context(|| format!("cannot listen on {address}: is another server there?"))?;
    let app = App::open(config).await?;
    let signals = tokio::spawn(shutdown::on_signal(app.stopping.clone()));
    run(app, listener).await?;
    signals.abort();
    Ok(())
}

/// Works and answers until `app.stopping`.
///
/// # Errors
/// As [`serve`].
pub async fn run(app: Arc<App>, listener: TcpListener) -> anyhow::Result<()> {
    let router = router(&app)?;
    // A start reads the configuration anew: what was wrong with a notifier may be mended.
    app.store.resume_all_bindings(now()).await?;
    let mut workers = queues::start(&app);
    tracing::info!(listen = %listener.local_addr()?, public_url = %app.config.server.public_url, "Beespace is ready");
    tokio::select! {
        () = http_server::serve(listener, router, app.stopping.clone()) => {}
        // Followers of logs stay as long as they are let; they come back to the next process by themselves.
        () = async { app.stopping.cancelled().await; tokio::time::sleep(shutdown::REQUEST_GRACE).await; } => {}
    }
    let drained = tokio::time::timeout(shutdown::DRAIN_TIMEOUT, async { while workers.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!("what is still in hand is left to the next start");
    }
    workers.shutdown().await;
    // Connections that nobody ended hold the store, too: it is closed, not only let go of.
    app.store.close().await;
    Ok(())
}

/// The router of the server.
///
/// # Errors
/// The secret that stands in for unknown webhooks cannot be created.
pub fn router(app: &Arc<App>) -> anyhow::Result<Router> {
    let webhook = Webhook::new(app.store.clone(), seal::Key::clone(&app.key), app.metrics.deliveries.clone(), now)?;
    Ok(router::router(app, webhook.router()))
}
