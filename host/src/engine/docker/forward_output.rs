//! Output on its way from the engine to the receiver.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use beespace_core::output::{OutputOffsets, Stream};
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters::LogsOptionsBuilder;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::containers::Containers;
use super::deferred_start::strip_start_marker;
use super::output::{parse_timestamped, to_output, unsent};
use crate::clock::now;
use crate::engine::EngineError;
use crate::engine::container_io::{Output, OutputSender};

/// How long output may arrive after the container's exit, and how long a blocked receiver is awaited after a kill.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Output as the engine delivers it.
pub(super) type Frames<'a> = BoxStream<'a, Result<Output, Error>>;

/// Output as it arrives.
pub(super) fn live_output<'a>(
    is_deferred: bool,
    frames: impl futures::Stream<Item = Result<LogOutput, Error>> + Send + 'a,
) -> Frames<'a> {
    let mut strip = strip_start_marker(is_deferred);
    let wanted = move |frame: Result<LogOutput, Error>| {
        let output = frame.map(|frame| unsent(strip(to_output(frame, now())), &mut OutputOffsets::default()));
        std::future::ready(output.transpose())
    };
    frames.filter_map(wanted).boxed()
}

/// The engine's own copy of the output, from the beginning, without the part that the receiver already has. The copy does not
/// preserve bytes that are not UTF-8, so after such bytes the boundary may be off by a few.
pub(super) async fn stored_output<'a>(
    containers: &'a Containers,
    name: &str,
    is_deferred: bool,
    sent: OutputOffsets,
) -> Result<Frames<'a>, EngineError> {
    let api = containers.client().api().await?;
    let options = LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).timestamps(true).build();
    let (mut skip, mut strip) = (sent, strip_start_marker(is_deferred));
    let frames = api.logs(name, Some(options)).filter_map(move |frame| {
        let wanted = match frame {
            Ok(frame) => parse_timestamped(frame).and_then(|output| unsent(strip(output), &mut skip)).map(Ok),
            Err(error) => Some(Err(error)),
        };
        std::future::ready(wanted)
    });
    Ok(frames.boxed())
}

/// Forwards output from the engine to the receiver.
pub(super) struct OutputForwarder<'a> {
    containers: &'a Containers,
    /// The container's name.
    name: &'a str,
    /// The container's program waited for the start signal.
    is_deferred: bool,
    output: &'a OutputSender,
    /// Set when the output reports that a process or thread could not be started.
    pub(super) is_process_missing: AtomicBool,
    /// Cancelled when the container has exited: the rest of the output arrives soon.
    pub(super) exited: CancellationToken,
    /// Cancelled when the container was killed or is gone: a receiver that does not read has had its time.
    pub(super) give_up: CancellationToken,
}

impl<'a> OutputForwarder<'a> {
    pub(super) fn new(containers: &'a Containers, name: &'a str, is_deferred: bool, output: &'a OutputSender) -> Self {
        let (exited, give_up) = (CancellationToken::new(), CancellationToken::new());
        Self { containers, name, is_deferred, output, is_process_missing: AtomicBool::new(false), exited, give_up }
    }

    pub(super) async fn run(&self, mut source: Frames<'_>, mut sent: OutputOffsets) {
        loop {
            self.forward_stream(&mut source, &mut sent).await;
            if timeout(DRAIN_TIMEOUT, self.exited.cancelled()).await.is_ok() {
                return;
            }
            // The engine closed the connection of a container that still runs.
            source = loop {
                match stored_output(self.containers, self.name, self.is_deferred, sent).await {
                    Ok(source) => break source,
                    Err(_) => sleep(RETRY_DELAY).await,
                }
            };
        }
    }

    /// Forwards until the stream ends or the time for the rest of the output is over.
    async fn forward_stream(&self, source: &mut Frames<'_>, sent: &mut OutputOffsets) {
        loop {
            let drained = async {
                self.exited.cancelled().await;
                sleep(DRAIN_TIMEOUT).await;
            };
            let output = tokio::select! {
                biased;
                output = source.next() => output,
                () = drained => return,
            };
            let Some(Ok(output)) = output else { return };
            let (stream, length) = (output.stream, output.bytes.len() as u64);
            if !self.deliver(output).await {
                return;
            }
            *(if stream == Stream::Stderr { &mut sent.stderr } else { &mut sent.stdout }) += length;
        }
    }

    /// False if the receiver did not read the output in the time that was left.
    async fn deliver(&self, output: Output) -> bool {
        if reports_missing_process(&output.bytes) {
            self.is_process_missing.store(true, Relaxed);
        }
        let too_late = async {
            self.give_up.cancelled().await;
            sleep(DRAIN_TIMEOUT).await;
        };
        tokio::select! {
            biased;
            // If the receiver is gone, the output is discarded: the program must not wait for it.
            _ = self.output.send(output) => true,
            () = too_late => false,
        }
    }
}

/// Whether some output reports that a process or thread could not be started: the texts of the C library, and those of shells,
/// Java and Go. A text that is divided between two chunks is missed.
fn reports_missing_process(output: &[u8]) -> bool {
    const TEXTS: [&str; 5] = [
        "fork: Resource temporarily unavailable",
        "fork: retry: Resource temporarily unavailable",
        "Cannot fork",
        "unable to create native thread",
        "failed to create new OS thread",
    ];
    TEXTS.iter().any(|text| memchr::memmem::find(output, text.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::reports_missing_process;

    #[test]
    fn the_texts_of_shells_and_runtimes_report_a_missing_process() {
        for text in [
            "sh: can't fork: Resource temporarily unavailable\n",
            "/bin/sh: 1: Cannot fork\n",
            "bash: fork: retry: Resource temporarily unavailable\n",
            "java.lang.OutOfMemoryError: unable to create native thread: possibly out of memory\n",
            "runtime: failed to create new OS thread (have 2 already; errno=11)\n",
        ] {
            assert!(reports_missing_process(text.as_bytes()), "{text}");
        }
        assert!(!reports_missing_process(b"read: Resource temporarily unavailable\nI can fork this\n"));
    }
}
