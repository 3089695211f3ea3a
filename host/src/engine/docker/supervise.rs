//! A running container: its output, its end, and ending it.
//!
//! Three things go on at once, none of which is trusted for the others: output flows, the engine is asked whether the container still runs, and
//! cancel and timeout are waited for. That the output ends does not mean that the container did (it also ends when the engine is
//! restarted), and that the container ended does not mean that all output has come.

use std::pin::pin;
use std::time::Duration;

use beespace_core::exit::{EXIT_CODE_SIGKILL, EXIT_CODE_SIGTERM, Exit, ExitCause, ExitObservers, ObservedExit, StopCause};
use beespace_core::output::{OutputOffsets, Stream};
use beespace_core::time::Timestamp;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::ContainerState;
use bollard::query_parameters::{
    EventsOptionsBuilder, KillContainerOptionsBuilder, LogsOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Docker;
use super::deferred_start::strip_start_marker;
use super::run::start_error;
use super::timeouts::CallKind;
use crate::engine::{EngineError, Output, OutputSender, now};

/// What of a container's output may come after its end, and how long a blocked reader is waited for after a kill.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// So often an engine on a machine that is full is asked again why a container was killed.
const OOM_CHECKS: usize = 10;

/// Output as the engine hands it over.
pub(super) type Frames<'a> = BoxStream<'a, Result<Output, Error>>;

/// The container that is followed.
#[derive(Debug)]
pub(super) struct Supervised<'a> {
    pub(super) name: &'a str,
    /// Its id in the plan.
    pub(super) container: &'a str,
    pub(super) started_at: Timestamp,
    pub(super) timeout: Option<Duration>,
    /// It began with waiting for its turn.
    pub(super) is_deferred: bool,
    /// How long it did.
    pub(super) waited: Duration,
    /// It had ended before it was followed.
    pub(super) had_exited: bool,
}

impl Docker {
    /// Follows a started container to its end. `sent` is what the receiver has already.
    pub(super) async fn supervise(
        &self,
        subject: &Supervised<'_>,
        source: Frames<'_>,
        sent: OutputOffsets,
        output: &OutputSender,
        cancel: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        let pump =
            OutputForwarder { docker: self, subject, output, ended: CancellationToken::new(), give_up: CancellationToken::new() };
        let mut flowing = pin!(pump.run(source, sent));
        let mut end = pin!(self.wait_for_exit(subject.name));
        let mut stop = pin!(stop_reason(subject, cancel));
        let mut stopping = pin!(self.stop(subject.name));
        let (mut flown, mut stopped) = (false, None);
        let (state, was_interrupted) = loop {
            tokio::select! {
                end = &mut end => break end?,
                () = &mut flowing, if !flown => flown = true,
                why = &mut stop, if stopped.is_none() => stopped = Some(why),
                error = &mut stopping, if stopped.is_some() => return Err(error),
            }
        };
        pump.ended.cancel();
        if stopped.is_some() || state.is_none() {
            pump.give_up.cancel();
        }
        if !flown {
            tokio::select! {
                () = &mut flowing => {}
                () = cancel.cancelled() => {
                    pump.give_up.cancel();
                    flowing.await;
                }
            }
        }
        let Some(mut state) = state else { return Ok(Exit::lost(subject.container)) };
        if stopped.is_none() && may_be_out_of_memory(&state) {
            state = self.with_late_oom_report(subject, state).await;
        }
        if stopped.is_none()
            && matches!(state.exit_code, Some(126 | 127))
            && let Some(text) = self.init_error(subject.name).await?
        {
            return Ok(Exit::not_started(subject.container, ExitCause::StartFailed, text));
        }
        let stopped = stopped.or_else(|| stopped_before(subject, &state, cancel));
        let watched_by = self.watched_by(subject, &state, was_interrupted);
        Ok(to_exit(subject, &state, stopped, watched_by))
    }

    fn watched_by(&self, subject: &Supervised<'_>, state: &ContainerState, was_interrupted: bool) -> ExitObservers {
        let ended = state.finished_at.as_deref().and_then(parse_time).unwrap_or_else(now);
        match subject.had_exited {
            is_over if (is_over || was_interrupted) && self.client.was_unreachable_at(ended) => ExitObservers::Neither,
            true => ExitObservers::EngineOnly,
            false => ExitObservers::Both,
        }
    }

