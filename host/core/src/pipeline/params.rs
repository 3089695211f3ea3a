//! The params of a pipeline: values that whoever starts a build may choose.
//!
//! The file declares each with a type. The chosen values come with the event and are checked when the file is read; steps get
//! them as variables.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Pipeline;
use super::diagnostics::{did_you_mean, join_words, quote};
use super::substitution::Path;
use crate::event::{Event, GivenParams};
use crate::reason::Reason;
use crate::reason_code::ReasonCode;

/// Most params of a pipeline, and most values that one build is given.
pub const MAX_PARAMS: usize = 50;
/// Longest name of a param, in bytes.
const MAX_NAME: usize = 64;
/// Longest value, in bytes.
pub const MAX_VALUE: usize = 4096;

/// One param.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    #[serde(flatten)]
    pub kind: ParamKind,
    /// The value if none is given; `None`: whoever starts a build must give one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The meaning of the param, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

/// The type of a param. Values keep the text in which they are written: `1.10` stays `1.10`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ParamKind {
    String,
    /// A decimal number, `-12.5`.
    Number,
    /// `true` or `false`.
    Bool,
    /// One of these texts.
    Choice {
        options: Vec<String>,
    },
}

impl ParamKind {
    /// Checks a value.
    ///
    /// # Errors
    /// The end of a sentence about the value: `must be a number such as 3 or -1.5, not "x"`.
    pub fn check(&self, value: &str) -> Result<(), String> {
        if value.len() > MAX_VALUE {
            return Err(format!("must not be longer than {MAX_VALUE} bytes"));
        }
        if value.contains('\0') {
            return Err("must not contain a NUL byte, which no program can receive".to_owned());
        }
        let shown = quote(value);
        match self {
            Self::String => Ok(()),
            Self::Number if is_number(value) => Ok(()),
            Self::Number => Err(format!("must be a number such as `3` or `-1.5`, not {shown}")),
            Self::Bool if matches!(value, "true" | "false") => Ok(()),
            Self::Bool => Err(format!("must be `true` or `false`, not {shown}")),
            Self::Choice { options } if options.iter().any(|option| option == value) => Ok(()),
            Self::Choice { options } => Err(format!("must be {}, not {shown}", listed(options, "or"))),
        }
    }
}

fn is_number(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    unsigned.split_once('.').map_or_else(|| digits(unsigned), |(whole, part)| digits(whole) && digits(part))
}

fn listed(words: &[impl AsRef<str>], and: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word.as_ref())).collect();
    join_words(&quoted, and)
}

/// Whether a param can have this name: a letter, then letters, digits, `_` and `-`.
#[must_use]
pub fn is_param_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// The variable of a param: `BEESPACE_PARAM_DRY_RUN` for `dry-run`.
#[must_use]
pub fn variable_name(param: &str) -> String {
    Path::Param(param.to_owned()).variable()
}

/// The values of a pipeline's params in a build of `event`: the given ones, else the defaults. Without either a value is empty;
/// this happens only for events that nobody can give values to, such as a push.
#[must_use]
pub fn values(pipeline: &Pipeline, event: &Event) -> BTreeMap<String, String> {
    let given = |name: &str| event.params().and_then(|given| given.get(name)).cloned();
    let value = |name: &str, param: &Param| given(name).or_else(|| param.default.clone()).unwrap_or_default();
    pipeline.params.iter().map(|(name, param)| (name.clone(), value(name, param))).collect()
}

/// Checks the values that a build was given against all pipelines of its files; those that run need a value for each param. An
/// event without params is never refused.
///
/// # Errors
/// The reason with which the build ends: it lists each unknown, invalid and missing value.
pub fn check(all: &[&Pipeline], running: &[&Pipeline], event: &Event) -> Result<(), Reason> {
    let Some(given) = event.params() else { return Ok(()) };
    let unknown = given.keys().filter(|name| !all.iter().any(|pipeline| pipeline.params.contains_key(*name)));
    let mut problems: Vec<String> = unknown.map(|name| unknown_param(name, all)).collect();
    let declared = all.iter().flat_map(|pipeline| &pipeline.params);
    problems.extend(declared.filter_map(|(name, param)| invalid_value(name, param, given)));
    let needed = running.iter().flat_map(|pipeline| &pipeline.params);
    let missing = needed.filter(|(name, param)| param.default.is_none() && !given.contains_key(*name));
    problems.extend(missing.map(|(name, _)| format!("{} has no default, so it must be given", quote(name))));
    let mut seen = BTreeSet::new();
    problems.retain(|problem| seen.insert(problem.clone()));
    if problems.is_empty() {
        return Ok(());
    }
    let reason = Reason::new(ReasonCode::InvalidParams, "the params of the build do not match `params` of the pipeline file");
    let reason = reason.help("start it again with `-p NAME=VALUE` for each param of the file");
    Err(problems.into_iter().fold(reason, |reason, problem| reason.part(Reason::new(ReasonCode::InvalidParams, problem))))
}

