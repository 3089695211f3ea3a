//! The stages of a build from its pipeline files: read, match, set values, plan.

use beespace_core::build::{Build, PipelineFile, Stage};
use beespace_core::diagnostic::Diagnostic;
use beespace_core::event::Event;
use beespace_core::ids::{StageId, StageNumber};
use beespace_core::pipeline::eval_when::{Facts, PipelineMatch, pipelines_match};
use beespace_core::pipeline::substitution::Path;
use beespace_core::pipeline::{self, ParsedPipeline, Pipeline, PullRequestCheckout, SourceFile, When, params};
use beespace_core::policy::Decision;
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};
use tokio::task::spawn_blocking;

use crate::app::App;
use crate::clock::now;
use crate::planning::{self, PlanBudget};
use crate::source::ChangeSet;
use crate::store::StoreError;

/// Stages of a build that are planned at once. Each of them plans several steps at once.
const PLANNED_AT_ONCE: usize = 4;

/// Most bytes of the pipelines of a build with their values, as JSON.
const MAX_PIPELINE_BYTES: usize = 32 << 20;

/// A pipeline, and whether it runs, or the reason why it does not.
pub(super) struct MatchedPipeline {
    parsed: ParsedPipeline,
    pub(super) answer: Result<PipelineMatch, Reason>,
}

impl MatchedPipeline {
    /// Whether the pipeline runs, and checks out the merge of a pull request.
    pub(super) fn checks_out_merge(&self) -> bool {
        let clone = &self.parsed.pipeline.clone;
        self.answer.is_ok() && clone.enabled && clone.pull_request == PullRequestCheckout::Merge
    }
}

/// Reads the pipelines of the files. The build keeps the files.
///
/// # Errors
/// The reason why the build cannot run, if a file has problems.
pub(super) fn read(build: &mut Build, files: &[(String, Vec<u8>)]) -> Result<Vec<ParsedPipeline>, Reason> {
    let sources: Vec<SourceFile<'_>> = files.iter().map(|(path, bytes)| SourceFile { path, bytes }).collect();
    let parsed = pipeline::read_files(&sources);
    let pipelines = parsed.as_deref().unwrap_or_default();
    // The cells of a matrix share their document.
    let documents_of = |file: u16| {
        let mut documents: Vec<&ParsedPipeline> = pipelines.iter().filter(|parsed| parsed.place.file == file).collect();
        documents.dedup_by_key(|parsed| parsed.place);
        documents
    };
    let keep = |(file, (path, bytes)): (u16, &(String, Vec<u8>))| PipelineFile {
        path: path.clone(),
        text: String::from_utf8_lossy(bytes).into_owned(),
        diagnostics: Vec::new(),
        schedules: documents_of(file).into_iter().flat_map(|parsed| parsed.pipeline.schedules.clone()).collect(),
        documents: documents_of(file).into_iter().map(|parsed| (*parsed.spans).clone()).collect(),
    };
    build.files = (0..).zip(files).map(keep).collect();
    parsed.map_err(|diagnostics| {
        let problems = if diagnostics.len() == 1 { "a problem".to_owned() } else { format!("{} problems", diagnostics.len()) };
        let (subject, is_one) = add_diagnostics(build, diagnostics);
        let have = if is_one { "has" } else { "have" };
        Reason::new(ReasonCode::InvalidFile, format!("{subject} {have} {problems}"))
            .help("run `beespace lint` to check the file before you push")
    })
}

/// Adds diagnostics to their files. Returns the invalid files as the subject of a sentence, and whether it is one file.
fn add_diagnostics(build: &mut Build, diagnostics: Vec<Diagnostic>) -> (String, bool) {
    for diagnostic in diagnostics {
        if let Some(file) = build.files.iter_mut().find(|file| file.path == diagnostic.file) {
            file.diagnostics.push(diagnostic);
        }
    }
    let mut invalid = build.files.iter().filter(|file| !file.diagnostics.is_empty());
    match (invalid.next(), invalid.count()) {
        (Some(only), 0) => (only.path.clone(), true),
        (_, others) => (format!("{} pipeline files", others + 1), false),
    }
}

/// Finds out which pipelines run. The comparison of many paths with many patterns takes a while, so it has a thread of its own.
pub(super) async fn match_all(pipelines: Vec<ParsedPipeline>, facts: Facts) -> anyhow::Result<Vec<MatchedPipeline>> {
    let whens: Vec<Option<When>> = pipelines.iter().map(|parsed| parsed.pipeline.when.clone()).collect();
    let answers = spawn_blocking(move || pipelines_match(whens.iter().map(Option::as_ref), &facts)).await?;
    let matched = |(parsed, answer): (_, Result<_, _>)| MatchedPipeline { parsed, answer: answer.map_err(when_of_pipeline) };
    let mut all: Vec<MatchedPipeline> = pipelines.into_iter().zip(answers).map(matched).collect();
    // A pipeline that does not run is one skipped stage, not one for each cell of its matrix.
    all.dedup_by(|next, first| next.answer.is_err() && next.parsed.place == first.parsed.place);
    all.iter_mut().filter(|matched| matched.answer.is_err()).for_each(|matched| matched.parsed.pipeline.cell.clear());
    Ok(all)
}

