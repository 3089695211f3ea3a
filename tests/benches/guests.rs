//! What hostile guests cost everybody else: another policy's decisions and the server's pages, in quiet and while endless loops run,
//! with the ratio of the two. Nothing fails here; the numbers are for people.
//!
//! `cargo bench --workspace --bench guests` (add `--profile dev` to use what the tests have built).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that meets the unexpected is none"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use beespace_core::digest::Document;
use beespace_core::policy::Point;
use beespace_tests::beespace::Beespace;
use beespace_tests::gogs::PracticeGogs;
use beespace_wasm::{Policy, PolicyRequest};

#[path = "../it/guests.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod guests;

const DECISIONS: usize = 20_000;
const PAGES: usize = 3_000;
/// Builds that ask the hostile policy at the same time, again and again.
const HOSTILE: usize = 8;

fn request() -> PolicyRequest {
    PolicyRequest {
        point: Point::PipelineAdmit,
        context: guests::context(),
        event: Document::new("beespace.event/v1", &serde_json::json!({})),
        subject: Document::new("beespace.pipeline/v1", &serde_json::json!({ "steps": [] })),
        previous: None,
    }
}

/// The median and the 99th of a hundred, in microseconds.
async fn measure(times: usize, one: impl AsyncFn()) -> (u128, u128) {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let started = Instant::now();
        one().await;
        took.push(started.elapsed().as_micros());
    }
    took.sort_unstable();
    (took[times / 2], took[times * 99 / 100])
}

async fn round(decent: &Policy, beespace: &Beespace) -> [(u128, u128); 2] {
    let client = beespace.admin().unwrap();
    let decisions = measure(DECISIONS, async || drop(decent.evaluate(request()).await.result.unwrap())).await;
    let pages = measure(PAGES, async || assert_eq!(client.get("/").await.unwrap().status, 200)).await;
    [decisions, pages]
}

/// Callers that want a decision of the hostile policy without a pause.
struct Attack {
    over: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Attack {
    fn start(hostile: &Policy) -> Self {
        let attack = Self { over: Arc::default(), calls: Arc::default() };
        for _ in 0..HOSTILE {
            let (hostile, over, calls) = (hostile.clone(), attack.over.clone(), attack.calls.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    hostile.evaluate(request()).await.result.unwrap_err();
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        attack
    }
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let gogs = PracticeGogs::start().await.unwrap();
    let beespace = Beespace::start(&gogs, "[engine]\nkind = \"dummy\"\n").await.unwrap();
    let host = &beespace.app.host;
    let decent = guests::load_policy(host, guests::policy_guest(&[])).await.unwrap();
    let loops = guests::policy_guest(&[(";; evaluate", "(loop $again (br $again))")]);
    let hostile = guests::load_policy(host, loops).await.unwrap();
    round(&decent, &beespace).await;

    let quiet = round(&decent, &beespace).await;
    let attack = Attack::start(&hostile);
    while host.places().taken < HOSTILE {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let attacked = round(&decent, &beespace).await;
    attack.over.store(true, Ordering::Relaxed);

    println!("{HOSTILE} endless loops at a time, {} of them ended by their budget", attack.calls.load(Ordering::Relaxed));
    println!("what       quiet p50  p99 (us)   attacked p50  p99 (us)   ratio of p99");
    for (what, (quiet, attacked)) in ["decisions", "pages"].iter().zip(quiet.iter().zip(&attacked)) {
        let ratio = attacked.1 as f64 / quiet.1.max(1) as f64;
        println!("{what:9} {:10} {:9} {:14} {:9} {ratio:14.2}", quiet.0, quiet.1, attacked.0, attacked.1);
    }
}
