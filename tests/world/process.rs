//! A Beespace in a process of its own, for tests of its environment, its resource limits and its sudden end.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::WAIT_TIMEOUT;
use crate::client::Client;
use crate::gogs::FakeGogs;

/// No extra environment variables.
pub const NO_ENV: &[(&str, &str)] = &[];

/// A server process. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    /// Its URL, without a slash at the end.
    pub url: String,
    child: Child,
    folder: tempfile::TempDir,
    program: String,
    token: String,
    disk: Option<SmallDisk>,
    log: Arc<Mutex<String>>,
}

/// A small disk in memory for a part of a server's data, so that it can become full. It disappears with the process.
#[derive(Debug, Clone, Copy)]
pub struct SmallDisk {
    /// The directory: `data` or `data/logs`.
    pub at: &'static str,
    /// The size in the syntax of `mount` (`2m`).
    pub size: &'static str,
}

impl Process {
    /// Starts `program` as a server for `gogs`. `extra` is added to its configuration and must select an engine.
    ///
    /// # Errors
    /// It does not become ready; the error contains its log.
    pub async fn start<V: AsRef<OsStr>>(program: &str, gogs: &FakeGogs, extra: &str, env: &[(&str, V)]) -> anyhow::Result<Self> {
        Self::start_on(None, program, gogs, extra, env).await
    }

    /// Like [`Process::start`], on a small disk. Requires root.
    ///
    /// # Errors
    /// It does not become ready; the error contains its log.
    pub async fn start_on<V: AsRef<OsStr>>(
        disk: Option<SmallDisk>,
        program: &str,
        gogs: &FakeGogs,
        extra: &str,
        env: &[(&str, V)],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        // The port stays the same across restarts, because the webhook in Gogs contains it.
        let address = free_address().context("no port is free")?;
        let data = folder.path().join("data");
        let text = format!(
            "[server]\nlisten = \"{address}\"\n[data]\ndir = \"{}\"\n[gogs]\nurl = \"{}\"\n{extra}\n",
            data.display(),
            gogs.url()
        );
        std::fs::write(config_path(&folder), text)?;
        let (token, log) = (gogs.token().to_owned(), Arc::default());
        let child = spawn((program, disk), &config_path(&folder), &token, env, &log)?;
        let process = Self { url: format!("http://{address}"), child, folder, program: program.to_owned(), token, disk, log };
        process.wait_until_ready().await?;
        Ok(process)
    }

    /// Kills the process as `kill -9` does.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Whether the process has exited.
    ///
    /// # Errors
    /// The system refuses.
    pub fn has_exited(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Whether the process was killed, as a fail point does.
    ///
    /// # Errors
    /// It exited in any other way; the error contains its log.
    pub fn was_killed(&mut self) -> anyhow::Result<bool> {
        let Some(status) = self.child.try_wait()? else { return Ok(false) };
        let killed = status.signal() == Some(libc::SIGKILL);
        anyhow::ensure!(killed, "the server exited with {status}: {}", self.log.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(true)
    }

    /// Starts the server again on the same data. It may not be ready yet.
    ///
    /// # Errors
    /// The system refuses.
    pub fn restart<V: AsRef<OsStr>>(&mut self, env: &[(&str, V)]) -> anyhow::Result<()> {
        self.child = spawn((&self.program, self.disk), &config_path(&self.folder), &self.token, env, &self.log)?;
        Ok(())
    }

    /// Waits until the server responds.
    ///
    /// # Errors
    /// Times out; the error contains the log.
    pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let client = Client::new(&self.url);
        self.wait_for("it to answer", async || Ok(client.get("/healthz").await.ok().map(drop))).await
    }

    /// Enables a repository.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn enable(&self, repository: &str) -> anyhow::Result<()> {
        let answer = self.admin()?.post("/api/v1/repositories", &json!({ "name": repository })).await?;
        anyhow::ensure!(answer.status.is_success(), "{answer:?}");
        Ok(())
    }

