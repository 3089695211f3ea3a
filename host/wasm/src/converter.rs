//! The handle of a loaded converter, which turns the files of another CI system into a pipeline document.

use std::sync::Arc;

use beespace_core::digest::{Document, canonical_json};
use beespace_core::plugin_context::PluginContext;

use crate::bindings::converter::ConverterPluginPre;
use crate::bindings::converter::exports::beespace::plugin::converter as wit;
use crate::call::CallOutcome;
use crate::convert::{from_wit::OutputReader, to_wit};
use crate::diagnostic::{self, PluginDiagnostic};
use crate::error::PluginError;
use crate::load::{BindingSpec, Host, LinkedComponent, incompatible};
use crate::load_error::LoadError;
use crate::manifest::Kind;
use crate::plugin::{Loaded, Plugin};
use crate::state::State;

/// Schema of the document that a converter returns.
pub const PIPELINES_SCHEMA: &str = "beespace.pipelines/v1";

/// An input file of a converter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Path in the repository.
    pub path: String,
    /// The content at the commit.
    pub content: Vec<u8>,
}

/// The result of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The pipelines, in [`PIPELINES_SCHEMA`]. They are untrusted and must be parsed like a file that a user wrote.
    pub pipelines: Document,
    /// Notes on constructs without an exact counterpart.
    pub notes: Vec<PluginDiagnostic>,
}

/// Why a conversion failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConvertError {
    /// The files are invalid; their author can fix them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Files(Vec<PluginDiagnostic>),
    /// The plugin failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

/// A loaded and bound converter. It is cheap to clone, and calls of clones run concurrently.
#[derive(Debug, Clone)]
pub struct Converter(Arc<Loaded<ConverterPluginPre<State>>>);

impl Host {
    /// Loads a converter from the bytes of its component.
    ///
    /// # Errors
    /// [`LoadError`] with the cause and the remedy. Nothing stays loaded then.
    pub async fn load_converter(&self, component: Vec<u8>, spec: BindingSpec) -> Result<Converter, LoadError> {
        let check_exports = |linked: &LinkedComponent| ConverterPluginPre::new(linked.pre.clone()).map_err(incompatible);
        Ok(Converter(Arc::new(self.load(component, Kind::Converter, &spec, check_exports).await?)))
    }
}

impl Converter {
    /// Identity of the plugin.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.0.bound.plugin
    }

    /// Asks how likely it is, from 0 to 100, that these paths belong to the converter's CI system.
    pub async fn detect(&self, paths: Vec<String>) -> CallOutcome<u8> {
        if let Err(error) = self.0.bound.check_input(paths.iter().map(String::len)) {
            return CallOutcome::failed(error);
        }
        let loaded = self.0.clone();
        let answer = self.0.bound.call(move |store| {
            Box::pin(async move {
                let converter = loaded.exports.instantiate_async(&mut *store).await?;
                converter.beespace_plugin_converter().call_detect(&mut *store, &paths).await
            })
        });
        answer.await.map_result(|certainty| Ok(certainty?.min(100)))
    }

    /// Converts the files into pipelines.
    pub async fn convert(&self, context: PluginContext, files: Vec<SourceFile>) -> CallOutcome<Converted, ConvertError> {
        if let Err(error) = self.0.bound.check_input(files.iter().map(|file| file.content.len() + file.path.len())) {
            return CallOutcome::failed(error.into());
        }
        let loaded = self.0.clone();
        let answer = self.0.bound.call(move |store| {
            Box::pin(async move {
                let files: Vec<wit::SourceFile> = files.into_iter().map(Into::into).collect();
                let converter = loaded.exports.instantiate_async(&mut *store).await?;
                let context = to_wit::context(&context);
                converter.beespace_plugin_converter().call_convert(&mut *store, &context, &files).await
            })
        });
        answer.await.map_result(|result| match result? {
            Ok(converted) => Ok(self.read(converted)?),
            Err(diagnostics) => Err(ConvertError::Files(diagnostic::from_wit(diagnostics))),
        })
    }

    fn read(&self, converted: wit::Converted) -> Result<Converted, PluginError> {
        let mut reader = OutputReader::new(&self.plugin().label, self.0.bound.limits.output_bytes);
        reader.charge(converted.pipelines.json.len())?;
        if converted.pipelines.schema != PIPELINES_SCHEMA {
            return Err(reader.malformed(format_args!("a document that is not {PIPELINES_SCHEMA}")));
        }
        let json: serde_json::Value = serde_json::from_str(&converted.pipelines.json)
            .map_err(|error| reader.malformed(format_args!("a document that is not JSON ({error})")))?;
        Ok(Converted {
            pipelines: Document { schema: PIPELINES_SCHEMA.to_owned(), json: canonical_json(&json) },
            notes: diagnostic::from_wit(converted.notes),
        })
    }
}

impl From<SourceFile> for wit::SourceFile {
    fn from(file: SourceFile) -> Self {
        Self { path: file.path, content: file.content }
    }
}
