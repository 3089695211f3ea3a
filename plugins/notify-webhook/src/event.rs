//! The request body, CloudEvents 1.0 in structured JSON, and the text that is signed.

use serde_json::{Map, Value, json};

use crate::bindings::exports::beespace::plugin::notifier::Notice;

/// Builds the body. It is identical for every attempt, so that a receiver can detect duplicates.
pub(crate) fn body(notice: &Notice) -> Result<String, String> {
    let unreadable = || format!("the notice is not a valid {} object", notice.subject.schema);
    let mut data: Map<String, Value> = serde_json::from_str(&notice.subject.json).map_err(|_| unreadable())?;
    let kind = data.get("kind").and_then(Value::as_str).ok_or_else(unreadable)?.to_owned();
    let links: Map<String, Value> = notice.links.iter().map(|(name, url)| (name.clone(), json!(url))).collect();
    data.insert("links".to_owned(), Value::Object(links));
    let subject = notice.ctx.build_number.map(|number| format!("build/{number}"));
    let event = json!({
        "specversion": "1.0",
        "id": notice.idempotency_key,
        "source": format!("/{}/{}", notice.ctx.owner, notice.ctx.repo),
        "type": format!("beespace.{kind}"),
        "subject": subject.unwrap_or_else(|| notice.thread.clone()),
        "datacontenttype": "application/json",
        "sequence": format!("{:020}", notice.seq),
        "data": data,
    });
    Ok(event.to_string())
}

/// Builds the signed text, `id.timestamp.body` in Standard Webhooks. The timestamp prevents replay of an old request.
pub(crate) fn signed_text(id: &str, timestamp: &str, body: &str) -> String {
    format!("{id}.{timestamp}.{body}")
}

/// Encodes base64 with padding (RFC 4648).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().chain([&0, &0]).take(3).fold(0_usize, |group, byte| (group << 8) | usize::from(*byte));
        for position in 0..4 {
            let digit = ALPHABET.get((group >> (18 - 6 * position)) & 0x3f).copied().unwrap_or(b'A');
            text.push(if position <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::beespace::plugin::types::{Actor, ActorKind, Context, Document, Trust};

    pub(crate) fn notice(subject: &str) -> Notice {
        let actor = Actor { kind: ActorKind::User, id: "gogs:7".into(), name: "ann".into(), groups: vec![], on_behalf_of: None };
        let ctx = Context {
            invocation_id: "i".into(),
            event: "push".into(),
            owner: "acme".into(),
            repo: "app".into(),
            git_ref: "refs/heads/main".into(),
            commit: "a".repeat(40),
            pull_request: None,
            build_number: Some(42),
            actor,
            author: None,
            trust: Trust::Trusted,
            now_ms: 1_700_000_000_123,
            labels: vec![],
        };
        Notice {
            idempotency_key: "key".into(),
            attempt: 1,
            thread: "build/42".into(),
            seq: 3,
            ctx,
            subject: Document { schema: "beespace.notice/v1".into(), json: subject.into() },
            previous: None,
            links: vec![("build".into(), "https://ci.example.org/acme/app/42".into())],
        }
    }

    #[test]
    fn a_notice_becomes_a_cloud_event() {
        let sent: Value =
            serde_json::from_str(&body(&notice(r#"{"kind": "build.finished", "status": "success"}"#)).unwrap()).unwrap();
        let expected = json!({
            "specversion": "1.0",
            "id": "key",
            "source": "/acme/app",
            "type": "beespace.build.finished",
            "subject": "build/42",
            "datacontenttype": "application/json",
            "sequence": "00000000000000000003",
            "data": { "kind": "build.finished", "status": "success", "links": { "build": "https://ci.example.org/acme/app/42" } },
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn every_attempt_sends_the_same_body() {
        let (first, mut second) = (notice(r#"{"kind": "x"}"#), notice(r#"{"kind": "x"}"#));
        second.attempt = 2;
        second.ctx.now_ms += 60_000;
        assert_eq!(body(&first), body(&second));
        assert!(body(&notice("[]")).is_err());
    }

    #[test]
    fn base64_matches_the_rfc() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }
}
