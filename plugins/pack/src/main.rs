//! `pack CORE.wasm MANIFEST.json OUT.wasm`: encodes the module as a component, puts the manifest into its section
//! `beespace:manifest`, and writes it in one move, so that nobody ever reads half of it.

use std::error::Error;
use std::path::Path;
use std::{env, fs, process};

/// Where hosts look for the manifest.
const SECTION: &str = "beespace:manifest";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [module, manifest, out] = arguments.as_slice() else {
        eprintln!("usage: pack CORE.wasm MANIFEST.json OUT.wasm");
        process::exit(2);
    };
    if let Err(error) = pack(module.as_ref(), manifest.as_ref(), out.as_ref()) {
        eprintln!("pack: {module}: {error}");
        process::exit(1);
    }
}

fn pack(module: &Path, manifest: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let module = fs::read(module)?;
    let mut component = wit_component::ComponentEncoder::default().validate(true).module(&module)?.encode()?;
    // Compact, and certainly JSON: the host would refuse anything else only when it is installed.
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest)?)?;
    component.extend(custom_section(SECTION, &serde_json::to_vec(&manifest)?)?);
    let unfinished = out.with_extension("wasm.new");
    fs::write(&unfinished, component)?;
    fs::rename(&unfinished, out)?;
    Ok(())
}

/// A custom section: id 0, the length of the rest, the length of the name, the name, the content.
fn custom_section(name: &str, content: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut body = leb128(name.len())?;
    body.extend(name.as_bytes());
    body.extend(content);
    let mut section = vec![0];
    section.extend(leb128(body.len())?);
    section.extend(body);
    Ok(section)
}

/// Unsigned, as WebAssembly writes lengths.
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
