use serde_json::{Value, json};

use super::*;
use crate::digest::Digest;
use crate::event::{EventKind, PullRequestChange};
use crate::gogs::parse;
use crate::verify::restore;

const OLD: &str = "1111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222";
const ZERO: &str = "0000000000000000000000000000000000000000";
const HOOK: RepositoryId = RepositoryId(4);

/// The repository as the server knows it.
fn known() -> Repository {
    Repository {
        id: HOOK,
        name: RepositoryName::new("acme", "app").unwrap(),
        default_branch: "main".to_owned(),
        is_private: true,
        html_url: "http://gogs/acme/app".to_owned(),
    }
}

fn repository() -> Value {
    json!({ "id": 4, "owner": { "id": 9, "username": "acme" }, "name": "app", "private": false, "default_branch": "main",
        "html_url": "http://gogs/acme/app" })
}

fn push(git_ref: &str, before: &str, after: &str) -> Value {
    json!({
        "ref": git_ref, "before": before, "after": after, "compare_url": "http://gogs/compare", "commits": [],
        "repository": repository(), "pusher": { "id": 9, "username": "acme" }, "sender": { "id": 2, "username": "dev" },
    })
}

fn with_commit(mut payload: Value, id: &str, message: &str) -> Value {
    payload["commits"] = json!([{ "id": id, "message": message, "author": { "name": "A", "email": "a@b" } }]);
    payload
}

fn gogs_event(event: &str, payload: &Value) -> Verified<GogsEvent> {
    let bytes = payload.to_string().into_bytes();
    let digest = Digest::of(&bytes);
    parse(event, &restore(bytes, digest).unwrap()).unwrap()
}

fn seen(before: Option<&str>, after: &str) -> LastSeenRef {
    LastSeenRef { before: before.map(|sha| Sha::new(sha).unwrap()), after: Sha::new(after).unwrap() }
}

fn built(payload: &Value, last: Option<&LastSeenRef>) -> Event {
    match decide(&gogs_event("push", payload), &known(), DeliveryRepeat::First, last) {
        TriggerDecision::Build(mut events) if events.len() == 1 => events.remove(0),
        other => panic!("not one event: {other:?}"),
    }
}

fn created_tag(name: &str, object: &str) -> Value {
    json!({ "ref": name, "ref_type": "tag", "sha": object, "default_branch": "main", "repository": repository(),
        "sender": { "id": 2, "username": "dev" } })
}

fn release(tag: &str, draft: bool) -> Value {
    json!({ "action": "published", "repository": repository(), "sender": { "id": 2, "username": "dev" },
        "release": { "id": 1, "tag_name": tag, "target_commitish": "main", "name": "One", "body": "What is new", "draft": draft,
            "prerelease": true } })
}

fn causes(event: &str, payload: &Value) -> Vec<Cause> {
    match decide(&gogs_event(event, payload), &known(), DeliveryRepeat::First, None) {
        TriggerDecision::Build(events) => events.into_iter().map(|event| event.cause).collect(),
        TriggerDecision::Ignored { reason, .. } | TriggerDecision::Update { reason, .. } => panic!("ignored: {reason}"),
    }
}

fn ignored(event: &str, payload: &Value, last: Option<&LastSeenRef>) -> (String, String, Option<String>) {
    match decide(&gogs_event(event, payload), &known(), DeliveryRepeat::First, last) {
        TriggerDecision::Build(event) => panic!("built: {event:?}"),
        TriggerDecision::Update { reason, .. } => panic!("updated: {reason}"),
        TriggerDecision::Ignored { reason, forget_ref: forget } => (reason.code.clone(), reason.to_string(), forget),
    }
}

#[test]
fn a_push_to_a_branch_builds_for_its_sender() {
    let event = built(&push("refs/heads/feature/x", OLD, NEW), None);
    assert_eq!(event.git_ref(), "refs/heads/feature/x");
    assert_eq!(event.branch(), Some("feature/x"));
    assert_eq!(event.sender.stable_id(), "gogs:2", "the pusher of a merge may not be involved");
    assert_eq!(event.before().unwrap().as_str(), OLD);
    assert_eq!(built(&push("refs/heads/x", ZERO, NEW), None).before(), None);
}

