//! Containers that are started early and wait for their start signal. Starting a container takes an engine longer than everything
//! else that a step needs, so a container with a script is started in advance: its shell reads a line from its input before it
//! does anything else ([`wait_for_start_signal`]).
//!
//! # How a later process knows whether the script has begun
//!
//! The line can arrive only over the connection that was attached before the start. When that connection ends, because this
//! process ends or closes it, the engine closes the input, and the shell exits with [`NEVER_STARTED`]. A shell that receives the
//! line prints [`START_MARKER`] before the script begins. A process that finds such a container searches its output for that line
//! and can therefore determine whether its script may have begun ([`started_at`]). Other output proves nothing, because a shell
//! may print warnings while it waits. In doubt, the script may have begun.

use std::pin::pin;
use std::time::Duration;

use beespace_core::exit::{Exit, ExitCause};
use beespace_core::output::Stream;
use beespace_core::plan::WORKSPACE;
use beespace_core::time::Timestamp;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error;
use bollard::models::Mount;
use bollard::query_parameters::{AttachContainerOptionsBuilder, LogsOptionsBuilder};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::containers::{ContainerInspect, Containers};
use super::output::parse_timestamped;
use super::timeouts::CallKind;
use crate::engine::EngineError;
use crate::engine::container_io::Output;

/// The line that the shell prints when the start signal has arrived. It is not part of the script's output.
const START_MARKER: &str = "beespace: started\n";

/// A waiting shell prints less than this before the marker. More output without a marker is that of a script whose first output
/// the engine has discarded.
const MARKER_WITHIN_BYTES: usize = 4 * 1024;

/// The exit code of a shell that did not receive the start signal.
const NEVER_STARTED: u8 = 253;

/// Interval at which a container that received a signal is inspected.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Variables that make a shell, or its dynamic loader, act or print something on their own.
const ACTIVE_VARIABLES: [&str; 5] = ["BASH_FUNC_", "BASH_XTRACEFD=", "LD_", "PS4=", "SHELLOPTS="];

/// Locales that practically every image has. For another one a shell may print a warning, which a container that is started early
/// would print twice.
const COMMON_LOCALES: [&str; 5] = ["", "C", "POSIX", "C.UTF-8", "C.utf8"];

/// A command that waits for the start signal and is then replaced by `command`.
pub(super) fn wait_for_start_signal(command: Vec<String>) -> Vec<String> {
    let marker = START_MARKER.trim_end();
    let shell = format!(
        "trap 'exit {NEVER_STARTED}' TERM; IFS= read -r BEESPACE_START_SIGNAL || exit {NEVER_STARTED}; \
         unset BEESPACE_START_SIGNAL; trap - TERM; echo '{marker}'; exec \"$@\" </dev/null"
    );
    let words = ["/bin/sh", "-c", &shell, "sh"].map(str::to_owned);
    words.into_iter().chain(command).collect()
}

/// Whether a container can be started early without a visible effect. At the start an engine makes the working directory and the
/// directories of mounts, and earlier steps may put something else in their place.
pub(super) fn may_defer(env: &[&str], workdir: Option<&str>, mounts: &[Mount], workspace: &str) -> bool {
    let target = |mount: &Mount| mount.target.clone().unwrap_or_default();
    let of_workspace = mounts.iter().filter(|mount| mount.source.as_deref() == Some(workspace)).map(target);
    let prefixes: Vec<String> = of_workspace.map(|path| format!("{}/", path.trim_end_matches('/'))).collect();
    let is_in_workspace = |path: &str| prefixes.iter().any(|prefix| path.starts_with(prefix.as_str()));
    let workdir = workdir.unwrap_or(WORKSPACE).trim_end_matches('/');
    !env.iter().any(|variable| is_active(variable))
        && !is_in_workspace(workdir)
        && !mounts.iter().map(target).any(|path| is_in_workspace(&path))
}

