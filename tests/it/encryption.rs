//! Secrets at rest: the key file, and sealed values with their context.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use beespace::app::App;
use beespace::config::Config;
use beespace::encryption::{Key, SealError, Sealed};

#[test]
fn a_sealed_value_can_be_opened_only_in_its_context() {
    let key = Key::from_bytes([7; 32]);
    let sealed = key.seal("secret/repository/1/TOKEN", b"topsecret").unwrap();
    assert_eq!(key.open("secret/repository/1/TOKEN", &sealed).unwrap().as_slice(), b"topsecret");
    for place in ["secret/repository/2/TOKEN", "secret/instance/TOKEN", "secret/repository/1/TOKEN2", ""] {
        let error = key.open(place, &sealed).unwrap_err();
        assert!(matches!(error, SealError::Broken { .. }), "{place}: {error}");
    }
}

#[test]
fn a_flipped_bit_in_a_sealed_value_is_refused() {
    let key = Key::from_bytes([7; 32]);
    let sealed = serde_json::to_value(key.seal("place", b"x").unwrap()).unwrap();
    let bytes: Vec<u8> = serde_json::from_value(sealed).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let changed: Sealed = serde_json::from_value(serde_json::json!(changed)).unwrap();
        assert!(key.open("place", &changed).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        let cut: Sealed = serde_json::from_value(serde_json::json!(bytes[..len])).unwrap();
        assert!(key.open("place", &cut).is_err(), "cut to {len}");
    }
}

#[test]
fn equal_values_have_different_ciphertexts() {
    let key = Key::from_bytes([7; 32]);
    assert_ne!(key.seal("place", b"x").unwrap(), key.seal("place", b"x").unwrap());
}

#[test]
fn a_wrong_key_is_named_in_the_error() {
    let (old, new) = (Key::from_bytes([1; 32]), Key::from_bytes([2; 32]));
    let error = new.open("secret/instance/TOKEN", &old.seal("secret/instance/TOKEN", b"x").unwrap()).unwrap_err().to_string();
    for part in
        [old.id().to_string(), new.id().to_string(), "secret/instance/TOKEN".to_owned(), "restore that key file".to_owned()]
    {
        assert!(error.contains(&part), "{error}");
    }
}

#[test]
fn the_key_file_is_created_once_and_only_for_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let keys: Vec<Key> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| Key::load_or_create(&path, None).unwrap())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| key.id() == keys[0].id()));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(Key::load_or_create(&path, None).unwrap().id(), keys[0].id());
}

#[test]
fn a_readable_or_damaged_key_file_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    Key::load_or_create(&path, None).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Key::load_or_create(&path, None).unwrap_err().to_string();
    assert!(error.contains("mode 644") && error.contains("chmod 600"), "{error}");

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    for text in ["", "beespace-key-1:", "beespace-key-1:AAAA", "hello"] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(Key::load_or_create(&path, None), Err(SealError::NoKey { .. })), "{text:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

/// Starts a server on the data in `dir`; it may fail.
async fn start(dir: &Path) -> anyhow::Result<Arc<App>> {
    let text = format!("[data]\ndir = \"{}\"\n[gogs]\nurl = \"http://127.0.0.1:1\"\n[engine]\nkind = \"dummy\"\n", dir.display());
    let env = [("BEESPACE_GOGS__TOKEN".to_owned(), "token".to_owned())];
    let config = Config::read(&text, None, env).unwrap().config;
    App::open(config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_start_without_the_key_of_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let app = start(folder.path()).await.unwrap();
    let (path, id) = (app.config.data.key_path(), app.key.id().to_string());
    let text = std::fs::read_to_string(&path).unwrap();
    drop(app);

    std::fs::remove_file(&path).unwrap();
    let error = format!("{:#}", start(folder.path()).await.unwrap_err());
    assert!(error.contains("is missing") && error.contains(&id) && error.contains("from your backup"), "{error}");
    assert!(!path.exists(), "no other key takes its place");

    Key::load_or_create(&path, None).unwrap();
    let error = format!("{:#}", start(folder.path()).await.unwrap_err());
    assert!(error.contains(&id) && error.contains("restore the key file of this store"), "{error}");

    std::fs::write(&path, text).unwrap();
    assert_eq!(start(folder.path()).await.unwrap().key.id().to_string(), id);
}

#[test]
fn derived_keys_differ_by_purpose() {
    let key = Key::from_bytes([7; 32]);
    assert_eq!(key.derive("aot cache 1"), key.derive("aot cache 1"));
    assert_ne!(key.derive("aot cache 1"), key.derive("session 1"));
    assert_ne!(*key.derive("aot cache 1"), [7; 32]);
}

#[test]
fn debug_output_contains_no_key_and_no_value() {
    let key = Key::from_bytes(*b"thisisthekeythisisthekeythisisth");
    let shown = format!("{key:?} {:?}", key.seal("place", b"topsecret").unwrap());
    assert_eq!(shown, format!("Key({}) Sealed({} bytes)", key.id(), 1 + 8 + 24 + 9 + 16));
}

#[test]
fn core_dumps_are_disabled() {
    beespace::encryption::forbid_core_dumps().unwrap();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // Some core dump handlers ignore the limit.
    assert_eq!(rustix::process::dumpable_behavior().unwrap(), rustix::process::DumpableBehavior::NotDumpable);
}
