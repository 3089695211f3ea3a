//! Containers that have started and wait for their turn. Starting one takes the engine longer than all else a step needs, so one with a script is
//! started ahead, and its shell reads a line from its input before it does anything else: [`wait_for_start_signal`].
//!
//! The line can come only over the connection on which the container was started. When that ends, with this process or by its will, the engine
//! closes the input, and the shell ends with [`NEVER_STARTED`]. A shell whose turn has come says so ([`START_MARKER`]) before the script begins, and no shell says
//! anything before that. So whoever finds such a container can tell whether its script may have begun: [`Docker::start_state`]. In doubt it may.

use std::pin::pin;
use std::time::Duration;

use beespace_core::exit::{Exit, ExitCause};
use beespace_core::output::Stream;
use beespace_core::plan::WORKSPACE;
use beespace_core::time::Timestamp;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::models::{ContainerState, Mount};
use bollard::query_parameters::{AttachContainerOptionsBuilder, LogsOptionsBuilder, StartContainerOptions};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::Docker;
use super::supervise::{parse_time, parse_timestamped};
use super::timeouts::CallKind;
use crate::engine::{EngineError, Output, now};

/// What the shell prints when its turn has come. Not part of what the script says.
const START_MARKER: &str = "beespace: its turn has come\n";

/// How a shell ends whose turn never came.
const NEVER_STARTED: u8 = 253;

/// Between two looks at a container that was told to end.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Variables that make a shell, or what loads it, do or say something by themselves.
const ACTIVE_VARIABLES: [&str; 5] = ["BASH_FUNC_", "BASH_XTRACEFD=", "LD_", "PS4=", "SHELLOPTS="];

/// A command that waits for its turn and then becomes this one.
pub(super) fn wait_for_start_signal(command: Vec<String>) -> Vec<String> {
    let said = START_MARKER.trim_end();
    let shell = format!(
        "trap 'exit {NEVER_STARTED}' TERM; IFS= read -r BEESPACE_TURN || exit {NEVER_STARTED}; unset BEESPACE_TURN; trap - TERM; echo '{said}'; \
         exec \"$@\" </dev/null"
    );
    let words = ["/bin/sh", "-c", &shell, "sh"].map(str::to_owned);
    words.into_iter().chain(command).collect()
}

/// Whether nothing is felt of a container that has started and waits: an engine makes the directory that it starts in and those where something is
/// mounted, and steps before it may put others in their place.
pub(super) fn may_defer(env: &[String], workdir: Option<&str>, mounts: &[Mount], workspace: &str) -> bool {
    let target = |mount: &Mount| mount.target.clone().unwrap_or_default();
    let of_workspace = mounts.iter().filter(|mount| mount.source.as_deref() == Some(workspace)).map(target);
    let below: Vec<String> = of_workspace.map(|path| format!("{}/", path.trim_end_matches('/'))).collect();
    let is_below = |path: &str| below.iter().any(|directory| path.starts_with(directory.as_str()));
    let workdir = workdir.unwrap_or(WORKSPACE).trim_end_matches('/');
    let acts = |variable: &String| ACTIVE_VARIABLES.iter().any(|name| variable.starts_with(name));
    !env.iter().any(acts) && !is_below(workdir) && !mounts.iter().map(target).any(|path| is_below(&path))
}

/// Takes off what is not the script's: that its turn has come.
pub(super) fn strip_start_marker(waited: bool) -> impl FnMut(Output) -> Output {
    let mut is_first = waited;
    move |mut output| {
        if output.stream == Stream::Stdout && std::mem::take(&mut is_first) && output.bytes.starts_with(START_MARKER.as_bytes()) {
            let _ = output.bytes.split_to(START_MARKER.len());
        }
        output
    }
}

/// A container as the engine shows it.
pub(super) struct ContainerInspect {
    pub(super) state: ContainerState,
    /// It begins with waiting for its turn.
    pub(super) waits: bool,
}

impl ContainerInspect {
    pub(super) fn is_running(&self) -> bool {
        self.state.running == Some(true)
    }

    pub(super) fn started_at(&self) -> Timestamp {
        self.state.started_at.as_deref().and_then(parse_time).unwrap_or_else(now)
    }
}

/// Whether the turn of a container has come.
pub(super) enum StartState {
    /// Or may have, as far as anybody can tell.
    Started(Timestamp),
    NeverStarted,
}

