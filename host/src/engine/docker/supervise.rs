//! Supervision of a running container: its output, its exit, and stopping it.
//!
//! Three things happen at the same time, and none relies on another: output is forwarded, the engine is asked whether the
//! container still runs, and cancel and timeout are awaited. The end of the output does not mean that the container has exited
//! (the output also ends when the engine restarts), and the exit of the container does not mean that all output has arrived.

use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use beespace_core::exit::{EXIT_CODE_SIGKILL, EXIT_CODE_SIGTERM, Exit, ExitCause, ExitObservers, ObservedExit, StopCause};
use beespace_core::output::OutputOffsets;
use beespace_core::time::Timestamp;
use bollard::errors::Error;
use bollard::models::ContainerState;
use bollard::query_parameters::{EventsOptionsBuilder, LogsOptionsBuilder, WaitContainerOptionsBuilder};
use futures::StreamExt as _;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::containers::Containers;
use super::forward_output::{Frames, OutputForwarder, RETRY_DELAY};
use super::output::parse_time;
use super::timeouts::CallKind;
use crate::clock::now;
use crate::engine::EngineError;
use crate::engine::container_io::OutputSender;

/// How often a loaded engine is queried again for the reason why a container was killed.
const OOM_CHECKS: usize = 10;

/// A started container under supervision.
#[derive(Debug)]
pub(super) struct Supervised<'a> {
    pub(super) containers: &'a Containers,
    pub(super) name: &'a str,
    /// Its id in the plan.
    pub(super) container: &'a str,
    /// When its program began.
    pub(super) started_at: Timestamp,
    pub(super) timeout: Option<Duration>,
    /// Its process limit.
    pub(super) pids: u32,
    /// Its program waited for the start signal.
    pub(super) is_deferred: bool,
    /// How long it waited.
    pub(super) waited: Duration,
    /// It had exited before the supervision began.
    pub(super) had_exited: bool,
}

/// The state of a container that no longer runs.
struct Ended {
    /// `None` if the container is gone.
    state: Option<ContainerState>,
    /// The engine was unreachable at some time during the supervision.
    was_interrupted: bool,
}