/// Says that the `when` of the pipeline itself did not match, without a second level for the same fact.
fn when_of_pipeline(reason: Reason) -> Reason {
    match &*reason.message {
        "`when` does not match" => Reason { message: "the pipeline's `when` does not match".to_owned(), ..reason },
        _ => Reason::new(ReasonCode::WhenMismatch, "the pipeline's `when` does not match").part(reason),
    }
}

/// Checks the values for params that the build was given.
///
/// # Errors
/// The reason why the build cannot run with them.
pub(super) fn check_params(pipelines: &[MatchedPipeline], event: &Event) -> Result<(), Reason> {
    let all: Vec<&Pipeline> = pipelines.iter().map(|matched| &matched.parsed.pipeline).collect();
    let running = pipelines.iter().filter(|matched| matched.answer.is_ok()).map(|matched| &matched.parsed.pipeline);
    params::check(&all, &running.collect::<Vec<_>>(), event)
}

/// Puts the values of the build into the pipelines that run. A pipeline that contains the number of the build needs it now.
///
/// # Errors
/// The store's. The inner error is the reason why the build cannot run, if a file is not valid with its values.
pub(super) async fn set_values(
    app: &App,
    build: &mut Build,
    pipelines: &mut [MatchedPipeline],
) -> Result<Result<(), Reason>, StoreError> {
    let mut running: Vec<&mut ParsedPipeline> =
        pipelines.iter_mut().filter(|matched| matched.answer.is_ok()).map(|matched| &mut matched.parsed).collect();
    if build.number.is_none() && running.iter().any(|parsed| parsed.substitutions.contains(&Path::Number)) {
        build.number = Some(app.store.assign_number(build.id).await?);
    }
    let (mut problems, mut bytes): (Vec<Diagnostic>, usize) = (Vec::new(), 0);
    for parsed in &mut running {
        match planning::with_values(build, parsed) {
            Ok(pipeline) => {
                bytes += serde_json::to_vec(&pipeline).map_or(0, |json| json.len());
                if bytes > MAX_PIPELINE_BYTES {
                    let message = format!("the pipelines have more than {} MiB with their values", MAX_PIPELINE_BYTES >> 20);
                    return Ok(Err(Reason::new(ReasonCode::PlansTooLarge, message)));
                }
                parsed.pipeline = pipeline;
            }
            Err(found) => {
                let new: Vec<_> = found.into_iter().filter(|problem| !problems.contains(problem)).collect();
                problems.extend(new);
            }
        }
    }
    if problems.is_empty() {
        return Ok(Ok(()));
    }
    let (subject, is_one) = add_diagnostics(build, problems);
    let are = if is_one { "is" } else { "are" };
    let message = format!("{subject} {are} invalid with the values of this build");
    Ok(Err(Reason::new(ReasonCode::InvalidFile, message)))
}

/// Plans one stage per pipeline, numbered in the order of the files. A pipeline that does not run becomes a skipped stage.
pub(super) async fn plan_all(
    app: &App,
    build: &Build,
    pipelines: Vec<MatchedPipeline>,
    change_set: &ChangeSet,
) -> (Vec<Stage>, Vec<Decision>) {
    let all_needs: Vec<Vec<StageNumber>> = pipelines.iter().map(|matched| needed_stages(&pipelines, matched)).collect();
    let budget = PlanBudget::default();
    let mut plans = Vec::with_capacity(pipelines.len());
    for ((matched, needs), number) in pipelines.into_iter().zip(all_needs).zip(1..) {
        let id = StageId { build: build.id, stage: StageNumber(number) };
        plans.push(plan(app, build, (id, needs), matched, (change_set, &budget)).boxed());
    }
    let planned: Vec<_> = stream::iter(plans).buffered(PLANNED_AT_ONCE).collect().await;
    let (stages, decisions): (Vec<Stage>, Vec<Vec<Decision>>) = planned.into_iter().unzip();
    (stages, decisions.into_iter().flatten().collect())
}

/// The stages of the pipelines that a pipeline needs.
fn needed_stages(all: &[MatchedPipeline], matched: &MatchedPipeline) -> Vec<StageNumber> {
    let needs = &matched.parsed.pipeline.needs;
    let numbered = all.iter().zip(1..).filter(|(other, _)| needs.contains(&other.parsed.pipeline.name));
    numbered.map(|(_, number)| StageNumber(number)).collect()
}

async fn plan(
    app: &App,
    build: &Build,
    (id, needs): (StageId, Vec<StageNumber>),
    matched: MatchedPipeline,
    inputs: (&ChangeSet, &PlanBudget),
) -> (Stage, Vec<Decision>) {
    let MatchedPipeline { parsed, answer } = matched;
    let (stage, decisions) = match answer {
        Ok(PipelineMatch { remarks, starts_on }) => {
            let (stage, decisions) = planning::plan_stage(app, build, id, parsed.pipeline, inputs).await;
            let remarks = remarks.into_iter().chain(stage.remarks).collect();
            (Stage { remarks, starts_on, waits_for_needs: !needs.is_empty(), ..stage }, decisions)
        }
        Err(reason) => (skipped_stage(id, parsed.pipeline, reason), Vec::new()),
    };
    (Stage { place: parsed.place, needs, ..stage }, decisions)
}

/// The stage of a pipeline that does not run for the event.
fn skipped_stage(id: StageId, pipeline: Pipeline, reason: Reason) -> Stage {
    let at = now();
    let stage = Stage::pending(id, pipeline, None, Vec::new(), at);
    Stage { status: Status::Skipped, reason: Some(reason), finished_at: Some(at), ..stage }
}
