//! Parser for `matrix`.

use std::collections::BTreeMap;

use super::decode::Reader;
use super::diagnostics::{did_you_mean, join_words, quote};
use super::keywords::MATRIX;
use super::matrix::{Cell, MAX_CELLS, Matrix, has_values, variable_name};
use super::spans::YamlPath;
use super::substitution::is_name;
use super::yaml::{MapEntry, Node, Value};
use crate::sanitize;

/// Longest name of an axis, in bytes.
const MAX_NAME: usize = 64;
/// Longest value, in bytes.
const MAX_VALUE: usize = 256;
/// Most entries of `exclude` or `include`.
const MAX_LISTED: usize = MAX_CELLS;

impl Reader {
    /// The cells of a matrix; at least one.
    pub(super) fn matrix(&mut self, entry: &MapEntry, path: &YamlPath) -> Option<Vec<Cell>> {
        const EXPECTED: &str = "`matrix` to be a map with `axes`, `include` or both";
        let node = &entry.value;
        let fields = self.fields(node, EXPECTED, &MATRIX)?;
        path.child("matrix").record(&mut self.spans, node.span);
        let axes = fields.get("axes").map_or(Some(Vec::new()), |entry| self.axes(entry))?;
        let include = fields.get("include").map_or(Some(Vec::new()), |entry| self.cells(entry))?;
        if axes.is_empty() && include.is_empty() {
            // An unknown key has a message of its own.
            if !fields.has_unknown(&MATRIX) {
                let help = "for example `matrix: { axes: { rust: [\"1.94\", \"1.95\"] } }`";
                self.diagnostics.add_with_help("missing-key", node.span, "the matrix has neither `axes` nor `include`", help);
            }
            return None;
        }
        let names: Vec<String> = match include.first() {
            Some((_, first)) if axes.is_empty() => first.keys().cloned().collect(),
            _ => axes.iter().map(|(name, _)| name.clone()).collect(),
        };
        let exclude = fields.get("exclude").map_or(Some(Vec::new()), |entry| self.cells(entry))?;
        for (node, cell) in include.iter().chain(&exclude) {
            self.check_axes_of(node, cell, &names);
        }
        for (node, cell) in &include {
            self.check_complete(node, cell, &names);
        }
        let without_nodes = |cells: &[(&Node, Cell)]| cells.iter().map(|(_, cell)| cell.clone()).collect();
        let matrix = Matrix { axes, exclude: without_nodes(&exclude), include: without_nodes(&include) };
        let count = matrix.combinations().filter(|count| *count <= MAX_CELLS);
        let Some(cells) = count.map(|_| matrix.cells()).filter(|cells| cells.len() <= MAX_CELLS) else {
            self.diagnostics.add("too-large", node.span, format!("the matrix has more than {MAX_CELLS} cells"));
            return None;
        };
        self.check_excludes(&exclude, &matrix);
        if cells.is_empty() {
            self.diagnostics.add("bad-value", node.span, "the matrix has no cells: `exclude` leaves out all of them");
        }
        Some(cells)
    }

    fn axes(&mut self, entry: &MapEntry) -> Option<Vec<(String, Vec<String>)>> {
        const EXPECTED: &str = "`axes` to be a map of names to lists of values";
        let Value::Map(entries) = &entry.value.value else {
            self.wrong_type_with_help(&entry.value, EXPECTED, "for example `axes: { rust: [\"1.94\", \"1.95\"] }`");
            return None;
        };
        let (mut axes, mut variables) = (Vec::new(), BTreeMap::new());
        for axis in entries {
            self.check_axis_name(axis, &mut variables);
            let texts = self.texts(&axis.value, &format!("the values of {} to be a list of texts", quote(&axis.key)))?;
            let mut values: Vec<String> = Vec::with_capacity(texts.len());
            for (node, text) in texts {
                self.check_value(node, &text);
                if values.contains(&text) {
                    self.diagnostics.add("duplicate-name", node.span, format!("the value {} is listed twice", quote(&text)));
                }
                values.push(text);
            }
            axes.push((axis.key.clone(), values));
        }
        Some(axes)
    }

