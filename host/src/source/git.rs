//! Runs git: the environment, limits and timeout of a call.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;

use beespace_core::sanitize;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::Command;

use super::{SourceError, absolute};

/// The machine's git, by its path. A call by name would fork this whole process first: with an environment of its own, a
/// name is looked up only after the fork.
pub static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join("git"));
    candidates.find(|candidate| candidate.is_file()).unwrap_or_else(|| PathBuf::from("git"))
});

/// The bytes of stderr that are kept; the rest is discarded.
const STDERR_CAP: u64 = 64 * 1024;

/// The machine's git, without the machine's configuration.
#[derive(Debug, Clone)]
pub(super) struct Git {
    home: PathBuf,
    ca_file: Option<PathBuf>,
}

/// The transports that a call may use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reach {
    /// None: only local objects and refs.
    Nothing,
    /// Another repository on this disk.
    Disk,
    /// The forge.
    Forge,
}

impl Reach {
    fn protocols(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Disk => "file",
            Self::Forge => "http:https",
        }
    }
}

/// One call of git.
#[derive(Debug)]
pub(super) struct Call {
    arguments: Vec<OsString>,
    reach: Reach,
    authorization: Option<SecretString>,
    timeout: Duration,
    /// The longest time without a byte from the forge; none for calls that end with their timeout.
    silence: Option<Duration>,
    input: Option<String>,
    /// The largest stdout, in bytes; more is an error.
    cap: u64,
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct GitOutput {
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

impl Call {
    /// `arguments` are passed on as they are, without a shell.
    pub(super) fn new<I: Into<OsString>>(arguments: impl IntoIterator<Item = I>) -> Self {
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            reach: Reach::Nothing,
            authorization: None,
            timeout: Duration::from_secs(60),
            silence: None,
            input: None,
            cap: 1024 * 1024,
        }
    }

    pub(super) fn reach(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// The value of the `Authorization` header. It is passed through the environment, because every user can read a command line.
    pub(super) fn authorization(self, header: SecretString) -> Self {
        Self { authorization: Some(header), ..self }
    }

    pub(super) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(super) fn silence(self, limit: Duration) -> Self {
        Self { silence: Some(limit), ..self }
    }

    /// What git reads from its standard input.
    pub(super) fn input(self, text: String) -> Self {
        Self { input: Some(text), ..self }
    }

    pub(super) fn cap(self, cap: u64) -> Self {
        Self { cap, ..self }
    }
}

impl Git {
    pub(super) fn new(home: PathBuf, ca_file: Option<PathBuf>) -> Self {
        Self { home: absolute(home), ca_file: ca_file.map(absolute) }
    }

    /// Runs git in `directory`, a bare repository or a working tree.
    pub(super) async fn run(&self, directory: &Path, call: Call) -> Result<GitOutput, SourceError> {
        let what = call.arguments.first().map(|first| first.to_string_lossy().into_owned()).unwrap_or_default();
        let mut command = self.command(directory, &call);
        let mut child = command.spawn().map_err(|error| SourceError::Internal(format!("cannot start git: {error}")))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let finished = tokio::time::timeout(call.timeout, async {
            // A child that prints too much would block on a full pipe, so it is not waited for: dropping it kills it.
            let (stdout, stderr, ()) = tokio::try_join!(
                read_to_cap(stdout, call.cap),
                read_and_discard(stderr, STDERR_CAP),
                write_input(stdin, call.input.as_deref())
            )?;
            Ok::<_, std::io::Error>((child.wait().await?, stdout, stderr))
        });
        match finished.await {
            Err(_) => Err(SourceError::TimedOut { what: format!("git {what}"), after: call.timeout }),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::FileTooLarge => Err(SourceError::TooLarge { limit: call.cap }),
            Ok(Err(error)) => Err(SourceError::internal(format!("git {what}: {error}"))),
            Ok(Ok((status, stdout, stderr))) => {
                Ok(GitOutput { code: status.code(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
            }
        }
    }

    /// As [`Git::run`], but any exit code except 0 is an internal failure.
    pub(super) async fn run_checked(&self, directory: &Path, call: Call) -> Result<Vec<u8>, SourceError> {
        let what = call.arguments.first().map(|first| first.to_string_lossy().into_owned()).unwrap_or_default();
        let ran = self.run(directory, call).await?;
        match ran.code {
            Some(0) => Ok(ran.stdout),
            code => Err(SourceError::internal(format!("git {what} ended with {code:?}: {}", sanitize::line(ran.stderr.trim())))),
        }
    }

    fn command(&self, directory: &Path, call: &Call) -> Command {
        let mut command = Command::new(PROGRAM.as_path());
        command.args(&call.arguments).current_dir(directory);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs([
            ("HOME", self.home.as_os_str()),
            ("LC_ALL", OsStr::new("C")),
            ("GIT_CONFIG_NOSYSTEM", OsStr::new("1")),
            ("GIT_CONFIG_GLOBAL", OsStr::new("/dev/null")),
            ("GIT_ATTR_NOSYSTEM", OsStr::new("1")),
            ("GIT_TERMINAL_PROMPT", OsStr::new("0")),
            ("GIT_ASKPASS", OsStr::new("false")),
            ("SSH_ASKPASS", OsStr::new("false")),
            ("GIT_SSH_COMMAND", OsStr::new("false")),
            ("GIT_ALLOW_PROTOCOL", OsStr::new(call.reach.protocols())),
            ("GIT_LITERAL_PATHSPECS", OsStr::new("1")),
            ("GIT_NO_REPLACE_OBJECTS", OsStr::new("1")),
            ("GIT_LFS_SKIP_SMUDGE", OsStr::new("1")),
            ("GIT_CEILING_DIRECTORIES", directory.parent().unwrap_or(directory).as_os_str()),
        ]);
        let configuration = self.configuration(call);
        command.env("GIT_CONFIG_COUNT", configuration.len().to_string());
        for (index, (key, value)) in configuration.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        command.stdin(if call.input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    fn configuration(&self, call: &Call) -> Vec<(&'static str, OsString)> {
        let mut all: Vec<(&'static str, OsString)> = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.protectHFS", "true"),
            ("core.protectNTFS", "true"),
            ("credential.helper", ""),
            ("gc.autoDetach", "false"),
            ("maintenance.autoDetach", "false"),
            ("http.followRedirects", "false"),
            ("advice.detachedHead", "false"),
        ]
        .map(|(key, value)| (key, OsString::from(value)))
        .into();
        if let Some(limit) = call.silence {
            // Less than one byte per second.
            all.push(("http.lowSpeedLimit", "1".into()));
            all.push(("http.lowSpeedTime", limit.as_secs().max(1).to_string().into()));
        }
        if let Some(file) = &self.ca_file {
            all.push(("http.sslCAInfo", file.into()));
            all.push(("http.sslCAPath", "/etc/ssl/certs".into()));
        }
        if let Some(header) = &call.authorization {
            all.push(("http.extraHeader", format!("Authorization: {}", header.expose_secret()).into()));
        }
        all
    }
}

async fn write_input(to: Option<impl AsyncWrite + Unpin>, input: Option<&str>) -> std::io::Result<()> {
    let (Some(mut to), Some(input)) = (to, input) else { return Ok(()) };
    match to.write_all(input.as_bytes()).await {
        // git stopped reading because of an error, which its exit code and stderr report.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

async fn read_to_cap(from: Option<impl AsyncRead + Unpin>, cap: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(cap.saturating_add(1)).read_to_end(&mut bytes).await?;
    }
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > cap {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

async fn read_and_discard(from: Option<impl AsyncRead + Unpin>, cap: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(cap).read_to_end(&mut bytes).await?;
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}