fn unknown_param(name: &str, pipelines: &[&Pipeline]) -> String {
    let known: Vec<&str> = pipelines.iter().flat_map(|pipeline| pipeline.params.keys()).map(String::as_str).collect();
    let hint = match did_you_mean(name, known.iter().copied()) {
        Some(meant) => format!("did you mean {}?", quote(meant)),
        None if known.is_empty() => "the file declares none".to_owned(),
        None => format!("the file declares {}", listed(&known, "and")),
    };
    format!("there is no param {}; {hint}", quote(name))
}

fn invalid_value(name: &str, param: &Param, given: &GivenParams) -> Option<String> {
    param.kind.check(given.get(name)?).err().map(|problem| format!("{} {problem}", quote(name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pipeline() -> Pipeline {
        let file = b"params:\n  level: { type: choice, options: [patch, minor], default: patch }\n  \
                     count: { type: number, default: 1.10 }\n  dry-run: { type: bool, default: false }\n  note: {}\n\
                     steps:\n  - { name: a, image: x }\n";
        super::super::read("f", file).unwrap().pipeline
    }

    fn event(given: &[(&str, &str)]) -> Event {
        let params: GivenParams = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        serde_json::from_value(json!({
            "repository": { "id": 1, "name": { "owner": "ada", "name": "hive" }, "default_branch": "main", "is_private": false,
                "html_url": "" },
            "sender": { "id": 0, "login": "admin", "kind": "local" },
            "cause": { "kind": "manual", "revision": { "branch": "main" }, "params": params },
        }))
        .unwrap()
    }

    fn problems(given: &[(&str, &str)]) -> Vec<String> {
        let checked = check(&[&pipeline()], &[&pipeline()], &event(given));
        checked.err().map(|reason| reason.parts.into_iter().map(|part| part.message).collect()).unwrap_or_default()
    }

    #[test]
    fn given_values_take_precedence_over_defaults_and_keep_their_text() {
        let (pipeline, event) = (pipeline(), event(&[("level", "minor"), ("note", "a $(b)")]));
        assert_eq!(check(&[&pipeline], &[&pipeline], &event), Ok(()));
        let values = values(&pipeline, &event);
        let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(values, [("count", "1.10"), ("dry-run", "false"), ("level", "minor"), ("note", "a $(b)")]);
        assert_eq!(variable_name("dry-run"), "BEESPACE_PARAM_DRY_RUN");
    }

    #[test]
    fn unknown_invalid_and_missing_values_are_all_reported() {
        assert_eq!(problems(&[("note", "")]), [] as [&str; 0]);
        assert_eq!(problems(&[]), ["`note` has no default, so it must be given"]);
        assert_eq!(check(&[&pipeline()], &[], &event(&[])), Ok(()), "the pipeline does not run");
        let given = [("note", "n"), ("levle", "x"), ("count", "1e3"), ("dry-run", "yes"), ("level", "major")];
        assert_eq!(
            problems(&given),
            [
                "there is no param `levle`; did you mean `level`?",
                "`count` must be a number such as `3` or `-1.5`, not `1e3`",
                "`dry-run` must be `true` or `false`, not `yes`",
                "`level` must be `patch` or `minor`, not `major`",
            ]
        );
        let long = "x".repeat(MAX_VALUE + 1);
        assert_eq!(problems(&[("note", &long)]), ["`note` must not be longer than 4096 bytes"]);
    }

    #[test]
    fn a_push_has_no_params_and_is_never_refused() {
        let mut push = event(&[]);
        push.cause = serde_json::from_value(json!({ "kind": "tag", "name": "v1", "object": null })).unwrap();
        let pipeline = pipeline();
        assert_eq!(check(&[&pipeline], &[&pipeline], &push), Ok(()));
        assert_eq!(values(&pipeline, &push)["note"], "");
    }

    #[test]
    fn numbers_are_decimal() {
        for (text, expected) in
            [("0", true), ("-1.5", true), ("007", true), ("", false), ("-", false), ("1.", false), ("+1", false)]
        {
            assert_eq!(is_number(text), expected, "{text:?}");
        }
    }
}
