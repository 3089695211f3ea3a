//! A Docker engine that belongs to one test, which may stop, kill and restart it without affecting the shared engine.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bollard::API_DEFAULT_VERSION;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::WAIT_TIMEOUT;

/// The script of the first process in a sandbox: it waits and reaps orphaned processes.
const SANDBOX_INIT: &str = "while :; do sleep 60 & wait; done";

/// An engine with its own data in a sandbox: its own network (it would otherwise delete the rules of another engine), mounts and
/// processes. All of it ends with the sandbox, however the test ends. Requires root.
#[derive(Debug)]
pub struct Dockerd {
    /// The first process of the sandbox. Dropped before the folder, so that nothing uses the folder any more.
    sandbox: Child,
    daemon: Option<Child>,
    folder: tempfile::TempDir,
    /// Containers keep running while the engine is away.
    live_restore: bool,
}

/// How an engine is shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// As `systemctl stop` does.
    Graceful,
    /// As `kill -9` does.
    Killed,
}

impl Dockerd {
    /// # Errors
    /// It does not become ready; the error contains its log.
    pub async fn start(live_restore: bool) -> Result<Self> {
        let mut dockerd = Self::new_sandbox(live_restore)?;
        dockerd.restart().await?;
        Ok(dockerd)
    }

    /// An engine whose data is on a small disk in memory, so that the disk can become full. `size` is in the syntax of `mount`
    /// (`256m`).
    ///
    /// # Errors
    /// It does not become ready; the error contains its log.
    pub async fn start_on(size: &str) -> Result<Self> {
        let mut dockerd = Self::new_sandbox(false)?;
        std::fs::create_dir(dockerd.data())?;
        let mut mount = dockerd.command_in_sandbox().await?;
        mount.args(["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "beespace"]).arg(dockerd.data());
        let status = mount.status().await?;
        anyhow::ensure!(status.success(), "the disk cannot be mounted: {status}");
        dockerd.restart().await?;
        Ok(dockerd)
    }

    /// The sandbox without an engine.
    fn new_sandbox(live_restore: bool) -> Result<Self> {
        crate::docker::ensure_running()?;
        let mut sandbox = Command::new("unshare");
        sandbox.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SANDBOX_INIT]);
        let sandbox = sandbox.stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        Ok(Self { folder: tempfile::tempdir()?, sandbox, daemon: None, live_restore })
    }

    /// The address of the engine.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    /// The directory of images, containers and volumes.
    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The workspace of a build, as a directory of this machine: a volume with a pipeline file in it.
    ///
    /// # Errors
    /// There is none.
    pub fn workspace(&self) -> Result<PathBuf> {
        let volumes = std::fs::read_dir(self.data().join("volumes"))?.filter_map(|entry| Some(entry.ok()?.path().join("_data")));
        let with_subfolders = |volume: PathBuf| {
            let entries = std::fs::read_dir(&volume).into_iter().flatten();
            let subfolders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            std::iter::once(volume).chain(subfolders)
        };
        let found = volumes.flat_map(with_subfolders).find(|folder| folder.join(".beespace.yml").exists());
        found.context("no volume of this engine is a workspace")
    }

    /// The API of the engine.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn api(&self) -> Result<bollard::Docker> {
        Ok(bollard::Docker::connect_with_socket(&self.host(), 60, API_DEFAULT_VERSION)?.negotiate_version().await?)
    }

    /// # Errors
    /// It does not become ready; the error contains its log.
    pub async fn restart(&mut self) -> Result<()> {
        let folder = self.folder.path();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log"))?;
        let path = |name: &str| folder.join(name).into_os_string();
        let mut command = self.command_in_sandbox().await?;
        command
            .arg("dockerd")
            .arg("--host")
            .arg(self.host())
            .arg("--data-root")
            .arg(self.data())
            .arg("--exec-root")
            .arg(path("run"));
        command.arg("--pidfile").arg(path("pid")).args(["--bridge", "none", "--log-level", "warn"]);
        command.args(self.live_restore.then_some("--live-restore"));
        let daemon = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.daemon = Some(daemon);
        let answers = async {
            while self.api().await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(WAIT_TIMEOUT, answers).await.map_err(|_| {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            anyhow::anyhow!("the engine does not become ready; its log:\n{log}")
        })
    }

    /// Starts a program in the sandbox, in the engine's network. It is killed when dropped.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn spawn_in_sandbox(&self, command: &[&str]) -> Result<Child> {
        let mut entered = self.command_in_sandbox().await?;
        Ok(entered.args(command).stdin(Stdio::null()).spawn()?)
    }

    /// A command that runs its arguments in the sandbox.
    async fn command_in_sandbox(&self) -> Result<Command> {
        let first = timeout(WAIT_TIMEOUT, child_of(&self.sandbox)).await?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &first.to_string(), "--net", "--mount", "--pid"]).kill_on_drop(true);
        Ok(command)
    }

    /// Shuts the engine down and waits until it has exited.
    ///
    /// # Errors
    /// It was not running, or does not exit.
    pub async fn shut_down(&mut self, how: Shutdown) -> Result<()> {
        let mut daemon = self.daemon.take().context("the engine is not running")?;
        let id = Pid::from_raw(timeout(WAIT_TIMEOUT, child_of(&daemon)).await?).context("no process has the number 0")?;
        kill_process(id, if how == Shutdown::Graceful { Signal::TERM } else { Signal::KILL })?;
        timeout(WAIT_TIMEOUT, daemon.wait()).await.context("the engine does not exit")??;
        Ok(())
    }
}

/// The only child of a process, as soon as it exists.
async fn child_of(parent: &Child) -> i32 {
    let id = parent.id().unwrap_or_default();
    let children = format!("/proc/{id}/task/{id}/children");
    loop {
        let text = std::fs::read_to_string(&children).unwrap_or_default();
        if let Some(child) = text.split_whitespace().next().and_then(|child| child.parse().ok()) {
            return child;
        }
        sleep(Duration::from_millis(10)).await;
    }
}
