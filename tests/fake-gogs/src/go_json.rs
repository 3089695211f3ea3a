//! JSON as Go's `encoding/json` writes it, byte for byte: signatures are computed over these bytes.

use serde::Serialize;

/// `json.MarshalIndent(value, "", "  ")`, as webhook payloads are written.
pub(super) fn indented(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(|json| html_escaped(&json))
}

/// `json.Marshal(value)`, as API responses are written.
pub(super) fn compact(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|json| html_escaped(&json))
}

/// Go escapes what HTML or JavaScript could take for markup. Outside strings JSON has none of these characters, so that the whole
/// text can be escaped at once.
fn html_escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recorded_payload_is_written_back_byte_for_byte() {
        for name in ["deliveries-v0.11.91.jsonl", "deliveries-v0.14.3.jsonl"] {
            let path = format!("{}/../fixtures/gogs/{name}", env!("CARGO_MANIFEST_DIR"));
            for (number, line) in std::fs::read_to_string(path).unwrap().lines().enumerate() {
                let record: serde_json::Value = serde_json::from_str(line).unwrap();
                let raw = record["raw_json"].as_str().unwrap();
                let payload: serde_json::Value = serde_json::from_str(raw).unwrap();
                assert_eq!(indented(&payload).unwrap(), raw, "{name}:{}", number + 1);
            }
        }
    }
}