fn is_active(variable: &str) -> bool {
    let locale = variable.split_once('=').filter(|(name, _)| name.starts_with("LC_") || *name == "LANG");
    ACTIVE_VARIABLES.iter().any(|name| variable.starts_with(name))
        || locale.is_some_and(|(_, locale)| !COMMON_LOCALES.contains(&locale))
}

/// Removes the start marker from the output of a container whose start was deferred.
pub(super) fn strip_start_marker(is_deferred: bool) -> impl FnMut(Output) -> Output {
    let mut left = if is_deferred { MARKER_WITHIN_BYTES } else { 0 };
    move |mut output| {
        if left == 0 || output.stream != Stream::Stdout {
            return output;
        }
        match memchr::memmem::find(&output.bytes, START_MARKER.as_bytes()) {
            Some(at) => {
                left = 0;
                let mut rest = output.bytes.split_off(at);
                let _ = rest.split_to(START_MARKER.len());
                output.bytes = if at == 0 { rest } else { [&*output.bytes, &*rest].concat().into() };
            }
            None => left = left.saturating_sub(output.bytes.len()),
        }
        output
    }
}

/// Whether the program of a container has begun.
enum StartState {
    /// It has begun at this time, or may have.
    Started(Timestamp),
    NeverStarted,
}

/// The connection to a container whose program has not begun.
#[derive(Debug)]
pub(super) struct DeferredStart {
    attached: AttachContainerResults,
    /// The program waits for the start signal; other programs begin when their container starts.
    is_deferred: bool,
    waiting_since: Instant,
    /// Output that was read before the start signal: warnings of the shell.
    early_output: Vec<LogOutput>,
}

impl DeferredStart {
    /// Attaches to a container that has not been started: before the start, so that no byte is missed, and without `logs`, which
    /// would send some bytes twice.
    pub(super) async fn attach(containers: &Containers, name: &str, is_deferred: bool) -> Result<Self, EngineError> {
        let client = containers.client();
        let api = client.api().await?;
        let options =
            AttachContainerOptionsBuilder::new().stdin(is_deferred).stdout(true).stderr(true).stream(true).logs(false).build();
        let attach = api.attach_container(name, Some(options));
        let attached = client.call("attach to a container", CallKind::Quick, attach).await?;
        Ok(Self { attached, is_deferred, waiting_since: Instant::now(), early_output: Vec::new() })
    }

    /// Starts the container. The caller has a permit.
    pub(super) async fn start(&mut self, containers: &Containers, name: &str) -> Result<(), EngineError> {
        containers.start(name).await?;
        self.waiting_since = Instant::now();
        Ok(())
    }

    /// Starts a container early, unless the engine is busy with starts that others wait for.
    pub(super) async fn start_early(containers: &Containers, name: &str) -> Result<Option<Self>, EngineError> {
        let Ok(_permit) = containers.early_start_permit() else { return Ok(None) };
        let mut start = Self::attach(containers, name, true).await?;
        start.start(containers, name).await?;
        Ok(Some(start))
    }

    /// Whether the engine still has the other end of the connection. This does not show the state of the container.
    pub(super) fn is_connected(&mut self) -> bool {
        while let Some(next) = self.attached.output.next().now_or_never() {
            let Some(Ok(output)) = next else { return false };
            self.early_output.push(output);
        }
        true
    }

    /// How long the program has waited for the start signal.
    pub(super) fn waited(&self) -> Duration {
        if self.is_deferred { self.waiting_since.elapsed() } else { Duration::ZERO }
    }

    /// The container's first output. `None` if the container exits, or prints nothing within the time limit.
    pub(super) async fn first_output(&mut self, limit: Duration) -> Option<Bytes> {
        timeout(limit, self.attached.output.next()).await.ok()??.ok().map(LogOutput::into_bytes)
    }

