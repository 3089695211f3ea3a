//! Data as a table for people, or as JSON for programs.

use serde::Serialize;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::put;

/// Writes a list: one row each in a table, or one JSON array.
///
/// # Errors
/// Where stdout is closed.
pub fn list<T: Serialize, const N: usize>(
    output: Output,
    items: &[T],
    header: [&str; N],
    row: impl Fn(&T) -> [String; N],
) -> Result<(), Failure> {
    if output == Output::Json {
        return one(&items);
    }
    let rows: Vec<[String; N]> = items.iter().map(|item| fitting(row(item).map(|cell| printable(&cell)))).collect();
    put(&aligned(header.map(str::to_uppercase), &rows))
}

/// A name of strangers, a branch above all, may be longer than a terminal is wide.
const WIDEST: usize = 48;

/// What is too wide is cut, but for the last column: nothing stands after that.
fn fitting<const N: usize>(mut row: [String; N]) -> [String; N] {
    for cell in row.iter_mut().take(N.saturating_sub(1)) {
        if let Some((end, _)) = cell.char_indices().nth(WIDEST - 1).filter(|_| cell.chars().count() > WIDEST) {
            cell.truncate(end);
            cell.push('…');
        }
    }
    row
}

/// Columns as wide as their widest cell, two spaces apart; nothing after the last.
fn aligned<const N: usize>(header: [String; N], rows: &[[String; N]]) -> String {
    let all: Vec<&[String; N]> = std::iter::once(&header).chain(rows).collect();
    let mut widths = [0; N];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row.iter()) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &&[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Writes one thing as JSON.
///
/// # Errors
/// Where stdout is closed.
pub fn one(item: &impl Serialize) -> Result<(), Failure> {
    put(&serde_json::to_string_pretty(item).map_err(|error| Failure::new(Exit::Bug, error.to_string()))?)
}

/// Text of strangers must not steer the terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_text_of_strangers_steers_nothing() {
        let rows = [["acme/app".to_owned(), printable("a\u{1b}[31mb")], ["x".to_owned(), "y".to_owned()]];
        let text = aligned(["NAME".to_owned(), "TITLE".to_owned()], &rows);
        assert_eq!(text, "NAME      TITLE\nacme/app  a\u{fffd}[31mb\nx         y");
    }

    #[test]
    fn a_name_too_long_for_a_terminal_is_cut_and_the_last_column_is_not() {
        let long = "ü".repeat(200);
        let [branch, exact, title] = fitting([long.clone(), "x".repeat(48), long.clone()]);
        assert_eq!(branch, format!("{}…", "ü".repeat(47)));
        assert_eq!((exact.len(), title), (48, long));
    }
}
