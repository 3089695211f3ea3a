//! `${{ path }}`: the only substitution in a pipeline file. It works on the texts of the normal form, never on the file, so no
//! value can add a key or a step. A substitution holds a path and nothing else; `$VAR` belongs to the shell, and `$${{` writes
//! `${{`.
//!
//! A script must not contain text that an attacker can choose, such as the name of a branch. The reader refuses such paths where
//! a program interprets the text, and names the environment variable to use instead.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::diagnostics::{did_you_mean, quote};
use crate::diagnostic::Span;
use crate::event::Event;
use crate::ids::Sha;

const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// The paths without parts of their own.
const PLAIN: [(&str, Path); 9] = [
    ("event", Path::Event),
    ("branch", Path::Branch),
    ("tag", Path::Tag),
    ("target", Path::Target),
    ("sha", Path::Sha),
    ("short_sha", Path::ShortSha),
    ("number", Path::Number),
    ("repo.owner", Path::RepoOwner),
    ("repo.name", Path::RepoName),
];

/// The path inside a substitution.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    Event,
    Branch,
    Tag,
    /// The target of a promotion or rollback.
    Target,
    Sha,
    ShortSha,
    /// The number of the build.
    Number,
    RepoOwner,
    RepoName,
    /// The value of an axis in the cell that runs.
    Matrix(String),
    /// A parameter of the build.
    Param(String),
    /// An output of an earlier step.
    Output {
        step: String,
        name: String,
    },
}

/// A substitution in the file, for the checks that need the whole file.
#[derive(Debug, Clone)]
pub(super) struct UsedPath {
    pub(super) path: Path,
    pub(super) span: Span,
}

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathError {
    pub message: String,
    pub help: String,
}

impl Path {
    /// Parses the text between `${{` and `}}`, without blanks around it.
    ///
    /// # Errors
    /// The text is not one of the paths; the help names the one that is probably meant.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let parts: Vec<&str> = text.split('.').collect();
        if !parts.iter().all(|part| is_name(part)) {
            return Err(PathError {
                message: format!("{} is not a path", quote(text)),
                help: "a substitution contains a path and nothing else: no operators, calls or quotes".to_owned(),
            });
        }
        if let Some((_, path)) = PLAIN.iter().find(|(word, _)| *word == text) {
            return Ok(path.clone());
        }
        match parts.as_slice() {
            ["matrix", axis] => Ok(Self::Matrix((*axis).to_owned())),
            ["params", name] => Ok(Self::Param((*name).to_owned())),
            ["steps", step, "outputs", name] => Ok(Self::Output { step: (*step).to_owned(), name: (*name).to_owned() }),
            _ => Err(unknown_path(text, &parts)),
        }
    }

    /// Whether an attacker can choose the text: everything that comes from names in git, from people or from programs. Values of
    /// a matrix stand in the file, beside the scripts.
    #[must_use]
    pub fn is_untrusted(&self) -> bool {
        matches!(self, Self::Branch | Self::Tag | Self::Target | Self::Param(_) | Self::Output { .. })
    }

    /// The environment variable with the same value.
    #[must_use]
    pub fn variable(&self) -> String {
        match self {
            Self::Event => "BEESPACE_EVENT".to_owned(),
            Self::Branch => "BEESPACE_BRANCH".to_owned(),
            Self::Tag => "BEESPACE_TAG".to_owned(),
            Self::Target => "BEESPACE_TARGET".to_owned(),
            Self::Sha => "BEESPACE_SHA".to_owned(),
            Self::ShortSha => "BEESPACE_SHORT_SHA".to_owned(),
            Self::Number => "BEESPACE_BUILD_NUMBER".to_owned(),
            Self::RepoOwner => "BEESPACE_REPO_OWNER".to_owned(),
            Self::RepoName => "BEESPACE_REPO_NAME".to_owned(),
            Self::Matrix(axis) => format!("BEESPACE_MATRIX_{}", variable_part(axis)),
            Self::Param(name) => format!("BEESPACE_PARAM_{}", variable_part(name)),
            Self::Output { step, name } => format!("BEESPACE_OUTPUT_{}_{}", variable_part(step), variable_part(name)),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matrix(axis) => write!(f, "matrix.{axis}"),
            Self::Param(name) => write!(f, "params.{name}"),
            Self::Output { step, name } => write!(f, "steps.{step}.outputs.{name}"),
            plain => f.write_str(PLAIN.iter().find(|(_, path)| path == plain).map_or("", |(word, _)| word)),
        }
    }
}