    /// What the init process said where it could not start the command: the engine has started *it*, and knows of no error.
    async fn init_error(&self, name: &str) -> Result<Option<String>, EngineError> {
        let api = self.client.api().await?;
        let options = LogsOptionsBuilder::new().stderr(true).tail("1").build();
        let mut lines = pin!(api.logs(name, Some(options)));
        let last = self.client.call("read a log", CallKind::Quick, async { lines.next().await.transpose() }).await?;
        let line = last.map(|line| line.to_string()).unwrap_or_default();
        let error = line.strip_prefix("[FATAL tini (").and_then(|rest| rest.split_once(")] "));
        Ok(error.map(|(_, text)| start_error(text)))
    }

    /// The state of a container that does not run any more, `None` where it is gone; and whether the engine was away meanwhile.
    async fn wait_for_exit(&self, name: &str) -> Result<(Option<ContainerState>, bool), EngineError> {
        let api = self.client.api().await?;
        let mut away_since: Option<Instant> = None;
        let mut was_interrupted = false;
        loop {
            // Asked after the start and not with it: `next-exit` can miss the end of a fast container, and then waits for ever.
            let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
            let answered = timeout(self.options.waits.exit_poll, pin!(api.wait_container(name, Some(options))).next()).await;
            if let Ok(
                None | Some(Err(Error::IOError { .. } | Error::HyperResponseError { .. } | Error::HyperLegacyError { .. })),
            ) = answered
            {
                // An engine that was started again answers the next question as if nothing had been.
                self.client.note_unreachable();
                was_interrupted = true;
            }
            match self.state(name).await {
                Ok(Some(state)) if state.running == Some(true) => {
                    away_since = None;
                    // An answer that was no answer: not asked again in a tight circle.
                    if answered.is_ok() {
                        sleep(RETRY_DELAY).await;
                    }
                }
                Ok(state) => return Ok((state, was_interrupted)),
                Err(error) => {
                    was_interrupted = true;
                    if away_since.get_or_insert_with(Instant::now).elapsed() > self.options.waits.max_outage {
                        return Err(error);
                    }
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// The engine learns of a memory limit that killed a container apart from the container's end, and sometimes after it: then it says so in its
    /// events alone. Of a container that meets its limit in its first moments, or ends with it, it may never learn (containerd issues 8180 and
    /// 8893): what we say of such an end allows for both.
    async fn with_late_oom_report(&self, subject: &Supervised<'_>, mut state: ContainerState) -> ContainerState {
        for _ in 0..OOM_CHECKS {
            sleep(RETRY_DELAY).await;
            match self.state(subject.name).await {
                Ok(Some(news)) => state = news,
                _ => break,
            }
            if may_be_out_of_memory(&state) && self.has_oom_event(subject).await {
                state.oom_killed = Some(true);
            }
            if !may_be_out_of_memory(&state) {
                break;
            }
        }
        state
    }

    /// Whether the engine's events say that the container met its limit of memory.
    async fn has_oom_event(&self, subject: &Supervised<'_>) -> bool {
        let Ok(api) = self.client.api().await else { return false };
        let wanted = [("container", subject.name), ("event", "oom")];
        let filters = wanted.into_iter().map(|(key, value)| (key, vec![value])).collect();
        let seconds = |at: Timestamp| (at.0 / 1000).to_string();
        let (since, until) = (seconds(subject.started_at), seconds(now()));
        let options = EventsOptionsBuilder::new().since(&since).until(&until).filters(&filters).build();
        let mut events = pin!(api.events(Some(options)));
        let first = self.client.call("read events", CallKind::Quick, async { events.next().await.transpose() }).await;
        first.is_ok_and(|event| event.is_some())
    }

    /// TERM, and KILL for what does not heed it. Is dropped when the container ends; returns where it does not.
    async fn stop(&self, name: &str) -> EngineError {
        // An error here is one of a container that has just ended, or of an engine that is away: the wait for the end tells.
        let _ = self.kill(name, "SIGTERM").await;
        sleep(self.options.grace).await;
        let killed = self.kill(name, "SIGKILL").await;
        let after = self.options.waits.after_kill;
        sleep(after).await;
        match killed {
            // The engine is to blame, not the container. One that answers and cannot do it is another matter.
            Err(trouble @ (EngineError::Unreachable { .. } | EngineError::TimedOut { .. })) => trouble,
            _ => EngineError::Unkillable { container: name.to_owned(), after },
        }
    }

    pub(super) async fn kill(&self, name: &str, signal: &str) -> Result<(), EngineError> {
        let api = self.client.api().await?;
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        self.client.call("kill a container", CallKind::Quick, api.kill_container(name, Some(options))).await
    }

    /// The engine's own copy of the output, from the beginning, without what the receiver has. Bytes that are no UTF-8 are not what they were in it, so
    /// behind those the seam may be off by a few.
    pub(super) async fn stored_output(&self, name: &str, waited: bool, sent: OutputOffsets) -> Result<Frames<'_>, EngineError> {
        let api = self.client.api().await?;
        let options = LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).timestamps(true).build();
        let (mut skip, mut without_turn) = (sent, strip_start_marker(waited));
        let frames = api.logs(name, Some(options)).filter_map(move |frame| {
            let wanted = match frame {
                Ok(frame) => parse_timestamped(frame).and_then(|output| unsent(without_turn(output), &mut skip)).map(Ok),
                Err(error) => Some(Err(error)),
            };
            std::future::ready(wanted)
        });
        Ok(frames.boxed())
    }
}

/// What is read as it comes.
pub(super) fn live_output<'a>(
    waited: bool,
    frames: impl futures::Stream<Item = Result<LogOutput, Error>> + Send + 'a,
) -> Frames<'a> {
    let mut without_turn = strip_start_marker(waited);
    let wanted = move |frame: Result<LogOutput, Error>| {
        std::future::ready(
            frame.map(|frame| unsent(without_turn(to_output(frame, now())), &mut OutputOffsets::default())).transpose(),
        )
    };
    frames.filter_map(wanted).boxed()
}

