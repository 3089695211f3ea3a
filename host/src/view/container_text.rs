//! Parts of a container as text, for pipelines and plans.

use std::collections::BTreeMap;

use beespace_core::pipeline::Pull;
use beespace_core::plan::Limits;
use beespace_core::units::format_size;

/// The directories of a container that are in memory.
pub(super) fn tmpfs_lines(tmpfs: &BTreeMap<String, Option<u64>>) -> impl Iterator<Item = String> {
    tmpfs.iter().map(|(path, size)| match size {
        Some(size) => format!("tmpfs {path} of {}", format_size(*size)),
        None => format!("tmpfs {path}"),
    })
}

/// When the image of a container is pulled.
pub(super) fn pull_line(pull: Pull) -> String {
    let when = match pull {
        Pull::Always => "always",
        Pull::IfAbsent => "if-absent",
        Pull::Never => "never",
    };
    format!("pull {when}")
}

/// The limits of a container.
pub(super) fn limit_lines(limits: &Limits) -> Vec<String> {
    let Limits { cpu_millis, memory_bytes, pids, timeout_seconds } = limits;
    let lines = [
        cpu_millis.map(|millis| format!("limit: {millis} thousandths of a CPU")),
        memory_bytes.map(|bytes| format!("limit: {} of memory", format_size(bytes))),
        pids.map(|pids| format!("limit: {pids} processes")),
        timeout_seconds.map(|seconds| format!("timeout {seconds} s")),
    ];
    lines.into_iter().flatten().collect()
}