#[test]
fn an_event_of_another_repository_is_never_built() {
    let mut payload = push("refs/heads/main", OLD, NEW);
    payload["repository"]["id"] = json!(7);
    let (code, text, _) = ignored("push", &payload, None);
    assert_eq!(code, "other-repository");
    assert!(text.starts_with("the payload is for repository 7, but the webhook belongs to repository 4"), "{text}");
}

#[test]
fn deletions_remove_the_record_of_the_ref() {
    let (code, _, forget) = ignored("push", &push("refs/heads/main", OLD, ZERO), None);
    assert_eq!((code.as_str(), forget.as_deref()), ("ref-deleted", Some("refs/heads/main")));
    let payload =
        json!({ "ref": "a/b", "ref_type": "branch", "repository": repository(), "sender": { "id": 2, "username": "dev" } });
    assert_eq!(recorded_ref(&gogs_event("delete", &payload)).as_deref(), Some("refs/heads/a/b"));
    assert_eq!(ignored("delete", &payload, None).2.as_deref(), Some("refs/heads/a/b"));
}

#[test]
fn the_test_button_builds_nothing() {
    assert_eq!(ignored("push", &push("refs/heads/main", NEW, NEW), None).0, "test-delivery");
    let empty = with_commit(push("refs/heads/main", ZERO, ZERO), ZERO, "This is a fake commit");
    let (code, text, forget) = ignored("push", &empty, None);
    assert_eq!((code.as_str(), forget), ("test-delivery", None));
    assert!(text.contains("no commit yet"), "{text}");
}

#[test]
fn only_branches_and_tags_build() {
    for (git_ref, code) in [
        ("refs/foo/bar", "not-a-branch"),
        ("refs/pull/9/head", "not-a-branch"),
        ("main", "not-a-branch"),
        ("refs/heads/a b", "not-a-branch"),
        ("refs/heads/a\nb", "not-a-branch"),
        ("refs/heads/", "not-a-branch"),
    ] {
        assert_eq!(ignored("push", &push(git_ref, OLD, NEW), None).0, code, "{git_ref}");
    }
}

#[test]
fn hostile_branch_names_are_plain_names() {
    for name in ["refs/heads/x", "--upload-pack=sh", "$(id)", OLD, "a'b\"c"] {
        assert_eq!(built(&push(&format!("refs/heads/{name}"), OLD, NEW), None).branch(), Some(name));
    }
}

#[test]
fn the_sync_of_a_mirror_builds_branches_by_their_short_name() {
    let mut branch = push("main", OLD, NEW);
    branch["repository"]["mirror"] = json!(true);
    assert_eq!(built(&branch, None).git_ref(), "refs/heads/main");
    let mut tag = push("v1", "", "");
    tag["repository"]["mirror"] = json!(true);
    assert_eq!(causes("push", &tag), [Cause::Tag(Tag { name: "v1".to_owned(), object: None })]);
    assert_eq!(ignored("push", &push("v1", "", ""), None).0, "test-delivery", "not a mirror");
}

#[test]
fn a_tag_builds_with_the_object_that_gogs_reports() {
    for name in ["v1", "release/1.0", "--upload-pack=sh", "$(id)"] {
        let tag = Tag { name: name.to_owned(), object: Some(Sha::new(NEW).unwrap()) };
        assert_eq!(causes("create", &created_tag(name, NEW)), [Cause::Tag(tag.clone())]);
        assert_eq!(causes("push", &push(&format!("refs/tags/{name}"), ZERO, NEW)), [Cause::Tag(tag)]);
    }
    assert_eq!(ignored("create", &created_tag("a b", NEW), None).0, "not-a-branch");
    let (code, _, forget) = ignored("push", &push("refs/tags/v1", OLD, ZERO), None);
    assert_eq!((code.as_str(), forget.as_deref()), ("ref-deleted", Some("refs/tags/v1")));
}

#[test]
fn a_release_builds_its_tag_and_itself_once_it_is_published() {
    let built = causes("release", &release("v1", false));
    assert_eq!(built[0], Cause::Tag(Tag { name: "v1".to_owned(), object: None }));
    let Cause::Release(release_event) = &built[1] else { panic!("{built:?}") };
    assert_eq!((&*release_event.tag, &*release_event.title, release_event.is_prerelease), ("v1", "One", true));
    assert_eq!(built.len(), 2);
    assert_eq!(ignored("release", &release("v1", true), None).0, "nothing-to-build");
    assert_eq!(ignored("release", &release("a..b", false), None).0, "not-a-branch");
}

