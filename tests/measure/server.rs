//! The measured server: a release build in a process of its own. Its data directory survives restarts.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use beespace_tests::WAIT_TIMEOUT;
use beespace_tests::client::Client;
use beespace_tests::gogs::FakeGogs;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

pub(crate) struct Server {
    pub(crate) url: String,
    program: PathBuf,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn new(program: &Path, gogs: &FakeGogs, settings: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let address: SocketAddr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let text = format!(
            "[server]\nlisten = \"{address}\"\nopen = true\n[data]\ndir = \"{}\"\n[gogs]\nurl = \"{}\"\n{settings}\n",
            folder.path().join("data").display(),
            gogs.url()
        );
        std::fs::write(folder.path().join("beespace.toml"), text)?;
        std::fs::write(folder.path().join("token"), gogs.token())?;
        Ok(Self { url: format!("http://{address}"), program: program.to_owned(), folder, child: None })
    }

    /// Starts the server. Returns the time until it was ready.
    pub(crate) async fn start(&mut self) -> Result<Duration> {
        let mut command = Command::new(&self.program);
        command.args(["server", "--config"]).arg(self.folder.path().join("beespace.toml"));
        command.env("BEESPACE_GOGS__TOKEN_FILE", self.folder.path().join("token"));
        let log = std::fs::File::create(self.folder.path().join("server.log"))?;
        let begin = Instant::now();
        self.child = Some(command.stdin(Stdio::null()).stderr(log).kill_on_drop(true).spawn()?);
        let client = Client::new(&self.url);
        wait_for("the server", async || {
            Ok(client.get("/readyz").await.is_ok_and(|answer| answer.status.is_success()).then_some(()))
        })
        .await?;
        Ok(begin.elapsed())
    }

    pub(crate) async fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            let id = i32::try_from(child.id().context("the server has exited")?)?;
            let process = rustix::process::Pid::from_raw(id).context("no process")?;
            rustix::process::kill_process(process, rustix::process::Signal::TERM)?;
            child.wait().await?;
        }
        Ok(())
    }

    /// The directory of its store, logs and token.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn admin(&self) -> Result<Client> {
        let token = std::fs::read_to_string(self.data().join("admin.token"))?;
        Ok(Client::new(&self.url).with_token(token.trim()))
    }

    pub(crate) async fn enable(&self, repository: &str) -> Result<()> {
        let answer = self.admin()?.post("/api/v1/repositories", &json!({ "name": repository })).await?;
        anyhow::ensure!(answer.status.is_success(), "{answer:?}");
        Ok(())
    }

    /// Its memory in MiB: `VmRSS` is the current value, `VmHWM` the maximum.
    pub(crate) fn memory(&self, field: &str) -> Result<f64> {
        let id = self.child.as_ref().and_then(Child::id).context("the server has exited")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
        let kibibytes: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes / 1024.0)
    }

    /// Waits until a build is finished; it must have succeeded.
    pub(crate) async fn wait_for_success(&self, repository: &str, number: u64) -> Result<Value> {
        let (client, path) = (self.admin()?, format!("/api/v1/repositories/{repository}/builds/{number}"));
        let build = wait_for("the end of a build", async || {
            let answer = client.get(&path).await?;
            let build = if answer.status.is_success() { answer.json()? } else { Value::Null };
            Ok(Some(build).filter(|build| build["finished_at"].is_string()))
        })
        .await?;
        anyhow::ensure!(build["status"] == "success", "{build:#}");
        Ok(build)
    }
}

/// Calls `fact` every 2 ms until it returns a value.
pub(crate) async fn wait_for<T>(what: &str, fact: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let until = Instant::now() + WAIT_TIMEOUT;
    loop {
        if let Some(found) = fact().await? {
            return Ok(found);
        }
        if Instant::now() > until {
            bail!("timed out while waiting for {what}");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
