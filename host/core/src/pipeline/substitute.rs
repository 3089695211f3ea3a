//! Puts the values of a stage into a pipeline.

use serde_json::Value as Json;

use super::command::workdir_problem;
use super::diagnostics::{Diagnostics, quote};
use super::substitution::{Values, has_substitution};
use super::{Action, MAX_TEXT, ParsedPipeline, Pipeline};
use crate::diagnostic::Diagnostic;
use crate::image_ref::ImageRef;

/// Replaces the substitutions of a pipeline by their values. `file` is the path of its file, for messages.
///
/// # Errors
/// All texts that are no longer valid with their values: names of images, directories, and a total of more than [`MAX_TEXT`]
/// bytes.
pub fn substitute(file: &str, parsed: &ParsedPipeline, values: &Values) -> Result<Pipeline, Vec<Diagnostic>> {
    let mut normal_form = serde_json::to_value(&parsed.pipeline).unwrap_or_default();
    let mut problems = Diagnostics::new(file);
    let mut left = MAX_TEXT;
    if resolve(&mut normal_form, values, &mut left).is_none() {
        problems.add("too-large", None, "the pipeline has more than 1 MiB of text after its substitutions");
        return Err(problems.into_diagnostics());
    }
    // The texts keep their places, so the normal form stays one.
    let Ok(pipeline) = serde_json::from_value(normal_form) else {
        problems.add("bad-value", None, "the pipeline cannot hold the values of its substitutions");
        return Err(problems.into_diagnostics());
    };
    check(parsed, &pipeline, &mut problems);
    if problems.is_empty() { Ok(pipeline) } else { Err(problems.into_diagnostics()) }
}

/// Replaces the texts of a document. `None` if they have more bytes than `left`.
fn resolve(value: &mut Json, values: &Values, left: &mut usize) -> Option<()> {
    match value {
        Json::String(text) if has_substitution(text) => {
            *text = values.resolve(text);
            *left = left.checked_sub(text.len())?;
            Some(())
        }
        Json::Array(items) => items.iter_mut().try_for_each(|item| resolve(item, values, left)),
        Json::Object(entries) => entries.values_mut().try_for_each(|value| resolve(value, values, left)),
        Json::String(_) | Json::Null | Json::Bool(_) | Json::Number(_) => Some(()),
    }
}

/// Checks the texts whose form the reader could check only without their values.
fn check(parsed: &ParsedPipeline, pipeline: &Pipeline, problems: &mut Diagnostics) {
    for (index, (written, step)) in parsed.pipeline.steps.iter().zip(&pipeline.steps).enumerate() {
        let (Action::Image(written), Action::Image(action)) = (&written.action, &step.action) else { continue };
        let mut add = |key: &str, message: String| {
            let span = parsed.spans.find(&format!("/steps/{index}/action/{key}"));
            problems.add_with_help("bad-value", span, message, "the text contains the values of its substitutions");
        };
        if written.image != action.image
            && let Err(problem) = action.image.parse::<ImageRef>()
        {
            add("image", format!("{} is not a valid image name: {problem}", quote(&action.image)));
        }
        if written.workdir != action.workdir
            && let Some(problem) = action.workdir.as_deref().and_then(workdir_problem)
        {
            add("workdir", format!("the `workdir` {} {problem}", quote(action.workdir.as_deref().unwrap_or_default())));
        }
    }
}