fn to_output(frame: LogOutput, at: Timestamp) -> Output {
    let (stream, bytes) = match frame {
        LogOutput::StdErr { message } => (Stream::Stderr, message),
        // No terminal is ever asked for, so the others do not come.
        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
            (Stream::Stdout, message)
        }
    };
    Output { stream, at, bytes }
}

/// Takes off the time that the engine has put in front.
pub(super) fn parse_timestamped(frame: LogOutput) -> Option<Output> {
    let mut output = to_output(frame, now());
    let space = output.bytes.iter().position(|byte| *byte == b' ')?;
    let stamp = output.bytes.split_to(space);
    let _ = output.bytes.split_to(1);
    output.at = std::str::from_utf8(&stamp).ok().and_then(parse_time).unwrap_or(output.at);
    Some(output)
}

/// What of a piece the receiver does not have yet.
fn unsent(mut output: Output, skip: &mut OutputOffsets) -> Option<Output> {
    let left = if output.stream == Stream::Stderr { &mut skip.stderr } else { &mut skip.stdout };
    let known = usize::try_from(*left).unwrap_or(usize::MAX).min(output.bytes.len());
    *left -= known as u64;
    let _ = output.bytes.split_to(known);
    (!output.bytes.is_empty()).then_some(output)
}

/// A point in time as the engine writes it.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    // The year 1 stands for "not yet".
    u64::try_from(time.timestamp_millis()).ok().filter(|millis| *millis > 0).map(Timestamp)
}

