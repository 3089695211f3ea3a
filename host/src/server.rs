//! The running server: what lives long, started in order and stopped in the opposite one.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use secrecy::SecretString;
use tokio::net::TcpListener;

use crate::app::App;
use crate::clock::now;
use crate::config::Config;
use crate::engine::HealthCache;
use crate::forge::{Enabler, HookLocks};
use crate::http_state::AppState;
use crate::web::login::is_unsafe_transport;
use crate::webhook::Webhook;
use crate::{api, http_server, queues, seal, shutdown};

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the server from starting, in words that say what to do.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    if is_unsafe_transport(&config.server) {
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

/// Everything the server answers to.
///
/// # Errors
/// The admin token or the webhook's stand-in secret cannot be made.
pub fn router(app: &Arc<App>) -> anyhow::Result<Router> {
    let hooks = Webhook::new(app.store.clone(), seal::Key::clone(&app.key), app.metrics.deliveries.clone(), now)?;
    Ok(api::router(&app_state(app)?, hooks.router()))
}

/// What pages and API work with.
///
/// # Errors
/// The admin token cannot be made.
pub fn app_state(app: &Arc<App>) -> anyhow::Result<Arc<AppState>> {
    Ok(Arc::new(AppState {
        config: Arc::new(app.config.clone()),
        store: app.store.clone(),
        logs: app.logs.clone(),
        key: Arc::clone(&app.key),
        enabler: Enabler {
            forge: app.forge.clone(),
            store: app.store.clone(),
            seal: seal::Key::clone(&app.key),
            hook_base: app.config.server.hook_base().clone(),
            locks: HookLocks::default(),
        },
        engine: Arc::clone(&app.engine),
        engine_health: HealthCache::default(),
        plugins: app.plugins.all().cloned().collect(),
        host: app.host.clone(),
        heartbeats: app.heartbeats.clone(),
        metrics: app.metrics.clone(),
        admin_token: admin_token(&app.config.data.admin_token_path())?,
    }))
}

/// The token in the data directory, made at the first start: 256 random bits that the server's own user can read.
fn admin_token(path: &Path) -> anyhow::Result<SecretString> {
    if !path.exists() {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system has no random bytes: {error}"))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = file.with_context(|| format!("{} cannot be made", path.display()))?;
        writeln!(file, "bee_{}", hex::encode(bytes))?;
        file.sync_all()?;
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let token = text.trim();
    anyhow::ensure!(token.len() >= 32, "{} holds no token of at least 32 characters; remove it to get a new one", path.display());
    Ok(SecretString::from(token.to_owned()))
}
