//! Colours and weights (SGR: ECMA-48 8.3.117 with xterm's extensions) as CSS classes.

use std::fmt::{self, Write as _};

use anstyle_parse::Params;

/// How a character looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Style {
    /// One of xterm's 256 colours.
    foreground: Option<u8>,
    background: Option<u8>,
    marks: u8,
}

const MARKS: [(u8, &str); 6] = [
    (BOLD, "a-bold"),
    (DIM, "a-dim"),
    (ITALIC, "a-italic"),
    (UNDERLINE, "a-underline"),
    (INVERSE, "a-inverse"),
    (STRIKE, "a-strike"),
];
const BOLD: u8 = 1;
const DIM: u8 = 1 << 1;
const ITALIC: u8 = 1 << 2;
const UNDERLINE: u8 = 1 << 3;
const INVERSE: u8 = 1 << 4;
const STRIKE: u8 = 1 << 5;

/// The class names, separated by spaces.
impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let foreground = self.foreground.map(|colour| format!("a-f{colour}"));
        let background = self.background.map(|colour| format!("a-b{colour}"));
        let marks = MARKS.iter().filter(|(mark, _)| self.marks & mark != 0).map(|(_, class)| (*class).to_owned());
        let classes: Vec<String> = foreground.into_iter().chain(background).chain(marks).collect();
        f.write_str(&classes.join(" "))
    }
}

/// Applies a sequence of SGR parameters to a style. Unknown parameters are skipped.
pub(super) fn apply_sgr(style: &mut Style, params: &Params) {
    let mut params = params.iter();
    while let Some(param) = params.next() {
        let Some((code, parts)) = param.split_first() else { continue };
        match code {
            0 => *style = Style::default(),
            1 => style.marks |= BOLD,
            2 => style.marks |= DIM,
            3 => style.marks |= ITALIC,
            4 if parts.first() == Some(&0) => style.marks &= !UNDERLINE,
            4 | 21 => style.marks |= UNDERLINE,
            7 => style.marks |= INVERSE,
            9 => style.marks |= STRIKE,
            22 => style.marks &= !(BOLD | DIM),
            23 => style.marks &= !ITALIC,
            24 => style.marks &= !UNDERLINE,
            27 => style.marks &= !INVERSE,
            29 => style.marks &= !STRIKE,
            30..=37 => style.foreground = colour(code - 30),
            39 => style.foreground = None,
            40..=47 => style.background = colour(code - 40),
            49 => style.background = None,
            90..=97 => style.foreground = colour(code - 82),
            100..=107 => style.background = colour(code - 92),
            38 | 48 | 58 => {
                let extended = if parts.is_empty() { separate_colour(&mut params) } else { joined_colour(parts) };
                match code {
                    38 => style.foreground = extended.or(style.foreground),
                    48 => style.background = extended.or(style.background),
                    // An underline colour is skipped, so that its numbers are not taken as other parameters.
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

/// `38;5;N` and `38;2;R;G;B`: each number is a parameter of its own.
fn separate_colour<'a>(params: &mut impl Iterator<Item = &'a [u16]>) -> Option<u8> {
    let mut next = || params.next().and_then(|param| param.first()).copied();
    match next()? {
        5 => colour(next()?),
        2 => Some(nearest_colour([next()?, next()?, next()?])),
        _ => None,
    }
}

/// `38:5:N`, `38:2:R:G:B`, and `38:2::R:G:B` with an empty colour space.
fn joined_colour(parts: &[u16]) -> Option<u8> {
    match parts {
        [5, number] => colour(*number),
        [2, red, green, blue] | [2, _, red, green, blue, ..] => Some(nearest_colour([*red, *green, *blue])),
        _ => None,
    }
}

fn colour(number: u16) -> Option<u8> {
    u8::try_from(number).ok()
}

/// The closest colour of xterm's colour cube and grey ramp.
fn nearest_colour(rgb: [u16; 3]) -> u8 {
    let distance = |number: &u8| -> u32 {
        components(*number).iter().zip(rgb).map(|(a, b)| u32::from(u16::from(*a).abs_diff(b.min(255))).pow(2)).sum()
    };
    (16..=255).min_by_key(distance).unwrap_or(15)
}

/// Red, green and blue of colours 16 to 255.
fn components(number: u8) -> [u8; 3] {
    let Some(grey) = number.checked_sub(232) else {
        let cube = number.saturating_sub(16);
        return [cube / 36, cube / 6 % 6, cube % 6].map(|step| if step == 0 { 0 } else { 55 + step * 40 });
    };
    [8 + grey * 10; 3]
}

/// The CSS rules of all classes. Colours 0 to 15 come from the theme, as variables `--ansi-0` to `--ansi-15`. Inverse text
/// without a colour uses `--ansi-text` and `--ansi-ground`.
#[must_use]
pub fn css() -> String {
    let mut css = String::from(
        ".a-bold{font-weight:700}.a-dim{opacity:.7}.a-italic{font-style:italic}.a-underline{text-decoration:underline}\
         .a-strike{text-decoration:line-through}.a-underline.a-strike{text-decoration:underline line-through}\
         .a-shown{border:1px solid;border-radius:3px;font-size:.8em;padding:0 .2em}\
         .a-inverse{color:var(--ansi-ground);background:var(--ansi-text)}\n",
    );
    for number in 0..=255_u8 {
        let value = if number < 16 {
            format!("var(--ansi-{number})")
        } else {
            let [red, green, blue] = components(number);
            format!("#{red:02x}{green:02x}{blue:02x}")
        };
        let _ = writeln!(
            css,
            ".a-f{number}{{color:{value}}}.a-b{number}{{background:{value}}}\
             .a-f{number}.a-inverse{{background:{value}}}.a-b{number}.a-inverse{{color:{value}}}"
        );
    }
    css
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn true_colours_map_to_the_nearest_palette_colour() {
        assert_eq!(nearest_colour([0, 0, 0]), 16);
        assert_eq!(nearest_colour([255, 255, 255]), 231);
        assert_eq!(nearest_colour([95, 135, 175]), 67);
        assert_eq!(nearest_colour([9, 9, 9]), 232);
        assert_eq!(nearest_colour([65535, 0, 0]), 196);
    }

    #[test]
    fn every_class_has_a_rule() {
        let css = css();
        for (_, class) in MARKS {
            assert!(css.contains(&format!(".{class}{{")), "{class}");
        }
        for number in 0..=255 {
            assert!(css.contains(&format!(".a-f{number}{{color:")) && css.contains(&format!(".a-b{number}{{background:")));
        }
    }
}
