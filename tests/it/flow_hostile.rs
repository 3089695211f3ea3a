//! Hostile policies in a complete server: each is a denial that names the policy and its fault, and it delays no other build.

use std::path::Path;
use std::time::Duration;

use beespace_core::build::Build;
use beespace_core::status::Status;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::FakeGogs;
use beespace_tests::guest_build::{self, policy_at, policy_guest};
use beespace_wasm::{BindingSpec, Kind, Limits};
use serde_json::json;

use crate::wasm_hostile::request_of_build;

const REPO: &str = "ada/hive";
const ONE_STEP: &str = "steps:\n  - name: build\n    image: busybox\n";
const DUMMY: &str = "[engine]\nkind = \"dummy\"\n";

/// Name, code, and a text of the denial.
const HOSTILE: &[(&str, &str, &str)] = &[
    ("endless", "(loop $again (br $again))", "exceeded its time limit of 100 ms"),
    ("hoarder", "(loop $more (drop (memory.grow (i32.const 16))) (br $more))", "exceeded its memory limit"),
    ("deep", "(drop (call $recurse (i64.const 0)))", "exceeded its stack limit"),
    ("crashing", "unreachable", "crashed"),
    ("garbled", "(i32.store8 (i32.const 260) (i32.const 77))", "violated the plugin interface"),
    ("asking", ASKING, "exceeded its time limit of 100 ms"),
    (
        "spreading",
        "(loop $more (drop (table.grow $table (ref.null func) (i32.const 5000))) (br $more))",
        "exceeded its memory limit",
    ),
    ("flooding", FLOODING, "exceeded its log limit"),
    ("huge", HUGE, "passed more data to the host than one call allows"),
    ("boasting", BOASTING, "out of bounds"),
    ("mumbling", MUMBLING, "invalid utf-8"),
];

/// Calls the host endlessly. The host always writes to the same address of its memory.
const ASKING: &str = "(loop $again (global.set $next (i32.const 65536)) (call $settings (i32.const 768)) (br $again))";
/// Endless lines of 64 KiB.
const FLOODING: &str =
    "(loop $more (call $emit (i32.const 2) (i32.const 524288) (i32.const 65536) (i32.const 0) (i32.const 0)) (br $more))";
/// A hundred findings, 56 bytes each, all with the same megabyte as their message.
const HUGE: &str = "(drop (memory.grow (i32.const 16))) (global.set $next (i32.const 524288))
    (i32.store (i32.const 264) (i32.const 524288)) (i32.store (i32.const 268) (i32.const 100))
    (loop $more
      (i32.store offset=12 (global.get $next) (i32.const 1114112))
      (i32.store offset=16 (global.get $next) (i32.const 1048576))
      (global.set $next (i32.add (global.get $next) (i32.const 56)))
      (br_if $more (i32.lt_u (global.get $next) (i32.const 529888))))";
/// `err` with a text of 100 MiB, which is more than its memory.
const BOASTING: &str = "(i32.store8 (i32.const 256) (i32.const 1)) (i32.store (i32.const 260) (i32.const 0))
    (i32.store (i32.const 264) (i32.const 104857600))";
/// `err` with a text that is not UTF-8.
const MUMBLING: &str = "(i32.store (i32.const 1024) (i32.const 0xfffefdfc)) (i32.store8 (i32.const 256) (i32.const 1))
    (i32.store (i32.const 260) (i32.const 1024)) (i32.store (i32.const 264) (i32.const 4))";

/// A binding of a policy that is a file in the folder.
fn bound(folder: &Path, name: &str, component: &[u8]) -> String {
    let path = folder.join(format!("{name}.wasm"));
    std::fs::write(&path, component).unwrap();
    format!("[[policy]]\nname = \"{name}\"\nplugin = \"{}\"\nmode = \"enforce\"\n", path.display())
}

