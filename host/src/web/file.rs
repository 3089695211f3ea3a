//! The pipeline file with, beside its lines, what is wrong with it and what policies found.

use beespace_core::build::PipelineFile;
use beespace_core::policy::{Decision, Finding, Severity};

/// The file as the page shows it.
#[derive(Debug, Clone)]
pub struct File {
    pub path: String,
    /// `2 problems`, where the reader found some.
    pub problems: Option<String>,
    /// Unfolded at once, because something in it matters.
    pub open: bool,
    /// What concerns no line.
    pub notes: Vec<Note>,
    pub lines: Vec<Line>,
}

/// One line of the file.
#[derive(Debug, Clone)]
pub struct Line {
    pub number: usize,
    pub text: String,
    /// Colour of the mark.
    pub tone: Option<&'static str>,
    pub notes: Vec<Note>,
}

/// A remark under a line.
#[derive(Debug, Clone)]
pub struct Note {
    pub tone: &'static str,
    pub text: String,
    pub help: Option<String>,
}

impl File {
    #[must_use]
    pub fn new(file: &PipelineFile, decisions: &[Decision]) -> Self {
        let text_lines = file.text.lines().enumerate();
        let mut lines: Vec<Line> = text_lines
            .map(|(index, text)| Line { number: index + 1, text: text.to_owned(), tone: None, notes: Vec::new() })
            .collect();
        let mut notes = Vec::new();
        let mut put = |number: Option<usize>, note: Note| {
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
            put(line, Note { tone: "error", text: problem.message.clone(), help: problem.help.clone() });
        }
        for (decision, finding) in findings(decisions) {
            if let Some(line) = line_of(&file.text, decision.step.as_deref(), finding.pointer.as_deref()) {
                let text = format!("{} ({})", finding.message, finding.rule_id);
                put(Some(line), Note { tone: tone(finding.severity), text, help: finding.remedy.clone() });
            }
        }
        let count = file.diagnostics.len();
        let problems = (count > 0).then(|| format!("{count} problem{}", if count == 1 { "" } else { "s" }));
        let open = count > 0 || lines.iter().any(|line| line.tone.is_some());
        Self { path: file.path.clone(), problems, open, notes, lines }
    }
}

fn findings(decisions: &[Decision]) -> impl Iterator<Item = (&Decision, &Finding)> {
    decisions.iter().flat_map(|decision| {
        let verdicts = decision.evaluations.iter().filter_map(|evaluation| evaluation.result.as_ref().ok());
        verdicts.flat_map(|verdict| &verdict.findings).map(move |finding| (decision, finding))
    })
}

/// Colour of a finding.
#[must_use]
pub fn tone(severity: Severity) -> &'static str {
    match severity {
        Severity::Info | Severity::Low => "skipped",
        Severity::Medium => "pending",
        Severity::High | Severity::Critical => "declined",
    }
}

/// The line that a finding means: that of the key its pointer ends with, inside the step where it names one. A finding about
/// a plan points into the plan and not into the file, so names are what both have in common; where there is none, the step's
/// first line; without a step, none.
#[must_use]
pub fn line_of(text: &str, step: Option<&str>, pointer: Option<&str>) -> Option<usize> {
    let from_pointer = pointer.and_then(|pointer| pointer.strip_prefix("/steps/")?.split('/').next()?.parse::<usize>().ok());
    let lines: Vec<&str> = text.lines().collect();
    let starts = step_starts(&lines);
    let start = match (step, from_pointer) {
        (Some(step), _) => starts.iter().copied().find(|start| step_name(&lines, *start, &starts) == Some(step))?,
        (None, Some(index)) => *starts.get(index)?,
        (None, None) => return None,
    };
    let end = starts.iter().copied().find(|other| *other > start).unwrap_or(lines.len());
    let words = pointer.unwrap_or_default().rsplit('/').filter(|part| part.parse::<usize>().is_err() && !part.is_empty());
    let body = lines.get(start..end)?;
    for word in words {
        if let Some(offset) = body.iter().position(|line| key_of(line) == Some(word)) {
            return Some(start + offset + 1);
        }
    }
    Some(start + 1)
}

/// Lines (from 0) on which items of `steps:` begin.
fn step_starts(lines: &[&str]) -> Vec<usize> {
    let Some(steps) = lines.iter().position(|line| line.trim_end() == "steps:") else { return Vec::new() };
    let items = lines.iter().enumerate().skip(steps + 1).filter(|(_, line)| line.trim_start().starts_with("- "));
    let items: Vec<(usize, usize)> = items.map(|(index, line)| (index, line.len() - line.trim_start().len())).collect();
    let Some(indent) = items.first().map(|(_, indent)| *indent) else { return Vec::new() };
    items.into_iter().filter(|(_, other)| *other == indent).map(|(index, _)| index).collect()
}

fn step_name<'t>(lines: &[&'t str], start: usize, starts: &[usize]) -> Option<&'t str> {
    let end = starts.iter().copied().find(|other| *other > start).unwrap_or(lines.len());
    let line = lines.get(start..end)?.iter().find(|line| key_of(line) == Some("name"))?;
    let value = line.split_once(':')?.1.trim();
    Some(value.trim_matches(['"', '\'']))
}

fn key_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("- ").unwrap_or(line).trim_start();
    line.split_once(':').map(|(key, _)| key.trim_matches(['"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name: test\nsteps:\n  - name: build\n    image: rust:1\n    run:\n      - cargo build\n  - image: \"alpine\"\n    name: \"say hi\"\n    run: echo\n";

    #[test]
    fn findings_stand_beside_the_line_they_mean() {
        assert_eq!(line_of(TEXT, Some("build"), Some("/containers/0/image")), Some(4));
        assert_eq!(line_of(TEXT, Some("say hi"), Some("/containers/0/image")), Some(7));
        assert_eq!(line_of(TEXT, Some("say hi"), None), Some(7));
        assert_eq!(line_of(TEXT, None, Some("/steps/1/action/run")), Some(9));
        assert_eq!(line_of(TEXT, None, Some("/steps/0/action/image")), Some(4));
        assert_eq!(line_of(TEXT, Some("other"), None), None);
        assert_eq!(line_of("", None, Some("/steps/3")), None);
    }
}