    /// Sends the start signal and returns the container's output. If the connection is broken, the container's exit shows it.
    pub(super) async fn send_start_signal(self) -> impl futures::Stream<Item = Result<LogOutput, Error>> + Send {
        let mut attached = self.attached;
        if self.is_deferred {
            let _ = attached.input.write_all(b"\n").await;
            let _ = attached.input.shutdown().await;
        }
        // The input is kept for as long as the output: without it, the connection ends.
        let input = attached.input;
        let output = attached.output.inspect(move |_| {
            let _ = &input;
        });
        stream::iter(self.early_output.into_iter().map(Ok)).chain(output)
    }
}

/// Whether the program of a container that another process has started has begun. A program that may still be waiting is stopped,
/// so that it can no longer begin: a start signal may be on its way.
async fn start_state(containers: &Containers, name: &str, inspect: &ContainerInspect) -> Result<StartState, EngineError> {
    if !inspect.is_deferred {
        return Ok(StartState::Started(inspect.started_at()));
    }
    if let Some(at) = start_marker_at(containers, name).await? {
        return Ok(StartState::Started(at));
    }
    let code = if inspect.is_running() { stop_deferred(containers, name).await? } else { inspect.state.exit_code };
    // With any other exit code the program may have begun: an engine that was killed may have lost its copy of the output.
    Ok(match start_marker_at(containers, name).await? {
        None if code == Some(NEVER_STARTED.into()) => StartState::NeverStarted,
        at => StartState::Started(at.unwrap_or_else(|| inspect.started_at())),
    })
}

/// When the program of an existing container has begun, if it has, or may have.
pub(super) async fn started_at(
    containers: &Containers,
    name: &str,
    inspect: &ContainerInspect,
) -> Result<Option<Timestamp>, EngineError> {
    if inspect.is_created() {
        return Ok(None);
    }
    match start_state(containers, name, inspect).await? {
        StartState::Started(at) => Ok(Some(at)),
        StartState::NeverStarted => Ok(None),
    }
}

/// Sends TERM, on which a waiting shell exits with [`NEVER_STARTED`], and KILL to any other program. Returns the exit code.
async fn stop_deferred(containers: &Containers, name: &str) -> Result<Option<i64>, EngineError> {
    let after_kill = containers.client().timeouts().after_kill;
    for (signal, limit) in [("SIGTERM", containers.grace()), ("SIGKILL", after_kill)] {
        // Any other error means that the container has just exited.
        if let Err(error @ (EngineError::Unreachable { .. } | EngineError::TimedOut { .. })) = containers.kill(name, signal).await
        {
            return Err(error);
        }
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            match containers.state(name).await? {
                Some(state) if state.running == Some(true) => sleep(POLL_INTERVAL).await,
                state => return Ok(state.and_then(|state| state.exit_code)),
            }
        }
    }
    Err(EngineError::Unkillable { container: name.to_owned(), after: after_kill })
}

/// When the program of a container with a deferred start began, according to the engine's copy of its output. `None` if it has
/// not begun, or if the copy is incomplete.
pub(super) async fn start_marker_at(containers: &Containers, name: &str) -> Result<Option<Timestamp>, EngineError> {
    let client = containers.client();
    let api = client.api().await?;
    let options = LogsOptionsBuilder::new().stdout(true).timestamps(true).build();
    let mut lines = pin!(api.logs(name, Some(options)));
    let mut left = MARKER_WITHIN_BYTES;
    let search = async {
        while let Some(line) = lines.next().await.transpose()? {
            let Some(output) = parse_timestamped(line) else { continue };
            left = left.saturating_sub(output.bytes.len());
            if left == 0 || output.bytes.ends_with(START_MARKER.as_bytes()) {
                return Ok(Some(output.at));
            }
        }
        Ok(None)
    };
    client.call("read a log", CallKind::Quick, search).await
}

