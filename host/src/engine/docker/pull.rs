//! The progress of a pull, and why one failed.
//!
//! Beespace sends no credentials to registries yet. [`explain_failure`] reports it when a registry requires them.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::CreateImageInfo;

/// When a pull first reports its progress. Each interval is twice as long as the one before, up to [`MAX_REPORT_INTERVAL`], so
/// that a pull of an hour does not fill the log.
pub(super) const FIRST_REPORT: Duration = Duration::from_secs(2);
pub(super) const MAX_REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// The result of a pull.
#[derive(Debug)]
pub(super) enum PullOutcome {
    Pulled,
    /// The image could not be pulled. The text is for people.
    Failed(String),
}

/// Failure texts of registries and engines, with their cause and remedy.
struct FailureCause {
    /// Parts of the engine's text, in lower case, of which one is enough.
    marks: &'static [&'static str],
    cause: &'static str,
    help: &'static str,
}

/// The first entry that matches counts: an engine reports "does not exist or may require 'docker login'" for an image that it may
/// not read.
const CAUSES: [FailureCause; 7] = [
    // Some of these texts end with "not found".
    FailureCause {
        marks: &[
            "no matching manifest",
            "no match for platform",
            "does not provide the specified platform",
            "does not match the specified platform",
            "cannot be used on this platform",
        ],
        cause: "there is no such image for the engine's platform",
        help: "build it for this platform as well",
    },
    FailureCause {
        marks: &["no basic auth credentials", "unauthorized", "authentication required", "docker login", "denied"],
        cause: "its registry requires authentication, or has no such image",
        help: "check its name; Beespace cannot sign in to registries yet, so a private image must be pulled on the engine's host \
               first (`docker login` and `docker pull`); with `pull: if-absent`, an image that is present is not pulled again",
    },
    FailureCause {
        marks: &["not found", "manifest unknown", "does not exist", "name unknown", "no such image"],
        cause: "there is no such image",
        help: "check its name and tag",
    },
    FailureCause {
        marks: &["toomanyrequests", "too many requests"],
        cause: "its registry limits the rate of requests",
        help: "try again later, or use a mirror of the registry",
    },
    FailureCause {
        marks: &["no space left"],
        cause: "the engine's disk is full",
        help: "free some space where the engine stores its images",
    },
    FailureCause {
        marks: &["http response to https client", "x509", "certificate"],
        cause: "the engine does not trust its registry",
        help: "add the registry's certificate to those that the engine trusts",
    },
    FailureCause {
        marks: &[
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
        cause: "its registry cannot be reached",
        help: "check that the registry is up and that the engine's host can reach it",
    },
];

/// Why an image could not be pulled, from the engine's message.
pub(super) fn explain_failure(image: &str, message: &str) -> String {
    let lower = message.to_ascii_lowercase();
    let known = CAUSES.iter().find(|known| known.marks.iter().any(|mark| lower.contains(mark)));
    match known {
        Some(FailureCause { cause, help, .. }) => format!("the image {image} could not be pulled: {cause} ({message}); {help}"),
        None => format!("the image {image} could not be pulled: {message}"),
    }
}

/// The state of the layers of an image that is being pulled.
#[derive(Debug, Default)]
pub(super) struct PullProgress {
    layers: BTreeMap<String, Layer>,
}

#[derive(Debug, Default)]
struct Layer {
    is_done: bool,
    /// The download was interrupted, and the engine will retry it.
    is_retrying: bool,
    /// Bytes received and in total; both 0 until they are known.
    received: u64,
    total: u64,
}

impl PullProgress {
    pub(super) fn update(&mut self, update: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&update.id, &update.status) else { return };
        // An update about the image itself has the tag as its id.
        let is_layer = self.layers.contains_key(id) || matches!(&**status, "Pulling fs layer" | "Already exists");
        if !is_layer {
            return;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        let detail = update.progress_detail.as_ref();
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

impl std::fmt::Display for PullProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.layers.is_empty() {
            return f.write_str("waiting for the registry");
        }
        let done = self.layers.values().filter(|layer| layer.is_done).count();
        write!(f, "{done} of {} layers", self.layers.len())?;
        let total: u64 = self.layers.values().map(|layer| layer.total).sum();
        if total > 0 {
            let received: u64 = self.layers.values().map(|layer| layer.received.min(layer.total)).sum();
            write!(f, ", {:.1} of {:.1} MB", megabytes(received), megabytes(total))?;
        }
        if self.layers.values().any(|layer| layer.is_retrying) {
            f.write_str(", a download was interrupted and will be retried")?;
        }
        Ok(())
    }
}

/// For display only: three decimal places are enough, and `f64` has more.
fn megabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1_000).unwrap_or(u32::MAX)) / 1_000.0
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn a_failed_pull_is_reported_with_its_cause_and_remedy() {
        for (message, cause, help) in [
            ("manifest for r/a:1 not found: manifest unknown: manifest unknown", "there is no such image", "name and tag"),
            (
                "pull access denied for a, repository does not exist or may require 'docker login': denied",
                "requires authentication",
                "cannot sign in",
            ),
            ("Get \"http://r/v2/a/manifests/1\": no basic auth credentials", "requires authentication", "cannot sign in"),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                "cannot be reached",
                "check that the registry is up",
            ),
            ("Get \"https://r/v2/\": http: server gave HTTP response to HTTPS client", "does not trust", "certificate"),
            (
                "no matching manifest for linux/amd64 in the manifest list entries: no match for platform in manifest: not found",
                "for the engine's platform",
                "for this platform",
            ),
            (
                "image with reference r/a:1 was found but does not provide the specified platform (linux/amd64)",
                "for the engine's platform",
                "for this platform",
            ),
            (
                "image operating system \"windows\" cannot be used on this platform",
                "for the engine's platform",
                "for this platform",
            ),
            ("toomanyrequests: You have reached your pull rate limit", "limits the rate", "later"),
            ("write /var/lib/docker/tmp/x: no space left on device", "disk is full", "free some space"),
        ] {
            let text = explain_failure("r/a:1", message);
            assert!(text.contains("r/a:1") && text.contains(message), "{text}");
            assert!(text.contains(cause) && text.contains(help), "{text}");
        }
        assert_eq!(explain_failure("a", "odd"), "the image a could not be pulled: odd");
    }

    fn update(id: &str, status: &str, bytes: Option<(i64, i64)>) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: bytes.map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) }),
            ..Default::default()
        }
    }

    #[test]
    fn progress_counts_layers_and_bytes_once() {
        let mut progress = PullProgress::default();
        let mut after = |id: &str, status: &str, bytes| {
            progress.update(&update(id, status, bytes));
            progress.to_string()
        };
        assert_eq!(after("1.2", "Pulling from acme/tool", None), "waiting for the registry");
        assert_eq!(after("a", "Already exists", None), "1 of 1 layers");
        assert_eq!(after("b", "Pulling fs layer", None), "1 of 2 layers");
        assert_eq!(after("b", "Downloading", Some((1_500_000, 6_000_000))), "1 of 2 layers, 1.5 of 6.0 MB");
        let interrupted = "1 of 2 layers, 1.5 of 6.0 MB, a download was interrupted and will be retried";
        assert_eq!(after("b", "Retrying in 5 seconds", None), interrupted);
        assert_eq!(after("b", "Downloading", Some((3_000_000, 6_000_000))), "1 of 2 layers, 3.0 of 6.0 MB");
        assert_eq!(after("b", "Download complete", None), "1 of 2 layers, 6.0 of 6.0 MB");
        assert_eq!(after("b", "Extracting", Some((100, 6_000_000))), "1 of 2 layers, 6.0 of 6.0 MB");
        assert_eq!(after("b", "Pull complete", None), "2 of 2 layers, 6.0 of 6.0 MB");
    }
}
