//! The front door of converters: another CI's files in, our pipeline document out.

use std::sync::Arc;

use beespace_core::digest::{Document, canonical_json};
use beespace_core::plugin_context::PluginContext;

use crate::bindings::converter::ConverterPluginPre;
use crate::bindings::converter::exports::beespace::plugin::converter as wit;
use crate::call::CallOutcome;
use crate::convert::{from_wit::OutputReader, to_wit};
use crate::diagnostic::{self, PluginDiagnostic};
use crate::error::PluginError;
use crate::load::{BindingSpec, Host, incompatible, with_binding};
use crate::load_error::LoadError;
use crate::manifest::Kind;
use crate::plugin::{BoundPlugin, Plugin};
use crate::state::State;

/// Name of the schema of what a converter returns.
pub const PIPELINES_SCHEMA: &str = "beespace.pipelines/v1";

/// A file for a converter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Path in the repository.
    pub path: String,
    /// Its bytes at the commit.
    pub content: Vec<u8>,
}

/// What became of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// [`PIPELINES_SCHEMA`]; still to be read like a file that a user wrote.
    pub pipelines: Document,
    /// What was understood but has no exact counterpart.
    pub notes: Vec<PluginDiagnostic>,
}

/// Why there is no document.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConvertError {
    /// The files are not right: their author can mend them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Files(Vec<PluginDiagnostic>),
    /// The plugin failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

/// A converter, loaded and bound. Cheap to clone; calls of clones run side by side.
#[derive(Debug, Clone)]
pub struct Converter(Arc<Inner>);

struct Inner {
    bound: BoundPlugin,
    pre: ConverterPluginPre<State>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bound.fmt(f)
    }
}

impl Host {
    /// Loads a converter from the bytes of its component.
    ///
    /// # Errors
    /// [`LoadError`] with what is wrong and what to do; nothing of it stays loaded.
    pub async fn load_converter(&self, component: Vec<u8>, spec: BindingSpec) -> Result<Converter, LoadError> {
        let load = async {
            let prepared = self.link(component, Kind::Converter, &spec).await?;
            let pre = ConverterPluginPre::new(prepared.pre.clone()).map_err(incompatible)?;
            Ok(Converter(Arc::new(Inner { bound: self.bind(prepared).await?, pre })))
        };
        load.await.map_err(with_binding(&spec.name))
    }
}

impl Converter {
    /// Who it is.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.0.bound.plugin
    }

    /// How certain it is, 0 to 100, that these paths are of its CI.
    pub async fn detect(&self, paths: Vec<String>) -> CallOutcome<u8> {
        if let Err(error) = self.0.bound.check_input(paths.iter().map(String::len)) {
            return CallOutcome::failed(error);
        }
        let inner = self.0.clone();
        let answer = self.0.bound.call(None, move |store| {
            Box::pin(async move {
                let converter = inner.pre.instantiate_async(&mut *store).await?;
                converter.beespace_plugin_converter().call_detect(&mut *store, &paths).await
            })
        });
        answer.await.map_result(|certainty| Ok(certainty?.min(100)))
    }

    /// Converts the files.
    pub async fn convert(&self, context: PluginContext, files: Vec<SourceFile>) -> CallOutcome<Converted, ConvertError> {
        if let Err(error) = self.0.bound.check_input(files.iter().map(|file| file.content.len() + file.path.len())) {
            return CallOutcome::failed(error.into());
        }
        let inner = self.0.clone();
        let answer = self.0.bound.call(None, move |store| {
            Box::pin(async move {
                let files: Vec<wit::SourceFile> = files.into_iter().map(Into::into).collect();
                let converter = inner.pre.instantiate_async(&mut *store).await?;
                let context = to_wit::context(&context);
                converter.beespace_plugin_converter().call_convert(&mut *store, &context, &files).await
            })
        });
        answer.await.map_result(|said| match said? {
            Ok(converted) => Ok(self.read(converted)?),
            Err(diagnostics) => Err(ConvertError::Files(diagnostic::from_wit(diagnostics))),
        })
    }

    fn read(&self, converted: wit::Converted) -> Result<Converted, PluginError> {
        let mut reader = OutputReader::new(&self.plugin().label, self.0.bound.limits.output_bytes);
        reader.charge(converted.pipelines.json.len())?;
        if converted.pipelines.schema != PIPELINES_SCHEMA {
            return Err(reader.malformed(format_args!("a document that is no {PIPELINES_SCHEMA}")));
        }
        let json: serde_json::Value = serde_json::from_str(&converted.pipelines.json)
            .map_err(|error| reader.malformed(format_args!("a document that is no JSON ({error})")))?;
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
