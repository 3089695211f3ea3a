//! Builds what the binary embeds: the pause program (`host/pause`), and, with the feature `bundled`, the list of the components
//! of `plugins/`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    pause_program()?;
    bundled_plugins()
}

/// Calls the compiler directly, because Cargo has no stable way to build the program of another package as a static and small
/// one.
fn pause_program() -> Result<(), Box<dyn Error>> {
    let source = "pause/src/main.rs";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-changed=core/src/metadata_service.rs");
    println!("cargo::rerun-if-changed=build.rs");

    let variable = |name: &str| std::env::var_os(name).ok_or_else(|| format!("Cargo did not set {name}"));
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc.args(["--edition", "2024", "--crate-name", "beespace_pause", "--crate-type", "bin", source]);
    for option in [
        "target-feature=+crt-static",
        // Position-independent code costs 50 KB and protects nothing in a program that reads no input.
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
    rustc.arg("-o").arg(PathBuf::from(variable("OUT_DIR")?).join("beespace-pause"));
    let status = rustc.status()?;
    if status.success() { Ok(()) } else { Err(format!("the pause program does not compile: {status}").into()) }
}

/// Writes the list that `src/plugins/bundled.rs` includes: the components that `plugins/build` has written to `target/plugins`.
fn bundled_plugins() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("Cargo did not set OUT_DIR")?).join("bundled.rs");
    let mut list =
        String::from("/// Every bundled plugin: its name and its component.\npub const BUNDLED: &[(&str, &[u8])] = &[\n");
    if std::env::var_os("CARGO_FEATURE_BUNDLED").is_some() {
        // Read at run time, because this program may have been compiled for another checkout that shares the target directory.
        let here = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("Cargo did not set CARGO_MANIFEST_DIR")?;
        let built = PathBuf::from(here).join("../target/plugins");
        // Cargo runs this script every time if a watched path does not exist.
        std::fs::create_dir_all(&built)?;
        println!("cargo::rerun-if-changed={}", built.display());
        for name in plugin_names()? {
            let component = built.join(format!("{name}.wasm"));
            if component.exists() {
                writeln!(list, "    ({name:?}, include_bytes!({component:?})),")?;
            } else if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
                return Err(format!("{name} is not built: run `plugins/build` first").into());
            } else {
                // Work on other parts does not require a WebAssembly toolchain.
                println!("cargo::warning={name} is not built and therefore not bundled: run `plugins/build`");
            }
        }
    }
    list.push_str("];\n");
    Ok(std::fs::write(out, list)?)
}

/// The folders of `plugins/` that have a manifest.
fn plugin_names() -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir("../plugins")? {
        let entry = entry?;
        if entry.path().join("manifest.json").exists() {
            names.push(entry.file_name().into_string().map_err(|name| format!("{} is not a plugin name", name.display()))?);
        }
    }
    names.sort();
    Ok(names)
}
