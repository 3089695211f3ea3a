//! `practice-gogs`: the practice Gogs as a program of its own, to try Beespace with.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use beespace_tests::gogs::{ADMIN, FakeGogs, Settings};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// A Gogs to practise with: API, git over HTTP and signed webhooks, without a database. When it answers it prints one line of JSON
/// with `url`, `token` and `owner`. It ends on Ctrl-C and forgets everything.
#[derive(Debug, Parser)]
#[command(name = "practice-gogs")]
struct Options {
    /// Where to listen; port 0 lets the system choose one.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// A folder of its own for the repositories, empty or not there yet.
    #[arg(long)]
    dir: PathBuf,
    /// The admin's token, 40 lower-case hex digits; random where it is not given.
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