    /// `variables` has the names so far by their variables, which differ in less than the names do.
    fn check_axis_name<'n>(&mut self, axis: &'n MapEntry, variables: &mut BTreeMap<String, &'n str>) {
        let (name, span) = (axis.key.as_str(), axis.key_span);
        if name.len() > MAX_NAME || !is_name(name) {
            let message = format!("{} is not a valid name of an axis", quote(name));
            let help = "a name has at most 64 letters, digits, `_` and `-`";
            self.diagnostics.add_with_help("bad-value", span, message, help);
        } else if let Some(other) = variables.insert(variable_name(name), name) {
            let message = format!("the axes {} and {} have the same variable {}", quote(other), quote(name), variable_name(name));
            self.diagnostics.add_with_help("bad-value", span, message, "rename one of them");
        }
    }

    fn check_value(&mut self, node: &Node, text: &str) {
        if text.len() > MAX_VALUE {
            self.diagnostics.add("too-large", node.span, format!("the value is longer than {MAX_VALUE} bytes"));
        } else if text.chars().any(sanitize::is_unsafe) {
            let message = format!("the value {} contains control or invisible characters", quote(text));
            self.diagnostics.add("bad-value", node.span, message);
        }
    }

    /// The entries of `include` or `exclude`.
    fn cells<'n>(&mut self, entry: &'n MapEntry) -> Option<Vec<(&'n Node, Cell)>> {
        let expected = format!("`{}` to be a list of maps from axes to values", entry.key);
        let Value::List(items) = &entry.value.value else {
            self.wrong_type(&entry.value, &expected);
            return None;
        };
        if items.len() > MAX_LISTED {
            let message = format!("`{}` has more than {MAX_LISTED} entries", entry.key);
            self.diagnostics.add("too-large", entry.value.span, message);
            return None;
        }
        let mut cells = Vec::with_capacity(items.len());
        for item in items {
            let Value::Map(entries) = &item.value else {
                self.wrong_type(item, &expected);
                return None;
            };
            let (mut cell, mut variables) = (Cell::new(), BTreeMap::new());
            for value in entries {
                self.check_axis_name(value, &mut variables);
                let text = self.text(&value.value, &format!("{} to be text", quote(&value.key)))?;
                self.check_value(&value.value, &text);
                cell.insert(value.key.clone(), text);
            }
            if cell.is_empty() {
                self.wrong_type(item, &expected);
            }
            cells.push((item, cell));
        }
        Some(cells)
    }

    fn check_axes_of(&mut self, node: &Node, cell: &Cell, names: &[String]) {
        for name in cell.keys().filter(|name| !names.contains(name)) {
            let message = format!("the matrix has no axis {}", quote(name));
            let help = match did_you_mean(name, names.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean {}?", quote(meant)),
                None => format!("its axes are {}", join_words(&quoted(names), "and")),
            };
            self.diagnostics.add_with_help("unknown-axis", node.span, message, help);
        }
    }

    /// An included cell has a value for every axis, so that every substitution has one in every cell.
    fn check_complete(&mut self, node: &Node, cell: &Cell, names: &[String]) {
        let missing: Vec<String> = names.iter().filter(|name| !cell.contains_key(*name)).cloned().collect();
        if !missing.is_empty() {
            let message = format!("the cell has no value for {}", join_words(&quoted(&missing), "and"));
            self.diagnostics.add_with_help("missing-key", node.span, message, "an included cell names all axes");
        }
    }

    fn check_excludes(&mut self, exclude: &[(&Node, Cell)], matrix: &Matrix) {
        let all = Matrix { exclude: Vec::new(), ..matrix.clone() }.cells();
        for (node, pattern) in exclude {
            if !all.iter().any(|cell| has_values(cell, pattern)) && !self.diagnostics.has_diagnostic_at(node.span) {
                let message = "the matrix has no such cell, so nothing is excluded";
                self.diagnostics.add_with_help("bad-value", node.span, message, "check the spelling of its values");
            }
        }
    }
}

fn quoted(names: &[String]) -> Vec<String> {
    names.iter().map(|name| quote(name)).collect()
}
