//! Diagnostics of a plugin, or of the JSON Schema in its manifest, about settings, a `with:` block or a file.

use beespace_core::policy::Severity;

use crate::bindings::shared::types;
use crate::convert::from_wit::severity;
use crate::sanitize::sanitize;
use crate::schema_errors::explain;

/// Maximum number of diagnostics in one result. The rest is dropped.
const MAX_DIAGNOSTICS: usize = 100;

/// One diagnostic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginDiagnostic {
    pub severity: Severity,
    /// One sentence for people.
    pub message: String,
    /// RFC 6901 pointer into the settings or the `with:` block.
    pub pointer: Option<String>,
    /// The file of the repository, if the diagnostic concerns one.
    pub file: Option<String>,
    pub line: Option<u32>,
    pub column: Option<u32>,
}

impl std::fmt::Display for PluginDiagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            for number in [self.line, self.column].into_iter().flatten() {
                write!(f, "{number}:")?;
            }
            f.write_str(" ")?;
        }
        if let Some(pointer) = self.pointer.as_ref().filter(|pointer| !pointer.is_empty()) {
            write!(f, "{pointer}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl PluginDiagnostic {
    pub(crate) fn at(pointer: String, message: String) -> Self {
        Self { severity: Severity::High, message, pointer: Some(pointer), file: None, line: None, column: None }
    }
}

/// Converts the diagnostics of a plugin: sanitized, and limited in number.
pub(crate) fn from_wit(diagnostics: Vec<types::Diagnostic>) -> Vec<PluginDiagnostic> {
    let convert = |diagnostic: types::Diagnostic| PluginDiagnostic {
        severity: severity(diagnostic.severity),
        message: sanitize(&diagnostic.message, 2 << 10),
        pointer: diagnostic.pointer.map(|pointer| sanitize(&pointer, 1 << 10)),
        file: diagnostic.file.map(|file| sanitize(&file, 1 << 10)),
        line: diagnostic.line,
        column: diagnostic.column,
    };
    diagnostics.into_iter().take(MAX_DIAGNOSTICS).map(convert).collect()
}

/// A compiled JSON Schema of a manifest, with its text for messages.
#[derive(Debug)]
pub(crate) struct Schema {
    validator: jsonschema::Validator,
    text: serde_json::Value,
}

impl Schema {
    /// Compiles a schema. Nothing is fetched: a schema with an external reference is rejected.
    pub(crate) fn new(schema: &serde_json::Value) -> Result<Self, String> {
        let validator = jsonschema::validator_for(schema).map_err(|error| sanitize(&error.to_string(), 1 << 10))?;
        Ok(Self { validator, text: schema.clone() })
    }

    /// Validates `value` and returns all violations.
    pub(crate) fn diagnostics(&self, value: &serde_json::Value) -> Vec<PluginDiagnostic> {
        let explained = self.validator.iter_errors(value).flat_map(|error| explain(&error, &self.text, value));
        let convert = |(pointer, message): (String, String)| PluginDiagnostic::at(pointer, sanitize(&message, 2 << 10));
        explained.take(MAX_DIAGNOSTICS).map(convert).collect()
    }
}
