//! Components as compilers of other languages make them: with several memories, and with proposals of WebAssembly that plugins
//! cannot use.

use beespace_core::policy::VerdictOutcome;
use beespace_tests::guest_build::{self, policy_guest, with_manifest};
use beespace_wasm::LoadFailure;

use crate::wasm_hostile::request;

/// Why a component of these parts is not a policy.
async fn failure(text: &str) -> LoadFailure {
    let component = with_manifest(wat::parse_str(text).unwrap(), &guest_build::manifest("policy"));
    guest_build::load_policy(&guest_build::host(), component).await.unwrap_err().failure
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_with_several_memories_runs() {
    let two_more = "(memory $second 1) (memory $third 1)";
    let copy = "(i32.store $second (i32.const 8) (i32.const 7))
        (memory.copy $third $second (i32.const 0) (i32.const 0) (i32.const 16))
        (if (i32.ne (i32.load $third (i32.const 8)) (i32.const 7)) (then unreachable))";
    let guest = policy_guest(&[(";; start", two_more), (";; evaluate", copy)]);
    let policy = guest_build::load_policy(&guest_build::host(), guest).await.unwrap();
    assert_eq!(policy.evaluate(request()).await.result.unwrap().outcome, VerdictOutcome::Allow);
}

/// A component that consists of two, each with a memory of its own: a text that one passes to the other is copied between them.
const COMPOSED: &str = r#"(component
  (component $inner
    (core module $code (memory (export "memory") 1)
      (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
      (func (export "take") (param i32 i32)))
    (core instance $code (instantiate $code))
    (func (export "take") (param "text" string)
      (canon lift (core func $code "take") (memory $code "memory") (realloc (func $code "realloc")))))
  (instance $inner (instantiate $inner))
  (component $outer
    (import "take" (func $take (param "text" string)))
    (core module $memory (memory (export "memory") 1))
    (core instance $memory (instantiate $memory))
    (core func $take (canon lower (func $take) (memory $memory "memory")))
    (core module $code (import "" "take" (func $take (param i32 i32)))
      (func (export "run") (call $take (i32.const 0) (i32.const 10))))
    (core instance $code (instantiate $code (with "" (instance (export "take" (func $take))))))
    (func (export "run") (canon lift (core func $code "run"))))
  (instance (instantiate $outer (with "take" (func $inner "take")))))"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_is_composed_of_others_compiles() {
    let failure = failure(COMPOSED).await;
    assert!(
        matches!(&failure, LoadFailure::Incompatible(why) if why.contains("lifecycle")),
        "only its exports are wrong: {failure}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_is_switched_off_is_named_with_the_remedy() {
    for (code, expected, remedy) in [
        ("(func $f (return_call $f))", "tail calls", "+tail-call"),
        ("(memory 1 1 shared)", "threads or atomic instructions", "+atomics"),
        ("(tag $e) (func (throw $e))", "exceptions", "panic = \"abort\""),
        ("(memory i64 1)", "64-bit memories", "wasm32"),
        ("(type $s (struct))", "garbage-collected types", "cannot be used"),
        ("(func (drop (i32x4.relaxed_trunc_f32x4_s (v128.const i32x4 0 0 0 0))))", "relaxed SIMD instructions", "+relaxed-simd"),
        (
            "(func (result i64 i64) (i64.add128 (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)))",
            "wide arithmetic",
            "+wide-arithmetic",
        ),
    ] {
        let failure = failure(&format!("(component (core module {code}))")).await;
        let text = failure.to_string();
        assert!(matches!(failure, LoadFailure::Unsupported { .. }), "{code}: {text}");
        assert!(text.contains(&format!("uses {expected}")) && text.contains(remedy), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_for_a_point_at_which_none_is_asked_is_refused() {
    for point in ["step.admitt", "secret.release"] {
        let guest = guest_build::policy_at("mine", point, "");
        let text = guest_build::load_policy(&guest_build::host(), guest).await.unwrap_err().failure.to_string();
        let expected =
            format!("the decision point {point:?}, but policies are evaluated only at build.admit, pipeline.admit, step.admit");
        assert!(text.contains(&expected), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_run_in_a_process_with_a_limited_address_space() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "[gogs]\nurl = \"http://gogs.local\"\ntoken = \"x\"\n[engine]\nkind = \"dummy\"\n\
                    [[policy]]\nname = \"images\"\nplugin = \"policy-images\"\nsettings = { require_digest = true }\n\
                    [[step]]\nname = \"check\"\nplugin = \"step-check\"\n";
    std::fs::write(folder.path().join("beespace.toml"), settings).unwrap();
    // In kibibytes: 4 GiB, where the memory pool alone would take some hundred.
    let limited = format!("ulimit -v 4194304; exec {} config check", env!("CARGO_BIN_EXE_beespace-under-test"));
    let checked = tokio::process::Command::new("sh").args(["-c", &limited]).current_dir(folder.path()).output().await.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
