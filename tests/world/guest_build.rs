//! Builds components from the guests in `tests/guests`, and from the plugin interface itself.
//!
//! A guest is a core module in the text format. It shows the canonical ABI byte by byte, so it can misbehave in ways that no
//! binding generator allows.

use std::path::{Path, PathBuf};

use beespace_core::digest::Document;
use beespace_core::event::{Actor, EventKind};
use beespace_core::ids::Sha;
use beespace_core::plugin_context::PluginContext;
use beespace_core::time::Timestamp;
use beespace_core::trust::Trust;
use beespace_wasm::{BindingSpec, Host, HostOptions, Limits, LoadError, MaxCalls, NoticeInput, Policy};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve, WorldId};

pub fn wit_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")
}

/// The current interface and one of its worlds. `also` adds a package.
pub fn world(name: &str, also: Option<&str>) -> (Resolve, WorldId) {
    let mut resolve = Resolve::default();
    let (mut package, _) = resolve.push_path(wit_folder()).unwrap();
    if let Some(text) = also {
        package = resolve.push_str("test.wit", text).unwrap();
    }
    let world = resolve.select_world(&[package], Some(name)).unwrap();
    (resolve, world)
}

/// Turns a core module into a component of a world, with a manifest.
pub fn componentize(module: &[u8], resolve: &Resolve, world: WorldId, manifest: &str) -> Vec<u8> {
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    let mut encoder = ComponentEncoder::default().validate(true).module(&module).unwrap();
    with_manifest(encoder.encode().unwrap(), manifest)
}

/// Appends the custom section with the manifest.
pub fn with_manifest(mut component: Vec<u8>, manifest: &str) -> Vec<u8> {
    let name = beespace_wasm::manifest::SECTION;
    let mut body = leb128(name.len());
    body.extend(name.as_bytes());
    body.extend(manifest.as_bytes());
    component.push(0);
    component.extend(leb128(body.len()));
    component.extend(body);
    component
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

/// A minimal manifest.
pub fn manifest(kind: &str) -> String {
    format!(r#"{{"name": "guest", "version": "0.0.1", "kind": "{kind}"}}"#)
}

/// A component in which every function is `unreachable`.
pub fn dummy(world_name: &str, also: Option<&str>, kind: &str) -> Vec<u8> {
    let (resolve, world) = world(world_name, also);
    let module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
    componentize(&module, &resolve, world, &manifest(kind))
}

/// The source text of a guest.
pub fn guest_text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests").join(format!("{name}.wat"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A policy from `tests/guests/policy.wat`, with parts of it replaced: `(";; evaluate", "unreachable")`.
pub fn policy_guest(parts: &[(&str, &str)]) -> Vec<u8> {
    policy_with(&manifest("policy"), parts)
}

fn policy_with(manifest: &str, parts: &[(&str, &str)]) -> Vec<u8> {
    let mut text = guest_text("policy");
    for (mark, code) in parts {
        assert!(text.contains(mark), "policy.wat has no {mark:?}");
        text = text.replace(mark, code);
    }
    let module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"));
    let (resolve, world) = world("policy-plugin", None);
    componentize(&module, &resolve, world, manifest)
}

/// A notifier from `tests/guests`.
pub fn notifier_guest(name: &str) -> Vec<u8> {
    notifier_of(&guest_text(name))
}

/// A notifier from a text.
pub fn notifier_of(text: &str) -> Vec<u8> {
    let module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    let (resolve, world) = world("notifier-plugin", None);
    componentize(&module, &resolve, world, &manifest("notifier"))
}

/// An ordinary notice.
pub fn notice() -> NoticeInput {
    NoticeInput {
        idempotency_key: "once".to_owned(),
        attempt: 1,
        ordering_key: "build".to_owned(),
        sequence: 1,
        context: context(),
        subject: Document::new("beespace.notice/v1", &serde_json::json!({})),
        previous: None,
        links: Vec::new(),
    }
}

/// A host without a cache.
pub fn host() -> Host {
    Host::new(HostOptions { max_calls: MaxCalls::each(8), ..HostOptions::default() }).unwrap()
}

/// Loads a policy with no settings.
pub async fn load_policy(host: &Host, component: Vec<u8>) -> Result<Policy, LoadError> {
    host.load_policy(component, BindingSpec::new("tried", serde_json::json!({}), Limits::policy())).await
}

/// The context of every call.
pub fn context() -> PluginContext {
    PluginContext {
        invocation_id: "call-1".to_owned(),
        event: EventKind::Push,
        repository: "acme/app".parse().unwrap(),
        git_ref: "refs/heads/main".to_owned(),
        sha: Some(Sha::new(&"ab".repeat(20)).unwrap()),
        pull_request: None,
        build_number: Some(7),
        actor: Actor::user(42, "ada"),
        author: None,
        trust: Trust::Trusted,
        now: Timestamp(1),
        labels: Vec::new(),
    }
}

/// A policy that requires this many approvals for every pipeline.
pub fn approval_guest(people: u32) -> Vec<u8> {
    approval_guest_with(people, "")
}

/// A policy that requires one approval, which expires after this many seconds.
pub fn lapsing_approval_guest(seconds: u64) -> Vec<u8> {
    approval_guest_with(
        1,
        &format!("(i32.store8 (i32.const 2064) (i32.const 1)) (i64.store (i32.const 2072) (i64.const {seconds}))"),
    )
}

fn approval_guest_with(people: u32, more: &str) -> Vec<u8> {
    // The outcome, then one requirement at 2048: no groups, so many people, the reason at 1024.
    let answer = format!(
        "(i32.store8 (i32.const 260) (i32.const 2)) (i32.store (i32.const 280) (i32.const 2048)) \
         (i32.store (i32.const 284) (i32.const 1)) (i32.store (i32.const 2056) (i32.const {people})) \
         (i32.store (i32.const 2080) (i32.const 1024)) (i32.store (i32.const 2084) (i32.const 17)) {more}"
    );
    policy_at("asks", "pipeline.admit", &answer)
}

/// A policy that sets a variable in every container.
pub fn patching_guest(name: &str, value: &str) -> Vec<u8> {
    let (path, value) = (format!("/containers/0/env/{name}"), format!("\\22{value}\\22"));
    // One operation at 2048: `add`, the path at 4096, the value at 8192 in JSON.
    let answer = format!(
        "(i32.store (i32.const 272) (i32.const 2048)) (i32.store (i32.const 276) (i32.const 1)) \
         (i32.store (i32.const 2052) (i32.const 4096)) (i32.store (i32.const 2056) (i32.const {})) \
         (i32.store8 (i32.const 2060) (i32.const 1)) (i32.store (i32.const 2064) (i32.const 8192)) \
         (i32.store (i32.const 2068) (i32.const {}))",
        path.len(),
        value.len() - 4
    );
    let data = format!("(data (i32.const 4096) \"{path}\") (data (i32.const 8192) \"{value}\")");
    policy_guest_at("sets", "step.admit", &[(";; evaluate", &answer), (";; start", &data)])
}

/// A policy for one admission point, with this code in its `evaluate`.
pub fn policy_at(name: &str, point: &str, code: &str) -> Vec<u8> {
    policy_guest_at(name, point, &[(";; evaluate", code)])
}

fn policy_guest_at(name: &str, point: &str, parts: &[(&str, &str)]) -> Vec<u8> {
    policy_with(&format!(r#"{{"name": "{name}", "version": "0.0.1", "kind": "policy", "points": ["{point}"]}}"#), parts)
}
