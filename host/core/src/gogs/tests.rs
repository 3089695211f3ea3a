use super::*;
use crate::digest::Digest;
use crate::verify::restore;

fn parsed(event: &str, json: &str) -> Result<GogsEvent, MalformedPayload> {
    let body = restore(json.as_bytes().to_vec(), Digest::of(json)).unwrap();
    parse(event, &body).map(Verified::into_inner)
}

const LEAST: &str = r#"{"ref":"refs/heads/main","before":"","after":"95a2db4000000000000000000000000000000000",
    "repository":{"id":1,"owner":{"id":4,"username":"acme"},"name":"app","private":false},"sender":{"id":2,"username":"dev"}}"#;

#[test]
fn a_minimal_push_is_parsed() {
    let GogsEvent::Push(push) = parsed("push", LEAST).unwrap() else { panic!("no push") };
    assert_eq!(push.before, None);
    assert!(push.commits.is_empty());
    assert_eq!(push.repository.owner.unwrap().username, "acme");
}

#[test]
fn null_lists_and_unknown_fields_are_accepted() {
    let json = LEAST.replacen("{", r#"{"commits":null,"pusher":null,"compare_url":null,"forced":true,"#, 1);
    assert!(parsed("push", &json).is_ok());
}

#[test]
fn an_error_names_the_missing_mandatory_field() {
    for field in ["ref", "before", "after", "repository", "sender"] {
        let mut json: serde_json::Value = serde_json::from_str(LEAST).unwrap();
        json.as_object_mut().unwrap().remove(field);
        let error = parsed("push", &json.to_string()).unwrap_err();
        assert_eq!(error.reason.code, "malformed-payload");
        assert!(error.reason.message.contains(&format!("missing field `{field}`")), "{error}");
    }
}

#[test]
fn wrong_types_bad_names_and_broken_json_are_reported_as_reasons() {
    for json in ["", "{", "[]", "null", "\u{feff}{}", r#"{"ref":1}"#] {
        assert_eq!(parsed("push", json).unwrap_err().reason.code, "malformed-payload", "{json}");
    }
    let odd = LEAST.replace("95a2db4000000000000000000000000000000000", "--upload-pack=x");
    assert!(parsed("push", &odd).unwrap_err().reason.message.contains("40 hex digits"));
    let deep = format!("{}{}", r#"{"ref":"#, "[".repeat(100_000));
    assert!(parsed("push", &deep).is_err());
}

#[test]
fn an_unknown_event_lists_the_known_events() {
    let error = parsed("ping", "{}").unwrap_err();
    assert_eq!(error.reason.code, "unknown-event");
    assert!(error.reason.message.contains("pull_request"));
}

#[test]
fn an_action_of_a_newer_gogs_is_kept_unchanged() {
    let action: PullRequestAction = serde_json::from_str("\"ready_for_review\"").unwrap();
    assert_eq!(action, PullRequestAction::Other("ready_for_review".to_owned()));
    assert_eq!(serde_json::from_str::<PullRequestAction>("\"label_updated\"").unwrap(), PullRequestAction::LabelUpdated);
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>, event in proptest::sample::select(EVENTS.to_vec())) {
        let body = restore(bytes.clone(), Digest::of(&bytes)).unwrap();
        let _ = parse(event, &body);
    }

    #[test]
    fn a_changed_byte_of_a_payload_does_not_panic(at in 0..LEAST.len(), byte: u8) {
        let mut bytes = LEAST.as_bytes().to_vec();
        bytes[at] = byte;
        for event in EVENTS {
            let body = restore(bytes.clone(), Digest::of(&bytes)).unwrap();
            let _ = parse(event, &body);
        }
    }
}
