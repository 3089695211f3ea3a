//! `practice-gogs`: a Gogs to try Beespace with, where there is none.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use beespace_tests::gogs::{Options, PracticeGogs};
use clap::Parser;

/// A practice Gogs: API, git over HTTP and signed hooks, as Gogs 0.14.3 does them. It keeps nothing when it ends.
#[derive(Debug, Parser)]
#[command(name = "practice-gogs", version)]
struct Arguments {
    /// Where it listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Where its repositories lie; a temporary directory otherwise.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Login of its administrator.
    #[arg(long, default_value = "root1")]
    admin: String,
    /// The administrator's token, 40 hex digits; a random one otherwise.
    #[arg(long)]
    token: Option<String>,
    /// Repositories to begin with: OWNER/NAME.
    #[arg(long = "repo")]
    repos: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let options = Options { listen: arguments.listen, folder: arguments.folder, admin: arguments.admin, token: arguments.token };
    let gogs = PracticeGogs::start_with(options).await?;
    for repo in &arguments.repos {
        let (owner, name) = repo.split_once('/').ok_or_else(|| anyhow::anyhow!("{repo:?} is not OWNER/NAME"))?;
        gogs.create_repo(owner, name).await;
    }
    // Two lines for the program that started it.
    println!("url={}", gogs.url());
    println!("token={}", gogs.token());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