#[test]
fn one_push_is_built_once_and_a_force_push_back_and_forth_is_built_again() {
    let payload = push("refs/heads/main", OLD, NEW);
    assert_eq!(ignored("push", &payload, Some(&seen(Some(OLD), NEW))).0, "duplicate-push");
    built(&payload, Some(&seen(Some(NEW), OLD)));
    built(&payload, Some(&seen(Some(ZERO), NEW)));
    built(&payload, Some(&seen(None, NEW)));
    assert_eq!(recorded_ref(&gogs_event("push", &payload)).as_deref(), Some("refs/heads/main"));
}

#[test]
fn repeated_json_is_a_new_push_only_if_it_begins_at_the_recorded_commit() {
    let again = |payload: &Value, last: Option<&LastSeenRef>| {
        matches!(decide(&gogs_event("push", payload), &known(), DeliveryRepeat::Repeated, last), TriggerDecision::Build(_))
    };
    let there = push("refs/heads/main", OLD, NEW);
    assert!(again(&there, Some(&seen(Some(NEW), OLD))), "forth, back and forth again within a second");
    assert!(!again(&there, Some(&seen(Some(OLD), NEW))), "a second webhook");
    assert!(!again(&there, Some(&seen(Some(NEW), &"3".repeat(40)))), "the branch has moved on: an old delivery was replayed");
    assert!(!again(&there, None));
    let new = push("refs/heads/main", ZERO, NEW);
    assert!(again(&new, None), "created, deleted and created again within a second");
    assert!(!again(&new, Some(&seen(None, NEW))), "a second webhook");
}

#[test]
fn skip_directives_count_only_in_the_head_commit() {
    for word in ["[skip ci]", "fix\n\n[CI SKIP]", "x [no ci] y"] {
        let payload = with_commit(push("refs/heads/main", OLD, NEW), NEW, word);
        assert_eq!(ignored("push", &payload, None).0, "skip-directive", "{word}");
    }
    let removed = with_commit(push("refs/heads/main", OLD, NEW), OLD, "[skip ci]");
    built(&removed, None);
    assert_eq!(skip_directive("skip ci"), None);
}

#[test]
fn missing_commits_are_accepted() {
    let mut payload = push("refs/heads/main", OLD, NEW);
    payload["commits"] = Value::Null;
    let event = built(&payload, None);
    assert!(event.push().unwrap().head_commit().is_none());
}

#[test]
fn the_built_event_has_nothing_that_the_payload_claims_about_its_repository() {
    let mut payload = push("refs/heads/main", OLD, NEW);
    payload["repository"] = json!({ "id": 4, "owner": { "id": 7, "username": "victim" }, "name": "vault", "private": false,
        "default_branch": "evil", "html_url": "http://evil/" });
    assert_eq!(built(&payload, None).repository, known());
    let event = gogs_event("push", &payload);
    assert_eq!(claimed_repository(&event, HOOK).unwrap().name, "vault");
    assert!(claimed_repository(&event, RepositoryId(5)).is_none(), "a push to another repository claims nothing");
}

#[test]
fn addresses_that_are_no_pages_become_no_links() {
    let mut found = repository();
    found["html_url"] = json!("javascript:alert(1)");
    assert_eq!(repository_of(&serde_json::from_value(found).unwrap()).unwrap().html_url, "");
    let mut payload = push("refs/heads/main", OLD, NEW);
    payload["compare_url"] = json!("");
    assert_eq!(built(&payload, None).push().unwrap().compare_url, None);
}

#[test]
fn a_name_that_could_leave_its_directory_is_refused() {
    let mut found = repository();
    found["owner"]["username"] = json!("../..");
    assert!(repository_of(&serde_json::from_value(found).unwrap()).is_err());
}

