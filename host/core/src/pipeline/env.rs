//! Parser for `env`: variables whose values are texts or names of secrets.

use std::collections::BTreeMap;

use super::EnvValue;
use super::decode::Reader;
use super::diagnostics::quote;
use super::keywords::SECRET;
use super::spans::YamlPath;
use super::yaml::{MapEntry, Node, Value};

/// Longest name of a secret, in bytes.
const MAX_SECRET_NAME: usize = 100;

impl Reader {
    pub(super) fn env(&mut self, entry: &MapEntry, path: &YamlPath) -> BTreeMap<String, EnvValue> {
        let mut env = BTreeMap::new();
        let node = &entry.value;
        let Value::Map(variables) = &node.value else {
            let message = format!("expected `env` to be a map of names to values, found {}", node.kind());
            self.diagnostics.add_with_help("wrong-type", node.span, message, "write one `NAME: value` per line");
            return env;
        };
        let path = path.child("env");
        path.record(&mut self.spans, node.span);
        for variable in variables {
            self.check_variable_name(variable);
            if let Some(value) = self.env_value(&variable.value) {
                path.child(&variable.key).record(&mut self.spans, variable.value.span);
                env.insert(variable.key.clone(), value);
            }
        }
        env
    }

    fn check_variable_name(&mut self, variable: &MapEntry) {
        let (name, span) = (variable.key.as_str(), variable.key_span);
        if self.diagnostics.has_diagnostic_at(span) {
            // The name contains a substitution.
        } else if is_reserved_variable(name) {
            let message =
                format!("{} is reserved: `BEESPACE` and names that begin with `BEESPACE_` belong to Beespace", quote(name));
            self.diagnostics.add_with_help("reserved-name", span, message, "use another name");
        } else if !is_identifier(name) {
            let message = format!("{} is not a valid variable name", quote(name));
            let help = "a shell accepts only letters, digits and `_`, not beginning with a digit";
            self.diagnostics.add_with_help("bad-value", span, message, help);
        }
    }

    fn env_value(&mut self, node: &Node) -> Option<EnvValue> {
        match &node.value {
            Value::Scalar(scalar) => Some(EnvValue::Text(scalar.text.clone())),
            Value::Map(_) => self.secret_reference(node).map(EnvValue::FromSecret),
            Value::Null => {
                let message = "expected a value for the variable, found nothing";
                self.diagnostics.add_with_help("wrong-type", node.span, message, "use `\"\"` for an empty value");
                None
            }
            Value::List(_) => {
                self.wrong_type(node, "the value of a variable to be text or `{ from_secret: NAME }`");
                None
            }
        }
    }

    /// `{ from_secret: NAME }`.
    pub(super) fn secret_reference(&mut self, node: &Node) -> Option<String> {
        let fields = self.fields(node, "", &SECRET)?;
        let Some(secret) = fields.get("from_secret") else {
            // Any other key is reported as such, with `from_secret` as the remedy.
            if fields.is_empty() {
                self.diagnostics.add("missing-key", node.span, "expected `from_secret` here");
            }
            return None;
        };
        self.secret_name(&secret.value)
    }

    fn secret_name(&mut self, node: &Node) -> Option<String> {
        let name = self.text(node, "`from_secret` to be the name of a secret")?;
        let is_good =
            name.len() <= MAX_SECRET_NAME && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if !is_good && !self.diagnostics.has_diagnostic_at(node.span) {
            let message = format!("{} is not a valid secret name", quote(&name));
            let help = "a name has at most 100 letters, digits, `_`, `-` and `.`";
            self.diagnostics.add_with_help("bad-value", node.span, message, help);
        }
        is_good.then_some(name)
    }
}

/// Whether only Beespace may set a variable of this name. A step would otherwise see another build, commit or actor than its own.
/// `CI` is not reserved: programs behave differently under it, and a step may need the other behaviour.
#[must_use]
pub fn is_reserved_variable(name: &str) -> bool {
    name == "BEESPACE" || name.starts_with("BEESPACE_")
}

/// Whether a POSIX shell can read a variable of this name as `$NAME`.
fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
