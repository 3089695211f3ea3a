//! Parser for `params`.

use std::collections::BTreeMap;

use super::decode::{Fields, Reader};
use super::diagnostics::quote;
use super::keywords::PARAM;
use super::params::{MAX_PARAMS, Param, ParamKind, is_param_name, variable_name};
use super::spans::YamlPath;
use super::yaml::{MapEntry, Node, Value};

impl Reader {
    pub(super) fn params(&mut self, entry: &MapEntry, path: &YamlPath) -> BTreeMap<String, Param> {
        let mut params = BTreeMap::new();
        let node = &entry.value;
        let Value::Map(entries) = &node.value else {
            self.wrong_type_with_help(node, "`params` to be a map of names to params", "write `NAME: { type: string }`");
            return params;
        };
        let path = path.child("params");
        path.record(&mut self.spans, node.span);
        if entries.len() > MAX_PARAMS {
            self.diagnostics.add("too-large", node.span, format!("a pipeline has at most {MAX_PARAMS} params"));
            return params;
        }
        let mut variables = BTreeMap::new();
        for entry in entries {
            self.check_param_name(entry, &mut variables);
            path.child(&entry.key).record(&mut self.spans, entry.value.span);
            if let Some(param) = self.param(&entry.value) {
                params.insert(entry.key.clone(), param);
            }
        }
        params
    }

    /// `variables` has the names so far by their variables, which differ in less than the names do.
    fn check_param_name<'n>(&mut self, entry: &'n MapEntry, variables: &mut BTreeMap<String, &'n str>) {
        let (name, span) = (entry.key.as_str(), entry.key_span);
        if !is_param_name(name) {
            let message = format!("{} is not a valid name of a param", quote(name));
            let help = "a name begins with a letter and has at most 64 letters, digits, `_` and `-`";
            self.diagnostics.add_with_help("bad-value", span, message, help);
        } else if let Some(other) = variables.insert(variable_name(name), name) {
            let message =
                format!("the params {} and {} have the same variable {}", quote(other), quote(name), variable_name(name));
            self.diagnostics.add_with_help("bad-value", span, message, "rename one of them");
        }
    }

    fn param(&mut self, node: &Node) -> Option<Param> {
        let fields = self.fields(node, "a param to be a map such as `{ type: string, default: x }`", &PARAM)?;
        let kind = self.param_kind(fields)?;
        let default = fields.get("default").map(|entry| (entry, self.param_text(entry)));
        if let Some((entry, Some(value))) = &default
            && let Err(problem) = kind.check(value)
        {
            self.diagnostics.add("bad-value", entry.value.span, format!("`default` {problem}"));
        }
        let about = fields.get("about").and_then(|entry| self.text(&entry.value, "`about` to be text"));
        Some(Param { kind, default: default.and_then(|(_, value)| value), about })
    }

    fn param_kind(&mut self, fields: Fields<'_>) -> Option<ParamKind> {
        let options = fields.get("options");
        let Some(entry) = fields.get("type") else {
            return match options {
                Some(entry) => self.options(entry),
                None => Some(ParamKind::String),
            };
        };
        let text = self.text(&entry.value, "`type` to be `string`, `number`, `bool` or `choice`")?;
        let keywords = [
            ("string", ParamType::String),
            ("number", ParamType::Number),
            ("bool", ParamType::Bool),
            ("choice", ParamType::Choice),
        ];
        let kind = self.keyword(entry.value.span, &text, "type", &keywords, super::keywords::FOREIGN_PARAM_TYPES)?;
        if let (Some(options), false) = (options, kind == ParamType::Choice) {
            let help = "remove it, or write `type: choice`";
            self.diagnostics.add_with_help("conflict", options.key_span, "only a choice has `options`", help);
        }
        match (kind, options) {
            (ParamType::String, _) => Some(ParamKind::String),
            (ParamType::Number, _) => Some(ParamKind::Number),
            (ParamType::Bool, _) => Some(ParamKind::Bool),
            (ParamType::Choice, Some(entry)) => self.options(entry),
            (ParamType::Choice, None) => {
                self.diagnostics.add_with_help("missing-key", entry.value.span, "a choice needs `options`", "list its values");
                None
            }
        }
    }

    fn options(&mut self, entry: &MapEntry) -> Option<ParamKind> {
        let texts = self.texts(&entry.value, "`options` to be a list of texts")?;
        Some(ParamKind::Choice { options: texts.into_iter().map(|(_, text)| text).collect() })
    }

    /// The text of a default; it may be empty.
    fn param_text(&mut self, entry: &MapEntry) -> Option<String> {
        let Value::Scalar(scalar) = &entry.value.value else {
            self.wrong_type_with_help(&entry.value, "`default` to be text", "use `\"\"` for an empty value");
            return None;
        };
        Some(scalar.text.clone())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ParamType {
    String,
    Number,
    Bool,
    Choice,
}
