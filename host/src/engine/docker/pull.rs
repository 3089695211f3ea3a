//! Pulling an image: how far it is, and why it is not to be had.
//!
//! Nothing is given to a registry that wants a sign-in: credentials come later, and [`why`] says so where one asks for them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use beespace_core::units::format_duration;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use tokio::time::{Instant, sleep, sleep_until};

use super::Docker;
use crate::engine::{EngineError, OutputSender, write_host_line};

/// How soon a pull says how far it is. The next word takes twice as long, up to [`MAX_REPORT_INTERVAL`]: a pull of an hour is not a log of its own.
const FIRST_REPORT: Duration = Duration::from_secs(2);
const MAX_REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// An image is not to be had; a sentence for people.
#[derive(Debug)]
pub(super) struct PullFailed(pub(super) String);

impl Docker {
    /// Pulls an image and tells the log how it goes.
    pub(super) async fn pull(&self, image: &str, output: &OutputSender) -> Result<Result<(), PullFailed>, EngineError> {
        let api = self.client.api().await?;
        write_host_line(output, format!("pulling {image}")).await;
        let began = Instant::now();
        let options = CreateImageOptionsBuilder::new().from_image(&with_tag(image)).build();
        let mut steps = pin!(api.create_image(Some(options), None, None));
        let (mut progress, mut told) = (Progress::default(), String::new());
        let (mut pause, mut word_due) = (FIRST_REPORT, began + FIRST_REPORT);
        let mut stuck = pin!(sleep(self.options.waits.pull_idle));
        loop {
            let step = tokio::select! {
                step = steps.next() => step,
                () = sleep_until(word_due) => {
                    pause = (pause * 2).min(MAX_REPORT_INTERVAL);
                    word_due += pause;
                    // Twice the same word says nothing.
                    if told != progress.to_string() {
                        told = progress.to_string();
                        write_host_line(output, told.clone()).await;
                    }
                    continue;
                }
                () = &mut stuck => return self.stalled(image).await.map(Err),
            };
            stuck.as_mut().reset(Instant::now() + self.options.waits.pull_idle);
            match step {
                None => break,
                Some(Ok(step)) => progress.update(&step),
                Some(Err(error)) => match self.client.map_error("pull", error) {
                    EngineError::Refused { message, .. } => return Ok(Err(PullFailed(explain_failure(image, &message)))),
                    other => return Err(other),
                },
            }
        }
        write_host_line(output, format!("pulled {image} in {:.1} s", began.elapsed().as_secs_f64())).await;
        Ok(Ok(()))
    }

    /// Silence is the registry's only where the engine still answers.
    async fn stalled(&self, image: &str) -> Result<PullFailed, EngineError> {
        self.has_image(image).await?;
        let silence = format_duration(self.options.waits.pull_idle);
        Ok(PullFailed(format!(
            "the image {image} could not be pulled: nothing came for {silence}; is its registry up, and does the engine's machine reach it?"
        )))
    }
}

/// The engine takes a name without tag for "all tags".
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// What registries and engines say, what it means, and what to do. The first that fits: an engine says "does not exist or may require
/// 'docker login'" of what it was refused.
const CAUSES: [(&[&str], &str, &str); 7] = [
    (
        &["no basic auth credentials", "unauthorized", "authentication required", "docker login", "denied"],
        "its registry shows it only to those who sign in, or has no such image",
        "check its name; signing in to a registry is not possible yet, so a private image has to be on the engine before (`docker login` and \
         `docker pull` on its machine): what is there is not pulled again",
    ),
    (
        &["not found", "manifest unknown", "does not exist", "name unknown", "no such image"],
        "there is no such image",
        "check its name and tag",
    ),
    (&["no matching manifest"], "there is no such image for the engine's platform", "build it for this platform, too"),
    (&["toomanyrequests", "too many requests"], "its registry wants a pause", "try again later, or use a mirror of it"),
    (&["no space left"], "the engine's disk is full", "make room where the engine keeps its images"),
    (
        &["http response to https client", "x509", "certificate"],
        "the engine does not trust its registry",
        "add its certificate to those the engine trusts",
    ),
    (
        &[
            "refused",
            "no such host",
            "timeout",
            "timed out",
            "deadline exceeded",
            "eof",
            "reset by peer",
            "unreachable",
            "closed",
        ],
        "its registry cannot be reached",
        "is it up, and does the engine's machine reach it?",
    ),
];

/// Why an image is not to be had, from the engine's sentence.
fn explain_failure(image: &str, message: &str) -> String {
    let said = message.to_ascii_lowercase();
    let known = CAUSES.iter().find(|(marks, ..)| marks.iter().any(|mark| said.contains(mark)));
    match known {
        Some((_, cause, help)) => format!("the image {image} could not be pulled: {cause} ({message}); {help}"),
        None => format!("the image {image} could not be pulled: {message}"),
    }
}

/// How far the layers are.
#[derive(Debug, Default)]
struct Progress {
    layers: BTreeMap<String, Layer>,
}

