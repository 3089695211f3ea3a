//! The manifest of a plugin: JSON in the custom section `beespace:manifest` of the component. The digest of the component covers
//! it, and it is read without compiling or running anything.

use serde::{Deserialize, Serialize};

use crate::sanitize::sanitize;

/// Name of the custom section.
pub const SECTION: &str = "beespace:manifest";
/// Maximum size of the section in bytes.
pub const MAX_BYTES: usize = 64 << 10;

/// The kinds of plugins. Each has its own world in `wit/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Policy,
    Step,
    Notifier,
    Converter,
}

impl Kind {
    /// The name of the kind in files and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Step => "step",
            Self::Notifier => "notifier",
            Self::Converter => "converter",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The manifest. Unknown keys are ignored, because a newer plugin may have more of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub kind: Kind,
    /// One or two sentences for people.
    #[serde(default)]
    pub description: String,
    /// The decision points at which a policy is evaluated. Empty means all. A policy with an unknown point is not loaded.
    #[serde(default)]
    pub points: Vec<String>,
    /// JSON Schema of the binding's settings.
    #[serde(default)]
    pub config_schema: Option<serde_json::Value>,
    /// JSON Schema of a step's `with:` block.
    #[serde(default)]
    pub params_schema: Option<serde_json::Value>,
    /// The capabilities that the plugin requests, as a hint for the admin who writes the grants. The hint grants nothing.
    #[serde(default)]
    pub wants: Wants,
}

/// The capabilities that a plugin requests, as text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Wants {
    /// Hosts, or a description of them ("the host of `url`").
    pub egress: Vec<String>,
    /// Secrets, by their role.
    pub secrets: Vec<String>,
}

/// Why bytes are not a plugin, as far as can be determined without compiling them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A core module: the last step of the build is missing.
    #[error("the file is a core WebAssembly module, not a component; build it as `plugins/build` does")]
    CoreModule,
    #[error("the file is not WebAssembly")]
    NotWasm,
    /// A section that extends past the end of the file.
    #[error("the file is damaged: a section extends past its end")]
    Damaged,
    #[error("the component has no `{SECTION}` section; build it as `plugins/build` does")]
    Missing,
    #[error("the component has two `{SECTION}` sections; exactly one is required")]
    Duplicate,
    #[error("the manifest has {0} bytes; the limit is {MAX_BYTES}")]
    TooLarge(usize),
    #[error("the manifest is invalid: {0}")]
    Invalid(String),
}

impl Manifest {
    /// Reads the manifest of a component.
    ///
    /// # Errors
    /// [`ManifestError`] if the bytes are not a component or have no valid manifest.
    pub fn of_component(bytes: &[u8]) -> Result<Self, ManifestError> {
        match bytes.get(..8) {
            Some(b"\0asm\x0d\0\x01\0") => {}
            Some(b"\0asm\x01\0\0\0") => return Err(ManifestError::CoreModule),
            _ => return Err(ManifestError::NotWasm),
        }
        let mut found = None;
        let mut rest = bytes.get(8..).unwrap_or_default();
        while !rest.is_empty() {
            let section = next_section(&mut rest).ok_or(ManifestError::Damaged)?;
            if let Some(content) = section.filter(|(name, _)| *name == SECTION.as_bytes()).map(|(_, content)| content)
                && found.replace(content).is_some()
            {
                return Err(ManifestError::Duplicate);
            }
        }
        let json = found.ok_or(ManifestError::Missing)?;
        if json.len() > MAX_BYTES {
            return Err(ManifestError::TooLarge(json.len()));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(|error| ManifestError::Invalid(error.to_string()))?;
        manifest.validate()
    }

    fn validate(self) -> Result<Self, ManifestError> {
        let name_is_plain = (1..=100).contains(&self.name.len())
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_' | b'/'));
        if !name_is_plain {
            return Err(ManifestError::Invalid("`name` must be 1 to 100 of a-z, 0-9, `-`, `.`, `_` and `/`".to_owned()));
        }
        if self.version.is_empty() || self.version.len() > 64 || !self.version.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ManifestError::Invalid("`version` must have a form such as 1.2.3".to_owned()));
        }
        Ok(Self { description: sanitize(&self.description, 2 << 10), ..self })
    }
}

type CustomSection<'a> = (&'a [u8], &'a [u8]);

/// Reads the next section. The outer `None` means a damaged file, the inner one a section that is not custom.
fn next_section<'a>(rest: &mut &'a [u8]) -> Option<Option<CustomSection<'a>>> {
    let (id, mut tail) = rest.split_first()?;
    let size = read_length(&mut tail)?;
    let (mut body, after) = tail.split_at_checked(size)?;
    *rest = after;
    if *id != 0 {
        return Some(None);
    }
    let name_size = read_length(&mut body)?;
    Some(Some(body.split_at_checked(name_size)?))
}

/// Reads a 32-bit unsigned LEB128 number.
fn read_length(bytes: &mut &[u8]) -> Option<usize> {
    let mut value: u32 = 0;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return usize::try_from(value).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(sections: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        for (name, content) in sections {
            let size = 1 + name.len() + content.len();
            bytes.extend([0, u8::try_from(size & 0x7f).unwrap() | 0x80, u8::try_from(size >> 7).unwrap()]);
            bytes.push(u8::try_from(name.len()).unwrap());
            bytes.extend(name.as_bytes());
            bytes.extend(content.as_bytes());
        }
        bytes
    }

    #[test]
    fn a_manifest_is_found_after_other_sections() {
        let json = r#"{"name": "policy-images", "version": "0.1.0", "kind": "policy", "later": true}"#;
        let manifest = Manifest::of_component(&component(&[("producers", "x"), (SECTION, json)])).unwrap();
        assert_eq!((manifest.name.as_str(), manifest.kind), ("policy-images", Kind::Policy));
    }

    #[test]
    fn invalid_files_are_reported_by_their_cause() {
        let json = r#"{"name": "x", "version": "1", "kind": "policy"}"#;
        assert_eq!(Manifest::of_component(b"\0asm\x01\0\0\0"), Err(ManifestError::CoreModule));
        assert_eq!(Manifest::of_component(b"\x7fELF"), Err(ManifestError::NotWasm));
        assert_eq!(Manifest::of_component(&component(&[])), Err(ManifestError::Missing));
        assert_eq!(Manifest::of_component(&component(&[(SECTION, json), (SECTION, json)])), Err(ManifestError::Duplicate));
        let mut cut = component(&[(SECTION, json)]);
        cut.pop();
        assert_eq!(Manifest::of_component(&cut), Err(ManifestError::Damaged));
        let odd = json.replace("\"x\"", "\"../x y\"");
        assert!(matches!(Manifest::of_component(&component(&[(SECTION, &odd)])), Err(ManifestError::Invalid(_))));
    }
}
