//! Every delivery recorded from a real Gogs is verified, parsed and decided.

use std::collections::BTreeMap;
use std::path::Path;

use beespace_core::event::Repository;
use beespace_core::gogs::{GogsEvent, parse};
use beespace_core::ids::RepositoryId;
use beespace_core::trigger::{DeliveryRepeat, TriggerDecision, decide};
use beespace_core::verify::{Verified, verify};
use serde::Deserialize;

/// The secret of the recorded webhooks.
pub const SECRET: &[u8] = b"s3cret";

/// One recorded request.
#[derive(Debug, Clone, Deserialize)]
pub struct Recorded {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub raw_json_verified: bool,
    /// The signed bytes.
    pub raw_json: String,
}

impl Recorded {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn is_form(&self) -> bool {
        self.header("content-type") == Some("application/x-www-form-urlencoded")
    }

    fn verified(&self) -> Option<Verified<Vec<u8>>> {
        verify(self.raw_json.clone().into_bytes(), SECRET, self.header("x-gogs-signature"))
    }

    fn event_of(&self) -> Verified<GogsEvent> {
        parse(self.header("x-gogs-event").unwrap(), &self.verified().unwrap())
            .unwrap_or_else(|error| panic!("{error}: {}", self.raw_json))
    }
}

/// Both files: Gogs 0.11.91 and 0.14.3.
pub fn recorded() -> Vec<Recorded> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/gogs");
    let files = ["deliveries-v0.11.91.jsonl", "deliveries-v0.14.3.jsonl"];
    let text: String = files.iter().map(|file| std::fs::read_to_string(folder.join(file)).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn signed() -> impl Iterator<Item = Recorded> {
    recorded().into_iter().filter(|delivery| delivery.raw_json_verified)
}

#[test]
fn every_signed_delivery_verifies_and_those_without_a_secret_are_refused() {
    let all = recorded();
    assert_eq!(all.len(), 48 + 136);
    for delivery in &all {
        assert_eq!(delivery.verified().is_some(), delivery.raw_json_verified, "{}", delivery.path);
    }
    let refused = all.iter().filter(|delivery| delivery.verified().is_none()).count();
    assert_eq!(refused, 4, "two of each version, of the hook without a secret");
}

#[test]
fn a_flipped_bit_in_body_or_signature_refuses_each_delivery() {
    for delivery in signed() {
        let signature = delivery.header("x-gogs-signature").unwrap();
        let body = delivery.raw_json.as_bytes();
        for at in [0, body.len() / 3, body.len() / 2, body.len() - 1] {
            for bit in 0..8 {
                let mut flipped = body.to_vec();
                flipped[at] ^= 1 << bit;
                assert!(verify(flipped, SECRET, Some(signature)).is_none());
            }
        }
        let mut other = hex::decode(signature).unwrap();
        other[31] ^= 1;
        assert!(verify(body.to_vec(), SECRET, Some(&hex::encode(other))).is_none());
        assert!(verify(body.to_vec(), b"s3creT", Some(signature)).is_none());
    }
}

/// The webhook's repository, as the server knows it.
fn repository(id: RepositoryId) -> Repository {
    Repository {
        id,
        name: "ada/hive".parse().unwrap(),
        default_branch: "main".to_owned(),
        is_private: false,
        html_url: String::new(),
    }
}

#[test]
fn every_delivery_becomes_an_event_or_a_reason() {
    let mut fates: BTreeMap<String, usize> = BTreeMap::new();
    for delivery in signed() {
        let happening = delivery.event_of();
        let fate = match decide(&happening, &repository(happening.get().repository_id()), DeliveryRepeat::First, None) {
            TriggerDecision::Build(events) => {
                for event in &events {
                    assert!(event.sha().is_none_or(|sha| !sha.is_zero()) && event.git_ref().len() > "refs/heads/".len());
                }
                format!("build {}", events.iter().map(|event| event.kind().as_str()).collect::<Vec<_>>().join("+"))
            }
            TriggerDecision::Ignored { reason, .. } | TriggerDecision::Update { reason, .. } => {
                assert!(!reason.message.is_empty());
                reason.code
            }
        };
        *fates.entry(format!("{}: {fate}", delivery.header("x-gogs-event").unwrap())).or_default() += 1;
    }
    let fates: Vec<String> = fates.into_iter().map(|(fate, count)| format!("{fate} {count}")).collect();
    insta::assert_snapshot!(fates.join("\n"));
}

#[test]
fn no_delivery_builds_for_the_webhook_of_another_repository() {
    for delivery in signed() {
        let happening = delivery.event_of();
        let TriggerDecision::Ignored { reason, .. } =
            decide(&happening, &repository(RepositoryId(999)), DeliveryRepeat::First, None)
        else {
            panic!("built: {}", delivery.raw_json)
        };
        assert_eq!(reason.code, "other-repository");
        assert!(reason.message.ends_with("but the webhook belongs to repository 999"), "{reason}");
    }
}

#[test]
fn the_sender_of_a_merge_is_the_person_who_merged() {
    let merges = signed().filter_map(|delivery| match delivery.event_of().into_inner() {
        GogsEvent::Push(push) if push.pusher.as_ref().is_some_and(|pusher| pusher.id != push.sender.id) => Some(push),
        _ => None,
    });
    let merges: Vec<_> = merges.collect();
    assert!(merges.len() >= 3, "merges were recorded in both versions");
    for push in merges {
        assert!(matches!(push.sender.username.as_str(), "alice" | "root1"), "{}", push.sender.username);
    }
}

#[test]
fn a_payload_cut_anywhere_is_a_reason_and_no_panic() {
    for delivery in signed().step_by(7) {
        let event = delivery.header("x-gogs-event").unwrap();
        for at in (0..delivery.raw_json.len()).step_by(97) {
            let cut = delivery.raw_json.as_bytes()[..at].to_vec();
            let digest = beespace_core::digest::Digest::of(&cut);
            let cut = beespace_core::verify::restore(cut, digest).unwrap();
            assert_eq!(parse(event, &cut).unwrap_err().reason.code, "malformed-payload");
        }
    }
}
