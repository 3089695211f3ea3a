//! The pipeline files on the page of a build, annotated with its diagnostics and with policy findings.

use beespace_core::build::{Build, PipelineFile, Stage};
use beespace_core::diagnostic::Span;
use beespace_core::ids::StepNumber;
use beespace_core::pipeline::{EnvValue, Place};
use beespace_core::policy::{Decision, Finding, Mode, Severity};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;

const MISSING_SECRET: [ReasonCode; 2] = [ReasonCode::SecretMissing, ReasonCode::SecretOfPlugins];

/// The annotated file.
#[derive(Debug, Clone)]
pub struct PipelineFileView {
    pub path: String,
    /// Where its lines have their anchors.
    anchors: LineAnchors,
    /// `2 problems`, if parsing produced diagnostics.
    pub problems: Option<String>,
    /// Expanded initially, because a line has a diagnostic or a finding.
    pub open: bool,
    /// Diagnostics that refer to no line.
    pub notes: Vec<FileNote>,
    pub lines: Vec<FileLine>,
}

/// One line of the file.
#[derive(Debug, Clone)]
pub struct FileLine {
    pub number: usize,
    pub text: String,
    /// Status name that selects the colour of the mark.
    pub tone: Option<&'static str>,
    pub notes: Vec<FileNote>,
}

/// A diagnostic or finding below a line.
#[derive(Debug, Clone)]
pub struct FileNote {
    pub tone: &'static str,
    pub text: String,
    pub help: Option<String>,
}

/// The anchors of a file's lines on the page: `F12`, and `F2-12` in the second file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LineAnchors(usize);

impl LineAnchors {
    fn of_line(self, line: usize) -> String {
        match self.0 {
            0 => format!("F{line}"),
            file => format!("F{}-{line}", file + 1),
        }
    }
}

/// A line of one of the pipeline files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePosition {
    file: usize,
    line: usize,
    /// `line 12`, or `lint.yml:12` if the build has several files.
    pub label: String,
}

impl FilePosition {
    fn new(files: &[PipelineFile], file: usize, span: Span) -> Option<Self> {
        let line = usize::try_from(span.line).ok()?;
        let path = files.get(file)?.path.as_str();
        let name = path.rsplit('/').next().unwrap_or(path);
        let label = if files.len() > 1 { format!("{name}:{line}") } else { format!("line {line}") };
        Some(Self { file, line, label })
    }

    /// The anchor of the line on the page.
    #[must_use]
    pub fn anchor(&self) -> String {
        LineAnchors(self.file).of_line(self.line)
    }
}

impl PipelineFileView {
    /// The views of all files of a build.
    #[must_use]
    pub fn of_build(build: &Build, stages: &[Stage], decisions: &[Decision]) -> Vec<Self> {
        (0..build.files.len()).filter_map(|file| Self::new(&build.files, file, stages, decisions)).collect()
    }

    /// The anchor of a line on the page.
    #[must_use]
    pub fn anchor(&self, line: &FileLine) -> String {
        self.anchors.of_line(line.number)
    }

    fn new(files: &[PipelineFile], index: usize, stages: &[Stage], decisions: &[Decision]) -> Option<Self> {
        let file = files.get(index)?;
        let text_lines = file.text.lines().enumerate();
        let mut lines: Vec<FileLine> = text_lines
            .map(|(index, text)| FileLine { number: index + 1, text: text.to_owned(), tone: None, notes: Vec::new() })
            .collect();
        let mut notes = Vec::new();
        let mut put = |number: Option<usize>, note: FileNote| {
            let line = number.and_then(|number| lines.get_mut(number.checked_sub(1)?));
            match line {
                Some(line) => {
                    line.tone = line.tone.or(Some(note.tone));
                    if !line.notes.iter().any(|other| other.text == note.text) {
                        line.notes.push(note);
                    }
                }
                None => notes.push(note),
            }
        };
        for problem in &file.diagnostics {
            let line = problem.span.and_then(|span| usize::try_from(span.line).ok());
            put(line, FileNote { tone: "error", text: problem.message.clone(), help: problem.help.clone() });
        }
        for (decision, mode, finding) in findings(decisions) {
            if let Some(position) = finding_position(files, stages, decision, finding).filter(|position| position.file == index) {
                put(Some(position.line), FileNote::of_finding(mode, finding));
            }
        }
        for (place, pointer, reason) in missing_secrets(stages).into_iter().filter(|(place, ..)| usize::from(place.file) == index)
        {
            if let Some(line) = file.find(place.document, &pointer).and_then(|span| usize::try_from(span.line).ok()) {
                put(Some(line), FileNote { tone: "error", text: reason.message.clone(), help: reason.help.clone() });
            }
        }
        let count = file.diagnostics.len();
        let problems = (count > 0).then(|| format!("{count} problem{}", if count == 1 { "" } else { "s" }));
        let open = count > 0 || lines.iter().any(|line| line.tone.is_some());
        Some(Self { path: file.path.clone(), anchors: LineAnchors(index), problems, open, notes, lines })
    }
}