impl Supervised<'_> {
    /// Supervises the container until it exits. `sent` is the output that the receiver already has.
    pub(super) async fn until_exit(
        &self,
        source: Frames<'_>,
        sent: OutputOffsets,
        output: &OutputSender,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        // Forward output, wait for the exit, and stop the container on cancel or timeout, all at the same time.
        let forwarder = OutputForwarder::new(self.containers, self.name, self.is_deferred, output);
        let mut forwarding = pin!(forwarder.run(source, sent));
        let mut end = pin!(self.wait_for_exit());
        let mut stop = pin!(self.stop_cause(cancel));
        let mut stopping = pin!(self.stop());
        let (mut is_forwarded, mut stopped) = (false, None);
        let ended = loop {
            tokio::select! {
                ended = &mut end => break ended?,
                () = &mut forwarding, if !is_forwarded => is_forwarded = true,
                cause = &mut stop, if stopped.is_none() => stopped = Some(cause),
                error = &mut stopping, if stopped.is_some() => return Err(error),
            }
        };

        // Forward the rest of the output.
        forwarder.exited.cancel();
        if stopped.is_some() || ended.state.is_none() {
            forwarder.give_up.cancel();
        }
        if !is_forwarded {
            tokio::select! {
                () = &mut forwarding => {}
                () = cancel.cancelled() => {
                    forwarder.give_up.cancel();
                    forwarding.await;
                }
            }
        }

        // Find out how the container ended.
        let Some(mut state) = ended.state else { return Ok(Exit::lost(self.container)) };
        if stopped.is_none() && may_be_out_of_memory(&state) {
            state = self.with_late_oom_report(state).await;
        }
        if stopped.is_none()
            && matches!(state.exit_code, Some(126 | 127))
            && let Some(text) = self.init_error().await?
        {
            return Ok(Exit::not_started(self.container, ExitCause::StartFailed, text));
        }
        let stopped = stopped.or_else(|| self.stopped_before(&state, cancel));
        let observers = self.observers(&state, ended.was_interrupted);
        let process_limit = forwarder.is_process_missing.load(Relaxed).then_some(self.pids);
        Ok(self.to_exit(&state, ObservedExit { stopped, observers, process_limit, ..ObservedExit::default() }))
    }

    fn observers(&self, state: &ContainerState, was_interrupted: bool) -> ExitObservers {
        let exited_at = state.finished_at.as_deref().and_then(parse_time).unwrap_or_else(now);
        let was_unreachable = self.containers.client().was_unreachable_at(exited_at);
        match self.had_exited {
            had_exited if (had_exited || was_interrupted) && was_unreachable => ExitObservers::Neither,
            true => ExitObservers::EngineOnly,
            false => ExitObservers::Both,
        }
    }

    /// The message of the init process if it could not start the command. The engine started the init process and therefore
    /// reports no error.
    async fn init_error(&self) -> Result<Option<String>, EngineError> {
        let client = self.containers.client();
        let api = client.api().await?;
        let options = LogsOptionsBuilder::new().stderr(true).tail("1").build();
        let mut lines = pin!(api.logs(self.name, Some(options)));
        let last = client.call("read a log", CallKind::Quick, async { lines.next().await.transpose() }).await?;
        let line = last.map(|line| line.to_string()).unwrap_or_default();
        let error = line.strip_prefix("[FATAL tini (").and_then(|rest| rest.split_once(")] "));
        Ok(error.map(|(_, text)| start_error(text)))
    }

    async fn wait_for_exit(&self) -> Result<Ended, EngineError> {
        let client = self.containers.client();
        let api = client.api().await?;
        let mut unreachable_since: Option<Instant> = None;
        let mut was_interrupted = false;
        loop {
            // Asked after the start and not together with it: `next-exit` can miss the exit of a short container and then waits
            // forever.
            let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
            let responded = timeout(client.timeouts().exit_poll, pin!(api.wait_container(self.name, Some(options))).next()).await;
            if let Ok(
                None | Some(Err(Error::IOError { .. } | Error::HyperResponseError { .. } | Error::HyperLegacyError { .. })),
            ) = responded
            {
                // A restarted engine responds to the next call as if nothing had happened.
                client.note_unreachable();
                was_interrupted = true;
            }
            match self.containers.state(self.name).await {
                Ok(Some(state)) if state.running == Some(true) => {
                    unreachable_since = None;
                    // The response was wrong. Do not ask again in a busy loop.
                    if responded.is_ok() {
                        sleep(RETRY_DELAY).await;
                    }
                }
                Ok(state) => return Ok(Ended { state, was_interrupted }),
                Err(error) => {
                    was_interrupted = true;
                    if unreachable_since.get_or_insert_with(Instant::now).elapsed() > client.timeouts().max_outage {
                        return Err(error);
                    }
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// The state of a container, after the engine had time to report that the memory limit killed it. The engine learns this
    /// separately from the container's exit, and sometimes after it; then it reports it only in its events. If a container
    /// reaches its limit in its first moments, or exits with it, the engine may never learn it (containerd issues 8180 and 8893).
    /// The text for such an exit allows for both.
    async fn with_late_oom_report(&self, mut state: ContainerState) -> ContainerState {
        for _ in 0..OOM_CHECKS {
            sleep(RETRY_DELAY).await;
            match self.containers.state(self.name).await {
                Ok(Some(newer)) => state = newer,
                _ => break,
            }
            if may_be_out_of_memory(&state) && self.has_oom_event().await {
                state.oom_killed = Some(true);
            }
            if !may_be_out_of_memory(&state) {
                break;
            }
        }
        state
    }

    /// Whether the engine's events report that the container reached its memory limit.
    async fn has_oom_event(&self) -> bool {
        let client = self.containers.client();
        let Ok(api) = client.api().await else { return false };
        let wanted = [("container", self.name), ("event", "oom")];
        let filters = wanted.into_iter().map(|(key, value)| (key, vec![value])).collect();
        let seconds = |at: Timestamp| (at.0 / 1000).to_string();
        let (since, until) = (seconds(self.started_at), seconds(now()));
        let options = EventsOptionsBuilder::new().since(&since).until(&until).filters(&filters).build();
        let mut events = pin!(api.events(Some(options)));
        let first = client.call("read events", CallKind::Quick, async { events.next().await.transpose() }).await;
        first.is_ok_and(|event| event.is_some())
    }

    /// Sends TERM, and KILL after the grace period. The future is dropped when the container exits; it completes only if the
    /// container does not.
    async fn stop(&self) -> EngineError {
        // An error here means that the container has just exited or that the engine is down: the wait for the exit reports it.
        let _ = self.containers.kill(self.name, "SIGTERM").await;
        sleep(self.containers.grace()).await;
        let killed = self.containers.kill(self.name, "SIGKILL").await;
        let after = self.containers.client().timeouts().after_kill;
        sleep(after).await;
        match killed {
            // The engine failed, not the container. An engine that responds and cannot kill the container is another case.
            Err(error @ (EngineError::Unreachable { .. } | EngineError::TimedOut { .. })) => error,
            _ => EngineError::Unkillable { container: self.name.to_owned(), after },
        }
    }

    async fn stop_cause(&self, cancel: &CancellationToken) -> StopCause {
        let deadline = async {
            match self.timeout {
                Some(timeout) => {
                    sleep(timeout.saturating_sub(now().since(self.started_at))).await;
                    timeout
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => StopCause::Cancelled,
            after = deadline => StopCause::TimedOut(after),
        }
    }

    /// Why the host had stopped a container whose exit it did not observe, because the host itself went down.
    fn stopped_before(&self, state: &ContainerState, cancel: &CancellationToken) -> Option<StopCause> {
        if !matches!(exit_code(state), Some(EXIT_CODE_SIGKILL | EXIT_CODE_SIGTERM)) {
            return None;
        }
        let timed_out = self.timeout.filter(|timeout| self.run_duration(state) >= *timeout).map(StopCause::TimedOut);
        if cancel.is_cancelled() { Some(StopCause::Cancelled) } else { timed_out }
    }

    fn run_duration(&self, state: &ContainerState) -> Duration {
        let time = |text: &Option<String>| text.as_deref().and_then(parse_time);
        match (time(&state.started_at), time(&state.finished_at)) {
            (Some(started), Some(ended)) => ended.since(started).saturating_sub(self.waited),
            _ => now().since(self.started_at),
        }
    }

    fn to_exit(&self, state: &ContainerState, seen: ObservedExit) -> Exit {
        let observed = ObservedExit {
            code: exit_code(state),
            out_of_memory: state.oom_killed == Some(true),
            engine_message: state.error.clone().unwrap_or_default(),
            duration_ms: u64::try_from(self.run_duration(state).as_millis()).unwrap_or(u64::MAX),
            ..seen
        };
        Exit::observed(self.container, observed)
    }
}

/// Whether the container was killed and the engine does not report that memory was the reason.
fn may_be_out_of_memory(state: &ContainerState) -> bool {
    exit_code(state) == Some(EXIT_CODE_SIGKILL) && state.oom_killed != Some(true)
}

fn exit_code(state: &ContainerState) -> Option<i32> {
    state.exit_code.and_then(|code| i32::try_from(code).ok())
}

/// The part of the engine's message that is about the command.
pub(super) fn start_error(message: &str) -> String {
    let text = message.trim().trim_end_matches(": unknown");
    let text = text.find("exec: ").and_then(|at| text.get(at..)).unwrap_or(text);
    let hint = if text.contains("/bin/sh") { " (`run` needs a shell, and the image has none)" } else { "" };
    format!("the container could not be started: {text}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_error_is_about_the_command() {
        let docker = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container \
                      process: exec: \"nope\": executable file not found in $PATH: unknown";
        assert_eq!(start_error(docker), "the container could not be started: exec: \"nope\": executable file not found in $PATH");
    }
}