/// Whether a container had already exited when this process sent its start signal: the waiting shell's exit code without the
/// marker.
pub(super) async fn never_started(containers: &Containers, name: &str, exit: &Exit) -> Result<bool, EngineError> {
    let is_never = exit.cause == ExitCause::Exited && exit.code == Some(NEVER_STARTED.into());
    Ok(is_never && start_marker_at(containers, name).await?.is_none())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::clock::now;
    use crate::engine::docker::mounts::volume_mount;

    fn waiting(script: &str) -> Command {
        let words = wait_for_start_signal(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).env("BEESPACE_START_SIGNAL", "mine");
        command
    }

    fn run_with_input(input: &[u8]) -> (Option<i32>, String) {
        let mut child = waiting("cat; echo ${BEESPACE_START_SIGNAL-unset} \"$#\"").spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn a_shell_begins_after_a_line_and_never_without_one() {
        assert_eq!(run_with_input(b"\nmore"), (Some(0), format!("{START_MARKER}unset 0\n")));
        assert_eq!(run_with_input(b""), (Some(NEVER_STARTED.into()), String::new()));
        assert_eq!(run_with_input(b"half"), (Some(NEVER_STARTED.into()), String::new()));
    }

    /// Whether a process has a handler for TERM.
    fn handles_term(process: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
    }

    #[tokio::test]
    async fn a_waiting_shell_exits_on_term_without_output() {
        let mut child = waiting("echo on").spawn().unwrap();
        while !handles_term(child.id()) {
            sleep(Duration::from_millis(5)).await;
        }
        let input = child.stdin.take();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
        let output = child.wait_with_output().unwrap();
        drop(input);
        assert_eq!((output.status.code(), &*output.stdout), (Some(NEVER_STARTED.into()), &b""[..]));
    }

    #[test]
    fn only_a_start_without_visible_effects_may_be_deferred() {
        let workspace = volume_mount("w", WORKSPACE, false);
        let may = |env: &str, workdir, other: &str| {
            may_defer(&[env], workdir, &[workspace.clone(), volume_mount("files", other, true)], "w")
        };
        assert!(may("A=b", None, "/.beespace"));
        assert!(may("A=b", Some("/workspace"), "/run/secrets"));
        assert!(may("A=LD_PRELOAD=x", Some("/srv"), "/workspaces/x"));
        assert!(!may("A=b", Some("/workspace/dist"), "/.beespace"));
        assert!(!may("A=b", None, "/workspace/.key"));
        for env in
            ["BASH_FUNC_read%%=() { :; }", "LD_PRELOAD=/workspace/x.so", "SHELLOPTS=xtrace", "PS4=$(x)", "LC_ALL=xx_YY.UTF-8"]
        {
            assert!(!may(env, None, "/.beespace"), "{env}");
        }
        assert!(may("LANG=C.UTF-8", None, "/.beespace") && may("LANGUAGE=de", None, "/.beespace"));
    }

    #[test]
    fn the_start_marker_is_not_part_of_the_output() {
        let output = |stream, text: &str| Output { stream, at: now(), bytes: Bytes::copy_from_slice(text.as_bytes()) };
        let mut strip = strip_start_marker(true);
        let mut stripped = |stream, text: &str| strip(output(stream, text)).bytes;
        assert_eq!(stripped(Stream::Stderr, START_MARKER), START_MARKER);
        assert_eq!(stripped(Stream::Stdout, &format!("{START_MARKER}on")), "on");
        assert_eq!(stripped(Stream::Stdout, START_MARKER), START_MARKER, "only once");
        assert_eq!(strip_start_marker(true)(output(Stream::Stdout, "other")).bytes, "other");
        let mut after_warnings = strip_start_marker(true);
        let mut stripped = |text: &str| after_warnings(output(Stream::Stdout, text)).bytes;
        assert_eq!(stripped("loaded x\n"), "loaded x\n");
        assert_eq!(stripped(&format!("loaded y\n{START_MARKER}on")), "loaded y\non");
        assert_eq!(stripped(START_MARKER), START_MARKER, "only once");
        assert_eq!(strip_start_marker(false)(output(Stream::Stdout, START_MARKER)).bytes, START_MARKER);
    }
}
