//! Prints data as a table for people or as JSON for programs.

use std::fmt::Write as _;

use beespace_core::sanitize;
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::print_stdout;

/// Prints a list: a table with one row per item, or one JSON array.
///
/// # Errors
/// [`Failure`] if stdout is closed.
pub fn print_list<T: Serialize, const N: usize>(
    output: Output,
    items: &[T],
    header: [&str; N],
    row: impl Fn(&T) -> [String; N],
) -> Result<(), Failure> {
    if output == Output::Json {
        return print_json(&items);
    }
    let rows: Vec<[String; N]> = items.iter().map(|item| truncate_cells(row(item).map(|cell| sanitize::line(&cell)))).collect();
    print_stdout(&align(header.map(str::to_uppercase), &rows))
}

/// Widest cell of a table, in characters. Branch names come from outside and may be longer than a terminal line.
const MAX_CELL_WIDTH: usize = 48;

/// Cuts cells that are too wide, except in the last column, which nothing follows.
fn truncate_cells<const N: usize>(mut row: [String; N]) -> [String; N] {
    for cell in row.iter_mut().take(N.saturating_sub(1)) {
        if let Some((end, _)) = cell.char_indices().nth(MAX_CELL_WIDTH - 1).filter(|_| cell.chars().count() > MAX_CELL_WIDTH) {
            cell.truncate(end);
            cell.push('…');
        }
    }
    row
}

/// Pads each column to its widest cell, with two spaces between columns and none at the end of a line.
fn align<const N: usize>(header: [String; N], rows: &[[String; N]]) -> String {
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

/// Prints one item as JSON.
///
/// # Errors
/// [`Failure`] if stdout is closed.
pub fn print_json(item: &impl Serialize) -> Result<(), Failure> {
    print_stdout(&escaped_json(item).map_err(|error| Failure::new(Exit::Bug, error.to_string()))?)
}

/// Serializes to JSON that is safe to print on a terminal: control and invisible characters are escaped. JSON allows escapes
/// anywhere in a string, and these characters do not occur outside strings, so programs read the same data.
fn escaped_json(item: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(item)?;
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '\n' && sanitize::is_unsafe(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_replaced() {
        let rows = [["acme/app".to_owned(), sanitize::line("a\u{1b}[31mb")], ["x".to_owned(), "y".to_owned()]];
        let text = align(["NAME".to_owned(), "TITLE".to_owned()], &rows);
        assert_eq!(text, "NAME      TITLE\nacme/app  a\u{fffd}[31mb\nx         y");
    }

    #[test]
    fn long_cells_are_cut_except_in_the_last_column() {
        let long = "ü".repeat(200);
        let [branch, exact, title] = truncate_cells([long.clone(), "x".repeat(48), long.clone()]);
        assert_eq!(branch, format!("{}…", "ü".repeat(47)));
        assert_eq!((exact.len(), title), (48, long));
    }

    #[test]
    fn json_keeps_every_character_and_prints_no_control_character() {
        let hostile = ["\u{1b}]52;c;x\u{7}", "\u{9b}31m", "a\u{202e}b\u{e0041}", "a\nb ä"];
        let text = escaped_json(&hostile).unwrap();
        assert!(!text.chars().any(|character| character != '\n' && sanitize::is_unsafe(character)), "{text:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), hostile);
    }
}
