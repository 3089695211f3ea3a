//! The encodings in which a secret may appear in logs.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};

use super::MIN_LENGTH;

/// RFC 3986: escapes everything except the unreserved characters.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// `encodeURIComponent` of browsers.
const COMPONENT: &AsciiSet = &STRICT.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');
/// User and password of a URL (WHATWG): a token in a remote that git prints looks like this.
const USERINFO: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'=')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'|');

/// All texts to search if `value` is a secret: the value with and without surrounding whitespace, each of its distinctive
/// lines, and the shell, JSON and URL encodings of these. The whole value is also searched as hex and as base64: both
/// alphabets, all three positions inside a longer text (`user:password` before encoding), wrapped or not.
pub(super) fn encodings(value: &[u8]) -> BTreeSet<Vec<u8>> {
    let trimmed = value.trim_ascii();
    let mut forms = BTreeSet::new();
    if trimmed.len() < MIN_LENGTH {
        return forms;
    }
    for whole in [value, trimmed] {
        forms.extend(text_encodings(whole));
        forms.insert(hex::encode(whole).into_bytes());
        forms.insert(hex::encode_upper(whole).into_bytes());
        forms.extend(base64_encodings(whole));
    }
    if trimmed.contains(&b'\n') {
        for line in trimmed.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| is_distinctive(line)) {
            forms.extend(text_encodings(line));
        }
    }
    forms.retain(|form| form.len() >= MIN_LENGTH);
    forms
}

/// Whether a line of a secret document is distinctive. Lines such as `{`, `},` or `true` occur in every log.
fn is_distinctive(line: &[u8]) -> bool {
    line.iter().filter(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii()).count() >= MIN_LENGTH
        && !matches!(line.trim_ascii_end(), b"true" | b"true," | b"null" | b"null,")
}

fn text_encodings(value: &[u8]) -> Vec<Vec<u8>> {
    let strict = percent_encode(value, STRICT).to_string();
    let mut texts = vec![
        value.to_vec(),
        replace(value, b"'", b"'\\''"),
        replace(value, b"'", b"'\"'\"'"),
        lowercase_escapes(&strict).into_bytes(),
        strict.replace("%20", "+").into_bytes(),
        strict.into_bytes(),
        percent_encode(value, COMPONENT).to_string().into_bytes(),
        percent_encode(value, USERINFO).to_string().into_bytes(),
    ];
    if let Ok(text) = std::str::from_utf8(value) {
        texts.extend(json_encodings(text));
    }
    texts
}

/// JSON as written by `serde_json` and browsers, in ASCII only (Python), with `<>&` escaped (Go), and with `/` escaped (PHP).
fn json_encodings(text: &str) -> Vec<Vec<u8>> {
    let quoted = serde_json::Value::String(text.to_owned()).to_string();
    let plain = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&quoted).to_owned();
    let mut ascii = String::new();
    for character in plain.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    let go = plain.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    let php = ascii.replace('/', "\\/");
    [plain, ascii, go, php].map(String::into_bytes).into()
}

fn base64_encodings(value: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    // The value alone and with the newline that `echo` adds, each also in the line lengths at which encoders wrap.
    for text in [value.to_vec(), [value, b"\n"].concat()] {
        let encoded = STANDARD.encode(&text);
        for width in [64, 76] {
            if encoded.len() > width {
                found.extend(encoded.as_bytes().chunks(width).map(<[u8]>::to_vec));
            }
        }
        found.push(encoded.into_bytes());
        found.push(URL_SAFE.encode(&text).into_bytes());
    }
    // A base64 digit holds 6 bits. Digits that contain bits of the text before or after the value are left out.
    for (before, first) in [(&b""[..], 0), (b"x", 2), (b"xx", 3)] {
        let text = [before, value].concat();
        let last = text.len() * 8 / 6;
        for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
            found.extend(encoded.as_bytes().get(first..last).map(<[u8]>::to_vec));
        }
    }
    found
}

fn replace(value: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        if from == [*byte] { out.extend_from_slice(to) } else { out.push(*byte) }
    }
    out
}

fn lowercase_escapes(encoded: &str) -> String {
    let mut escape = 0;
    encoded
        .chars()
        .map(|character| {
            escape = if character == '%' { 3_u8 } else { escape.saturating_sub(1) };
            if escape > 0 { character.to_ascii_lowercase() } else { character }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_masked(value: &str, shown: &str) {
        let masked = super::super::Secrets::new([value]).unwrap().mask(shown);
        assert!(masked.contains(super::super::MASK), "{shown} stayed {masked}");
    }

    #[test]
    fn common_encodings_are_masked() {
        let value = "p&s/ w<ö>rd+12?x\"";
        assert_masked(value, "p&s/ w<ö>rd+12?x\\\"");
        assert_masked(value, "p&s/ w<\\u00f6>rd+12?x\\\"");
        assert_masked(value, "p\\u0026s/ w\\u003cö\\u003erd+12?x\\\"");
        assert_masked(value, "p%26s%2F%20w%3C%C3%B6%3Erd%2B12%3Fx%22");
        assert_masked(value, "p%26s%2f%20w%3c%c3%b6%3erd%2b12%3fx%22");
        assert_masked(value, "p%26s%2F+w%3C%C3%B6%3Erd%2B12%3Fx%22");
        assert_masked(value, "https://u:p&s%2F%20w%3C%C3%B6%3Erd+12%3Fx%22@host/");
        for before in ["", "u", "us", "user:"] {
            for after in ["", "\n", "!", "!!"] {
                assert_masked(value, &STANDARD.encode(format!("{before}{value}{after}")));
                assert_masked(value, &URL_SAFE.encode(format!("{before}{value}{after}")));
            }
        }
        assert_masked(value, &hex::encode(value));
    }

    #[test]
    fn wrapped_base64_of_a_key_is_masked_line_by_line() {
        let key: String = (0..40).map(|n| format!("line {n} of a long key\n")).collect();
        let secrets = super::super::Secrets::new([&key]).unwrap();
        for width in [64, 76] {
            let encoded = STANDARD.encode(&key);
            let lines: Vec<&str> = encoded.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
            let masked = secrets.mask(&lines.join("\n"));
            for line in lines.iter().filter(|line| line.len() >= 8) {
                assert!(!masked.contains(line), "{line} in {masked}");
            }
        }
    }

    #[test]
    fn lower_case_escapes_keep_the_other_characters() {
        assert_eq!(lowercase_escapes("A%2FB%C3%B6Z"), "A%2fB%c3%b6Z");
    }
}