#[derive(Debug, Default)]
struct Layer {
    is_done: bool,
    /// The download broke off, and the engine will try it again.
    is_retrying: bool,
    /// Bytes that have come, of how many; both 0 while that is not known.
    received: u64,
    total: u64,
}

impl Progress {
    fn update(&mut self, step: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&step.id, &step.status) else { return };
        // What is said of the image itself has its tag for an id.
        let is_layer = self.layers.contains_key(id) || matches!(&**status, "Pulling fs layer" | "Already exists");
        if !is_layer {
            return;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        let detail = step.progress_detail.as_ref();
        let bytes = |number: Option<i64>| number.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
        match status.as_str() {
            "Downloading" => {
                layer.is_retrying = false;
                layer.received = bytes(detail.and_then(|detail| detail.current)).unwrap_or_default();
                layer.total = bytes(detail.and_then(|detail| detail.total)).unwrap_or(layer.total);
            }
            "Download complete" => layer.received = layer.total,
            "Pull complete" | "Already exists" => {
                layer.received = layer.total;
                layer.is_done = true;
            }
            other if other.starts_with("Retrying in") => layer.is_retrying = true,
            _ => {}
        }
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.layers.is_empty() {
            return f.write_str("waiting for the registry");
        }
        let done = self.layers.values().filter(|layer| layer.is_done).count();
        write!(f, "{done} of {} layers", self.layers.len())?;
        let total: u64 = self.layers.values().map(|layer| layer.total).sum();
        if total > 0 {
            let have: u64 = self.layers.values().map(|layer| layer.received.min(layer.total)).sum();
            write!(f, ", {:.1} of {:.1} MB", megabytes(have), megabytes(total))?;
        }
        if self.layers.values().any(|layer| layer.is_retrying) {
            f.write_str(", a download broke off and will be tried again")?;
        }
        Ok(())
    }
}

/// For reading only: three digits are enough, and `f64` has more.
fn megabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1_000).unwrap_or(u32::MAX)) / 1_000.0
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn a_name_without_a_tag_means_latest() {
        assert_eq!(with_tag("busybox"), "busybox:latest");
        assert_eq!(with_tag("localhost:5000/a/b"), "localhost:5000/a/b:latest");
        assert_eq!(with_tag("localhost:5000/a/b:3"), "localhost:5000/a/b:3");
        assert_eq!(with_tag("a@sha256:00"), "a@sha256:00");
    }

    #[test]
    fn a_refusal_is_told_by_its_cause_and_what_to_do() {
        for (said, cause, help) in [
            ("manifest for r/a:1 not found: manifest unknown: manifest unknown", "there is no such image", "name and tag"),
            (
                "pull access denied for a, repository does not exist or may require 'docker login': denied",
                "only to those who sign in",
                "not possible yet",
            ),
            ("Get \"http://r/v2/a/manifests/1\": no basic auth credentials", "only to those who sign in", "not possible yet"),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                "cannot be reached",
                "is it up",
            ),
            ("Get \"https://r/v2/\": http: server gave HTTP response to HTTPS client", "does not trust", "certificate"),
            ("toomanyrequests: You have reached your pull rate limit", "wants a pause", "later"),
            ("write /var/lib/docker/tmp/x: no space left on device", "disk is full", "make room"),
        ] {
            let text = explain_failure("r/a:1", said);
            assert!(text.contains("r/a:1") && text.contains(said), "{text}");
            assert!(text.contains(cause) && text.contains(help), "{text}");
        }
        assert_eq!(explain_failure("a", "odd"), "the image a could not be pulled: odd");
    }

    fn step(id: &str, status: &str, bytes: Option<(i64, i64)>) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: bytes.map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) }),
            ..Default::default()
        }
    }

    #[test]
    fn progress_counts_layers_and_bytes_and_nothing_twice() {
        let mut progress = Progress::default();
        let mut after = |id: &str, status: &str, bytes| {
            progress.update(&step(id, status, bytes));
            progress.to_string()
        };
        assert_eq!(after("1.2", "Pulling from acme/tool", None), "waiting for the registry");
        assert_eq!(after("a", "Already exists", None), "1 of 1 layers");
        assert_eq!(after("b", "Pulling fs layer", None), "1 of 2 layers");
        assert_eq!(after("b", "Downloading", Some((1_500_000, 6_000_000))), "1 of 2 layers, 1.5 of 6.0 MB");
        let broken = "1 of 2 layers, 1.5 of 6.0 MB, a download broke off and will be tried again";
        assert_eq!(after("b", "Retrying in 5 seconds", None), broken);
        assert_eq!(after("b", "Downloading", Some((3_000_000, 6_000_000))), "1 of 2 layers, 3.0 of 6.0 MB");
        assert_eq!(after("b", "Download complete", None), "1 of 2 layers, 6.0 of 6.0 MB");
        assert_eq!(after("b", "Extracting", Some((100, 6_000_000))), "1 of 2 layers, 6.0 of 6.0 MB");
        assert_eq!(after("b", "Pull complete", None), "2 of 2 layers, 6.0 of 6.0 MB");
    }
}
