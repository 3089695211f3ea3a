//! Applies the rules to the commit.

use crate::bindings::beespace::plugin::types::{Finding, Severity};
use crate::push::{Commit, Push};
use crate::rules::{Rules, UncheckedCommits};
use crate::units::format_size;

/// Maximum number of findings that are shown. The message contains the total number.
const MAX_FINDINGS: usize = 50;

/// A file of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) size: u64,
}

/// A violation of a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    rule: &'static str,
    message: String,
    remedy: String,
}

/// Finds all problems. `list` returns the files that match a glob.
pub(crate) fn problems(
    rules: &Rules,
    push: &Push,
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
    if let Some(limit) = rules.max_file_size {
        problems.extend(list("**")?.iter().filter(|file| file.size > limit).map(|file| too_large(file, limit)));
    }
    problems.extend(push.commits.iter().filter_map(|commit| message_problem(rules, commit)));
    if rules.unchecked_commits == UncheckedCommits::Fail {
        problems.extend(unchecked(rules, push).map(unchecked_problem));
    }
    Ok(problems)
}

/// Which commits have messages that no rule could be applied to.
pub(crate) fn unchecked(rules: &Rules, push: &Push) -> Option<String> {
    rules.commit_message.as_ref().and_then(|_| push.unlisted())
}

fn unchecked_problem(which: String) -> Problem {
    Problem {
        rule: "commits-not-checked",
        message: format!("Not every commit message could be checked: {which}"),
        remedy: "Push fewer commits at a time, or set `unchecked_commits: allow`".to_owned(),
    }
}

fn forbidden(file: &File, glob: &str) -> Problem {
    Problem {
        rule: "forbidden-file",
        message: format!("{} must not be in the repository, because `{glob}` is forbidden", file.path),
        remedy: format!(
            "Remove it with `git rm --cached {}`. If it contains a secret, rotate the secret: the file remains in the history",
            file.path
        ),
    }
}

fn missing(glob: &str) -> Problem {
    Problem {
        rule: "missing-file",
        message: format!("The repository has no file that matches `{glob}`"),
        remedy: "Add the file, or remove the pattern from `require`".to_owned(),
    }
}

fn too_large(file: &File, limit: u64) -> Problem {
    let size = readable(file.size);
    Problem {
        rule: "file-too-large",
        message: format!("{} has {size}; the limit is {}", file.path, exact(limit)),
        remedy: "Store large files outside git, or in Git LFS".to_owned(),
    }
}

/// Formats a size, rounded up, so that a file just above a limit is not shown as equal to it.
fn readable(bytes: u64) -> String {
    let unit = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)].into_iter().find(|(_, factor)| bytes >= *factor);
    let Some((unit, factor)) = unit else { return format!("{bytes} bytes") };
    let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(factor));
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Formats a limit exactly: `5 MiB`.
fn exact(limit: u64) -> String {
    let text = format_size(limit);
    let (number, unit) = text.split_at(text.trim_end_matches(|c: char| !c.is_ascii_digit()).len());
    format!("{number} {unit}")
}

fn message_problem(rules: &Rules, commit: &Commit) -> Option<Problem> {
    let pattern = rules.commit_message.as_ref()?;
    if commit.is_merge() || (pattern.is_match(&commit.message) && !commit.message_truncated) {
        return None;
    }
    let short: String = commit.sha.chars().take(7).collect();
    if commit.message_truncated {
        return Some(Problem {
            rule: "commit-message",
            message: format!("The message of commit {short} is too long to be checked"),
            remedy: "Shorten it with `git commit --amend` or `git rebase -i`".to_owned(),
        });
    }
    let title = commit.message.lines().next().unwrap_or("");
    let remedy =
        rules.commit_message_help.clone().unwrap_or_else(|| "Change it with `git commit --amend` or `git rebase -i`".to_owned());
    Some(Problem {
        rule: "commit-message",
        message: format!("The message of commit {short}, {title:?}, does not match `{pattern}`"),
        remedy,
    })
}

/// The message with which the step ends. `unchecked` are the commits that were not checked.
pub(crate) fn message(count: usize, unchecked: Option<String>) -> String {
    match count {
        0 => unchecked.map_or_else(|| "No problems found".to_owned(), |which| format!("No problems found, but {which}")),
        1 => "1 problem".to_owned(),
        count if count > MAX_FINDINGS => format!("{count} problems; the first {MAX_FINDINGS} are listed"),
        count => format!("{count} problems"),
    }
}

