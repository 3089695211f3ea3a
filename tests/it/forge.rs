//! The client of Gogs' API, against the fake Gogs.

use beespace::encryption::Key;
use beespace::forge::{EnableError, Enabler, Forge, ForgeError, HookLocks};
use beespace::store::Store;
use beespace::store::repository::Repositories as _;
use beespace_core::ids::{RepositoryId, RepositoryName};
use beespace_core::time::Timestamp;
use beespace_tests::gogs::{Access, FakeGogs, Faults, RepositoryObject};

const NOW: Timestamp = Timestamp(1_000_000);

struct World {
    gogs: FakeGogs,
    repo: RepositoryObject,
    enabler: Enabler,
    _folder: tempfile::TempDir,
}

fn app() -> RepositoryName {
    RepositoryName::new("acme", "app").unwrap()
}

fn forge(gogs: &FakeGogs, token: &str) -> Forge {
    Forge::new(gogs.url().parse().unwrap(), token.to_owned().into(), None).unwrap()
}

async fn world() -> World {
    let gogs = FakeGogs::start().await.unwrap();
    let repo = gogs.create_repository("acme/app").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let enabler = Enabler {
        forge: forge(&gogs, gogs.token()),
        store: Store::open(&folder.path().join("beespace.redb")).unwrap(),
        seal: Key::from_bytes([7; 32]),
        hook_base: "http://127.0.0.1:1/base/".parse().unwrap(),
        locks: HookLocks::default(),
    };
    World { gogs, repo, enabler, _folder: folder }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_and_the_rights_of_a_token_are_read() {
    let world = world().await;
    assert_eq!(world.enabler.forge.user().await.unwrap().username, "ada");
    let repository = world.enabler.forge.repository(&app()).await.unwrap();
    assert_eq!(repository.id, world.repo.id);
    assert!(repository.permissions.unwrap().admin);
    let reader = forge(&world.gogs, &world.gogs.create_user("reader").unwrap());
    let may = reader.repository(&app()).await.unwrap().permissions.unwrap();
    assert!(may.pull && !may.push && !may.admin);
    let none = world.enabler.forge.repository(&RepositoryName::new("acme", "none").unwrap()).await.unwrap_err();
    assert_eq!(none, ForgeError::NotFound("repository acme/none".to_owned()));
    assert_eq!(world.enabler.forge.clone_url(&app()).as_str(), format!("{}/acme/app.git", world.gogs.url()));
}

#[tokio::test(flavor = "multi_thread")]
async fn enabling_creates_one_webhook_and_is_idempotent() {
    let world = world().await;
    let enabled = world.enabler.enable(&app(), NOW).await.unwrap();
    let hooks = world.enabler.forge.hooks(&app()).await.unwrap();
    assert_eq!(hooks.len(), 1);
    assert!(hooks[0].fires_for_all_events());
    assert!(hooks[0].config.url.starts_with("http://127.0.0.1:1/base/-/hook/"), "{}", hooks[0].config.url);
    assert_eq!(hooks[0].config.content_type, "json");
    assert_eq!(enabled.hook.as_ref().unwrap().forge_id, hooks[0].id);
    assert_eq!(
        enabled.hook.as_ref().unwrap().key,
        beespace::webhook_secret::key_digest(hooks[0].config.url.rsplit('/').next().unwrap())
    );
    let again = world.enabler.enable(&app(), NOW).await.unwrap();
    assert_eq!(again.hook.unwrap().key, enabled.hook.unwrap().key);
    assert_eq!(world.enabler.forge.hooks(&app()).await.unwrap(), hooks);
}

#[tokio::test(flavor = "multi_thread")]
async fn enabling_repairs_a_webhook_that_was_removed_or_changed() {
    let world = world().await;
    let first = world.enabler.enable(&app(), NOW).await.unwrap().hook.unwrap();
    world.enabler.forge.delete_hook(&app(), first.forge_id).await.unwrap();
    let second = world.enabler.enable(&app(), NOW).await.unwrap().hook.unwrap();
    assert_ne!(first.key, second.key);
    let url = world.enabler.forge.hooks(&app()).await.unwrap().remove(0).config.url;
    world.gogs.set_hook_url(second.forge_id, &format!("{url}0")).unwrap();
    let third = world.enabler.enable(&app(), NOW).await.unwrap().hook.unwrap();
    assert_ne!(second.key, third.key);
    assert_eq!(world.enabler.forge.hooks(&app()).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_creates_a_new_webhook_and_accepts_the_old_key_for_a_day() {
    let world = world().await;
    assert!(matches!(world.enabler.repair(&app(), NOW).await, Err(EnableError::NotEnabled(_))));
    let first = world.enabler.enable(&app(), NOW).await.unwrap().hook.unwrap();
    let others = "http://127.0.0.1:1/elsewhere".parse().unwrap();
    world.enabler.forge.create_hook(&app(), &others, &"x".to_owned().into()).await.unwrap();
    let repaired = world.enabler.repair(&app(), NOW).await.unwrap();
    let hooks = world.enabler.forge.hooks(&app()).await.unwrap();
    assert_eq!(hooks.len(), 2, "ours and a foreign one");
    assert!(hooks.iter().any(|hook| hook.id == repaired.hook.as_ref().unwrap().forge_id));
    let read = world.enabler.store.read().unwrap();
    let day = 24 * 60 * 60 * 1000;
    assert!(read.hook_by_key(first.key, Timestamp(NOW.0 + day - 1)).unwrap().is_some());
    assert!(read.hook_by_key(first.key, Timestamp(NOW.0 + day)).unwrap().is_none());
    assert!(read.hook_by_key(repaired.hook.unwrap().key, Timestamp(NOW.0 + day)).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_repairs_in_a_day_keep_every_key_that_gogs_may_still_use() {
    let world = world().await;
    let first = world.enabler.enable(&app(), NOW).await.unwrap().hook.unwrap();
    let hour = 60 * 60 * 1000;
    let second = world.enabler.repair(&app(), Timestamp(NOW.0 + hour)).await.unwrap().hook.unwrap();
    let third = world.enabler.repair(&app(), Timestamp(NOW.0 + 2 * hour)).await.unwrap();
    let read = world.enabler.store.read().unwrap();
    let good = |hours: u64| {
        let at = Timestamp(NOW.0 + hours * hour);
        [first.key, second.key, third.hook.as_ref().unwrap().key].map(|key| read.hook_by_key(key, at).unwrap().is_some())
    };
    assert_eq!([good(3), good(25), good(26)], [[true, true, true], [false, true, true], [false, false, true]]);
    let later = world.enabler.repair(&app(), Timestamp(NOW.0 + 30 * hour)).await.unwrap();
    assert_eq!(later.previous_hooks.len(), 1, "expired keys are removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_repairs_leave_the_stored_webhook() {
    let world = world().await;
    world.enabler.enable(&app(), NOW).await.unwrap();
    let name = app();
    let at_once = (0..6).map(|number| {
        let (enabler, name) = (world.enabler.clone(), name.clone());
        async move { if number == 3 { enabler.enable(&name, NOW).await } else { enabler.repair(&name, NOW).await } }
    });
    for done in futures::future::join_all(at_once).await {
        done.unwrap();
    }
    let hooks = world.enabler.forge.hooks(&name).await.unwrap();
    let known = world.enabler.store.read().unwrap().repository(RepositoryId(world.repo.id)).unwrap().unwrap().hook.unwrap();
    assert_eq!(hooks.iter().map(|hook| hook.id).collect::<Vec<_>>(), [known.forge_id]);
    assert_eq!(beespace::webhook_secret::key_digest(hooks[0].config.url.rsplit('/').next().unwrap()), known.key);
}

#[tokio::test(flavor = "multi_thread")]
async fn disabling_removes_the_webhook_and_keeps_the_repository() {
    let world = world().await;
    world.enabler.enable(&app(), NOW).await.unwrap();
    world.enabler.disable(&app()).await.unwrap();
    assert!(world.enabler.forge.hooks(&app()).await.unwrap().is_empty());
    let kept = world.enabler.store.read().unwrap().repository(RepositoryId(world.repo.id)).unwrap().unwrap();
    assert!(kept.hook.is_none() && kept.previous_hooks.is_empty());
    let never = "acme/other".parse().unwrap();
    assert!(matches!(world.enabler.disable(&never).await, Err(EnableError::NotEnabled(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_disabled_during_an_outage_loses_its_webhook_later() {
    let world = world().await;
    world.enabler.enable(&app(), NOW).await.unwrap();
    world.gogs.set_offline(true);
    let error = world.enabler.disable(&app()).await.unwrap_err();
    assert!(matches!(error, EnableError::HookNotRemoved { .. }), "{error}");
    assert!(error.to_string().contains("acme/app is disabled, but its webhook may still exist in Gogs"), "{error}");
    let kept = world.enabler.store.read().unwrap().repository(RepositoryId(world.repo.id)).unwrap().unwrap();
    assert!(kept.hook.is_none());
    world.gogs.set_offline(false);
    world.enabler.disable(&app()).await.unwrap();
    assert!(world.enabler.forge.hooks(&app()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_repository_administrator_can_enable() {
    let world = world().await;
    let token = world.gogs.create_user("writer").unwrap();
    world.gogs.grant_access("acme/app", "writer", Access::Write).unwrap();
    let enabler = Enabler { forge: forge(&world.gogs, &token), ..world.enabler.clone() };
    let error = enabler.enable(&app(), NOW).await.unwrap_err();
    assert!(matches!(error, EnableError::NotAdmin(_)), "{error}");
    assert!(error.reason().help.is_some());
    assert_eq!(enabler.forge.hooks(&app()).await.unwrap_err(), ForgeError::Forbidden("list the webhooks of acme/app".to_owned()));
    assert!(world.enabler.store.read().unwrap().repositories().unwrap().is_empty());
}

/// Gogs treats both as strangers, with 404 or without permissions, and does not mention the token.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_distinguished_from_a_hidden_repository() {
    let world = world().await;
    world.gogs.create_private_repository("acme/vault").await.unwrap();
    for (name, alive) in [("acme/vault", None), ("acme/app", None), ("acme/none", Some("acme/none"))] {
        let name = name.parse().unwrap();
        let forge = forge(&world.gogs, world.gogs.token());
        world.gogs.set_token_revoked(false);
        let known = forge.repository(&name).await.err();
        assert_eq!(known, alive.map(|name| ForgeError::NotFound(format!("repository {name}"))));
        world.gogs.set_token_revoked(true);
        assert_eq!(forge.repository(&name).await.unwrap_err(), ForgeError::Unauthorized, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_gogs_error_has_a_code_and_a_remedy_and_hides_the_token() {
    let world = world().await;
    let token = world.gogs.token();
    let forge = &world.enabler.forge;
    for (switches, code) in [
        (Faults { offline: true, ..Faults::default() }, "waiting-for-gogs"),
        (Faults { token_revoked: true, ..Faults::default() }, "token-refused"),
        (Faults { login_prohibited: true, ..Faults::default() }, "not-the-api"),
        (Faults { redirects: true, ..Faults::default() }, "gogs-redirects"),
    ] {
        world.gogs.set_faults(switches);
        let error = forge.user().await.unwrap_err();
        let reason = error.reason();
        assert_eq!(reason.code, code, "{switches:?}");
        assert!(reason.help.is_some());
        assert!(!format!("{error:?} {reason} {forge:?}").contains(token));
    }
    let nowhere = Forge::new("http://127.0.0.1:1".parse().unwrap(), token.to_owned().into(), None).unwrap();
    let error = nowhere.user().await.unwrap_err();
    assert_eq!(error.to_string(), "Gogs cannot be reached at http://127.0.0.1:1/: Connection refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_webhook_creation_leaves_nothing() {
    let world = world().await;
    let first = world.enabler.enable(&app(), NOW).await.unwrap().hook.unwrap();
    // Gogs refuses this URL; everything before that works.
    let broken = Enabler { hook_base: "data:x".parse().unwrap(), ..world.enabler.clone() };
    world.gogs.set_token_revoked(true);
    assert!(broken.repair(&app(), NOW).await.is_err());
    let kept = world.enabler.store.read().unwrap().repository(RepositoryId(world.repo.id)).unwrap().unwrap();
    assert_eq!(kept.hook.unwrap().key, first.key);
    assert!(kept.previous_hooks.is_empty());
}
