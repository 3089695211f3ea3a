//! Runs git: the environment, limits and timeout of a call.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use beespace_core::sanitize;
use bytes::BytesMut;
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

/// The largest chunk of stdout that is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// The bytes of stderr that are kept; the rest is discarded.
const STDERR_CAP: u64 = 64 * 1024;

/// Starts git under a limit of its data memory in KiB (`RLIMIT_DATA`), which the programs that git starts inherit. The limit does
/// not count mapped packs, as a limit of the address space would, so a pack may be larger. Why a shell? The limit has to be in
/// place before git reads the first byte of a repository, and only a fork of this whole process could set it otherwise.
const LIMIT_AND_RUN: &str = r#"ulimit -d "$1" && shift && exec "$@""#;
const SHELL: &str = "/bin/sh";
/// The exit codes of a shell that cannot start a program.
const NOT_STARTED: [i32; 2] = [126, 127];
/// The exit code of git's fatal errors.
const FATAL: i32 = 128;

/// Settings that bound git's memory: larger files are streamed and never loaded, and packs are mapped in small windows.
pub(super) const MEMORY_SETTINGS: [(&str, &str); 6] = [
    ("core.bigFileThreshold", "16m"),
    ("core.packedGitWindowSize", "32m"),
    ("core.packedGitLimit", "256m"),
    ("core.deltaBaseCacheLimit", "32m"),
    ("pack.threads", "2"),
    ("pack.windowMemory", "64m"),
];

/// The machine's git, without the machine's configuration.
#[derive(Debug, Clone)]
pub(super) struct Git {
    home: PathBuf,
    ca_file: Option<PathBuf>,
    /// The data memory that each process of a call may use, in bytes.
    pub(super) memory: u64,
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
    /// Settings of this call, which override those of all calls.
    settings: Vec<(&'static str, &'static str)>,
    timeout: Duration,
    /// The longest time without a byte from the forge; none for calls that end with their timeout.
    silence: Option<Duration>,
    input: Option<String>,
    /// The largest stdout, in bytes; more is an error.
    cap: u64,
}

/// How a call ended. A call that was killed is an error.
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
            settings: Vec::new(),
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

    pub(super) fn setting(mut self, key: &'static str, value: &'static str) -> Self {
        self.settings.push((key, value));
        self
    }

    pub(super) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(super) fn silence(self, limit: Duration) -> Self {
        Self { silence: Some(limit), ..self }
    }

    /// The text that git reads from its standard input.
    pub(super) fn input(self, text: String) -> Self {
        Self { input: Some(text), ..self }
    }

    pub(super) fn cap(self, cap: u64) -> Self {
        Self { cap, ..self }
    }

    /// The call as people read it: `git fetch`.
    fn name(&self) -> String {
        format!("git {}", self.arguments.first().map(|first| first.to_string_lossy()).unwrap_or_default())
    }
}

impl Git {
    pub(super) fn new(home: PathBuf, ca_file: Option<PathBuf>, memory: u64) -> Self {
        Self { home: absolute(home), ca_file: ca_file.map(absolute), memory }
    }

    /// Runs git in `directory`, a bare repository or a working tree.
    pub(super) async fn run(&self, directory: &Path, call: Call) -> Result<GitOutput, SourceError> {
        let mut stdout = Vec::new();
        let limit = call.cap;
        let cap = usize::try_from(limit).unwrap_or(usize::MAX);
        let streamed = self.stream(directory, call, |chunk| {
            stdout.extend_from_slice(chunk);
            stdout.len() <= cap
        });
        let ended = streamed.await?.ok_or(SourceError::TooLarge { limit })?;
        Ok(GitOutput { stdout, ..ended })
    }

    /// As [`Git::run`], but any exit code except 0 is an internal failure.
    pub(super) async fn run_checked(&self, directory: &Path, call: Call) -> Result<Vec<u8>, SourceError> {
        let name = call.name();
        let ran = self.run(directory, call).await?;
        ran.check(&name)?;
        Ok(ran.stdout)
    }

    /// Runs git and passes its stdout to `take` in chunks. Once `take` returns false, git is killed, and the result is none.
    pub(super) async fn stream(
        &self,
        directory: &Path,
        call: Call,
        take: impl FnMut(&[u8]) -> bool + Send,
    ) -> Result<Option<GitOutput>, SourceError> {
        let name = call.name();
        let mut child = self.command(directory, &call).spawn().map_err(|error| cannot_start(&error.to_string()))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let finished = tokio::time::timeout(call.timeout, async {
            // A child that prints too much would block on a full pipe, so it is not waited for: dropping it kills it.
            let ((), stderr, ()) = tokio::try_join!(
                read_chunks(stdout, take),
                read_and_discard(stderr, STDERR_CAP),
                write_input(stdin, call.input.as_deref())
            )?;
            Ok::<_, std::io::Error>((child.wait().await?, stderr))
        });
        match finished.await {
            Err(_) => Err(SourceError::TimedOut { what: name, after: call.timeout }),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::FileTooLarge => Ok(None),
            Ok(Err(error)) => Err(SourceError::internal(format!("{name}: {error}"))),
            Ok(Ok((status, stderr))) => {
                let stderr = String::from_utf8_lossy(&stderr).into_owned();
                self.check_end(name, call.reach, status, &stderr)?;
                Ok(Some(GitOutput { code: status.code(), stdout: Vec::new(), stderr }))
            }
        }
    }

