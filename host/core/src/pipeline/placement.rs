//! Where a pipeline runs: `version`, `platform`, `labels` and `workspace`, and whether an engine fits.

use std::collections::BTreeMap;

use super::Pipeline;
use super::command::workdir_problem;
use super::decode::Reader;
use super::diagnostics::quote;
use super::spans::YamlPath;
use super::substitution::sample;
use super::yaml::{MapEntry, Value};
use crate::reason::Reason;
use crate::reason_code::ReasonCode;

/// The only version of the format.
const VERSION: &str = "1";

/// Most labels of a pipeline.
const MAX_LABELS: usize = 32;

/// The platform and labels of an instance's engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Available<'a> {
    /// Operating system and architecture as container engines name them: `linux/amd64`.
    pub platform: &'a str,
    pub labels: &'a BTreeMap<String, String>,
}

/// Why no engine of the instance can run a pipeline; `None` if one can.
#[must_use]
pub fn no_engine_for(pipeline: &Pipeline, available: &Available<'_>) -> Option<Reason> {
    let mut missing = Vec::new();
    if let Some(platform) = pipeline.platform.as_deref().filter(|platform| *platform != available.platform) {
        missing.push(format!("the platform {platform:?}"));
    }
    let labels = pipeline.labels.iter().filter(|(name, value)| available.labels.get(*name) != Some(value));
    missing.extend(labels.map(|(name, value)| format!("the label {name:?} with the value {value:?}")));
    if missing.is_empty() {
        return None;
    }
    let labels: Vec<String> = available.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let labels = if labels.is_empty() { "no labels".to_owned() } else { format!("the labels {}", labels.join(", ")) };
    let message = format!("no engine has {}", missing.join(" and "));
    let help = format!("this instance has the platform {} and {labels} (`[engine] labels`)", available.platform);
    Some(Reason::new(ReasonCode::NoEngine, message).help(help))
}

impl Reader {
    /// `version`: that of the format.
    pub(super) fn version(&mut self, entry: &MapEntry) {
        const EXPECTED: &str = "`version` to be `1`, the only version of the format";
        if self.text(&entry.value, EXPECTED).is_some_and(|version| version != VERSION) {
            self.wrong_type(&entry.value, EXPECTED);
        }
    }

    /// `platform`: operating system and architecture.
    pub(super) fn platform(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<String> {
        const EXPECTED: &str = "`platform` to be an operating system and an architecture, such as `linux/arm64`";
        path.child("platform").record(&mut self.spans, entry.value.span);
        if matches!(entry.value.value, Value::Map(_)) {
            let help = "write Drone's `{ os: linux, arch: arm64 }` as `linux/arm64`";
            self.wrong_type_with_help(&entry.value, EXPECTED, help);
            return None;
        }
        let platform = self.text(&entry.value, EXPECTED)?;
        let sample = sample(&platform);
        let is_part =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if (2..=3).contains(&sample.split('/').count()) && sample.split('/').all(is_part) {
            return Some(platform);
        }
        self.wrong_type(&entry.value, EXPECTED);
        None
    }

    /// `labels`: those that the engine must have.
    pub(super) fn labels(&mut self, entry: &MapEntry, path: &YamlPath) -> BTreeMap<String, String> {
        let path = path.child("labels");
        path.record(&mut self.spans, entry.value.span);
        let Value::Map(entries) = &entry.value.value else {
            self.wrong_type(&entry.value, "`labels` to be a map such as `{ gpu: \"true\" }`");
            return BTreeMap::new();
        };
        if entries.len() > MAX_LABELS {
            self.diagnostics.add("too-large", entry.key_span, format!("the pipeline has more than {MAX_LABELS} labels"));
        }
        let mut labels = BTreeMap::new();
        for label in entries.iter().take(MAX_LABELS) {
            path.child(&label.key).record(&mut self.spans, label.value.span);
            if let Some(value) = self.text(&label.value, "the value of a label to be text") {
                labels.insert(label.key.clone(), value);
            }
        }
        labels
    }

    /// `workspace`: the directory with the sources in every container.
    pub(super) fn workspace(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<String> {
        const EXPECTED: &str = "`workspace` to be an absolute directory, such as `/go/src/app`";
        path.child("workspace").record(&mut self.spans, entry.value.span);
        if matches!(entry.value.value, Value::Map(_)) {
            let help = "write Drone's `base` and `path` as one directory";
            self.wrong_type_with_help(&entry.value, EXPECTED, help);
            return None;
        }
        let directory = self.text(&entry.value, EXPECTED)?;
        let parts = directory.split('/').skip(1);
        let is_nested = directory.starts_with("/workspace/");
        let is_plain = directory.starts_with('/') && !is_nested && parts.clone().all(|part| !part.is_empty() && part != ".");
        if is_plain && workdir_problem(&directory).is_none() && !directory.contains(':') {
            return Some(directory);
        }
        let message = format!("{} is not a directory for the sources", quote(&directory));
        self.diagnostics.add_with_help("bad-value", entry.value.span, message, "for example `/go/src/app`");
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(text: &str) -> Pipeline {
        let text = format!("{text}\nsteps: [{{ name: a, image: x }}]");
        super::super::read("f", text.as_bytes()).unwrap().pipeline
    }

    #[test]
    fn a_pipeline_needs_an_engine_with_its_platform_and_labels() {
        let labels = BTreeMap::from([("gpu".to_owned(), "true".to_owned())]);
        let available = Available { platform: "linux/amd64", labels: &labels };
        let problem = |text: &str| no_engine_for(&pipeline(text), &available);
        for text in ["", "platform: linux/amd64", "labels: { gpu: true }"] {
            assert_eq!(problem(text), None, "{text}");
        }
        let reason = problem("platform: linux/arm64\nlabels: { gpu: false, zone: a }").unwrap();
        assert_eq!(
            reason.message,
            "no engine has the platform \"linux/arm64\" and the label \"gpu\" with the value \"false\" and the label \"zone\" \
             with the value \"a\""
        );
        let help = "this instance has the platform linux/amd64 and the labels gpu=true (`[engine] labels`)";
        assert_eq!(reason.help.as_deref(), Some(help));
    }
}