/// The part of a variable's name that stands for a name in the file: upper case, with `_` for every other character.
#[must_use]
pub fn variable_part(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Whether a name can be a part of a path: letters, digits, `_` and `-`, not beginning with `-`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn unknown_path(text: &str, parts: &[&str]) -> PathError {
    let message = format!("unknown path {} in a substitution", quote(text));
    let known = PLAIN.map(|(word, _)| word);
    let help = match parts {
        ["steps", step, ..] => format!("outputs are read with `steps.{step}.outputs.NAME`"),
        ["env" | "secrets" | "vars", ..] => {
            "variables and secrets are in the step's environment: use `$NAME` in `run`".to_owned()
        }
        _ => match did_you_mean(text, known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => match did_you_mean(parts.first().copied().unwrap_or_default(), ["matrix", "params", "steps", "repo"]) {
                Some("repo") => "use `repo.owner` or `repo.name`".to_owned(),
                Some("steps") => "outputs are read with `steps.STEP.outputs.NAME`".to_owned(),
                Some(meant) => format!("use `{meant}.NAME`"),
                None => format!("known paths: {}, matrix.NAME, params.NAME, steps.NAME.outputs.NAME", known.join(", ")),
            },
        },
    };
    PathError { message, help }
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'t> {
    Plain(&'t str),
    /// The path of a substitution, without blanks around it, and the substitution as it is written.
    Path {
        path: &'t str,
        written: &'t str,
    },
    /// A `${{` without its `}}`.
    Unclosed(&'t str),
}

/// Splits a text at its substitutions. `$${{` becomes the plain text `${{`.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(OPEN) {
        let (before, found) = rest.split_at(at);
        let after = found.get(OPEN.len()..).unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            pieces.extend([Piece::Plain(before), Piece::Plain(OPEN)]);
            rest = after;
            continue;
        }
        pieces.push(Piece::Plain(before));
        let Some(end) = after.find(CLOSE) else {
            pieces.push(Piece::Unclosed(found));
            return pieces;
        };
        let (path, tail) = after.split_at(end);
        let written = found.get(..OPEN.len() + end + CLOSE.len()).unwrap_or_default();
        pieces.push(Piece::Path { path: path.trim(), written });
        rest = tail.get(CLOSE.len()..).unwrap_or_default();
    }
    pieces.push(Piece::Plain(rest));
    pieces
}

/// Whether a text has something to substitute.
#[must_use]
pub fn has_substitution(text: &str) -> bool {
    text.contains(OPEN)
}

/// The text with a sample in place of every substitution, to check its form before the values are known.
#[must_use]
pub fn sample(text: &str) -> Cow<'_, str> {
    if !has_substitution(text) {
        return Cow::Borrowed(text);
    }
    let part = |piece| match piece {
        Piece::Plain(text) => text,
        Piece::Path { .. } | Piece::Unclosed(_) => "x",
    };
    Cow::Owned(pieces(text).into_iter().map(part).collect())
}

/// The paths in a text, in order; an error for each substitution that has none.
pub(super) fn paths(text: &str) -> Vec<Result<Path, PathError>> {
    let path = |piece| match piece {
        Piece::Plain(_) => None,
        Piece::Path { path: "", written } => {
            let message = format!("the substitution {} is empty", quote(written));
            Some(Err(PathError { message, help: "write a path, such as `${{ short_sha }}`".to_owned() }))
        }
        Piece::Path { path, .. } => Some(Path::parse(path)),
        Piece::Unclosed(rest) => {
            let message = format!("the substitution {} has no `}}}}`", quote(rest.lines().next().unwrap_or_default()));
            Some(Err(PathError { message, help: "write `${{ path }}`; `$${{` stands for the text `${{`".to_owned() }))
        }
    };
    pieces(text).into_iter().filter_map(path).collect()
}

/// The values of paths for one stage. A path without a value, such as `tag` for a push, becomes empty text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values(BTreeMap<Path, String>);

