//! Renders terminal output as HTML: colours and links, and no other terminal function.
//!
//! Program output is untrusted. Supported are SGR (colours, weight), `\r`, backspace, erasing and cursor positioning *within a
//! line* as progress bars use them, and links (OSC 8) to `http` and `https`. Every other sequence (titles, clipboard, cursor
//! movement, private strings) is dropped. Bidirectional controls and other invisible characters are shown by their code point,
//! and concealed text is shown. All text is escaped, and styles are classes (see [`css`]), so the pages' content security policy
//! needs no `unsafe-inline`. Colours continue across lines, as programs expect; links and unfinished sequences end with their
//! line.

mod line;
mod sgr;
mod utf8;

use anstyle_parse::{Params, Perform};
use line::ScreenLine;
pub use sgr::css;
use sgr::{Style, apply_sgr};
pub use utf8::Utf8Parser;

/// Renders one output stream, line by line, from pieces of any size.
#[derive(Debug, Clone, Default)]
pub struct AnsiRenderer {
    parser: Utf8Parser,
    screen: Screen,
}

/// The state that sequences change.
#[derive(Debug, Clone, Default)]
struct Screen {
    style: Style,
    cells: ScreenLine,
}

impl AnsiRenderer {
    /// Adds a piece of the current line.
    pub fn feed(&mut self, text: &[u8]) {
        self.parser.feed(text, &mut self.screen);
    }

    /// The current line as HTML.
    #[must_use]
    pub fn html(&self) -> String {
        self.screen.cells.html()
    }

    /// The current line as plain text.
    #[must_use]
    pub fn text(&self) -> String {
        self.screen.cells.text()
    }

    /// Number of characters in the current line.
    #[must_use]
    pub fn width(&self) -> usize {
        self.screen.cells.len()
    }

    /// Starts the next line; colours are kept.
    pub fn end_line(&mut self) {
        self.parser.reset();
        self.screen.cells = ScreenLine::default();
    }

    /// Renders a complete line.
    #[must_use]
    pub fn line(&mut self, text: &[u8]) -> String {
        self.feed(text);
        let html = self.html();
        self.end_line();
        html
    }
}

