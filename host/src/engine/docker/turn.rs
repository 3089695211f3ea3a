//! Containers that have started and wait for their turn. Starting one takes the engine longer than all else a step needs, so one with a script is
//! started ahead, and its shell reads a line from its input before it does anything else: [`when_its_turn_comes`].
//!
//! The line can come only over the connection on which the container was started. When that ends, with this process or by its will, the engine
//! closes the input, and the shell ends with [`NEVER`]. A shell whose turn has come says so ([`TURN`]) before the script begins. So whoever finds
//! such a container can tell whether its script may have begun: [`Docker::turn_of`].

use std::pin::pin;

use beespace_core::outcome::Stored;
use beespace_core::time::Timestamp;
use bollard::container::AttachContainerResults;
use bollard::models::ContainerState;
use bollard::query_parameters::{AttachContainerOptionsBuilder, LogsOptionsBuilder, StartContainerOptions};
use futures::{FutureExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;

use super::Docker;
use super::follow::{instant, stamped};
use super::waits::Wait;
use crate::engine::{EngineError, now};

/// What the shell prints when its turn has come. Not part of what the script says.
const TURN: &str = "beespace: its turn has come\n";

/// How a shell ends whose turn never came.
const NEVER: i64 = 253;

/// The command of a container that waits for its turn and then runs this one, which may be several, joined for a shell.
pub(super) fn when_its_turn_comes(command: &str) -> Vec<String> {
    let said = TURN.trim_end();
    let shell = format!(
        "trap 'exit {NEVER}' TERM; IFS= read -r BEESPACE_TURN || exit {NEVER}; unset BEESPACE_TURN; trap - TERM; echo '{said}'; \
         {command} </dev/null"
    );
    vec!["/bin/sh".to_owned(), "-c".to_owned(), shell]
}

/// What of a container's output is not to be sent, where this was: that its turn has come is not what the script says.
pub(super) fn beyond_turn(waited: bool, sent: Stored) -> Stored {
    let said = if waited { TURN.len() as u64 } else { 0 };
    Stored { stdout: sent.stdout.saturating_add(said), ..sent }
}

/// A container as the engine shows it.
pub(super) struct Look {
    pub(super) state: ContainerState,
    /// It begins with waiting for its turn.
    pub(super) waits: bool,
}

/// Whether the turn of a container has come.
pub(super) enum Turn {
    /// Or may have, as far as anybody can tell.
    Came(Timestamp),
    Never,
}

/// The line to a container whose turn has not come.
#[derive(Debug)]
pub(super) struct Held {
    line: AttachContainerResults,
    /// Whether it waits for a word on it; others begin with their start.
    waits: bool,
}

impl Held {
    /// Whether the engine still holds the other end. Says nothing of the container.
    pub(super) fn is_there(&mut self) -> bool {
        // Nothing is said on it before the turn, so what can be read is its end.
        self.line.output.next().now_or_never().is_none()
    }

    /// It is its turn. That the line is broken shows in how the container ends.
    pub(super) async fn let_begin(self) -> AttachContainerResults {
        let mut line = self.line;
        if self.waits {
            let _ = line.input.write_all(b"\n").await;
            let _ = line.input.shutdown().await;
        }
        line
    }
}

impl Docker {
    /// A line to a container that is not started yet: before the start, so that no byte is missed, and without `logs`, which would send some twice.
    pub(super) async fn attach(&self, name: &str, waits: bool) -> Result<Held, EngineError> {
        let api = self.client.api().await?;
        let options =
            AttachContainerOptionsBuilder::new().stdin(waits).stdout(true).stderr(true).stream(true).logs(false).build();
        let line = self.client.call("attach to a container", Wait::Quick, api.attach_container(name, Some(options))).await?;
        Ok(Held { line, waits })
    }

    pub(super) async fn ask_to_start(&self, name: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        self.client.call("start a container", Wait::Slow, api.start_container(name, None::<StartContainerOptions>)).await
    }

    /// Starts a container ahead of its turn.
    pub(super) async fn hold_back(&self, name: &str) -> Result<Held, EngineError> {
        let held = self.attach(name, true).await?;
        let _start = self.starts.acquire().await;
        self.ask_to_start(name).await?;
        Ok(held)
    }

    /// Whether the turn of a container that somebody else has started has come. One that still waits is ended, so that it cannot come any more: a
    /// line to it may be on its way.
    pub(super) async fn turn_of(&self, name: &str, look: &Look) -> Result<Turn, EngineError> {
        let started = look.state.started_at.as_deref().and_then(instant).unwrap_or_else(now);
        if !look.waits {
            return Ok(Turn::Came(started));
        }
        if let Some(at) = self.said_turn(name).await? {
            return Ok(Turn::Came(at));
        }
        if look.state.running != Some(true) {
            // Of one that was killed the engine's copy may have been lost with the engine.
            return Ok(if look.state.exit_code == Some(NEVER) { Turn::Never } else { Turn::Came(started) });
        }
        self.end_waiting(name).await?;
        Ok(self.said_turn(name).await?.map_or(Turn::Never, Turn::Came))
    }

    async fn end_waiting(&self, name: &str) -> Result<(), EngineError> {
        // An error here is one of a container that has just ended, or the next question runs into it, too.
        let _ = self.kill(name, "SIGKILL").await;
        match self.state(name).await? {
            Some(state) if state.running == Some(true) => {
                Err(EngineError::Unkillable { container: name.to_owned(), after: self.options.waits.quick })
            }
            _ => Ok(()),
        }
    }

    /// When a container's shell said that its turn has come.
    pub(super) async fn said_turn(&self, name: &str) -> Result<Option<Timestamp>, EngineError> {
        let api = self.client.api().await?;
        let options = LogsOptionsBuilder::new().stdout(true).timestamps(true).build();
        let mut lines = pin!(api.logs(name, Some(options)));
        let first = self.client.call("read a log", Wait::Quick, async { lines.next().await.transpose() }).await?;
        Ok(first.and_then(stamped).filter(|said| said.bytes == TURN).map(|said| said.at))
    }

    /// Whether a container that has ended did so without its turn.
    pub(super) async fn never_had_its_turn(&self, name: &str, state: &ContainerState) -> Result<bool, EngineError> {
        Ok(state.exit_code == Some(NEVER) && self.said_turn(name).await?.is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    fn shell(line: &[u8]) -> (Option<i32>, String) {
        let command = when_its_turn_comes("exec /bin/sh -c 'cat; echo ${BEESPACE_TURN-unset}'");
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env("BEESPACE_TURN", "mine")
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(line).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn a_shell_begins_with_a_line_and_never_without_one() {
        let never = i32::try_from(NEVER).ok();
        assert_eq!(shell(b"\nmore"), (Some(0), format!("{TURN}unset\n")));
        assert_eq!(shell(b""), (never, String::new()));
        assert_eq!(shell(b"half"), (never, String::new()));
    }

    /// Whether a process has a handler for TERM.
    fn heeds_term(process: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
    }

    #[tokio::test]
    async fn a_shell_that_is_told_to_end_before_its_turn_ends_without_one() {
        let command = when_its_turn_comes("echo on");
        let mut child =
            Command::new(&command[0]).args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        while !heeds_term(child.id()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let input = child.stdin.take();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
        let output = child.wait_with_output().unwrap();
        drop(input);
        assert_eq!((output.status.code(), &*output.stdout), (i32::try_from(NEVER).ok(), &b""[..]));
    }
}
