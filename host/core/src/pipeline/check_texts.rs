//! Checks every text of the file for substitutions and NUL bytes: the paths of substitutions must exist, and must be allowed
//! where they stand.

use super::Step;
use super::decode::Reader;
use super::diagnostics::{did_you_mean, quote};
use super::substitution::{self, Path, UsedPath};
use super::yaml::{MapEntry, Node, Value};
use crate::diagnostic::Span;

/// Keys whose texts are fixed, with the reason as the end of a sentence.
const FIXED: [(&str, &str); 10] = [
    ("name", "a name identifies its log and its needs"),
    ("needs", "the order of steps is known before the build starts"),
    ("when", "conditions are compared with the event themselves"),
    ("from_secret", "the name of a secret must stand in the file"),
    ("uses", "the step type must stand in the file"),
    ("matrix", "the axes are known before the build starts"),
    ("params", "parameters are declared before the build starts"),
    ("schedules", "schedules are declared before the build starts"),
    ("retry", "the number of attempts is known before the build starts"),
    ("outputs", "the names of outputs must stand in the file"),
];

/// The use of a text, which decides whether it may contain a substitution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextUse {
    /// A shell runs it.
    Script,
    /// It is a word of a command line.
    Words,
    /// It may not contain a substitution. The text is the reason.
    Fixed(&'static str),
    Plain,
}

/// The names that substitutions may use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DeclaredNames<'n> {
    pub(super) steps: &'n [Step],
    /// The axes of the matrix.
    pub(super) axes: &'n [&'n str],
    /// The parameters of the pipeline.
    pub(super) params: &'n [&'n str],
}

/// Where the walk is.
#[derive(Debug, Clone, Copy)]
struct Place {
    usage: TextUse,
    /// Whether the keys at this level have a meaning of their own, and are not names that the user chose.
    has_keywords: bool,
}

impl Place {
    const ROOT: Self = Self { usage: TextUse::Plain, has_keywords: true };

    /// The place of the value of `key`.
    fn of_key(self, key: &str) -> Self {
        // `from_secret` stays fixed wherever it is.
        let fixed = FIXED.iter().find(|(word, _)| *word == key && (self.has_keywords || *word == "from_secret"));
        let usage = match (fixed, key) {
            (Some((_, why)), _) => TextUse::Fixed(why),
            (None, "run" | "shell") if self.has_keywords => TextUse::Script,
            (None, "entrypoint" | "args") if self.has_keywords => TextUse::Words,
            // The usual names of a script in the settings of plugins, for example of those for SSH.
            (None, "script" | "commands" | "command" | "run") if !self.has_keywords => TextUse::Script,
            _ => self.usage,
        };
        // Below these keys the user chooses the names.
        let is_free = matches!(key, "env" | "with" | "settings" | "labels");
        Self { usage, has_keywords: self.has_keywords && !is_free }
    }
}

impl Reader {
    /// Checks all texts of the file, and collects the paths of its substitutions.
    pub(super) fn check_texts(&mut self, root: &Node) {
        self.check_node(root, Place::ROOT);
    }

    fn check_node(&mut self, node: &Node, place: Place) {
        match &node.value {
            Value::Null => {}
            Value::Scalar(scalar) => self.check_text(&scalar.text, node.span, place),
            Value::List(items) => {
                // Programs accept further options between `-c` and the code: every later word counts.
                let mut usage = place.usage;
                for item in items {
                    self.check_node(item, Place { usage, ..place });
                    if usage == TextUse::Words && is_code_option(item) {
                        usage = TextUse::Script;
                    }
                }
            }
            Value::Map(entries) => {
                let runs_code = place.has_keywords && entries.iter().any(is_entrypoint_with_code);
                for entry in entries {
                    self.check_key_text(&entry.key, entry.key_span);
                    let inside = place.of_key(&entry.key);
                    let usage = if runs_code && entry.key == "args" { TextUse::Script } else { inside.usage };
                    self.check_node(&entry.value, Place { usage, ..inside });
                }
            }
        }
    }

    fn check_key_text(&mut self, key: &str, span: Span) {
        self.check_nul(key, span);
        if substitution::has_substitution(key) {
            let message = format!("the key {} contains a substitution; only values may", quote(key));
            self.diagnostics.add("substitution", span, message);
        }
    }

