//! Hostile and broken plugins. Each ends as exactly one error of its class, and the host continues.

use std::time::{Duration, Instant};

use beespace_core::digest::Document;
use beespace_core::policy::{ErrorClass, Point, VerdictOutcome};
use beespace_tests::guest_build::{self, context, policy_guest};
use beespace_wasm::{BindingSpec, CallOutcome, Host, HostOptions, Kind, Limits, LoadFailure, MaxCalls, PolicyRequest};

pub(crate) fn request() -> PolicyRequest {
    PolicyRequest {
        point: Point::PipelineAdmit,
        context: context(),
        event: Document::new("beespace.event/v1", &serde_json::json!({})),
        subject: Document::new("beespace.pipeline/v1", &serde_json::json!({"steps": []})),
        previous: None,
    }
}

/// The request of another build: one build holds only a part of the call slots.
pub(crate) fn request_of_build(number: u64) -> PolicyRequest {
    let mut request = request();
    request.context.build_number = Some(number);
    request
}

/// The result of a policy with this code in its `evaluate`.
async fn evaluate(code: &str) -> CallOutcome<beespace_core::policy::Verdict> {
    let host = guest_build::host();
    let policy = guest_build::load_policy(&host, policy_guest(&[(";; evaluate", code)])).await.unwrap();
    let answer = policy.evaluate(request()).await;
    // Whatever it did, the next call of a well-behaved policy succeeds.
    let decent = guest_build::load_policy(&host, policy_guest(&[])).await.unwrap();
    assert_eq!(decent.evaluate(request()).await.result.unwrap().outcome, VerdictOutcome::Allow);
    answer
}