async fn stop_reason(subject: &Supervised<'_>, cancel: &CancellationToken) -> StopCause {
    let deadline = async {
        match subject.timeout {
            Some(timeout) => {
                sleep(timeout.saturating_sub(now().since(subject.started_at))).await;
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

/// It was killed, and the engine does not say that memory was the reason.
fn may_be_out_of_memory(state: &ContainerState) -> bool {
    exit_code(state) == Some(EXIT_CODE_SIGKILL) && state.oom_killed != Some(true)
}

fn to_exit(subject: &Supervised<'_>, state: &ContainerState, stopped: Option<StopCause>, watched_by: ExitObservers) -> Exit {
    let seen = ObservedExit {
        code: exit_code(state),
        out_of_memory: state.oom_killed == Some(true),
        stopped,
        observers: watched_by,
        engine_message: state.error.clone().unwrap_or_default(),
        duration_ms: u64::try_from(run_duration(subject, state).as_millis()).unwrap_or(u64::MAX),
    };
    Exit::observed(subject.container, seen)
}

/// Why the host had stopped a container whose end it did not see: it was away itself before it could tell.
fn stopped_before(subject: &Supervised<'_>, state: &ContainerState, cancel: &CancellationToken) -> Option<StopCause> {
    if !matches!(exit_code(state), Some(EXIT_CODE_SIGKILL | EXIT_CODE_SIGTERM)) {
        return None;
    }
    let timed_out = subject.timeout.filter(|timeout| run_duration(subject, state) >= *timeout).map(StopCause::TimedOut);
    if cancel.is_cancelled() { Some(StopCause::Cancelled) } else { timed_out }
}

fn exit_code(state: &ContainerState) -> Option<i32> {
    state.exit_code.and_then(|code| i32::try_from(code).ok())
}

fn run_duration(subject: &Supervised<'_>, state: &ContainerState) -> Duration {
    let time = |text: &Option<String>| text.as_deref().and_then(parse_time);
    match (time(&state.started_at), time(&state.finished_at)) {
        (Some(started), Some(ended)) => ended.since(started).saturating_sub(subject.waited),
        _ => now().since(subject.started_at),
    }
}

/// Carries output from the engine to the receiver.
struct OutputForwarder<'a> {
    docker: &'a Docker,
    subject: &'a Supervised<'a>,
    output: &'a OutputSender,
    /// The container has ended: what comes now comes soon.
    ended: CancellationToken,
    /// It was killed or is gone: a receiver that does not read has had its time.
    give_up: CancellationToken,
}

impl OutputForwarder<'_> {
    async fn run(&self, mut source: Frames<'_>, mut sent: OutputOffsets) {
        loop {
            self.forward_stream(&mut source, &mut sent).await;
            if timeout(DRAIN_TIMEOUT, self.ended.cancelled()).await.is_ok() {
                return;
            }
            // The engine has hung up on a container that runs on.
            source = loop {
                match self.docker.stored_output(self.subject.name, self.subject.is_deferred, sent).await {
                    Ok(source) => break source,
                    Err(_) => sleep(RETRY_DELAY).await,
                }
            };
        }
    }

    /// To the end of the stream, or of patience.
    async fn forward_stream(&self, source: &mut Frames<'_>, sent: &mut OutputOffsets) {
        loop {
            let quiet = async {
                self.ended.cancelled().await;
                sleep(DRAIN_TIMEOUT).await;
            };
            let piece = tokio::select! {
                biased;
                piece = source.next() => piece,
                () = quiet => return,
            };
            let Some(Ok(piece)) = piece else { return };
            let (stream, length) = (piece.stream, piece.bytes.len() as u64);
            if !self.deliver(piece).await {
                return;
            }
            *(if stream == Stream::Stderr { &mut sent.stderr } else { &mut sent.stdout }) += length;
        }
    }

    /// False where the receiver did not take it in the time that was left.
    async fn deliver(&self, piece: Output) -> bool {
        let late = async {
            self.give_up.cancelled().await;
            sleep(DRAIN_TIMEOUT).await;
        };
        tokio::select! {
            biased;
            // A receiver that is gone wants nothing more, and the program is not to wait for it.
            _ = self.output.send(piece) => true,
            () = late => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_is_stored_is_not_sent_again() {
        let mut skip = OutputOffsets { stdout: 4, stderr: 0 };
        let piece = |stream, text: &str| Output { stream, at: Timestamp(0), bytes: Bytes::copy_from_slice(text.as_bytes()) };
        assert_eq!(unsent(piece(Stream::Stdout, "abc"), &mut skip), None);
        assert_eq!(unsent(piece(Stream::Stderr, "x"), &mut skip), Some(piece(Stream::Stderr, "x")));
        assert_eq!(unsent(piece(Stream::Stdout, "def"), &mut skip), Some(piece(Stream::Stdout, "ef")));
        assert_eq!(unsent(piece(Stream::Stdout, "g"), &mut skip), Some(piece(Stream::Stdout, "g")));
    }

    #[test]
    fn the_engines_time_is_taken_off() {
        let message = Bytes::from_static(b"2026-11-25T01:40:00.123456789Z a b\n");
        let output = parse_timestamped(LogOutput::StdOut { message }).unwrap();
        assert_eq!((output.at, &*output.bytes), (Timestamp(1_795_570_800_123), &b"a b\n"[..]));
        assert_eq!(parse_time("0001-01-01T00:00:00Z"), None);
    }
}
