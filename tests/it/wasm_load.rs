//! The checks of the host before it calls a plugin for the first time.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beespace_tests::guest_build::{self, dummy, policy_guest, with_manifest};
use beespace_wasm::{
    BindingSpec, BoxFuture, CacheOptions, Grants, Host, HostOptions, KvEntry, KvError, KvPut, KvStore, Limits, LoadFailure,
    ManifestError, MaxCalls, NeededGrant,
};

use crate::plugins;

/// A key-value store in memory.
#[derive(Default)]
pub(crate) struct Memory(Mutex<BTreeMap<String, KvEntry>>);

impl KvStore for Memory {
    fn get<'a>(&'a self, namespace: &'a str, key: &'a str) -> BoxFuture<'a, Result<Option<KvEntry>, KvError>> {
        Box::pin(async move { Ok(self.0.lock().unwrap().get(&format!("{namespace}/{key}")).cloned()) })
    }

    fn put<'a>(&'a self, namespace: &'a str, key: &'a str, put: KvPut) -> BoxFuture<'a, Result<Option<u64>, KvError>> {
        Box::pin(async move {
            let mut entries = self.0.lock().unwrap();
            let name = format!("{namespace}/{key}");
            let revision = entries.get(&name).map_or(0, |entry| entry.revision);
            if put.expected.is_some_and(|expected| expected != revision) {
                return Ok(None);
            }
            entries.insert(name, KvEntry { value: put.value, revision: revision + 1 });
            Ok(Some(revision + 1))
        })
    }

    fn delete<'a>(&'a self, namespace: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), KvError>> {
        Box::pin(async move {
            self.0.lock().unwrap().remove(&format!("{namespace}/{key}"));
            Ok(())
        })
    }

    fn list_keys<'a>(
        &'a self,
        namespace: &'a str,
        prefix: &'a str,
        _after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<String>, KvError>> {
        let begin = format!("{namespace}/{prefix}");
        Box::pin(async move { Ok(self.0.lock().unwrap().keys().filter(|key| key.starts_with(&begin)).cloned().collect()) })
    }
}

