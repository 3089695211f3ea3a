//! One line as characters in places, each with its style: what `\r` writes over is gone.

use std::fmt::Write as _;

use beespace_core::sanitize;
use url::Url;

use super::sgr::Style;
use crate::web::html::{escape, escape_char};

/// Longer addresses are not links.
const MAX_ADDRESS: usize = 2048;

#[derive(Debug, Clone, Default)]
pub(super) struct ScreenLine {
    cells: Vec<Cell>,
    cursor: usize,
    /// Addresses of this line's links; a cell says which by its number, from 1.
    links: Vec<String>,
    link: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    character: char,
    style: Style,
    /// 0: none.
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

    /// Moves within what is written: no sequence makes a line longer than what it prints.
    pub(super) fn go_to(&mut self, column: usize) {
        self.cursor = column.min(self.cells.len());
    }

    pub(super) fn go_back(&mut self) {
        self.cursor = self.cursor.saturating_sub(1);
    }

    /// 0: from here to the end; 1: up to here; 2: all.
    pub(super) fn erase(&mut self, what: u16) {
        match what {
            0 => self.cells.truncate(self.cursor),
            1 => {
                let blank = Cell { character: ' ', style: Style::default(), link: 0 };
                // The place of the cursor is erased, too.
                self.cells.iter_mut().take(self.cursor + 1).for_each(|cell| *cell = blank);
            }
            2 => {
                self.cells.clear();
                self.cursor = 0;
            }
            _ => {}
        }
    }

    /// What follows is a link to this address; to nothing, where it is none that may be followed.
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
    // The text of a link can lie about where it leads; its title does not.
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
            let _ = write!(html, "<span class=\"a-shown\" title=\"a character that hides or turns text\">U+{number:04X}</span>");
        } else {
            escape_char(cell.character, html);
        }
    }
    if style != Style::default() {
        html.push_str("</span>");
    }
}

/// A program's own output is shown as it is, joiners of scripts and emoji included: they hide nothing.
fn hides(character: char) -> bool {
    !matches!(character, '\t' | '\u{200c}' | '\u{200d}') && sanitize::is_unsafe(character)
}