#[test]
fn texts_of_a_payload_are_stored_with_a_bound() {
    let long = "x".repeat(1 << 20);
    let mut payload = with_commit(push("refs/heads/main", OLD, NEW), NEW, &long[..32 << 10]);
    payload["commits"] = json!(vec![payload["commits"][0].clone(); 500]);
    payload["commits"][0]["author"] = json!({ "name": long, "email": long });
    payload["sender"]["username"] = json!(long);
    payload["compare_url"] = json!(format!("http://gogs/{long}"));
    let event = built(&payload, None);
    let stored = serde_json::to_string(&event).unwrap().len();
    assert!(stored < 2 << 20, "{stored} bytes of a payload of {} are stored", payload.to_string().len());
    let branch = push(&format!("refs/heads/{long}"), OLD, NEW);
    let (code, text, _) = ignored("push", &branch, None);
    assert!(code == "not-a-branch" && text.len() < 1_000, "{text}");
}

#[test]
fn strangers_names_are_quoted_in_our_sentences() {
    assert_eq!(quote_name("feature/x"), "feature/x");
    assert_eq!(quote_name("a b\u{1b}[31m"), r#""a b\u{1b}[31m""#);
    assert!(quote_name(&"x".repeat(500)).len() < 110);
}

fn pull_request(action: &str) -> Value {
    let fork = json!({ "id": 12, "owner": { "id": 3, "username": "eve" }, "name": "app", "private": false, "fork": true,
        "clone_url": "http://attacker/eve/app.git", "parent": repository() });
    json!({ "action": action, "number": 7, "repository": repository(), "sender": { "id": 3, "username": "eve" },
        "pull_request": { "id": 99, "number": 7, "title": "Fix it", "state": "open", "head_branch": "topic/x", "head_repo": fork,
            "base_branch": "main", "base_repo": repository(), "labels": [{ "id": 1, "name": "bug", "color": "ff0000" }],
            "html_url": "http://gogs/acme/app/pulls/7", "mergeable": null, "merged": false } })
}

#[test]
fn a_pull_request_is_built_when_its_code_or_its_state_changes() {
    for (action, change, kind) in [
        ("opened", PullRequestChange::Opened, EventKind::PullRequest),
        ("synchronized", PullRequestChange::Synchronized, EventKind::PullRequest),
        ("reopened", PullRequestChange::Reopened, EventKind::PullRequest),
        ("closed", PullRequestChange::Closed, EventKind::PullRequestClosed),
    ] {
        let [Cause::PullRequest(pull)] = &causes("pull_request", &pull_request(action))[..] else { panic!("{action}") };
        assert_eq!((pull.change, pull.number, pull.title.as_str()), (change, 7, "Fix it"), "{action}");
        let event = event_of(&known(), &user(), Cause::PullRequest(pull.clone()));
        assert_eq!((event.kind(), event.git_ref().as_str()), (kind, "refs/pull/7/head"));
        assert_eq!((event.sha(), event.branch(), event.branch_or_target()), (None, None, Some("main")));
        assert_eq!((pull.source_label(HOOK), pull.is_from_fork(HOOK)), ("eve:topic/x".to_owned(), true));
        assert_eq!(pull.labels, ["bug"]);
    }
}

fn user() -> gogs::User {
    serde_json::from_value(json!({ "id": 3, "username": "eve" })).unwrap()
}

#[test]
fn an_edited_pull_request_only_updates_what_is_known_about_it() {
    for action in ["edited", "label_updated", "label_cleared", "assigned", "milestoned", "ready_for_review"] {
        let decision = decide(&gogs_event("pull_request", &pull_request(action)), &known(), DeliveryRepeat::First, None);
        let TriggerDecision::Update { pull_request, reason } = decision else { panic!("{action}: {decision:?}") };
        assert_eq!((pull_request.change, reason.code.as_str()), (PullRequestChange::Edited, "nothing-to-build"), "{action}");
    }
}

#[test]
fn a_pull_request_with_a_deleted_source_or_with_invalid_names() {
    let mut payload = pull_request("reopened");
    payload["pull_request"]["head_repo"] = json!({ "id": 0, "owner": null, "name": "deleted", "private": false });
    let [Cause::PullRequest(pull)] = &causes("pull_request", &payload)[..] else { panic!() };
    assert_eq!((&pull.source, pull.is_from_fork(HOOK)), (&None, true));
    payload["pull_request"]["head_branch"] = json!("a b");
    assert_eq!(ignored("pull_request", &payload, None).0, "not-a-branch");
    let mut of_another = pull_request("opened");
    of_another["repository"]["id"] = json!(8);
    assert_eq!(ignored("pull_request", &of_another, None).0, "other-repository");
}