    /// An error if git was not started, was killed, or ran out of memory.
    fn check_end(&self, what: String, reach: Reach, status: ExitStatus, stderr: &str) -> Result<(), SourceError> {
        if let Some(signal) = status.signal().or_else(|| signal_of_a_child(stderr, reach)) {
            return Err(SourceError::Killed { what, signal });
        }
        match status.code() {
            Some(code) if NOT_STARTED.contains(&code) => Err(cannot_start(stderr)),
            Some(FATAL) if is_out_of_memory(stderr, reach) => Err(SourceError::OutOfMemory { what, limit: self.memory }),
            _ => Ok(()),
        }
    }

    fn command(&self, directory: &Path, call: &Call) -> Command {
        let mut command = Command::new(SHELL);
        command.args(["-c", LIMIT_AND_RUN, "sh"]).arg((self.memory / 1024).to_string()).arg(PROGRAM.as_path());
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
        all.extend(MEMORY_SETTINGS.iter().chain(&call.settings).map(|(key, value)| (*key, OsString::from(value))));
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

impl GitOutput {
    /// An internal failure, unless git ended with 0.
    pub(super) fn check(&self, what: &str) -> Result<(), SourceError> {
        match self.code {
            Some(0) => Ok(()),
            code => {
                let code = code.unwrap_or_default();
                Err(SourceError::internal(format!("{what} ended with {code}: {}", sanitize::line(self.stderr.trim()))))
            }
        }
    }
}

fn cannot_start(error: &str) -> SourceError {
    SourceError::Internal(format!("cannot start git: {}", sanitize::line(error.trim())))
}

/// The lines of stderr that the programs of this machine wrote. A forge's lines are prefixed.
fn own_lines(stderr: &str, reach: Reach) -> impl Iterator<Item = &str> {
    stderr.lines().filter(move |line| !matches!(reach, Reach::Forge) || !line.starts_with("remote: "))
}

fn is_out_of_memory(stderr: &str, reach: Reach) -> bool {
    let texts = ["Out of memory", "out of memory", "Cannot allocate memory"];
    own_lines(stderr, reach).any(|line| texts.iter().any(|text| line.contains(text)))
}

/// The signal that killed a program which git started: `error: index-pack died of signal 9`.
fn signal_of_a_child(stderr: &str, reach: Reach) -> Option<i32> {
    own_lines(stderr, reach).find_map(|line| line.split_once(" died of signal ")?.1.trim().parse().ok())
}

/// Passes what is read to `take`, until that returns false, which is an error here.
async fn read_chunks(from: Option<impl AsyncRead + Unpin>, mut take: impl FnMut(&[u8]) -> bool) -> std::io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut chunk = BytesMut::with_capacity(CHUNK);
    while from.read_buf(&mut chunk).await? > 0 {
        if !take(&chunk) {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        chunk.clear();
    }
    Ok(())
}

async fn read_and_discard(from: Option<impl AsyncRead + Unpin>, cap: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(cap).read_to_end(&mut bytes).await?;
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(memory: u64) -> Git {
        Git::new(PathBuf::from("/nonexistent"), None, memory)
    }

    #[tokio::test]
    async fn a_call_that_needs_more_memory_than_its_limit_fails_with_that_reason() {
        let folder = tempfile::tempdir().unwrap();
        let init = Call::new(["init", "--quiet", "--template="]);
        git(1 << 30).run_checked(folder.path(), init).await.unwrap();
        std::fs::write(folder.path().join("large"), vec![b'x'; 64 << 20]).unwrap();
        let written = git(1 << 30).run_checked(folder.path(), Call::new(["hash-object", "-w", "--", "large"])).await.unwrap();
        let object = String::from_utf8(written).unwrap().trim().to_owned();
        // With the usual threshold, git would stream the file.
        let call = || Call::new(["cat-file", "--filters", "--path=large", &object]).setting("core.bigFileThreshold", "1g");
        assert_eq!(git(1 << 30).run_checked(folder.path(), call().cap(64 << 20)).await.unwrap().len(), 64 << 20);
        let failed = git(32 << 20).run_checked(folder.path(), call()).await.unwrap_err();
        assert_eq!(failed, SourceError::OutOfMemory { what: "git cat-file".to_owned(), limit: 32 << 20 });
        let text = failed.reason().to_string();
        assert!(text.contains("more than 32MiB of memory") && text.contains("`[limits] git_memory`"), "{text}");
        assert!(failed.is_refusal() && !failed.is_retryable());
    }

    #[test]
    fn a_killed_git_is_named_with_its_signal() {
        let end = |raw, stderr, reach| git(1 << 20).check_end("git fetch".to_owned(), reach, ExitStatus::from_raw(raw), stderr);
        let killed = SourceError::Killed { what: "git fetch".to_owned(), signal: 9 };
        assert_eq!(end(9, "", Reach::Disk), Err(killed.clone()));
        let child = "error: index-pack died of signal 9\nfatal: fetch-pack: invalid index-pack output";
        assert_eq!(end(FATAL << 8, child, Reach::Disk), Err(killed.clone()));
        let text = killed.reason().to_string();
        assert!(text.contains("git fetch was killed by signal 9") && text.contains("short of memory"), "{text}");
        // The forge's own troubles are not ours.
        assert_eq!(end(FATAL << 8, "remote: error: pack-objects died of signal 9\nremote: Out of memory", Reach::Forge), Ok(()));
        assert_eq!(end(0, "", Reach::Nothing), Ok(()));
        let missing = end(127 << 8, "sh: 1: exec: git: not found\n", Reach::Nothing).unwrap_err();
        assert_eq!(missing, SourceError::Internal("cannot start git: sh: 1: exec: git: not found".to_owned()));
    }
}