    /// Sets a secret of the instance.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn set_secret(&self, name: &str, value: &str) -> anyhow::Result<()> {
        self.put_secret(&format!("/api/v1/secrets/{name}"), value).await
    }

    /// Sets a secret of plugins.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn set_plugin_secret(&self, name: &str, value: &str) -> anyhow::Result<()> {
        self.put_secret(&format!("/api/v1/plugin-secrets/{name}"), value).await
    }

    async fn put_secret(&self, path: &str, value: &str) -> anyhow::Result<()> {
        let answer = self.admin()?.call(reqwest::Method::PUT, path, &json!({ "value": value })).await?;
        anyhow::ensure!(answer.status.is_success(), "{answer:?}");
        Ok(())
    }

    /// The log of all its processes so far.
    #[must_use]
    pub fn log(&self) -> String {
        lock(&self.log).clone()
    }

    /// The process id.
    ///
    /// # Errors
    /// The process has exited.
    pub fn id(&self) -> anyhow::Result<i32> {
        Ok(self.child.id().context("the server has exited")?.try_into()?)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// The process has exited.
    pub fn resident_memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Its data directory, seen from its mount namespace.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        let data = self.folder.path().join("data");
        match self.child.id().filter(|_| self.disk.is_some()) {
            Some(id) => Path::new("/proc").join(id.to_string()).join("root").join(data.strip_prefix("/").unwrap_or(&data)),
            None => data,
        }
    }

    /// Resizes its small disk.
    ///
    /// # Errors
    /// It has no small disk, or the system refuses.
    pub async fn resize_disk(&self, size: &str) -> anyhow::Result<()> {
        let disk = self.disk.context("the server has no small disk")?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.id()?.to_string(), "--mount", "mount", "-o", &format!("remount,size={size}")]);
        let status = command.arg(self.folder.path().join(disk.at)).status().await?;
        anyhow::ensure!(status.success(), "{status}");
        Ok(())
    }

    /// A client with the admin token.
    ///
    /// # Errors
    /// The token cannot be read.
    pub fn admin(&self) -> anyhow::Result<Client> {
        let token = std::fs::read_to_string(self.data().join("admin.token"))?;
        Ok(Client::new(&self.url).with_token(token.trim()))
    }

    /// Waits until `look` returns a value.
    ///
    /// # Errors
    /// Times out; the error names `what` and contains the log.
    pub async fn wait_for<T>(&self, what: &str, look: impl AsyncFn() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
        let found = tokio::time::timeout(WAIT_TIMEOUT, async {
            loop {
                if let Some(found) = look().await? {
                    return anyhow::Ok(found);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        found
            .await
            .unwrap_or_else(|_| anyhow::bail!("timed out while waiting for {what}; the server's log:\n{}", lock(&self.log)))
    }

    /// Stops the server as SIGTERM does. Returns its directory.
    ///
    /// # Errors
    /// It exits with a failure.
    pub async fn stop(mut self) -> anyhow::Result<tempfile::TempDir> {
        let id = rustix::process::Pid::from_raw(self.id()?).context("no process has the number 0")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let status = tokio::time::timeout(WAIT_TIMEOUT, self.child.wait()).await??;
        anyhow::ensure!(status.success(), "the server exited with {status}; its log:\n{}", lock(&self.log));
        Ok(self.folder)
    }
}

fn config_path(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("beespace.toml")
}

fn spawn<V: AsRef<OsStr>>(
    (program, disk): (&str, Option<SmallDisk>),
    config: &Path,
    token: &str,
    env: &[(&str, V)],
    log: &Arc<Mutex<String>>,
) -> anyhow::Result<Child> {
    // A write beyond the file size limit fails as on a full disk instead of killing the process.
    let start = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh", program, "server", "--config"];
    let mut command = match disk {
        None => Command::new("env"),
        Some(disk) => {
            let place = config.with_file_name(disk.at);
            std::fs::create_dir_all(&place)?;
            let mount = format!("mount -t tmpfs -o size={} beespace \"$0\" && exec \"$@\"", disk.size);
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", &mount]).arg(place);
            command
        }
    };
    command.args(start).arg(config);
    // The tests do not depend on how full the disk of this machine is.
    command.env("BEESPACE_GOGS__TOKEN", token).env("BEESPACE_LIMITS__FREE_DISK", "16MiB");
    // Prewarmed networks outlive a killed server, and an engine has only a few.
    if !std::fs::read_to_string(config)?.contains("prewarmed_networks") {
        command.env("BEESPACE_ENGINE__PREWARMED_NETWORKS", "0");
    }
    command.envs(env.iter().map(|(name, value)| (name, value)));
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    if let Some(mut stderr) = child.stderr.take() {
        let log = Arc::clone(log);
        tokio::spawn(async move {
            let mut piece = vec![0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut piece).await {
                let piece = String::from_utf8_lossy(piece.get(..length).unwrap_or_default()).into_owned();
                lock(&log).push_str(&piece);
            }
        });
    }
    Ok(child)
}

fn lock(log: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port below the ephemeral ports, a different one each time.
fn free_address() -> Option<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 8_000).ok()?;
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port)).ok()?.local_addr().ok();
    (0..1_000).find_map(|_| bind(first + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000))
}