async fn pushed(beespace: &Beespace, gogs: &FakeGogs, number: u64) -> Build {
    gogs.push(REPO, "main", &[(".beespace.yml", ONE_STEP)], "Fill cells").await.unwrap();
    beespace.wait_until_finished(REPO, number).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_policy_is_a_denial_that_names_the_policy_and_its_fault() {
    let folder = tempfile::tempdir().unwrap();
    let mut bindings = DUMMY.to_owned();
    for (name, code, _) in HOSTILE {
        bindings += &bound(folder.path(), name, &policy_at(name, "pipeline.admit", code));
    }
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let beespace = Beespace::start(&gogs, &bindings).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let build = pushed(&beespace, &gogs, 1).await;
    assert_eq!(build.status, Status::Declined, "{build:#?}");
    let decisions = beespace.app.store.read().unwrap().decisions(build.id).unwrap();
    let page = beespace.admin().unwrap().get("/ada/hive/1").await.unwrap().body;
    for (name, _, expected) in HOSTILE {
        let kept = decisions.iter().flat_map(|decision| &decision.evaluations).find(|one| one.policy == *name);
        let error = kept.unwrap_or_else(|| panic!("{name} was not asked")).result.as_ref().unwrap_err();
        assert!(error.message.starts_with(&format!("policy {name:?} ({name} 0.0.1) ")), "{}", error.message);
        assert!(error.message.contains(expected), "{}", error.message);
        assert!(page.contains(name) && page.contains(expected), "{name}: the page shows the reason");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_step_type_ends_its_step_and_nothing_else() {
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target/guests/rounds.wasm");
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    // So little memory that it is used up before the time is.
    let little = "[plugins]\nmemory = \"4MiB\"\n";
    let step = format!("[[step]]\nname = \"rounds\"\nplugin = {plugin:?}\n");
    let beespace = Beespace::start(&gogs, &format!("{DUMMY}{little}{step}")).await.unwrap();
    beespace.enable(REPO).await.unwrap();
    let harms = [
        ("loop", "exceeded its time limit of 250 ms"),
        ("trap", "crashed"),
        ("grow", "exceeded its memory limit"),
        // The message and the place, as the guest's hook logged them.
        ("panic", ": the hive is empty"),
    ];
    let cases = ["plan", "react"].into_iter().flat_map(|place| harms.map(|(harm, expected)| (place, harm, expected)));
    for (number, (place, harm, expected)) in (1..).zip(cases) {
        let work = json!({ "name": "work", "uses": "rounds", "with": { "rounds": [[]], "harm": { place: harm } } });
        let file = json!({ "name": format!("p{number}"), "steps": [work] }).to_string();
        gogs.push(REPO, "main", &[(".beespace.yml", &file)], "Fill cells").await.unwrap();
        let build = beespace.wait_until_finished(REPO, number).await.unwrap();
        assert_eq!(build.status, Status::Error, "{place} {harm}: {build:#?}");
        let reason = build.reason.unwrap().to_string();
        assert!(reason.contains("step \"rounds\" (rounds ") && reason.contains(expected), "{place} {harm}: {reason}");
    }
    let good = json!({ "steps": [{ "name": "work", "uses": "rounds", "with": { "rounds": [[]] } }] }).to_string();
    gogs.push(REPO, "main", &[(".beespace.yml", &good)], "Fill cells").await.unwrap();
    assert_eq!(beespace.wait_until_finished(REPO, 9).await.unwrap().status, Status::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_unloadable_policies_does_not_start_and_names_each() {
    let greedy = "package test:guest; world greedy { import beespace:plugin/kv@0.1.0; export beespace:plugin/lifecycle@0.1.0; \
                  export beespace:plugin/policy@0.1.0; }";
    let endless = "(func $start (loop $again (br $again))) (start $start)";
    let folder = tempfile::tempdir().unwrap();
    let bindings = [
        bound(folder.path(), "decent", &policy_guest(&[])),
        bound(folder.path(), "endless", &policy_guest(&[(";; start", endless)])),
        bound(folder.path(), "greedy", &guest_build::dummy("greedy", Some(greedy), "policy")),
    ];
    let gogs = FakeGogs::start().await.unwrap();
    let error = Beespace::start(&gogs, &format!("{DUMMY}{}", bindings.concat())).await.unwrap_err();
    let message = format!("{error:#}");
    for (name, why) in [
        ("endless", "the trial run failed: policy \"endless\" (guest 0.0.1) exceeded its time limit of 100 ms"),
        ("greedy", "the component imports beespace:plugin/kv@0.1.0, which is not available to policy plugins"),
    ] {
        assert!(message.contains(&format!("[[policy]] {name:?}: {why}")), "{message}");
    }
    assert!(!message.contains("decent"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_build_and_pages_load_while_plugins_loop_endlessly() {
    let gogs = FakeGogs::start().await.unwrap();
    gogs.create_repository(REPO).await.unwrap();
    let decent = "[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\nsettings = { registries = [\"docker.io\"] }\n";
    let beespace = Beespace::start(&gogs, &format!("{DUMMY}{decent}")).await.unwrap();
    beespace.enable(REPO).await.unwrap();

    let long = Duration::from_secs(600);
    let limits = Limits { guest_time: long, total_time: long, ..Limits::policy() };
    let endless = policy_guest(&[(";; evaluate", "(loop $again (br $again))")]);
    let spec = BindingSpec::new("endless", serde_json::json!({}), limits);
    let endless = beespace.app.host.load_policy(endless, spec).await.unwrap();
    let spinning: Vec<_> = (0..8)
        .map(|build| {
            let endless = endless.clone();
            tokio::spawn(async move { endless.evaluate(request_of_build(build)).await })
        })
        .collect();
    while beespace.app.host.call_slots(Kind::Policy).used < spinning.len() {
        tokio::task::yield_now().await;
    }

    assert_eq!(pushed(&beespace, &gogs, 1).await.status, Status::Success);
    let admin = beespace.admin().unwrap();
    for path in ["/", "/ada/hive", "/ada/hive/1", "/readyz"] {
        assert_eq!(admin.get(path).await.unwrap().status, 200, "{path}");
    }
    let quick = guest_build::load_policy(&beespace.app.host, policy_guest(&[])).await.unwrap();
    for _ in 0..50 {
        quick.evaluate(request_of_build(100)).await.result.unwrap();
    }
    assert!(spinning.iter().all(|one| !one.is_finished()), "all that was done while they ran");
}