impl FileNote {
    fn of_finding(mode: Mode, finding: &Finding) -> Self {
        let text = format!("{} ({})", finding.message, finding.rule_id);
        let (tone, text) = match mode {
            Mode::Enforce | Mode::Shadow => (severity_tone(finding.severity), text),
            // It has no effect, whatever its severity, and must not look like a denial.
            Mode::Warn => ("pending", format!("Warning: {text}")),
        };
        Self { tone, text, help: finding.remedy.clone() }
    }
}

/// The findings that people see at their lines. Those of a policy in mode `shadow` are only recorded: they are under "Decisions".
fn findings(decisions: &[Decision]) -> impl Iterator<Item = (&Decision, Mode, &Finding)> {
    decisions.iter().flat_map(|decision| {
        let shown = decision.evaluations.iter().filter(|evaluation| evaluation.mode != Mode::Shadow);
        let verdicts = shown.filter_map(|evaluation| Some((evaluation.mode, evaluation.result.as_ref().ok()?)));
        verdicts.flat_map(move |(mode, verdict)| verdict.findings.iter().map(move |finding| (decision, mode, finding)))
    })
}

/// Where a pipeline names the secrets without which its stage could not start, with the reason.
fn missing_secrets(stages: &[Stage]) -> Vec<(Place, String, &Reason)> {
    let mut places = Vec::new();
    for stage in stages {
        let reasons = stage.reason.iter().flat_map(|reason| std::iter::once(reason).chain(&reason.parts));
        let missing: Vec<&Reason> = reasons.filter(|reason| MISSING_SECRET.iter().any(|code| reason.code == *code)).collect();
        if missing.is_empty() {
            continue;
        }
        let steps = stage.pipeline.steps.iter().enumerate().map(|(index, step)| (format!("/steps/{index}"), &step.env));
        for (owner, env) in std::iter::once((String::new(), &stage.pipeline.env)).chain(steps) {
            for (name, value) in env {
                let EnvValue::FromSecret(secret) = value else { continue };
                let subject = format!("secret {secret:?} ");
                let reason = missing.iter().find(|reason| reason.message.starts_with(&subject));
                places.extend(reason.map(|reason| (stage.place, format!("{owner}/env/{name}"), *reason)));
            }
        }
    }
    places
}

/// Status name that selects the colour of a finding.
#[must_use]
pub fn severity_tone(severity: Severity) -> &'static str {
    match severity {
        Severity::Info | Severity::Low => "skipped",
        Severity::Medium => "pending",
        Severity::High | Severity::Critical => "declined",
    }
}

/// The line that a finding refers to. A finding about a step points into the step's plan, a finding about the pipeline into the
/// pipeline. The spans of the stage's document map both to lines.
#[must_use]
pub fn finding_position(
    files: &[PipelineFile],
    stages: &[Stage],
    decision: &Decision,
    finding: &Finding,
) -> Option<FilePosition> {
    let stage = stages.iter().find(|stage| stage.number == decision.stage.stage)?;
    let file = usize::from(stage.place.file);
    let spans = files.get(file)?.documents.get(usize::from(stage.place.document))?;
    let pointer = finding.pointer.as_deref();
    let span = match &decision.step {
        Some(name) => {
            let step = stage.steps.iter().find(|step| step.name == *name && step.number != StepNumber::CLONE)?;
            spans.find_in_plan(step.number, pointer.unwrap_or_default())?
        }
        None => spans.find(pointer?)?,
    };
    FilePosition::new(files, file, span)
}