async fn class_of(code: &str) -> (ErrorClass, String) {
    let error = evaluate(code).await.result.unwrap_err();
    assert!(error.message.starts_with(r#"policy "tried" (guest 0.0.1) "#), "{}", error.message);
    (error.class, error.message)
}

const SAY: &str = "(call $emit (i32.const 2) (i32.const 1024) (i32.const 17) (i32.const 0) (i32.const 0))";

#[tokio::test(flavor = "multi_thread")]
async fn a_well_behaved_policy_allows_and_its_log_is_kept() {
    let answer = evaluate(SAY).await;
    assert_eq!(answer.result.unwrap().outcome, VerdictOutcome::Allow);
    assert_eq!(answer.report.log.len(), 1);
    assert_eq!(answer.report.log[0].message, "said by the guest");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_ends_and_names_its_time_budget() {
    let started = Instant::now();
    let (class, message) = class_of("(loop $again (br $again))").await;
    assert_eq!(class, ErrorClass::Timeout);
    assert!(message.contains("100 ms"), "{message}");
    assert!(started.elapsed() < beespace_tests::WAIT_TIMEOUT, "{:?}", started.elapsed());
}

/// Calls the host endlessly. The host always writes to the same address of its memory.
const ASK: &str = "(loop $again (global.set $next (i32.const 65536)) (call $settings (i32.const 768)) (br $again))";

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_loop_of_host_calls_ends_the_same_way() {
    let (class, message) = class_of(ASK).await;
    assert_eq!(class, ErrorClass::Timeout);
    assert!(message.contains("100 ms"), "{message}");
}

/// Code for the guest's allocator, which the host calls within a host function; the flag at address 900 enables it.
fn in_allocator(code: &str) -> Vec<(&'static str, String)> {
    let end = "(local.get $at))";
    vec![
        (end, format!("(if (i32.load (i32.const 900)) (then {code})) {end}")),
        (";; evaluate", "(i32.store (i32.const 900) (i32.const 1)) (call $settings (i32.const 768))".to_owned()),
    ]
}

async fn class_in_allocator(code: &str) -> ErrorClass {
    let parts = in_allocator(code);
    let parts: Vec<(&str, &str)> = parts.iter().map(|(mark, code)| (*mark, code.as_str())).collect();
    let policy = guest_build::load_policy(&guest_build::host(), policy_guest(&parts)).await.unwrap();
    policy.evaluate(request()).await.result.unwrap_err().class
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_in_the_guest_allocator_ends_the_same_way() {
    assert_eq!(class_in_allocator("(loop $again (br $again))").await, ErrorClass::Timeout);
    assert_eq!(class_in_allocator("(drop (call $recurse (i64.const 0)))").await, ErrorClass::StackOverflow);
    assert_eq!(class_in_allocator("unreachable").await, ErrorClass::Trap);
    assert_eq!(class_in_allocator("(loop $more (drop (memory.grow (i32.const 16))) (br $more))").await, ErrorClass::Memory);
    // The component model forbids calling the host from there.
    assert_eq!(class_in_allocator(SAY).await, ErrorClass::Trap);
    // An allocation outside its memory.
    assert_eq!(class_in_allocator("(return (i32.const 0x7fff0000))").await, ErrorClass::Malformed);
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_loops_do_not_block_other_plugins() {
    let host = guest_build::host();
    let endless = guest_build::load_policy(&host, policy_guest(&[(";; evaluate", "(loop $again (br $again))")])).await.unwrap();
    let decent = guest_build::load_policy(&host, policy_guest(&[])).await.unwrap();
    let spinning: Vec<_> = (0..4)
        .map(|_| {
            let endless = endless.clone();
            tokio::spawn(async move { endless.evaluate(request()).await })
        })
        .collect();
    assert!(decent.evaluate(request()).await.result.is_ok());
    for one in spinning {
        assert_eq!(one.await.unwrap().result.unwrap_err().class, ErrorClass::Timeout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_recursion_ends_as_a_full_stack() {
    assert_eq!(class_of("(drop (call $recurse (i64.const 0)))").await.0, ErrorClass::StackOverflow);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_bomb_is_stopped_by_its_budget() {
    let (class, message) = class_of("(loop $more (drop (memory.grow (i32.const 16))) (br $more))").await;
    assert_eq!(class, ErrorClass::Memory);
    assert!(message.contains("33554432 bytes"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_bomb_is_stopped_by_the_same_budget() {
    let code = "(loop $more (drop (table.grow $table (ref.null func) (i32.const 5000))) (br $more))";
    assert_eq!(class_of(code).await.0, ErrorClass::Memory);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_a_trap() {
    assert_eq!(class_of("unreachable").await.0, ErrorClass::Trap);
    assert_eq!(class_of("(drop (i32.div_u (i32.const 1) (i32.const 0)))").await.0, ErrorClass::Trap);
    assert_eq!(class_of("(drop (i32.load (i32.const 0x7fffffff)))").await.0, ErrorClass::Trap);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlong_log_is_truncated_and_counted() {
    let code = format!(
        "(local $i i32) (loop $more {SAY} (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) \
         (i32.const 300))))"
    );
    let answer = evaluate_with_local(&code).await;
    assert!(answer.result.is_ok());
    assert_eq!((answer.report.log.len(), answer.report.log_dropped), (256, 44));
}

/// Like [`evaluate`], for code that begins with a local variable, which must come first in the function.
async fn evaluate_with_local(code: &str) -> CallOutcome<beespace_core::policy::Verdict> {
    let host = guest_build::host();
    let head = "#evaluate\") (param i32) (result i32)";
    let code = code.replacen("(local $i i32)", "", 1);
    let guest = policy_guest(&[(";; evaluate", code.as_str()), (head, &format!("{head} (local $i i32)"))]);
    guest_build::load_policy(&host, guest).await.unwrap().evaluate(request()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_flood_ends_the_call() {
    assert_eq!(class_of(&format!("(loop $more {SAY} (br $more))")).await.0, ErrorClass::LogBudget);
}

#[tokio::test]
async fn a_call_that_passes_too_much_to_the_host_ends() {
    let say = |bytes: u32| {
        format!(
            "(drop (memory.grow (i32.const 100))) (call $emit (i32.const 2) (i32.const 1179648) (i32.const {bytes}) (i32.const \
             0) (i32.const 0))"
        )
    };
    let taken = evaluate(&say(1 << 10)).await.result;
    assert!(taken.is_ok(), "{taken:?}");
    let (class, message) = class_of(&say(5 << 20)).await;
    assert!(
        class == ErrorClass::OutputTooLarge && message.contains("more data to the host than one call allows"),
        "{class:?} {message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_movement_is_removed_from_the_log() {
    let code = format!(r#"(i64.store (i32.const 1024) (i64.const 0x1b5b324a1b5b3141)) {SAY}"#);
    let line = evaluate(&code).await.report.log.remove(0);
    assert!(!line.message.contains('\u{1b}'), "{line:?}");
}

/// `err` with the text at this place.
fn return_err(at: u32, length: u32) -> String {
    format!(
        "(i32.store8 (i32.const 256) (i32.const 1)) (i32.store (i32.const 260) (i32.const {at})) \
         (i32.store (i32.const 264) (i32.const {length}))"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_cannot_decide_is_quoted() {
    let (class, message) = class_of(&return_err(1024, 17)).await;
    assert_eq!(class, ErrorClass::PluginError);
    assert!(message.ends_with("said by the guest"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_result_is_not_read() {
    let grown = format!("(drop (memory.grow (i32.const 100))) {}", return_err(0, 6 << 20));
    assert_eq!(class_of(&grown).await.0, ErrorClass::OutputTooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_repeats_one_string_to_a_hundred_megabytes_is_not_read() {
    // A hundred findings at 131072, 56 bytes each, all with the same megabyte as their message.
    let code = "(local $i i32) (drop (memory.grow (i32.const 16)))
        (i32.store (i32.const 264) (i32.const 131072)) (i32.store (i32.const 268) (i32.const 100))
        (loop $more
          (i32.store (i32.add (i32.const 131084) (i32.mul (local.get $i) (i32.const 56))) (i32.const 1114112))
          (i32.store (i32.add (i32.const 131088) (i32.mul (local.get $i) (i32.const 56))) (i32.const 1048576))
          (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100))))";
    assert_eq!(evaluate_with_local(code).await.result.unwrap_err().class, ErrorClass::OutputTooLarge);
    // A length that is larger than its memory.
    assert_eq!(class_of(&return_err(0, 100 << 20)).await.0, ErrorClass::Malformed);
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_taken_by_bombs_is_released() {
    const BOMBS: usize = 32;
    /// More than the memory of other tests, which share this process.
    const MUCH: usize = 400 << 20;
    let host =
        Host::new(HostOptions { max_calls: MaxCalls::each(u32::try_from(BOMBS).unwrap()), ..HostOptions::default() }).unwrap();
    // Writes to 24 MiB and holds them until its time is over.
    let code = "(drop (memory.grow (i32.const 400)))
        (memory.fill (i32.const 65536) (i32.const 7) (i32.const 25165824)) (loop $hold (br $hold))";
    let bomb = guest_build::load_policy(&host, policy_guest(&[(";; evaluate", code)])).await.unwrap();
    let before = resident();
    let bombs: Vec<_> = (0..u64::try_from(BOMBS).unwrap())
        .map(|build| {
            let bomb = bomb.clone();
            tokio::spawn(async move { bomb.evaluate(request_of_build(build)).await.result.unwrap_err().class })
        })
        .collect();
    let mut most = 0;
    while host.call_slots(Kind::Policy).used > 0 || !bombs.iter().all(tokio::task::JoinHandle::is_finished) {
        most = most.max(resident().saturating_sub(before));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for bomb in bombs {
        assert_eq!(bomb.await.unwrap(), ErrorClass::Timeout);
    }
    let left = resident().saturating_sub(before);
    println!("{} MiB at most, {} MiB in the end", most >> 20, left >> 20);
    assert!(most > MUCH, "they used only {most} bytes");
    assert!(left < MUCH, "{left} bytes are still taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sees_nothing_of_an_earlier_call() {
    // Marks a byte in the data, one in a new page, and a global; each must be fresh in the next call.
    let code = "(if (i32.load (i32.const 900)) (then unreachable))
        (if (i32.ne (memory.size) (i32.const 17)) (then unreachable))
        (drop (memory.grow (i32.const 1)))
        (if (i32.load (i32.const 1114112)) (then unreachable))
        (if (i32.gt_u (global.get $next) (i32.const 1048576)) (then unreachable))
        (global.set $next (i32.const 1048577))
        (i32.store (i32.const 900) (i32.const 7))
        (i32.store (i32.const 1114112) (i32.const 7))";
    let host = guest_build::host();
    let guest = policy_guest(&[(";; evaluate", code)]);
    let mut bindings = Vec::new();
    for name in ["one", "other"] {
        let spec = BindingSpec::new(name, serde_json::json!({}), Limits::policy());
        bindings.push(host.load_policy(guest.clone(), spec).await.unwrap());
    }
    for call in 0..50 {
        let binding = &bindings[call % 2];
        let result = binding.evaluate(request()).await.result;
        assert_eq!(result.unwrap_or_else(|error| panic!("call {call}: {error}")).outcome, VerdictOutcome::Allow);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_findings_are_refused() {
    // A list of 300 findings at 131072: zero bytes are findings with empty texts.
    let code = "(i32.store (i32.const 264) (i32.const 131072)) (i32.store (i32.const 268) (i32.const 300))";
    let (class, message) = class_of(code).await;
    assert_eq!(class, ErrorClass::OutputTooLarge);
    assert!(message.contains("300 findings"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_violates_the_interface_is_malformed() {
    let bad_utf8 = format!("(i32.store (i32.const 1024) (i32.const 0xfffefdfc)) {}", return_err(1024, 4));
    for code in [
        bad_utf8.as_str(),
        // a text outside the memory
        &return_err(0x7fff_0000, 100),
        // an outcome that does not exist
        "(i32.store8 (i32.const 260) (i32.const 77))",
    ] {
        let (class, message) = class_of(code).await;
        assert_eq!(class, ErrorClass::Malformed, "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_input_is_not_passed_to_the_plugin() {
    let policy = guest_build::load_policy(&guest_build::host(), policy_guest(&[])).await.unwrap();
    let subject = Document { schema: "x".to_owned(), json: "x".repeat(5 << 20) };
    let error = policy.evaluate(PolicyRequest { subject, ..request() }).await.result.unwrap_err();
    assert_eq!(error.class, ErrorClass::Internal);
}

/// The error of a guest's trial instantiation.
async fn tried(parts: &[(&str, &str)]) -> (ErrorClass, String) {
    match guest_build::load_policy(&guest_build::host(), policy_guest(parts)).await.unwrap_err().failure {
        LoadFailure::Trial(error) => (error.class, error.message),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_start_function_is_found_at_load() {
    let start = "(func $start (loop $again (br $again))) (start $start)";
    assert_eq!(tried(&[(";; start", start)]).await.0, ErrorClass::Timeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_function_that_crashes_is_found_at_load() {
    assert_eq!(tried(&[(";; start", "(func $start unreachable) (start $start)")]).await.0, ErrorClass::Trap);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_check_of_settings_ends() {
    assert_eq!(tried(&[(";; validate", "(loop $again (br $again))")]).await.0, ErrorClass::Timeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settings_check_may_use_only_the_log() {
    let (class, message) = tried(&[(";; validate", "(call $settings (i32.const 768))")]).await;
    assert_eq!(class, ErrorClass::Capability);
    assert!(message.contains("beespace:plugin/config@0.1.0"), "{message}");
    assert!(guest_build::load_policy(&guest_build::host(), policy_guest(&[(";; validate", SAY)])).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_memory_than_the_budget_at_the_start_is_found_at_load() {
    assert_eq!(tried(&[("(memory (export \"memory\") 17)", "(memory (export \"memory\") 1000)")]).await.0, ErrorClass::Memory);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_free_slot_waits_and_is_never_refused() {
    let host = Host::new(HostOptions { max_calls: MaxCalls::each(1), ..HostOptions::default() }).unwrap();
    // Longer than any call ever waited before it was refused.
    let long = Duration::from_secs(3);
    let limits = Limits { guest_time: long, total_time: long, ..Limits::policy() };
    let endless = policy_guest(&[(";; evaluate", "(loop $again (br $again))")]);
    let endless = host.load_policy(endless, BindingSpec::new("endless", serde_json::json!({}), limits)).await.unwrap();
    let decent = guest_build::load_policy(&host, policy_guest(&[])).await.unwrap();
    let spinning = tokio::spawn(async move { endless.evaluate(request()).await });
    while host.call_slots(Kind::Policy).used == 0 {
        tokio::task::yield_now().await;
    }
    decent.evaluate(request()).await.result.unwrap();
    assert!(spinning.await.unwrap().result.is_err(), "it ran to its limit first");
}
