//! `beespace server`: everything, until it is told to stop.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use secrecy::SecretString;

use super::config::{ConfigArgs, load};
use super::exit::{Exit, Failure};
use crate::app::{self, App};
use crate::forge::Enabler;
use crate::front::Front;
use crate::telemetry::{self, LogFormat};
use crate::web::login::is_unsafe_transport;
use crate::webhook::Webhook;
use crate::{api, shutdown, workers};

#[derive(Debug, clap::Args)]
pub struct ServerArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How the server's own log is written
    #[arg(long, env = "BEESPACE_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// What of it is written, such as `info,beespace=debug`
    #[arg(long, env = "BEESPACE_LOG", default_value = "info")]
    log: String,
}

/// # Errors
/// [`Failure`] where it cannot start.
pub fn run(args: &ServerArgs) -> Result<Exit, Failure> {
    telemetry::start(args.log_format, &args.log);
    let config = load(&args.config)?.config;
    // An earlier call in this process has set the same provider: that is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async { serve(App::open(config).await?).await });
    served.map(|()| Exit::Ok).map_err(|error| Failure::new(Exit::Failed, format!("{error:#}")))
}

async fn serve(app: Arc<App>) -> anyhow::Result<()> {
    let server = &app.config.server;
    if is_unsafe_transport(server) {
        tracing::warn!("people reach {} unencrypted: whoever listens on the way can read tokens", server.public_url);
    }
    let front = Arc::new(front(&app)?);
    let hooks = Webhook::new(app.store.clone(), (*app.key).clone(), app.metrics.deliveries.clone(), app::now)?.router();
    let listener = tokio::net::TcpListener::bind(server.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", server.listen))?;
    workers::sweep(&app).await?;
    let mut workers = workers::start(&app);
    tokio::spawn(shutdown::on_signal(app.stopping.clone()));
    tracing::info!("listening on {}, people reach it at {}", server.listen, server.public_url);
    let stopping = app.stopping.clone();
    let serving = axum::serve(listener, api::router(&front, hooks));
    tokio::select! {
        // Live streams have no end of their own: what is still open when the workers have stopped is cut.
        ended = serving => ended?,
        () = stopping.cancelled() => {}
    }
    let drained = tokio::time::timeout(shutdown::DRAIN, async { while workers.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("what still runs is handed over to the next start");
    }
    Ok(())
}

fn front(app: &App) -> anyhow::Result<Front> {
    let hook_base = app.config.server.hook_base().clone();
    Ok(Front {
        config: Arc::new(app.config.clone()),
        store: app.store.clone(),
        logs: app.logs.clone(),
        key: Arc::clone(&app.key),
        notifiers: app.plugins.notifiers.keys().cloned().collect(),
        enabler: Enabler { forge: app.forge.clone(), store: app.store.clone(), seal: (*app.key).clone(), hook_base },
        engine: Arc::clone(&app.engine),
        metrics: app.metrics.clone(),
        admin_token: admin_token(&app.config.data.admin_token_path())?,
    })
}

/// The token in the data directory, made at the first start: 256 random bits that the server's own user can read.
fn admin_token(path: &Path) -> anyhow::Result<SecretString> {
    if !path.exists() {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system has no random bytes: {error}"))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = file.with_context(|| format!("{} cannot be made", path.display()))?;
        writeln!(file, "{}", hex::encode(bytes))?;
        file.sync_all()?;
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let token = text.trim();
    anyhow::ensure!(token.len() >= 32, "{} holds no token of at least 32 characters; remove it to get a new one", path.display());
    Ok(SecretString::from(token.to_owned()))
}