/// The line to a container whose turn has not come.
#[derive(Debug)]
pub(super) struct DeferredStart {
    attached: AttachContainerResults,
    /// Whether it waits for a word on it; others begin with their start.
    is_deferred: bool,
    /// Since when it has waited.
    waiting_since: Instant,
}

impl DeferredStart {
    /// Whether the engine still holds the other end. Says nothing of the container.
    pub(super) fn is_connected(&mut self) -> bool {
        // Nothing is said on it before the turn, so what can be read is its end.
        self.attached.output.next().now_or_never().is_none()
    }

    pub(super) fn waited(&self) -> Duration {
        if self.is_deferred { self.waiting_since.elapsed() } else { Duration::ZERO }
    }

    /// What the container says first. `None` where it ends, or too long says nothing.
    pub(super) async fn first_word(&mut self, patience: Duration) -> Option<Bytes> {
        timeout(patience, self.attached.output.next()).await.ok()??.ok().map(LogOutput::into_bytes)
    }

    /// It is its turn. That the line is broken shows in how the container ends.
    pub(super) async fn send_start_signal(self) -> AttachContainerResults {
        let mut line = self.attached;
        if self.is_deferred {
            let _ = line.input.write_all(b"\n").await;
            let _ = line.input.shutdown().await;
        }
        line
    }
}

impl Docker {
    /// A line to a container that is not started yet: before the start, so that no byte is missed, and without `logs`, which would send some twice.
    pub(super) async fn attach(&self, name: &str, waits: bool) -> Result<DeferredStart, EngineError> {
        let api = self.client.api().await?;
        let options =
            AttachContainerOptionsBuilder::new().stdin(waits).stdout(true).stderr(true).stream(true).logs(false).build();
        let line = self.client.call("attach to a container", CallKind::Quick, api.attach_container(name, Some(options))).await?;
        Ok(DeferredStart { attached: line, is_deferred: waits, waiting_since: Instant::now() })
    }

