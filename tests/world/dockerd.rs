//! An engine of a test's own, that it may stop, kill and start again: the one that tests share is left alone.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bollard::API_DEFAULT_VERSION;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// What an engine may take to come up, or to go.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// What the first process of a room does: nothing, and whatever loses its parent there is reaped.
const SANDBOX_INIT: &str = "while :; do sleep 60 & wait; done";

/// An engine with its own data, in a room of its own: network (beside another engine it would take down what that one has made), mounts and
/// processes, all of which end with the room, however the test ends. It takes root.
#[derive(Debug)]
pub struct Dockerd {
    /// The first process of the room. Dropped before the folder, which nobody uses then.
    sandbox: Child,
    daemon: Option<Child>,
    folder: tempfile::TempDir,
    /// Containers run on while it is away.
    live_restore: bool,
}

/// How an engine goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// As `systemctl stop` does it.
    Graceful,
    /// As `kill -9` does it.
    Killed,
}

impl Dockerd {
    /// # Errors
    /// It does not come up; the error has its log.
    pub async fn start(live_restore: bool) -> Result<Self> {
        let mut dockerd = Self::new_sandbox(live_restore)?;
        dockerd.restart().await?;
        Ok(dockerd)
    }

    /// One that has its data on a disk of its own, in memory and so small that it gets full. `check_size` is as `mount` takes it (`256m`).
    ///
    /// # Errors
    /// It does not come up; the error has its log.
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

    /// The room, and nobody in it yet.
    fn new_sandbox(live_restore: bool) -> Result<Self> {
        crate::docker::ensure_running()?;
        let mut room = Command::new("unshare");
        room.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SANDBOX_INIT]);
        let room = room.stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        Ok(Self { folder: tempfile::tempdir()?, sandbox: room, daemon: None, live_restore })
    }

    /// Where it answers.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    /// Where it keeps images, containers and volumes.
    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its API.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn api(&self) -> Result<bollard::Docker> {
        Ok(bollard::Docker::connect_with_socket(&self.host(), 60, API_DEFAULT_VERSION)?.negotiate_version().await?)
    }

    /// # Errors
    /// It does not come up; the error has its log.
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
            anyhow::anyhow!("the engine does not come up; its log:\n{log}")
        })
    }

    /// Starts a program in the room: it shares the engine's network. Killed when dropped.
    ///
    /// # Errors
    /// The system's.
    pub async fn spawn_in_sandbox(&self, command: &[&str]) -> Result<Child> {
        let mut entered = self.command_in_sandbox().await?;
        Ok(entered.args(command).stdin(Stdio::null()).spawn()?)
    }

    /// A command that runs in the room what is added to it.
    async fn command_in_sandbox(&self) -> Result<Command> {
        let first = timeout(WAIT_TIMEOUT, child_of(&self.sandbox)).await?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &first.to_string(), "--net", "--mount", "--pid"]).kill_on_drop(true);
        Ok(command)
    }

    /// Makes it go, and waits until it is gone.
    ///
    /// # Errors
    /// It was gone, or does not go.
    pub async fn shut_down(&mut self, how: Shutdown) -> Result<()> {
        let mut daemon = self.daemon.take().context("it is not there")?;
        let id = Pid::from_raw(timeout(WAIT_TIMEOUT, child_of(&daemon)).await?).context("no process has the number 0")?;
        kill_process(id, if how == Shutdown::Graceful { Signal::TERM } else { Signal::KILL })?;
        timeout(WAIT_TIMEOUT, daemon.wait()).await.context("the engine does not go")??;
        Ok(())
    }
}

/// The one child of a process that only waits for it, once it is there.
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
