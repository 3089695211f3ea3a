//! The running server: its components start in order and stop in the opposite order.

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
use crate::{api, background, http_server, seal, shutdown};

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Why the server cannot start, and what to do.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    if is_unsafe_transport(&config.server) {
        let url = &config.server.public_url;
        tracing::warn!(%url, "the server is reachable without encryption: an attacker on the network path can read tokens");
    }
    http_server::raise_file_limit();
    let address = config.server.listen;
    let listener =
        http_server::bind(address).with_context(|| format!("cannot listen on {address}: is another server running?"))?;
    let app = App::open(config).await?;
    let signals = tokio::spawn(shutdown::on_signal(app.stopping.clone()));
    run(app, listener).await?;
    signals.abort();
    Ok(())
}

/// Runs the background tasks and answers requests until `app.stopping`.
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
        () = http_server::serve(listener, router, app.stopping.clone()) => {}
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

/// The routes of the server.
///
/// # Errors
/// The admin token or the webhook's decoy secret cannot be created.
pub fn router(app: &Arc<App>) -> anyhow::Result<Router> {
    let hooks = Webhook::new(app.store.clone(), seal::Key::clone(&app.key), app.metrics.deliveries.clone(), now)?;
    Ok(api::router(&app_state(app)?, hooks.router()))
}

/// The state of the pages and the API.
///
/// # Errors
/// The admin token cannot be created.
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

/// The token in the data directory, created at the first start: 256 random bits, readable by the server's own user.
fn admin_token(path: &Path) -> anyhow::Result<SecretString> {
    if !path.exists() {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system returned no random bytes: {error}"))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = file.with_context(|| format!("cannot create {}", path.display()))?;
        writeln!(file, "bee_{}", hex::encode(bytes))?;
        file.sync_all()?;
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let token = text.trim();
    anyhow::ensure!(
        token.len() >= 32,
        "{} contains no token of at least 32 characters: remove the file to get a new token",
        path.display()
    );
    Ok(SecretString::from(token.to_owned()))
}