    pub(super) async fn start(&self, name: &str, held: &mut DeferredStart) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        self.client.call("start a container", CallKind::Slow, api.start_container(name, None::<StartContainerOptions>)).await?;
        held.waiting_since = Instant::now();
        Ok(())
    }

    /// Starts a container ahead of its turn, unless the engine is busy with starts that somebody waits for.
    pub(super) async fn hold_back(&self, name: &str) -> Result<Option<DeferredStart>, EngineError> {
        if self.start_permits.available_permits() <= self.max_concurrent_starts / 2 {
            return Ok(None);
        }
        let Ok(_start) = self.start_permits.try_acquire() else { return Ok(None) };
        let mut held = self.attach(name, true).await?;
        self.start(name, &mut held).await?;
        Ok(Some(held))
    }

    /// Whether the turn of a container that somebody else has started has come. One that may still wait is told to end, so that it cannot come any
    /// more: a word to it may be on its way.
    pub(super) async fn start_state(&self, name: &str, look: &ContainerInspect) -> Result<StartState, EngineError> {
        if !look.waits {
            return Ok(StartState::Started(look.started_at()));
        }
        if let Some(at) = self.first_word(name).await? {
            return Ok(StartState::Started(at));
        }
        let code = if look.is_running() { self.stop_deferred(name).await? } else { look.state.exit_code };
        // With any other end it may have begun: an engine that was killed may have lost its copy of what was said.
        Ok(match self.first_word(name).await? {
            None if code == Some(NEVER_STARTED.into()) => StartState::NeverStarted,
            at => StartState::Started(at.unwrap_or_else(|| look.started_at())),
        })
    }

    /// TERM, which a waiting shell heeds with [`NEVER_STARTED`], and KILL for what is no waiting shell. With what code it ended.
    async fn stop_deferred(&self, name: &str) -> Result<Option<i64>, EngineError> {
        for (signal, patience) in [("SIGTERM", self.options.grace), ("SIGKILL", self.options.waits.after_kill)] {
            // Any other error is one of a container that has just ended.
            if let Err(trouble @ (EngineError::Unreachable { .. } | EngineError::TimedOut { .. })) = self.kill(name, signal).await
            {
                return Err(trouble);
            }
            let until = Instant::now() + patience;
            while Instant::now() < until {
                match self.state(name).await? {
                    Some(state) if state.running == Some(true) => sleep(POLL_INTERVAL).await,
                    state => return Ok(state.and_then(|state| state.exit_code)),
                }
            }
        }
        Err(EngineError::Unkillable { container: name.to_owned(), after: self.options.waits.after_kill })
    }

    /// When a container said its first word: of one that waits, that its turn has come.
    pub(super) async fn first_word(&self, name: &str) -> Result<Option<Timestamp>, EngineError> {
        let api = self.client.api().await?;
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true).build();
        let mut lines = pin!(api.logs(name, Some(options)));
        let first = self.client.call("read a log", CallKind::Quick, async { lines.next().await.transpose() }).await?;
        Ok(first.map(|line| parse_timestamped(line).map_or_else(now, |said| said.at)))
    }

    /// Whether a container that this process wanted to begin had ended before.
    pub(super) async fn never_started(&self, name: &str, exit: &Exit) -> Result<bool, EngineError> {
        let is_never = exit.cause == ExitCause::Exited && exit.code == Some(NEVER_STARTED.into());
        Ok(is_never && self.first_word(name).await?.is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::engine::docker::stage::volume_mount;
    use beespace_core::output::Stream;

    fn waiting(script: &str) -> Command {
        let words = wait_for_start_signal(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).env("BEESPACE_TURN", "mine");
        command
    }

    fn shell(line: &[u8]) -> (Option<i32>, String) {
        let mut child = waiting("cat; echo ${BEESPACE_TURN-unset} \"$#\"").spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(line).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn a_shell_begins_with_a_line_and_never_without_one() {
        assert_eq!(shell(b"\nmore"), (Some(0), format!("{START_MARKER}unset 0\n")));
        assert_eq!(shell(b""), (Some(NEVER_STARTED.into()), String::new()));
        assert_eq!(shell(b"half"), (Some(NEVER_STARTED.into()), String::new()));
    }

    /// Whether a process has a handler for TERM.
    fn heeds_term(process: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
    }

    #[tokio::test]
    async fn a_shell_that_is_told_to_end_before_its_turn_ends_without_one() {
        let mut child = waiting("echo on").spawn().unwrap();
        while !heeds_term(child.id()) {
            sleep(Duration::from_millis(5)).await;
        }
        let input = child.stdin.take();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
        let output = child.wait_with_output().unwrap();
        drop(input);
        assert_eq!((output.status.code(), &*output.stdout), (Some(NEVER_STARTED.into()), &b""[..]));
    }

    #[test]
    fn only_what_is_not_felt_may_wait() {
        let workspace = volume_mount("w", WORKSPACE, false);
        let may = |env: &str, workdir, other: &str| {
            may_defer(&[env.to_owned()], workdir, &[workspace.clone(), volume_mount("files", other, true)], "w")
        };
        assert!(may("A=b", None, "/.beespace"));
        assert!(may("A=b", Some("/workspace"), "/run/secrets"));
        assert!(may("A=LD_PRELOAD=x", Some("/srv"), "/workspaces/x"));
        assert!(!may("A=b", Some("/workspace/dist"), "/.beespace"));
        assert!(!may("A=b", None, "/workspace/.key"));
        for env in ["BASH_FUNC_read%%=() { :; }", "LD_PRELOAD=/workspace/x.so", "SHELLOPTS=xtrace", "PS4=$(x)"] {
            assert!(!may(env, None, "/.beespace"), "{env}");
        }
    }

    #[test]
    fn that_its_turn_has_come_is_not_what_the_script_says() {
        let piece = |stream, text: &str| Output { stream, at: now(), bytes: Bytes::copy_from_slice(text.as_bytes()) };
        let mut strip = strip_start_marker(true);
        let mut said = |stream, text: &str| strip(piece(stream, text)).bytes;
        assert_eq!(said(Stream::Stderr, START_MARKER), START_MARKER);
        assert_eq!(said(Stream::Stdout, &format!("{START_MARKER}on")), "on");
        assert_eq!(said(Stream::Stdout, START_MARKER), START_MARKER, "once");
        assert_eq!(strip_start_marker(true)(piece(Stream::Stdout, "other")).bytes, "other");
        assert_eq!(strip_start_marker(false)(piece(Stream::Stdout, START_MARKER)).bytes, START_MARKER);
    }
}
