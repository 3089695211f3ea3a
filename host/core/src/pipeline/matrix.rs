//! The matrix of a pipeline: one stage per cell. Values are text as it is spelled in the file: `1.10` stays `1.10`.

use std::collections::BTreeMap;

use super::substitution::Path;

/// Most cells of a matrix.
pub const MAX_CELLS: usize = 256;

/// The values of a cell by the names of their axes.
pub type Cell = BTreeMap<String, String>;

/// A matrix as its file describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Matrix {
    /// Names and values, in the order of the file.
    pub(super) axes: Vec<(String, Vec<String>)>,
    /// A cell that has all values of one of these is left out.
    pub(super) exclude: Vec<Cell>,
    /// Cells that are added.
    pub(super) include: Vec<Cell>,
}

/// The environment variable of an axis: `BEESPACE_MATRIX_RUST` for `rust`.
#[must_use]
pub fn variable_name(axis: &str) -> String {
    Path::Matrix(axis.to_owned()).variable()
}

impl Matrix {
    /// The number of combinations of the axes; `None` if it is huge.
    pub(super) fn combinations(&self) -> Option<usize> {
        if self.axes.is_empty() {
            return Some(0);
        }
        self.axes.iter().try_fold(1_usize, |product, (_, values)| product.checked_mul(values.len()))
    }

    /// The cells: all combinations, in which the last axis changes first, without the excluded ones, then the included ones that
    /// are not there yet. The caller has checked [`Self::combinations`].
    pub(super) fn cells(&self) -> Vec<Cell> {
        let mut cells = if self.axes.is_empty() { Vec::new() } else { vec![Cell::new()] };
        for (name, values) in &self.axes {
            let extended = |cell: &Cell| {
                let with = |value: &String| cell.iter().map(clone_entry).chain([(name.clone(), value.clone())]).collect();
                values.iter().map(with).collect::<Vec<Cell>>()
            };
            cells = cells.iter().flat_map(extended).collect();
        }
        cells.retain(|cell| !self.exclude.iter().any(|pattern| has_values(cell, pattern)));
        for cell in &self.include {
            if !cells.contains(cell) {
                cells.push(cell.clone());
            }
        }
        cells
    }
}

fn clone_entry((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

/// Whether a cell has all values of a pattern.
pub(super) fn has_values(cell: &Cell, pattern: &Cell) -> bool {
    pattern.iter().all(|(name, value)| cell.get(name) == Some(value))
}

/// The name of a pipeline with its cell: `test (db=postgres, rust=1.94)`.
#[must_use]
pub fn title(name: &str, cell: &Cell) -> String {
    if cell.is_empty() {
        return name.to_owned();
    }
    let values: Vec<String> = cell.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
    format!("{name} ({})", values.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cell(entries: &[(&str, &str)]) -> Cell {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_title_names_the_cell() {
        assert_eq!(title("test", &Cell::new()), "test");
        assert_eq!(title("test", &cell(&[("rust", "1.10"), ("db", "pg")])), "test (db=pg, rust=1.10)");
        assert_eq!(variable_name("rust-version"), "BEESPACE_MATRIX_RUST_VERSION");
    }

    /// Some cells that have a value for every axis.
    fn some_cells(axes: usize) -> impl Strategy<Value = Vec<Cell>> {
        let one = proptest::collection::vec(0..4_usize, axes);
        proptest::collection::vec(one, 0..4).prop_map(|cells| {
            cells
                .iter()
                .map(|values| (0..).zip(values).map(|(axis, v): (usize, _)| (format!("a{axis}"), format!("v{v}"))).collect())
                .collect()
        })
    }

    proptest! {
        /// The naive expansion counts through all combinations as a number whose digits are the values.
        #[test]
        fn the_expansion_equals_a_naive_one(
            sizes in proptest::collection::vec(1..4_usize, 1..4),
            (exclude, include) in (some_cells(2), some_cells(3)),
        ) {
            let axes: Vec<(String, Vec<String>)> = sizes.iter().enumerate()
                .map(|(axis, size)| (format!("a{axis}"), (0..*size).map(|value| format!("v{value}")).collect()))
                .collect();
            let matrix = Matrix { axes: axes.clone(), exclude: exclude.clone(), include: include.clone() };
            let total: usize = sizes.iter().product();
            prop_assert_eq!(matrix.combinations(), Some(total));
            let mut naive: Vec<Cell> = Vec::new();
            for index in 0..total {
                let (mut rest, mut cell) = (index, Cell::new());
                for (name, values) in axes.iter().rev() {
                    cell.insert(name.clone(), values[rest % values.len()].clone());
                    rest /= values.len();
                }
                let is_excluded = exclude.iter().any(|pattern| pattern.iter().all(|(name, value)| cell.get(name) == Some(value)));
                if !is_excluded {
                    naive.push(cell);
                }
            }
            for cell in include {
                if !naive.contains(&cell) {
                    naive.push(cell);
                }
            }
            prop_assert_eq!(matrix.cells(), naive);
        }
    }
}
