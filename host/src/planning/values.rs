//! Puts the values of a build into a pipeline.

use beespace_core::build::Build;
use beespace_core::diagnostic::Diagnostic;
use beespace_core::pipeline::{self, ParsedPipeline, Pipeline, params};

/// The pipeline with the values of the build in place of its substitutions.
///
/// # Errors
/// All texts that are not valid with their values.
pub fn with_values(build: &Build, parsed: &ParsedPipeline) -> Result<Pipeline, Vec<Diagnostic>> {
    let file = build.files.get(usize::from(parsed.place.file)).map_or("the pipeline file", |file| &file.path);
    let params = params::values(&parsed.pipeline, &build.event);
    pipeline::substitute(file, parsed, &build.values().with_params(&params).with_matrix(&parsed.pipeline.cell))
}
