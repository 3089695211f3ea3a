//! `fake-gogs`: the fake Gogs as a program of its own, for trying Beespace.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use fake_gogs::{ADMIN, FakeGogs, Settings};
use tokio::signal::unix::{SignalKind, signal};

/// A fake Gogs for trying Beespace: API, git over HTTP and signed webhooks, without a database. When it is ready it prints one
/// line of JSON with `url`, `token` and `owner`. It stops on Ctrl-C and keeps nothing.
#[derive(Debug, Parser)]
#[command(name = "fake-gogs")]
struct Options {
    /// Address to listen on; with port 0 the system chooses a free port.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Directory for the repositories; must be empty or missing.
    #[arg(long)]
    dir: PathBuf,
    /// Token of the administrator, 40 lower-case hex digits. Default: random.
    #[arg(long)]
    token: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut terminated = signal(SignalKind::terminate())?;
    let settings = Settings { listen: options.listen, dir: Some(options.dir), token: options.token, ..Settings::default() };
    let gogs = FakeGogs::start_with(settings).await?;
    let ready = serde_json::json!({ "url": gogs.url(), "token": gogs.token(), "owner": ADMIN });
    writeln!(std::io::stdout(), "{ready}")?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminated.recv() => {}
    }
    Ok(())
}
