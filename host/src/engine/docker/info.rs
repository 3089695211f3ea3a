//! The engine's report about itself, and warnings for the operator.

use bollard::models::{SystemInfo, SystemVersion};

use super::client::Client;
use super::timeouts::CallKind;
use crate::engine::{EngineError, EngineInfo, EngineWarning};

pub(super) async fn engine_info(client: &Client) -> Result<EngineInfo, EngineError> {
    let api = client.api().await?;
    let version = client.call("version", CallKind::Quick, api.version()).await?;
    let info = client.call("info", CallKind::Quick, api.info()).await?;
    Ok(EngineInfo {
        kind: "docker".to_owned(),
        version: version.version.clone().unwrap_or_default(),
        api: api.client_version().to_string(),
        platform: format!("{}/{}", version.os.as_deref().unwrap_or("?"), version.arch.as_deref().unwrap_or("?")),
        warnings: warnings(&version, &info),
    })
}

fn warnings(version: &SystemVersion, info: &SystemInfo) -> Vec<EngineWarning> {
    let mut warnings = Vec::new();
    let runc = version.components.iter().flatten().find(|component| component.name == "runc");
    warnings.extend(runc.filter(|runc| is_runc_old(&runc.version)).map(|runc| old_runc(&runc.version)));
    if info.memory_limit == Some(false) {
        let help = "enable the memory controller of cgroups on the engine's machine";
        warnings.push(EngineWarning::new("the engine cannot limit memory: one step can exhaust the machine's memory").help(help));
    }
    if info.pids_limit == Some(false) {
        let message = "the engine cannot limit the number of processes: one step can exhaust the machine's process table";
        warnings.push(EngineWarning::new(message).help("enable the controller `pids` of cgroups on the engine's machine"));
    }
    if !info.security_options.iter().flatten().any(|option| option.contains("seccomp")) {
        let message = "the engine does not filter system calls (seccomp is off)";
        warnings.push(EngineWarning::new(message).help("remove `seccomp=unconfined` from the engine's options"));
    }
    if let Some(arch) = version.arch.as_deref()
        && !is_same_architecture(arch, std::env::consts::ARCH)
    {
        let ours = std::env::consts::ARCH;
        let message = format!(
            "the engine runs on {arch}, but this server and its pause container are built for {ours}: no stage can start"
        );
        warnings.push(EngineWarning::new(message).help(format!("use a server that is built for {arch}")));
    }
    warnings
}

/// The version does not show which fixes a distribution has added, so the warning stays on such a system.
fn old_runc(version: &str) -> EngineWarning {
    let message =
        format!("runc {version} may be vulnerable to container escape (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881)");
    EngineWarning::new(message).help(
        "upgrade to runc 1.2.8, 1.3.3 or newer; if the security page of your distribution says that its package of this version \
         has the fixes, ignore this warning",
    )
}

/// Whether a version is older than the first fixed release of its line.
fn is_runc_old(version: &str) -> bool {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let version = (next(), next(), next());
    match version {
        (1, 2, patch) => patch < 8,
        (1, 3, patch) => patch < 3,
        other => other < (1, 2, 0),
    }
}

/// Go and Rust name architectures differently.
fn is_same_architecture(go: &str, rust: &str) -> bool {
    matches!((go, rust), ("amd64", "x86_64") | ("arm64", "aarch64")) || go == rust
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_runc_versions_cause_a_warning() {
        for old in ["1.1.5+ds1", "1.2.7", "1.3.2", "1.0.0-rc93"] {
            assert!(is_runc_old(old), "{old}");
        }
        let warning = old_runc("1.1.5+ds1");
        assert!(!warning.message.contains("upgrade") && warning.help.unwrap().starts_with("upgrade to runc 1.2.8"));
        for fixed in ["1.2.8", "1.3.3", "1.4.0", "2.0.1"] {
            assert!(!is_runc_old(fixed), "{fixed}");
        }
    }
}