impl Perform for Screen {
    fn print(&mut self, character: char) {
        // U+0080 to U+009F are the 8-bit forms of terminal controls.
        if !character.is_control() {
            self.cells.put(character, self.style);
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\t' => self.cells.put('\t', self.style),
            b'\r' => self.cells.go_to(0),
            0x08 => self.cells.go_back(),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        if ignore || !intermediates.is_empty() {
            return;
        }
        let first = params.iter().next().and_then(|param| param.first()).copied().unwrap_or(0);
        match action {
            b'm' => apply_sgr(&mut self.style, params),
            b'K' => self.cells.erase(first),
            b'G' => self.cells.go_to(usize::from(first.saturating_sub(1))),
            _ => {}
        }
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _bell_terminated: bool) {
        if let [b"8", _, address @ ..] = params {
            self.cells.link(&address.join(&b';'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn html(text: &str) -> String {
        AnsiRenderer::default().line(text.as_bytes())
    }

    #[test]
    fn colours_become_classes() {
        assert_eq!(html("\x1b[31mred\x1b[0m plain"), r#"<span class="a-f1">red</span> plain"#);
        assert_eq!(
            html("\x1b[1;92;44mx\x1b[22my"),
            r#"<span class="a-f10 a-b4 a-bold">x</span><span class="a-f10 a-b4">y</span>"#
        );
        assert_eq!(html("\x1b[38;5;208mx"), r#"<span class="a-f208">x</span>"#);
        assert_eq!(html("\x1b[38;2;255;0;0mx"), r#"<span class="a-f196">x</span>"#);
        assert_eq!(html("\x1b[48:2::8:8:8mx"), r#"<span class="a-b232">x</span>"#);
        assert_eq!(html("\x1b[7mx\x1b[27;31;7my"), r#"<span class="a-inverse">x</span><span class="a-f1 a-inverse">y</span>"#);
        assert_eq!(html("\x1b[58;5;1;4:3mx"), r#"<span class="a-underline">x</span>"#);
        assert_eq!(html("\x1b[38;5mx\x1b[38;9my\x1b[999mz"), "xyz");
        assert_eq!(html("\x1b[8mhidden"), "hidden");
    }

    #[test]
    fn progress_bars_show_their_last_state() {
        assert_eq!(html("10%\r20%\r100%"), "100%");
        assert_eq!(html("downloading\r\x1b[Kdone"), "done");
        assert_eq!(html("long text\rshort"), "shorttext");
        assert_eq!(html("abc\x1b[2K\x1b[1Gx"), "x");
        assert_eq!(html("ab\x08c\r\n".trim_end_matches('\n')), "ac");
        assert_eq!(html("abc\x1b[2G\x1b[1Kx"), " xc");
    }

    #[test]
    fn colours_continue_across_lines_and_links_do_not() {
        let mut ansi = AnsiRenderer::default();
        assert_eq!(ansi.line(b"\x1b[32mok"), r#"<span class="a-f2">ok</span>"#);
        assert_eq!(
            ansi.line(b"\x1b]8;;https://a.example/\x1b\\still"),
            concat!(
                r#"<a href="https://a.example/" title="https://a.example/" rel="noopener noreferrer nofollow" "#,
                r#"target="_blank"><span class="a-f2">still</span></a>"#
            )
        );
        assert_eq!(ansi.line(b"\x1b[mend \x1b]0;a title that never ends"), "end ");
        assert_eq!(ansi.line(b"next"), "next");
    }

    #[test]
    fn links_point_to_http_and_https_only() {
        assert!(html("\x1b]8;id=1;https://x.example/?a=1;b=<2>&c\x07go\x1b]8;;\x07!").starts_with(
            r#"<a href="https://x.example/?a=1;b=%3C2%3E&amp;c" title="https://x.example/?a=1;b=%3C2%3E&amp;c" rel="#
        ));
        for address in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "//x",
            "/x",
            "vbscript:x",
            " javascript:x",
            "ssh://x",
        ] {
            assert_eq!(html(&format!("\x1b]8;;{address}\x07go\x1b]8;;\x07")), "go", "{address}");
        }
    }

    #[test]
    fn hostile_sequences_do_nothing() {
        for (text, expected) in [
            ("\x1b]52;c;cm0gLXJmIC8=\x07x", "x"),
            ("\x1b]0;title\x07x", "x"),
            ("\x1b[2J\x1b[H\x1b[1;1Hx\x1b[5A", "x"),
            ("a\x1bP1$r0m\x1b\\b", "ab"),
            ("a\x1b_payload\x1b\\b\x1b^pm\x1b\\c\x1bXsos\x1b\\d", "abcd"),
            ("\x1b[?1049h\x1b[6n\x1b[c\x1bcx", "x"),
            ("\u{9b}31mx\u{90}y", "31mxy"),
            ("\x1b[31", ""),
            ("\x1b[3\x1b[32mx", r#"<span class="a-f2">x</span>"#),
            ("<script>alert('&\"')</script>", "&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;"),
            ("a\u{202e}b", "a<span class=\"a-shown\" title=\"invisible or direction-changing character\">U+202E</span>b"),
            ("a\0\x07\x0b\x7fb", "ab"),
        ] {
            assert_eq!(html(text), expected, "{text:?}");
        }
        assert_eq!(html(&format!("\x1b[{}m!", "1;".repeat(10_000))), "!");
        assert_eq!(html("\x1b[99999999999999999999Gx"), "x");
    }

    #[test]
    fn invalid_utf8_is_shown_as_replacement_characters() {
        assert_eq!(AnsiRenderer::default().line(b"a\xffb"), "a\u{fffd}b");
    }

    #[test]
    fn a_long_link_with_many_colours_does_not_blow_up() {
        let address = format!("https://x.example/{}", "y".repeat(1_500));
        let line = format!("\x1b]8;;{address}\x07{}", "\x1b[31mx\x1b[32my".repeat(5_000));
        assert!(html(&line).len() < line.len() * 12);
    }

    /// Whether every opening tag is one that the renderer writes, and is closed in order.
    fn is_well_formed(html: &str) -> bool {
        let mut open = Vec::new();
        let mut rest = html;
        while let Some(at) = rest.find('<') {
            let Some(end) = rest[at..].find('>') else { return false };
            let tag = &rest[at + 1..at + end];
            match tag {
                "/span" | "/a" => {
                    if open.pop() != Some(&tag[1..]) {
                        return false;
                    }
                }
                _ if tag.starts_with("span class=\"a-") => open.push("span"),
                _ if tag.starts_with("a href=\"http") => open.push("a"),
                _ => return false,
            }
            rest = &rest[at + end + 1..];
        }
        open.is_empty() && !html.contains("<script") && !html.chars().any(|character| character.is_control() && character != '\t')
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_well_formed_html(
            parts in prop::collection::vec(prop_oneof![
                any::<Vec<u8>>(),
                "[\x1b\\[\\]0-9;:mKG8\x07\\\\<>&\"'a\r\x08\u{9b}\u{202e}]{0,20}".prop_map(String::into_bytes),
                Just(b"\x1b]8;;https://x.example/\x07".to_vec()),
                Just(b"\x1b[38;2;1;2;3m<script>".to_vec()),
            ], 0..8),
        ) {
            let whole: Vec<u8> = parts.concat();
            let mut pieces = AnsiRenderer::default();
            for part in &parts {
                pieces.feed(part);
            }
            let html = AnsiRenderer::default().line(&whole);
            prop_assert_eq!(&pieces.html(), &html);
            prop_assert!(is_well_formed(&html), "{}", html);
        }
    }
}
