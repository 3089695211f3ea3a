//! Builds the gate (`host/gate`) for the architecture of the host, and embeds it.
//!
//! By the compiler itself and not as a dependency: Cargo has no stable way to build another package's program static and small.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let source = "gate/src/main.rs";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-changed=build.rs");

    let variable = |name: &str| std::env::var_os(name).ok_or_else(|| format!("Cargo did not set {name}"));
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc.args(["--edition", "2024", "--crate-name", "beespace_gate", "--crate-type", "bin", source]);
    for option in [
        "target-feature=+crt-static",
        // No position-independent code: nothing to gain for a program that reads nothing, and it costs 50 KB.
        "relocation-model=static",
        "opt-level=z",
        "lto=fat",
        "codegen-units=1",
        "panic=abort",
        "strip=symbols",
    ] {
        rustc.args(["-C", option]);
    }
    rustc.arg("--target").arg(variable("TARGET")?);
    if let Some(linker) = std::env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    rustc.arg("-o").arg(PathBuf::from(variable("OUT_DIR")?).join("beespace-gate"));
    let status = rustc.status()?;
    if status.success() { Ok(()) } else { Err(format!("the gate does not compile: {status}").into()) }
}
