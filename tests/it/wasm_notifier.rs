//! The environment of notifiers: state, secrets, and an end to calls that never return.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beespace_core::policy::ErrorClass;
use beespace_tests::guest_build;
use beespace_wasm::{AddressClass, BindingSpec, EgressRule, Grants, Limits, Notifier, SecretSource, SecretValue, SendError};
use hmac::{KeyInit as _, Mac as _};

use crate::wasm_load::Memory;

const VALUE: &[u8] = b"s3cret-value";

struct Token;

impl SecretSource for Token {
    fn secret(&self, _name: &str) -> Result<Option<SecretValue>, String> {
        Ok(Some(SecretValue { value: VALUE.to_vec().into(), hosts: vec!["127.0.0.1".to_owned()] }))
    }
}

async fn keeper(secrets: Arc<dyn SecretSource>) -> Notifier {
    load_keeper(guest_build::notifier_guest("kv_and_secret"), secrets).await
}

async fn load_keeper(component: Vec<u8>, secrets: Arc<dyn SecretSource>) -> Notifier {
    let grants = Grants { secrets: BTreeSet::from(["token".to_owned()]), secrets_reveal: true, kv: true, egress: Vec::new() };
    let spec = BindingSpec::new("hook", serde_json::json!({}), Limits::notifier());
    let spec = BindingSpec { grants, kv: Some(Arc::new(Memory::default())), secrets: Some(secrets), ..spec };
    guest_build::host().load_notifier(component, spec).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notifier_remembers_and_signs_and_its_log_shows_no_secret() {
    let answer = keeper(Arc::new(Token)).await.send(guest_build::notice()).await;
    let receipt = answer.result.unwrap();
    let signature = hmac::Hmac::<sha2::Sha256>::new_from_slice(VALUE).unwrap().chain_update("seen").finalize().into_bytes();
    assert_eq!(receipt.state, signature.to_vec());
    assert_eq!(answer.report.log[0].message, "***");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_handles_are_stopped_by_their_budget() {
    let first = "(call $put-first)\n    (if";
    let text = guest_build::guest_text("kv_and_secret");
    assert!(text.contains(first));
    let leak = "(loop $more (call $open (i32.const 1040) (i32.const 5) (i32.const 440)) (br $more))";
    let component = guest_build::notifier_of(&text.replacen(first, &format!("{leak} {first}"), 1));
    let error = load_keeper(component, Arc::new(Token)).await.send(guest_build::notice()).await.result.unwrap_err();
    assert!(matches!(&error, SendError::Unknown(error) if error.class == ErrorClass::Memory), "{error:?}");
    assert!(error.to_string().contains("1000 open handles"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_harmful_notifier_is_an_error_that_names_it() {
    let first = "(call $put-first)\n    (if";
    let text = guest_build::guest_text("kv_and_secret");
    assert!(text.contains(first));
    for (code, class) in [
        ("(loop $again (br $again))", ErrorClass::Timeout),
        ("unreachable", ErrorClass::Trap),
        ("(loop $more (drop (memory.grow (i32.const 16))) (br $more))", ErrorClass::Memory),
    ] {
        let component = guest_build::notifier_of(&text.replacen(first, &format!("{code} {first}"), 1));
        let error = load_keeper(component, Arc::new(Token)).await.send(guest_build::notice()).await.result.unwrap_err();
        assert!(matches!(&error, SendError::Unknown(error) if error.class == class), "{code}: {error:?}");
        assert!(error.to_string().starts_with("notifier \"hook\" (guest 0.0.1) "), "{code}: {error}");
    }
}

/// Records the names of the threads on which guests call it.
#[derive(Default)]
struct Asked(Mutex<Vec<String>>);

impl SecretSource for Asked {
    fn secret(&self, name: &str) -> Result<Option<SecretValue>, String> {
        self.0.lock().unwrap().push(std::thread::current().name().unwrap_or_default().to_owned());
        Token.secret(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_run_on_their_own_threads_and_slow_ones_yield() {
    let asked_on = async |code: &str| {
        let asked = Arc::new(Asked::default());
        let text = guest_build::guest_text("kv_and_secret").replacen(
            "(call $put-first)\n    (if",
            &format!("{code} (call $put-first)\n    (if"),
            1,
        );
        assert!(text.contains(code));
        load_keeper(guest_build::notifier_of(&text), asked.clone()).await.send(guest_build::notice()).await.result.unwrap();
        asked.0.lock().unwrap().clone()
    };
    let threads = asked_on("").await;
    assert!(!threads.is_empty() && threads.iter().all(|name| name.starts_with("guest")), "{threads:?}");
    // Sixty million stores and loads take longer than two ticks on any machine.
    let count = "(i32.store (i32.const 900) (i32.add (i32.load (i32.const 900)) (i32.const 1)))";
    let slow = format!("(loop $more {count} (br_if $more (i32.lt_u (i32.load (i32.const 900)) (i32.const 60000000))))");
    let threads = asked_on(&slow).await;
    // On a loaded machine it may run on a thread for late calls.
    assert!(!threads.is_empty() && threads.iter().all(|name| name.starts_with("guest-")), "{threads:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_handles_end_the_call() {
    let first = "(call $put-first)\n    (if";
    let text = guest_build::guest_text("kv_and_secret");
    assert!(text.contains(first));
    let open = "(call $open (i32.const 1040) (i32.const 5) (i32.const 440))";
    let handle = "(i32.load (i32.const 444))";
    for code in [
        "(call $close (i32.const 0))".to_owned(),
        "(call $close (i32.const 77))".to_owned(),
        "(call $close (i32.const -1))".to_owned(),
        format!("{open} (call $close {handle}) (call $close {handle})"),
        format!("{open} (call $close {handle}) (call $reveal {handle} (i32.const 480))"),
        "(call $sign (i32.const 0x7fffffff) (i32.const 1024) (i32.const 4) (i32.const 460))".to_owned(),
    ] {
        let component = guest_build::notifier_of(&text.replacen(first, &format!("{code} {first}"), 1));
        let error = load_keeper(component, Arc::new(Token)).await.send(guest_build::notice()).await.result.unwrap_err();
        assert!(matches!(&error, SendError::Unknown(error) if error.class == ErrorClass::Malformed), "{code}: {error:?}");
        assert!(error.to_string().contains("handle"), "{code}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_fault_fails_one_call_only() {
    struct Faulty;
    impl SecretSource for Faulty {
        fn secret(&self, name: &str) -> Result<Option<SecretValue>, String> {
            panic!("no {name} today")
        }
    }
    let error = keeper(Arc::new(Faulty)).await.send(guest_build::notice()).await.result.unwrap_err();
    assert!(matches!(&error, SendError::Unknown(error) if error.class == ErrorClass::Internal), "{error:?}");
    assert!(keeper(Arc::new(Token)).await.send(guest_build::notice()).await.result.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_never_responds_blocks_no_one() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let grants = Grants {
        egress: vec![EgressRule::parse(&format!("http://{address}"), AddressClass::Loopback).unwrap()],
        secrets: BTreeSet::from(["token".to_owned()]),
        ..Grants::default()
    };
    let limits = Limits { total_time: Duration::from_millis(300), ..Limits::notifier() };
    let spec = BindingSpec::new("hook", serde_json::Value::String(format!("h{address}")), limits);
    let spec = BindingSpec { grants, secrets: Some(Arc::new(Token)), ..spec };
    let notifier = guest_build::host().load_notifier(guest_build::notifier_guest("http_get"), spec).await.unwrap();
    match notifier.send(guest_build::notice()).await.result.unwrap_err() {
        SendError::Unknown(error) => {
            assert_eq!(error.class, ErrorClass::Timeout);
            assert!(error.message.contains("300 ms, which includes waiting"), "{}", error.message);
        }
        other => panic!("{other:?}"),
    }
}
