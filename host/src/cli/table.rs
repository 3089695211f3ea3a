//! Data as a table for people, or as JSON for programs.

use std::fmt::Write as _;

use beespace_core::visible;
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
    let rows: Vec<[String; N]> = items.iter().map(|item| fitting(row(item).map(|cell| visible::line(&cell)))).collect();
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
    put(&json(item).map_err(|error| Failure::new(Exit::Bug, error.to_string()))?)
}

/// Programs get every character, but no terminal obeys one: those that hide something are escaped, which JSON allows everywhere in a
/// string, and outside of strings there are none.
fn json(item: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(item)?;
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character != '\n' && visible::hides(character) {
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
        let rows = [["acme/app".to_owned(), visible::line("a\u{1b}[31mb")], ["x".to_owned(), "y".to_owned()]];
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

    #[test]
    fn programs_get_every_character_and_a_terminal_obeys_none() {
        let hostile = ["\u{1b}]52;c;x\u{7}", "\u{9b}31m", "a\u{202e}b\u{e0041}", "a\nb ä"];
        let text = json(&hostile).unwrap();
        assert!(!text.chars().any(|character| character != '\n' && visible::hides(character)), "{text:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), hostile);
    }
}