impl Values {
    /// The facts of an event. `sha` is the commit that is built, `number` the number of the build.
    #[must_use]
    pub fn of_event(event: &Event, sha: Option<&Sha>, number: Option<u64>) -> Self {
        let name = &event.repository.name;
        let all = [
            (Path::Event, Some(event.kind().as_str().to_owned())),
            (Path::Branch, event.branch_or_target().map(ToOwned::to_owned)),
            (Path::Tag, event.tag().map(ToOwned::to_owned)),
            (Path::Target, event.target().map(ToOwned::to_owned)),
            (Path::Sha, sha.map(ToString::to_string)),
            (Path::ShortSha, sha.map(|sha| sha.short().to_owned())),
            (Path::Number, number.map(|number| number.to_string())),
            (Path::RepoOwner, Some(name.owner().to_owned())),
            (Path::RepoName, Some(name.name().to_owned())),
        ];
        Self(all.into_iter().filter_map(|(path, value)| Some((path, value?))).collect())
    }

    /// Adds the values of the axes in a cell of the matrix.
    #[must_use]
    pub fn with_matrix<'v>(mut self, cell: impl IntoIterator<Item = (&'v String, &'v String)>) -> Self {
        self.0.extend(cell.into_iter().map(|(axis, value)| (Path::Matrix(axis.clone()), value.clone())));
        self
    }

    /// Adds the parameters of the build.
    #[must_use]
    pub fn with_params<'v>(mut self, params: impl IntoIterator<Item = (&'v String, &'v String)>) -> Self {
        self.0.extend(params.into_iter().map(|(name, value)| (Path::Param(name.clone()), value.clone())));
        self
    }

    /// Sets one value.
    #[must_use]
    pub fn with(mut self, path: Path, value: impl Into<String>) -> Self {
        self.0.insert(path, value.into());
        self
    }

    /// The text with the values of its paths.
    #[must_use]
    pub fn resolve(&self, text: &str) -> String {
        let value = |path: &str| Path::parse(path).ok().and_then(|path| self.0.get(&path));
        let part = |piece| match piece {
            Piece::Plain(text) | Piece::Unclosed(text) => text,
            Piece::Path { path, .. } => value(path).map_or("", String::as_str),
        };
        pieces(text).into_iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> Values {
        Values::default().with(Path::Branch, "main").with(Path::Matrix("rust".to_owned()), "1.10")
    }

    #[test]
    fn values_replace_their_paths() {
        let resolve = |text: &str| values().resolve(text);
        assert_eq!(resolve("rust:${{ matrix.rust }}-${{branch}}"), "rust:1.10-main");
        assert_eq!(resolve("${{ tag }}"), "", "a path without a value is empty");
        assert_eq!(resolve("$HOME ${X} $${{ branch }} {{ branch }}"), "$HOME ${X} ${{ branch }} {{ branch }}");
        assert_eq!(resolve("a ${{ branch"), "a ${{ branch");
    }

    #[test]
    fn every_path_reads_back() {
        let plain = PLAIN.iter().map(|(word, _)| *word);
        for text in plain.chain(["matrix.a-b", "params.level", "steps.build.outputs.version"]) {
            let path = Path::parse(text).unwrap();
            assert_eq!(path.to_string(), text);
            let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
            assert!(path.variable().starts_with("BEESPACE_") && path.variable().bytes().all(is_plain), "{}", path.variable());
        }
    }

    #[test]
    fn a_wrong_path_has_a_remedy() {
        let help = |text: &str| Path::parse(text).unwrap_err().help;
        assert_eq!(help("brnach"), "did you mean `branch`?");
        assert_eq!(help("repo.nam"), "did you mean `repo.name`?");
        assert_eq!(help("param.level"), "use `params.NAME`");
        assert_eq!(help("steps.build.version"), "outputs are read with `steps.build.outputs.NAME`");
        assert!(help("secrets.token").contains("`$NAME`"));
        assert!(help("banana").starts_with("known paths: event, branch"));
        for text in ["branch || 'x'", "upper(branch)", "branch.", "a b", "\"x\"", "-x"] {
            assert!(help(text).contains("nothing else"), "{text}");
        }
    }

    #[test]
    fn a_sample_has_the_form_of_the_text() {
        assert_eq!(sample("rust:${{ matrix.rust }}"), "rust:x");
        assert_eq!(sample("rust"), "rust");
    }

    proptest! {
        #[test]
        fn text_without_a_substitution_is_kept(text in "\\PC{0,60}") {
            prop_assume!(!text.contains(OPEN));
            prop_assert_eq!(values().resolve(&text), text);
        }

        #[test]
        fn a_value_is_never_interpreted(value in "\\PC{0,40}", before in "[a-z $]{0,8}") {
            let values = Values::default().with(Path::Branch, value.clone());
            prop_assert_eq!(values.resolve(&format!("{before} ${{{{ branch }}}}")), format!("{before} {value}"));
        }
    }
}