/// Turns the problems into findings, up to [`MAX_FINDINGS`].
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

    fn push(messages: &[&str]) -> Push {
        let commit = |&message: &&str| Commit { sha: "95a2db4f".to_owned(), message: message.to_owned(), ..Commit::default() };
        Push { commits: messages.iter().map(commit).collect(), ..Push::of_count(messages.len()) }
    }

    fn found(rules: &str, messages: &[&str]) -> Vec<String> {
        found_in(rules, &push(messages))
    }

    fn found_in(rules: &str, push: &Push) -> Vec<String> {
        let file = |path: &str, size| File { path: path.to_owned(), size };
        let list = |glob: &str| match glob {
            "**" => Ok(vec![file("a.bin", 5 << 20), file("b.bin", (5 << 20) + 1)]),
            "**/*.pem" => Ok(vec![file("keys/a.pem", 10)]),
            "broken" => Err("the repository is unavailable".to_owned()),
            _ => Ok(Vec::new()),
        };
        match problems(&Rules::read(rules).unwrap(), push, list) {
            Ok(problems) => problems.into_iter().map(|problem| problem.message).collect(),
            Err(error) => vec![format!("! {error}")],
        }
    }

    #[test]
    fn each_rule_reports_its_violations() {
        let rules = r#"{"forbid": ["**/*.pem", ".env"], "require": ["LICENSE", "**/*.pem"], "max_file_size": "5MiB"}"#;
        assert_eq!(
            found(rules, &[]),
            [
                "keys/a.pem must not be in the repository, because `**/*.pem` is forbidden",
                "The repository has no file that matches `LICENSE`",
                "b.bin has 5.1 MiB; the limit is 5 MiB"
            ]
        );
    }

    #[test]
    fn every_message_is_matched_except_those_of_merges() {
        let rules = r#"{"commit_message": "^(feat|fix): "}"#;
        assert_eq!(found(rules, &["fix: a", "feat: b"]), [""; 0]);
        let merge = "The message of commit 95a2db4, \"Merge everything now\", does not match `^(feat|fix): `";
        assert_eq!(found(rules, &["Merge everything now"]), [merge], "a message alone makes no merge");
        let merged = r#"{"commits": [{"sha": "a", "message": "Merge branch 'x'", "parent_count": 2}], "commit_count": 1}"#;
        assert_eq!(found_in(rules, &Push::read(merged).unwrap()), [""; 0]);
        assert_eq!(found(rules, &["wip\n\nfix: no"]), ["The message of commit 95a2db4, \"wip\", does not match `^(feat|fix): `"]);
    }

    #[test]
    fn a_commit_that_could_not_be_checked_is_a_problem_unless_allowed() {
        let many = r#"{"commits": [{"sha": "a", "message": "fix: a"}], "commit_count": 60}"#;
        let push = Push::read(many).unwrap();
        let (strict, lenient) = (r#"{"commit_message": "^fix"}"#, r#"{"commit_message": "^fix", "unchecked_commits": "allow"}"#);
        let unchecked_commits = "59 of 60 commits were not checked";
        assert_eq!(found_in(strict, &push), [format!("Not every commit message could be checked: {unchecked_commits}")]);
        assert_eq!(found_in(lenient, &push), [""; 0]);
        assert_eq!(found_in(r#"{"forbid": [".env"]}"#, &push), [""; 0], "no rule is about messages");
        let rules = Rules::read(lenient).unwrap();
        assert_eq!(message(0, unchecked(&rules, &push)), format!("No problems found, but {unchecked_commits}"));
    }

    #[test]
    fn a_truncated_message_is_not_accepted() {
        let cut = r#"{"commits": [{"sha": "95a2db4f", "message": "fix: a", "message_truncated": true}], "commit_count": 1}"#;
        let expected = "The message of commit 95a2db4 is too long to be checked";
        assert_eq!(found_in(r#"{"commit_message": "^fix"}"#, &Push::read(cut).unwrap()), [expected]);
    }

    #[test]
    fn unavailable_files_are_an_error() {
        assert_eq!(found(r#"{"forbid": ["broken"]}"#, &[]), ["! the repository is unavailable"]);
    }

    #[test]
    fn excess_findings_are_counted_but_not_listed() {
        let many: Vec<Problem> = (0..60).map(|_| missing("x")).collect();
        assert_eq!(message(many.len(), None), "60 problems; the first 50 are listed");
        assert_eq!(findings(many).len(), 50);
    }
}
