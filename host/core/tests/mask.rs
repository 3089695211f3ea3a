//! No secret passes the mask: plain, in base64, in a URL or in JSON, between any neighbours and with any chunks of the stream.
//! Other encoders than those of the mask produce the texts that the tests search in the output.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use beespace_core::mask::{MASK, Masker, Secrets};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

/// RFC 3986: all characters except the unreserved ones are escaped.
const URL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The output of a program that prints the secret in this encoding.
fn printed(secret: &str, before: &str, after: &str, form: usize) -> String {
    match form {
        0 => format!("{before}{secret}{after}"),
        1 => STANDARD.encode(format!("{before}{secret}{after}")),
        2 => URL_SAFE.encode(format!("{before}{secret}{after}")),
        3 => format!("https://{before}:{}@host/{after}", utf8_percent_encode(secret, URL)),
        _ => serde_json::json!([before, secret, { "k": after }]).to_string(),
    }
}

/// The part of the output that must not be readable: text that contains all or nearly all of the secret.
fn revealing(secret: &str, before: &str, form: usize) -> String {
    let skip = before.len();
    match form {
        0 => secret.to_owned(),
        1 | 2 => {
            // Digits that contain only bits of the secret.
            let whole = printed(secret, before, "", form);
            let digits = (skip * 8).div_ceil(6)..(skip + secret.len()) * 8 / 6;
            whole[digits].to_owned()
        }
        3 => utf8_percent_encode(secret, URL).to_string(),
        _ => serde_json::Value::from(secret).to_string().trim_matches('"').to_owned(),
    }
}

fn masked(secrets: &Secrets, chunks: &[&[u8]]) -> String {
    let (mut masker, mut out) = (Masker::new(secrets), Vec::new());
    chunks.iter().for_each(|chunk| masker.push(chunk, &mut out));
    masker.finish(&mut out);
    String::from_utf8(out).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_form_of_a_secret_gets_through_at_any_cut(
        secret in "[a-zA-Z0-9äß€/+&<>\"' ?=%_.\\\\-]{8,40}",
        before in "[a-z0-9:]{0,7}",
        after in "[a-z0-9]{0,7}",
        form in 0..5_usize,
    ) {
        prop_assume!(secret.trim() == secret);
        let text = format!("> {}\n", printed(&secret, &before, &after, form));
        let telling = revealing(&secret, &before, form);
        let secrets = Secrets::new([&secret]).unwrap();
        let whole = masked(&secrets, &[text.as_bytes()]);
        prop_assert!(whole.contains(MASK), "{whole}");
        prop_assert!(!whole.contains(&telling), "{telling} in {whole}");
        for cut in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            prop_assert_eq!(&masked(&secrets, &[head, tail]), &whole, "cut at {}", cut);
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(masked(&secrets, &bytes), whole);
    }
}
