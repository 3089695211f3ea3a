//! One line as cells with a character and a style each; `\r` lets later text overwrite earlier cells.

use std::fmt::Write as _;

use beespace_core::sanitize;
use url::Url;

use super::sgr::Style;
use crate::html::{escape, escape_char};

/// Longer URLs are not turned into links.
const MAX_ADDRESS: usize = 2048;

#[derive(Debug, Clone, Default)]
pub(super) struct ScreenLine {
    cells: Vec<Cell>,
    cursor: usize,
    /// URLs of this line's links. A cell refers to its link by number, from 1.
    links: Vec<String>,
    link: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    character: char,
    style: Style,
    /// Number of the link, or 0 for none.
    link: u32,
}

impl ScreenLine {
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(super) fn put(&mut self, character: char, style: Style) {
        let cell = Cell { character, style, link: self.link };
        match self.cells.get_mut(self.cursor) {
            Some(place) => *place = cell,
            None => self.cells.push(cell),
        }
        self.cursor += 1;
    }

    /// Moves the cursor within the written cells: a sequence cannot make a line longer than the text it prints.
    pub(super) fn go_to(&mut self, column: usize) {
        self.cursor = column.min(self.cells.len());
    }

    pub(super) fn go_back(&mut self) {
        self.cursor = self.cursor.saturating_sub(1);
    }

    /// EL (ECMA-48): 0 erases from the cursor to the end, 1 up to the cursor, 2 the whole line.
    pub(super) fn erase(&mut self, what: u16) {
        match what {
            0 => self.cells.truncate(self.cursor),
            1 => {
                let blank = Cell { character: ' ', style: Style::default(), link: 0 };
                // The cell under the cursor is erased too.
                self.cells.iter_mut().take(self.cursor + 1).for_each(|cell| *cell = blank);
            }
            2 => {
                self.cells.clear();
                self.cursor = 0;
            }
            _ => {}
        }
    }

    /// Makes the following text a link to this URL; ends the link if the URL is not allowed.
    pub(super) fn link(&mut self, address: &[u8]) {
        self.link = 0;
        let Some(text) = std::str::from_utf8(address).ok().filter(|text| text.len() <= MAX_ADDRESS) else { return };
        let Ok(url) = Url::parse(text) else { return };
        if matches!(url.scheme(), "http" | "https") {
            self.links.push(url.into());
            self.link = u32::try_from(self.links.len()).unwrap_or(0);
        }
    }

    pub(super) fn text(&self) -> String {
        self.cells.iter().map(|cell| cell.character).collect()
    }

    pub(super) fn html(&self) -> String {
        let mut html = String::with_capacity(self.cells.len() + 32);
        for linked in self.cells.chunk_by(|a, b| a.link == b.link) {
            let address = linked.first().and_then(|cell| cell.link.checked_sub(1)).and_then(|link| self.links.get(link as usize));
            if let Some(address) = address {
                open_link(address, &mut html);
            }
            for styled in linked.chunk_by(|a, b| a.style == b.style) {
                write_styled(styled, &mut html);
            }
            if address.is_some() {
                html.push_str("</a>");
            }
        }
        html
    }
}

fn open_link(address: &str, html: &mut String) {
    let escaped = escape(address);
    // The text of a link can be misleading; its tooltip shows the real URL.
    let _ = write!(html, "<a href=\"{escaped}\" title=\"{escaped}\"");
    html.push_str(" rel=\"noopener noreferrer nofollow\" target=\"_blank\">");
}

fn write_styled(cells: &[Cell], html: &mut String) {
    let style = cells.first().map(|cell| cell.style).unwrap_or_default();
    if style != Style::default() {
        let _ = write!(html, "<span class=\"{style}\">");
    }
    for cell in cells {
        if hides(cell.character) {
            let number = u32::from(cell.character);
            let _ =
                write!(html, "<span class=\"a-shown\" title=\"invisible or direction-changing character\">U+{number:04X}</span>");
        } else {
            escape_char(cell.character, html);
        }
    }
    if style != Style::default() {
        html.push_str("</span>");
    }
}

/// Tabs and the joiners of scripts and emoji are shown as they are: they hide nothing.
fn hides(character: char) -> bool {
    !matches!(character, '\t' | '\u{200c}' | '\u{200d}') && sanitize::is_unsafe(character)
}
