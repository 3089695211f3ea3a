//! Data as a table for people, or as JSON for programs.

use std::fmt::Write as _;

use beespace_core::sanitize;
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::print_stdout;

/// Writes a list: one row each in a table, or one JSON array.
///
/// # Errors
/// Where stdout is closed.
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

/// A name of strangers, a branch above all, may be longer than a terminal is wide.
const MAX_CELL_WIDTH: usize = 48;

/// What is too wide is cut, but for the last column: nothing stands after that.
fn truncate_cells<const N: usize>(mut row: [String; N]) -> [String; N] {
    for cell in row.iter_mut().take(N.saturating_sub(1)) {
        if let Some((end, _)) = cell.char_indices().nth(MAX_CELL_WIDTH - 1).filter(|_| cell.chars().count() > MAX_CELL_WIDTH) {
            cell.truncate(end);
            cell.push('…');
        }
    }
    row
}

/// Columns as wide as their widest cell, two spaces apart; nothing after the last.
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

/// Writes one thing as JSON.
///
/// # Errors
/// Where stdout is closed.
pub fn print_json(item: &impl Serialize) -> Result<(), Failure> {
    print_stdout(&escaped_json(item).map_err(|error| Failure::new(Exit::Bug, error.to_string()))?)
}

/// Programs get every character, but no terminal obeys one: those that hide something are escaped, which JSON allows everywhere in a
/// string, and outside of strings there are none.
fn escaped_json(item: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(item)?;
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '\n' && sanitize::is_unsafe(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing into a String does not fail.
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
    fn columns_stand_below_each_other_and_text_of_strangers_steers_nothing() {
        let rows = [["acme/app".to_owned(), sanitize::line("a\u{1b}[31mb")], ["x".to_owned(), "y".to_owned()]];
        let text = align(["NAME".to_owned(), "TITLE".to_owned()], &rows);
        assert_eq!(text, "NAME      TITLE\nacme/app  a\u{fffd}[31mb\nx         y");
    }

    #[test]
    fn a_name_too_long_for_a_terminal_is_cut_and_the_last_column_is_not() {
        let long = "ü".repeat(200);
        let [branch, exact, title] = truncate_cells([long.clone(), "x".repeat(48), long.clone()]);
        assert_eq!(branch, format!("{}…", "ü".repeat(47)));
        assert_eq!((exact.len(), title), (48, long));
    }

    #[test]
    fn programs_get_every_character_and_a_terminal_obeys_none() {
        let hostile = ["\u{1b}]52;c;x\u{7}", "\u{9b}31m", "a\u{202e}b\u{e0041}", "a\nb ä"];
        let text = escaped_json(&hostile).unwrap();
        assert!(!text.chars().any(|character| character != '\n' && sanitize::is_unsafe(character)), "{text:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), hostile);
    }
}
