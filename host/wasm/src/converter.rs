//! The front door of converters: another CI's files in, our pipeline document out.

use std::sync::Arc;

use beespace_core::context::Context;
use beespace_core::digest::{Document, canonical};

use crate::bindings::converter::ConverterPluginPre;
use crate::bindings::converter::exports::beespace::plugin::converter as wit;
use crate::call::Answer;
use crate::convert::{inward, outward::Reader};
use crate::error::PluginError;
use crate::load::{BindingSpec, Host, incompatible, named};
use crate::load_error::LoadError;
use crate::manifest::Kind;
use crate::plugin::{Bound, Plugin};
use crate::problem::{self, Problem};
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
    pub notes: Vec<Problem>,
}

/// Why there is no document.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConvertError {
    /// The files are not right: their author can mend them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Files(Vec<Problem>),
    /// The plugin failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

/// A converter, loaded and bound. Cheap to clone; calls of clones run side by side.
#[derive(Debug, Clone)]
pub struct Converter(Arc<Inner>);

struct Inner {
    bound: Bound,
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
            let prepared = self.prepare(component, Kind::Converter, &spec).await?;
            let pre = ConverterPluginPre::new(prepared.pre.clone()).map_err(incompatible)?;
            Ok(Converter(Arc::new(Inner { bound: self.finish(prepared).await?, pre })))
        };
        load.await.map_err(named(&spec.name))
    }
}

impl Converter {
    /// Who it is.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.0.bound.plugin
    }

    /// How certain it is, 0 to 100, that these paths are of its CI.
    pub async fn detect(&self, paths: Vec<String>) -> Answer<u8> {
        if let Err(error) = self.0.bound.check_input(paths.iter().map(String::len)) {
            return Answer::failed(error);
        }
        let inner = self.0.clone();
        let answer = self.0.bound.call(None, move |store| {
            Box::pin(async move {
                let converter = inner.pre.instantiate_async(&mut *store).await?;
                converter.beespace_plugin_converter().call_detect(&mut *store, &paths).await
            })
        });
        answer.await.and_then(|certainty| Ok(certainty?.min(100)))
    }

    /// Converts the files.
    pub async fn convert(&self, context: Context, files: Vec<SourceFile>) -> Answer<Converted, ConvertError> {
        if let Err(error) = self.0.bound.check_input(files.iter().map(|file| file.content.len() + file.path.len())) {
            return Answer::failed(error.into());
        }
        let inner = self.0.clone();
        let answer = self.0.bound.call(None, move |store| {
            Box::pin(async move {
                let files: Vec<wit::SourceFile> = files.into_iter().map(Into::into).collect();
                let converter = inner.pre.instantiate_async(&mut *store).await?;
                let context = inward::context(&context);
                converter.beespace_plugin_converter().call_convert(&mut *store, &context, &files).await
            })
        });
        answer.await.and_then(|said| match said? {
            Ok(converted) => Ok(self.read(converted)?),
            Err(diagnostics) => Err(ConvertError::Files(problem::of_diagnostics(diagnostics))),
        })
    }

    fn read(&self, converted: wit::Converted) -> Result<Converted, PluginError> {
        let mut reader = Reader::new(&self.plugin().who, self.0.bound.limits.output_bytes);
        reader.take(converted.pipelines.json.len())?;
        if converted.pipelines.schema != PIPELINES_SCHEMA {
            return Err(reader.malformed(format_args!("a document that is no {PIPELINES_SCHEMA}")));
        }
        let json: serde_json::Value = serde_json::from_str(&converted.pipelines.json)
            .map_err(|error| reader.malformed(format_args!("a document that is no JSON ({error})")))?;
        Ok(Converted {
            pipelines: Document { schema: PIPELINES_SCHEMA.to_owned(), json: canonical(&json) },
            notes: problem::of_diagnostics(converted.notes),
        })
    }
}

impl From<SourceFile> for wit::SourceFile {
    fn from(file: SourceFile) -> Self {
        Self { path: file.path, content: file.content }
    }
}
