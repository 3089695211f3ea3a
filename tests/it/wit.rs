//! The plugin interface itself: it parses, it is documented, and this host provides all of it.

use beespace_core::policy::ErrorClass;
use beespace_tests::guest_build;
use beespace_wasm::{BindingSpec, EgressRule, Grants, Limits, LoadError, LoadFailure};
use std::sync::Arc;

const WORLDS: [(&str, &str); 4] =
    [("policy-plugin", "policy"), ("step-plugin", "step"), ("notifier-plugin", "notifier"), ("converter-plugin", "converter")];

#[test]
fn the_interface_parses_with_its_four_worlds() {
    for (world, _) in WORLDS {
        let (resolve, id) = guest_build::world(world, None);
        let exports: Vec<String> = resolve.worlds[id].exports.keys().map(|key| resolve.name_world_key(key)).collect();
        assert!(exports.contains(&"beespace:plugin/lifecycle@0.1.0".to_owned()), "{world}: {exports:?}");
    }
}

#[test]
fn every_interface_and_world_documents_itself_and_its_version() {
    let (resolve, id) = guest_build::world("policy-plugin", None);
    let package = resolve.worlds[id].package.unwrap();
    for (name, interface) in &resolve.packages[package].interfaces {
        let interface = &resolve.interfaces[*interface];
        assert!(interface.docs.contents.is_some(), "interface {name} is not documented");
        assert!(matches!(interface.stability, wit_parser::Stability::Stable { .. }), "interface {name} has no @since");
    }
    for (name, world) in &resolve.packages[package].worlds {
        let world = &resolve.worlds[*world];
        assert!(world.docs.contents.is_some(), "world {name} is not documented");
    }
}

/// Stores nothing: the guests trap before they could use it.
struct Nothing;

impl beespace_wasm::SecretSource for Nothing {
    fn secret(&self, _name: &str) -> Result<Option<beespace_wasm::SecretValue>, String> {
        Ok(None)
    }
}

/// Loads a component of a world with every grant that its kind can have.
async fn load_with_everything(kind: &str, component: Vec<u8>) -> Result<(), LoadError> {
    let host = guest_build::host();
    let spec = |limits| BindingSpec::new("tried", serde_json::json!({}), limits);
    match kind {
        "policy" => host.load_policy(component, spec(Limits::policy())).await.map(drop),
        "step" => host.load_step_type(component, spec(Limits::step_type())).await.map(drop),
        "converter" => host.load_converter(component, spec(Limits::converter())).await.map(drop),
        _ => {
            let grants = Grants {
                egress: vec![EgressRule::parse("https://hooks.example", beespace_wasm::AddressClass::Public).unwrap()],
                secrets: ["token".to_owned()].into(),
                secrets_reveal: true,
                kv: true,
            };
            let kv: Arc<dyn beespace_wasm::KvStore> = Arc::new(crate::wasm_load::Memory::default());
            let secrets: Arc<dyn beespace_wasm::SecretSource> = Arc::new(Nothing);
            let spec = BindingSpec { grants, kv: Some(kv), secrets: Some(secrets), ..spec(Limits::notifier()) };
            host.load_notifier(component, spec).await.map(drop)
        }
    }
}

/// Every function of a dummy is `unreachable`: that it traps when its settings are checked shows that it has been
/// linked and instantiated before.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_of_each_world_that_imports_everything_links() {
    for (world, kind) in WORLDS {
        match load_with_everything(kind, guest_build::dummy(world, None, kind)).await.unwrap_err().failure {
            LoadFailure::Trial(error) => assert_eq!(error.class, ErrorClass::Trap, "{world}: {error}"),
            other => panic!("{world}: {other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_lacks_the_export_of_its_kind_is_refused() {
    let half = "package test:guest; world half { export beespace:plugin/lifecycle@0.1.0; }";
    for (_, kind) in WORLDS {
        let error = load_with_everything(kind, guest_build::dummy("half", Some(half), kind)).await.unwrap_err();
        assert!(matches!(error.failure, LoadFailure::Incompatible(_)), "{kind}: {error}");
    }
}