    fn check_text(&mut self, text: &str, span: Span, place: Place) {
        self.check_nul(text, span);
        if !substitution::has_substitution(text) {
            return;
        }
        let mut untrusted = Vec::new();
        for path in substitution::paths(text) {
            match path {
                Err(error) => self.diagnostics.add_with_help("substitution", span, error.message, error.help),
                Ok(path) => {
                    if path.is_untrusted() && !untrusted.contains(&path) {
                        untrusted.push(path.clone());
                    }
                    self.substitutions.insert(path.clone());
                    self.used_paths.push(UsedPath { path, span });
                }
            }
        }
        match place.usage {
            TextUse::Fixed(why) => {
                self.diagnostics.add_with_help("substitution", span, "a substitution is not possible here", why);
            }
            TextUse::Script if !untrusted.is_empty() => self.untrusted_script(span, &untrusted),
            TextUse::Script | TextUse::Words | TextUse::Plain => {}
        }
    }

    /// Checks that axes, parameters and steps exist that substitutions name.
    pub(super) fn check_used_paths(&mut self, declared: &DeclaredNames<'_>) {
        for UsedPath { path, span } in std::mem::take(&mut self.used_paths) {
            let (name, known, key) = match &path {
                Path::Matrix(axis) => (axis, declared.axes, "matrix"),
                Path::Param(param) => (param, declared.params, "params"),
                Path::Output { step, .. } => {
                    self.check_output(&path, step, span, declared.steps);
                    continue;
                }
                _ => continue,
            };
            if known.contains(&name.as_str()) {
                continue;
            }
            let message = format!("`{key}` has no {}, so {} has no value", quote(name), quote(&path.to_string()));
            let help = match did_you_mean(name, known.iter().copied()) {
                Some(meant) => format!("did you mean {}?", quote(&format!("{key}.{meant}"))),
                None => format!("add {} to `{key}` of the pipeline", quote(name)),
            };
            self.diagnostics.add_with_help("substitution", span, message, help);
        }
    }

    fn check_output(&mut self, path: &Path, step: &str, span: Span, steps: &[Step]) {
        if steps.iter().any(|other| other.name == step) {
            let message = format!("{} is not supported yet: steps have no outputs", quote(&path.to_string()));
            self.diagnostics.add_with_help("not-yet", span, message, "write the value to a file in the workspace");
            return;
        }
        let help = match did_you_mean(step, steps.iter().map(|step| step.name.as_str())) {
            Some(meant) => format!("did you mean {}?", quote(meant)),
            None => "a substitution can read only outputs of steps of the same pipeline".to_owned(),
        };
        self.diagnostics.add_with_help("unknown-step", span, format!("no step is named {}", quote(step)), help);
    }

    fn check_nul(&mut self, text: &str, span: Span) {
        if text.contains('\0') {
            self.diagnostics.add("bad-value", span, "the text contains a NUL byte, which no program can receive");
        }
    }

    fn untrusted_script(&mut self, span: Span, untrusted: &[Path]) {
        for path in untrusted {
            let message = format!("{} in a script could run code that somebody else wrote", quote(&format!("${{{{ {path} }}}}")));
            let help = format!("use the environment variable, in quotes: `\"${}\"`", path.variable());
            self.diagnostics.add_with_help("script-injection", span, message, help);
        }
    }
}

/// Whether `entrypoint` makes `args` code: `entrypoint: [sh, -c]`.
fn is_entrypoint_with_code(entry: &MapEntry) -> bool {
    entry.key == "entrypoint" && matches!(&entry.value.value, Value::List(words) if words.iter().any(is_code_option))
}

/// Whether a word tells a program to run a later word as code: `-c`, `-ec`, `-e`, `--eval`.
fn is_code_option(word: &Node) -> bool {
    let Value::Scalar(scalar) = &word.value else { return false };
    match scalar.text.strip_prefix('-') {
        Some("-eval" | "-command" | "-exec") => true,
        Some(letters) => {
            letters.ends_with(['c', 'e']) && letters.len() <= 5 && letters.bytes().all(|byte| byte.is_ascii_alphabetic())
        }
        None => false,
    }
}
