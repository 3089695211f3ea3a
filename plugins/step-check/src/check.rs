//! Applies the rules.

use crate::bindings::beespace::plugin::types::{Finding, Severity};
use crate::push::Commit;
use crate::rules::Rules;
use crate::units::format_size;

/// Findings that are shown; the message tells the true number.
const MAX_FINDINGS: usize = 50;

/// A path of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) size: u64,
}

/// Something that is against a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    rule: &'static str,
    message: String,
    remedy: String,
}

/// All problems. `list` gives the paths that match a glob.
pub(crate) fn problems(
    rules: &Rules,
    commits: &[Commit],
    list: impl Fn(&str) -> Result<Vec<File>, String>,
) -> Result<Vec<Problem>, String> {
    let mut problems = Vec::new();
    for glob in &rules.forbid {
        problems.extend(list(glob)?.iter().map(|file| forbidden(file, glob)));
    }
    for glob in &rules.require {
        if list(glob)?.is_empty() {
            problems.push(missing(glob));
        }
    }
    if let Some(most) = rules.max_file_size {
        problems.extend(list("**")?.iter().filter(|file| file.size > most).map(|file| too_large(file, most)));
    }
    problems.extend(commits.iter().filter_map(|commit| message_problem(rules, commit)));
    Ok(problems)
}

fn forbidden(file: &File, glob: &str) -> Problem {
    Problem {
        rule: "forbidden-file",
        message: format!("{} must not be in the repository: {glob} is forbidden", file.path),
        remedy: format!(
            "Take it out with `git rm --cached {}`; if it holds a secret, change the secret: it stays in the history",
            file.path
        ),
    }
}

fn missing(glob: &str) -> Problem {
    Problem {
        rule: "missing-file",
        message: format!("There is no {glob} in the repository"),
        remedy: "Add the file, or take it out of `require`".to_owned(),
    }
}

fn too_large(file: &File, most: u64) -> Problem {
    let by = readable(file.size);
    Problem {
        rule: "file-too-large",
        message: format!("{} has {by}; at most {} are allowed", file.path, format_size(most)),
        remedy: "Keep large files outside of git, or in Git LFS".to_owned(),
    }
}

/// Rounded up: a file just above a limit must not be shown as being at it.
fn readable(bytes: u64) -> String {
    let unit = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)].into_iter().find(|(_, factor)| bytes >= *factor);
    let Some((unit, factor)) = unit else { return format!("{bytes}B") };
    let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(factor));
    format!("{}.{}{unit}", tenths / 10, tenths % 10)
}

fn message_problem(rules: &Rules, commit: &Commit) -> Option<Problem> {
    let pattern = rules.commit_message.as_ref()?;
    if commit.message.starts_with("Merge ") || pattern.is_match(&commit.message) {
        return None;
    }
    let short: String = commit.sha.chars().take(7).collect();
    let title = commit.message.lines().next().unwrap_or("");
    let remedy =
        rules.commit_message_help.clone().unwrap_or_else(|| "Change it with `git commit --amend` or `git rebase -i`".to_owned());
    Some(Problem {
        rule: "commit-message",
        message: format!("The message of {short}, {title:?}, does not match {pattern}"),
        remedy,
    })
}

/// The sentence at the end of the step.
pub(crate) fn message(count: usize) -> String {
    match count {
        0 => "Nothing to object to".to_owned(),
        1 => "1 problem".to_owned(),
        count if count > MAX_FINDINGS => format!("{count} problems, the first {MAX_FINDINGS} of them listed"),
        count => format!("{count} problems"),
    }
}

/// The problems as findings, as many as are shown.
pub(crate) fn findings(problems: Vec<Problem>) -> Vec<Finding> {
    let finding = |problem: Problem| Finding {
        rule_id: format!("step-check/{}", problem.rule),
        severity: Severity::High,
        message: problem.message,
        pointer: None,
        help_url: None,
        remedy: Some(problem.remedy),
    };
    problems.into_iter().take(MAX_FINDINGS).map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rules: &str, messages: &[&str]) -> Vec<String> {
        let commits: Vec<Commit> =
            messages.iter().map(|&message| Commit { sha: "95a2db4f".to_owned(), message: message.to_owned() }).collect();
        let file = |path: &str, size| File { path: path.to_owned(), size };
        let list = |glob: &str| match glob {
            "**" => Ok(vec![file("a.bin", 5 << 20), file("b.bin", (5 << 20) + 1)]),
            "**/*.pem" => Ok(vec![file("keys/a.pem", 10)]),
            "broken" => Err("the repository is away".to_owned()),
            _ => Ok(Vec::new()),
        };
        match problems(&Rules::read(rules).unwrap(), &commits, list) {
            Ok(problems) => problems.into_iter().map(|problem| problem.message).collect(),
            Err(error) => vec![format!("! {error}")],
        }
    }

    #[test]
    fn each_rule_says_what_is_wrong() {
        let rules = r#"{"forbid": ["**/*.pem", ".env"], "require": ["LICENSE", "**/*.pem"], "max_file_size": "5MiB"}"#;
        assert_eq!(
            found(rules, &[]),
            [
                "keys/a.pem must not be in the repository: **/*.pem is forbidden",
                "There is no LICENSE in the repository",
                "b.bin has 5.1MiB; at most 5MiB are allowed"
            ]
        );
    }

    #[test]
    fn messages_are_matched_whole_and_merges_left_alone() {
        let rules = r#"{"commit_message": "^(feat|fix): "}"#;
        assert_eq!(found(rules, &["fix: a", "Merge branch 'x'"]), [""; 0]);
        assert_eq!(found(rules, &["wip\n\nfix: no"]), ["The message of 95a2db4, \"wip\", does not match ^(feat|fix): "]);
    }

    #[test]
    fn files_that_cannot_be_had_are_no_success() {
        assert_eq!(found(r#"{"forbid": ["broken"]}"#, &[]), ["! the repository is away"]);
    }

    #[test]
    fn many_findings_are_cut_and_counted() {
        let many: Vec<Problem> = (0..60).map(|_| missing("x")).collect();
        assert_eq!(message(many.len()), "60 problems, the first 50 of them listed");
        assert_eq!(findings(many).len(), 50);
    }
}
