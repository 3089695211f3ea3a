//! `pack IN.wasm MANIFEST.json OUT.wasm` adds the manifest as the custom section `beespace:manifest`. A core module is first
//! encoded as a component; a component, as the tools of other languages make it, stays as it is. It writes to a temporary file
//! and renames it, so that a reader never sees a partial component.

use std::error::Error;
use std::path::Path;
use std::{env, fs, process};

/// Name of the custom section in which the host looks for the manifest.
const SECTION: &str = "beespace:manifest";

/// The first bytes of a component.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [module, manifest, out] = arguments.as_slice() else {
        eprintln!("usage: pack IN.wasm MANIFEST.json OUT.wasm");
        process::exit(2);
    };
    if let Err(error) = pack(module.as_ref(), manifest.as_ref(), out.as_ref()) {
        eprintln!("pack: {module}: {error}");
        process::exit(1);
    }
}

fn pack(module: &Path, manifest: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(module)?;
    let mut component = if bytes.starts_with(COMPONENT) {
        bytes
    } else {
        wit_component::ComponentEncoder::default().validate(true).module(&bytes)?.encode()?
    };
    // Parsing it makes it compact and reports invalid JSON now, not when the plugin is installed.
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest)?)?;
    component.extend(custom_section(SECTION, &serde_json::to_vec(&manifest)?)?);
    let unfinished = out.with_extension("wasm.new");
    fs::write(&unfinished, component)?;
    fs::rename(&unfinished, out)?;
    Ok(())
}

/// Encodes a custom section: id 0, length of the rest, length of the name, name, content.
fn custom_section(name: &str, content: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut body = leb128(name.len())?;
    body.extend(name.as_bytes());
    body.extend(content);
    let mut section = vec![0];
    section.extend(leb128(body.len())?);
    section.extend(body);
    Ok(section)
}

/// Encodes a length as unsigned LEB128, as WebAssembly requires.
fn leb128(length: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut rest = u32::try_from(length)?;
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(rest & 0x7f)?;
        rest >>= 7;
        if rest == 0 {
            bytes.push(low);
            return Ok(bytes);
        }
        bytes.push(low | 0x80);
    }
}