async fn failure(component: Vec<u8>) -> LoadFailure {
    guest_build::load_policy(&guest_build::host(), component).await.unwrap_err().failure
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_module_is_refused_with_the_advice_to_build_a_component() {
    let module = wat::parse_str("(module)").unwrap();
    assert!(matches!(failure(module).await, LoadFailure::Manifest(ManifestError::CoreModule)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_a_component_is_refused() {
    assert!(matches!(failure(b"hello".to_vec()).await, LoadFailure::Manifest(ManifestError::NotWasm)));
    let empty = b"\0asm\x0d\0\x01\0".to_vec();
    assert!(matches!(failure(empty.clone()).await, LoadFailure::Manifest(ManifestError::Missing)));
    let mut broken = with_manifest(empty, &guest_build::manifest("policy"));
    broken.extend([11, 1, 99]);
    assert!(matches!(failure(broken).await, LoadFailure::Compile(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_another_kind_is_refused() {
    let is = dummy("step-plugin", None, "step");
    assert!(matches!(failure(is).await, LoadFailure::OtherKind { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_component_is_not_compiled() {
    let host =
        Host::new(HostOptions { max_component_bytes: 1000, max_calls: MaxCalls::each(1), ..HostOptions::default() }).unwrap();
    let failure = guest_build::load_policy(&host, policy_guest(&[])).await.unwrap_err().failure;
    assert!(matches!(failure, LoadFailure::TooLarge { cap: 1000, .. }), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_with_a_forbidden_import_is_refused_by_name() {
    let world = |import: &str| {
        format!(
            "package test:guest; world greedy {{ import {import}; export beespace:plugin/lifecycle@0.1.0; \
             export beespace:plugin/policy@0.1.0; }}"
        )
    };
    let kv = failure(dummy("greedy", Some(&world("beespace:plugin/kv@0.1.0")), "policy")).await;
    assert!(matches!(&kv, LoadFailure::NotForKind { import, .. } if import == "beespace:plugin/kv@0.1.0"), "{kv}");
    for import in ["wasi:http/outgoing-handler@0.2.12", "wasi:clocks/wall-clock@0.2.12", "wasi:random/random@0.2.12"] {
        let wasi = failure(dummy("greedy", Some(&world(import)), "policy")).await;
        assert!(matches!(&wasi, LoadFailure::Wasi { .. }), "{wasi}");
        assert!(wasi.to_string().contains("wasm32-unknown-unknown"), "{wasi}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notifier_gets_only_what_its_binding_grants() {
    let host = guest_build::host();
    let load = async |grants: Grants| {
        let (kv, secrets) = (Arc::new(Memory::default()), Arc::new(NoSecrets));
        let spec = BindingSpec::new("hook", serde_json::json!({}), Limits::notifier());
        let spec = BindingSpec { grants, kv: Some(kv), secrets: Some(secrets), ..spec };
        host.load_notifier(dummy("notifier-plugin", None, "notifier"), spec).await.unwrap_err()
    };
    let all = Grants {
        egress: vec![beespace_wasm::EgressRule::parse("https://a.example", beespace_wasm::AddressClass::Public).unwrap()],
        secrets: ["token".to_owned()].into(),
        secrets_reveal: true,
        kv: true,
    };
    for (grants, wanted) in [
        (Grants { egress: Vec::new(), ..all.clone() }, NeededGrant::Hosts),
        (Grants { secrets: [].into(), ..all.clone() }, NeededGrant::Secrets),
        (Grants { secrets_reveal: false, ..all.clone() }, NeededGrant::SecretsReveal),
        (Grants { kv: false, ..all.clone() }, NeededGrant::Kv),
    ] {
        let error = load(grants).await;
        assert!(matches!(&error.failure, LoadFailure::MissingGrants(missing) if *missing == [wanted]), "{error}");
        let text = format!("plugin \"hook\": the plugin needs `grants.{}` (to ", wanted.key());
        assert!(error.to_string().starts_with(&text), "{error}");
    }
    assert!(matches!(load(all).await.failure, LoadFailure::Trial(_)));
}

struct NoSecrets;

impl beespace_wasm::SecretSource for NoSecrets {
    fn secret(&self, _name: &str) -> Result<Option<beespace_wasm::SecretValue>, String> {
        Ok(None)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_checked_against_the_schema_before_anything_runs() {
    let manifest = r#"{"name": "guest", "version": "0.0.1", "kind": "policy", "config_schema": {
        "type": "object", "required": ["registries"], "additionalProperties": false,
        "properties": {"registries": {"type": "array", "items": {"type": "string"}}}}}"#;
    let (resolve, world) = guest_build::world("policy-plugin", None);
    let module = wat::parse_str(guest_build::guest_text("policy")).unwrap();
    let component = guest_build::componentize(&module, &resolve, world, manifest);
    let host = guest_build::host();
    let load = async |settings| {
        let spec = BindingSpec::new("images", settings, Limits::policy());
        host.load_policy(component.clone(), spec).await
    };
    let error = load(serde_json::json!({"registries": [1], "registry": "x"})).await.unwrap_err();
    let LoadFailure::Settings(problems) = &error.failure else { panic!("{error}") };
    assert_eq!(problems.len(), 2, "{error}");
    assert!(error.to_string().contains("/registries/0"), "{error}");
    let policy = load(serde_json::json!({"registries": []})).await.unwrap();
    let plugin = policy.plugin();
    assert_eq!(plugin.manifest.name, "guest");
    assert!(plugin.imports.contains(&"beespace:plugin/config@0.1.0".to_owned()), "{:?}", plugin.imports);
    assert_eq!(plugin.component, beespace_core::digest::Digest::of(&component));
}

#[tokio::test(flavor = "multi_thread")]
async fn external_schema_references_are_not_followed() {
    let (resolve, world) = guest_build::world("policy-plugin", None);
    let module = wat::parse_str(guest_build::guest_text("policy")).unwrap();
    for outside in ["file:///etc/passwd", "http://127.0.0.1:1/schema"] {
        let manifest =
            format!(r#"{{"name": "guest", "version": "0.0.1", "kind": "policy", "config_schema": {{"$ref": "{outside}"}}}}"#);
        let failure = failure(guest_build::componentize(&module, &resolve, world, &manifest)).await;
        assert!(matches!(failure, LoadFailure::Schema(_)), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_a_newer_interface_is_refused_with_the_missing_import() {
    let newer = "package test:guest; \
        world newer { import beespace:plugin/log@0.9.0; export beespace:plugin/lifecycle@0.1.0; \
        export beespace:plugin/policy@0.1.0; } \
        package beespace:plugin@0.9.0 { interface log { flush: func(); } }";
    let failure = failure(dummy("newer", Some(newer), "policy")).await;
    let LoadFailure::Incompatible(why) = &failure else { panic!("{failure}") };
    assert!(why.contains("beespace:plugin/log@0.9.0"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_other_versions_and_crashes_are_removed_from_the_cache() {
    let (_folder, dir) = filled().await;
    std::fs::write(dir.join("00.11.cwasm"), b"old").unwrap();
    std::fs::write(dir.join("00.11.0123.part"), b"half").unwrap();
    cached(&dir);
    only_file(&dir);
}

/// A cache with one compiled policy; it is deleted with the folder.
async fn filled() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("aot");
    guest_build::load_policy(&cached(&dir), policy_guest(&[])).await.unwrap();
    (folder, dir)
}

fn cached(dir: &std::path::Path) -> Host {
    cached_with(dir, 7)
}

fn cached_with(dir: &std::path::Path, key: u8) -> Host {
    let cache = CacheOptions { dir: dir.to_owned(), key: vec![key; 32].into() };
    Host::new(HostOptions { cache: Some(cache), max_calls: MaxCalls::each(2), ..HostOptions::default() }).unwrap()
}

fn only_file(dir: &std::path::Path) -> std::path::PathBuf {
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiled_plugin_is_reused() {
    use std::os::unix::fs::MetadataExt as _;
    let (_folder, dir) = filled().await;
    let file = || std::fs::metadata(only_file(&dir)).map(|metadata| (metadata.ino(), metadata.mtime_nsec())).unwrap();
    let first = file();
    // Each is written next to the old file and then replaces it.
    guest_build::load_policy(&cached(&dir), policy_guest(&[])).await.unwrap();
    assert_eq!(file(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_compiled_plugin_is_compiled_again() {
    let (_folder, dir) = filled().await;
    let file = only_file(&dir);
    let intact = std::fs::read(&file).unwrap();
    for damage in [0, 40, intact.len() / 2, intact.len() - 1] {
        let mut bytes = intact.clone();
        bytes[damage] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        guest_build::load_policy(&cached(&dir), policy_guest(&[])).await.unwrap();
        assert!(std::fs::read(only_file(&dir)).unwrap()[32..] == intact[32..], "compiled again after damage at {damage}");
    }
    std::fs::write(&file, b"").unwrap();
    guest_build::load_policy(&cached(&dir), policy_guest(&[])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiled_plugin_with_another_key_or_name_is_compiled_again() {
    let (_folder, dir) = filled().await;
    let file = only_file(&dir);
    let ours = std::fs::read(&file).unwrap();
    guest_build::load_policy(&cached_with(&dir, 8), policy_guest(&[])).await.unwrap();
    let theirs = std::fs::read(only_file(&dir)).unwrap();
    assert!(theirs[..32] != ours[..32] && theirs[32..] == ours[32..], "the seal is the key's");

    // The validly sealed code of another plugin under this plugin's name: it would trap.
    std::fs::remove_file(&file).unwrap();
    guest_build::load_policy(&cached(&dir), policy_guest(&[(";; evaluate", "unreachable")])).await.unwrap();
    let others = only_file(&dir);
    std::fs::rename(&others, &file).unwrap();
    let policy = guest_build::load_policy(&cached(&dir), policy_guest(&[])).await.unwrap();
    policy.evaluate(crate::wasm_hostile::request()).await.result.unwrap();
    assert!(std::fs::read(&file).unwrap() == ours, "compiled again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiled_plugin_from_outside_is_refused() {
    let (_folder, dir) = filled().await;
    let compiled = std::fs::read(only_file(&dir)).unwrap()[32..].to_vec();
    assert!(matches!(failure(compiled).await, LoadFailure::Precompiled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_directory_readable_by_others_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let cache = CacheOptions { dir: folder.path().to_owned(), key: vec![7; 32].into() };
    let error = Host::new(HostOptions { cache: Some(cache), ..HostOptions::default() }).unwrap_err();
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

/// On a runtime with one thread, compiling there would block everything else.
#[tokio::test]
async fn compiling_a_component_does_not_block_the_server() {
    let host = guest_build::host();
    let load = guest_build::load_policy(&host, plugins::component("examples/secrets-on-main"));
    let mut ticks = 0;
    let other_work = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ticks += 1;
        }
    };
    tokio::select! {
        loaded = load => drop(loaded.unwrap()),
        () = other_work => unreachable!("it has no end"),
    }
    assert!(ticks >= 10, "{ticks}");
}
