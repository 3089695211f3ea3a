//! How much hostile plugins slow down everything else: decisions of another policy, pages and webhooks. Each is measured without
//! an attack and under each kind of attack, and printed with the ratio. Nothing fails here; the numbers are for people.
//!
//! A virtual machine is delayed by its hypervisor now and then, for longer than a page takes, and more often while its cores are
//! busy. So quiet rounds and attacks alternate, the time that the hypervisor took is printed, and the cost of busy cores alone is
//! measured first, with loops of another process at the lowest priority.
//!
//! `cargo bench --workspace --bench guests` (`--profile dev` reuses what the tests have built, `-- bombs` selects one kind).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement stops at anything unexpected")]

use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use beespace::store::Queue;
use beespace_core::digest::Document;
use beespace_core::policy::Point;
use beespace_tests::beespace::Beespace;
use beespace_tests::client::Client;
use beespace_tests::gogs::{Delivery, FakeGogs};
use beespace_tests::guest_build;
use beespace_wasm::{Kind, Policy, PolicyRequest};
use reqwest::Method;

/// Rounds without and with an attack, and the number of requests in each.
const ROUNDS: usize = 10;
const DECISIONS: usize = 2_000;
const PAGES: usize = 500;
const DELIVERIES: usize = 100;
/// Builds that call the hostile policy concurrently and repeatedly.
const HOSTILE: u64 = 8;

/// The hostile policies: a name and the code.
const ATTACKS: [(&str, &str); 4] = [
    ("endless loops", "(loop $again (br $again))"),
    ("memory bombs", BOMB),
    ("loops of calls to the host", ASK),
    ("floods of log lines", FLOOD),
];

/// Grows its memory by megabytes and writes to each page.
const BOMB: &str = "(loop $more (drop (memory.grow (i32.const 16)))
    (memory.fill (i32.mul (i32.sub (memory.size) (i32.const 16)) (i32.const 65536)) (i32.const 7) (i32.const 1048576))
    (br $more))";
/// The host always writes to the same address of its memory.
const ASK: &str = "(loop $again (global.set $next (i32.const 65536)) (call $settings (i32.const 768)) (br $again))";
const FLOOD: &str =
    "(loop $more (call $emit (i32.const 2) (i32.const 1024) (i32.const 17) (i32.const 0) (i32.const 0)) (br $more))";

const REPO: &str = "ada/hive";
const ONE_STEP: &str = "steps:\n  - name: build\n    image: busybox\n";

fn request() -> PolicyRequest {
    PolicyRequest {
        point: Point::PipelineAdmit,
        context: guest_build::context(),
        event: Document::new("beespace.event/v1", &serde_json::json!({})),
        subject: Document::new("beespace.pipeline/v1", &serde_json::json!({ "steps": [] })),
        previous: None,
    }
}

/// The time of each request in microseconds by kind, and the time that the hypervisor took meanwhile.
#[derive(Default)]
struct Seen {
    took: [Vec<u128>; 3],
    ticks: Ticks,
}

const ASKED: [&str; 3] = ["decisions", "pages", "deliveries"];

impl Seen {
    fn add(&mut self, other: Self) {
        for (took, more) in self.took.iter_mut().zip(other.took) {
            took.extend(more);
            took.sort_unstable();
        }
        self.ticks.stolen += other.ticks.stolen;
        self.ticks.all += other.ticks.all;
    }

    /// The median and the 99th percentile.
    fn of(&self, kind: usize) -> (u128, u128) {
        let took = &self.took[kind];
        (took[took.len() / 2], took[took.len() * 99 / 100])
    }
}

/// Time of all cores in kernel ticks: the part taken by the hypervisor, and the total.
#[derive(Default)]
struct Ticks {
    stolen: u64,
    all: u64,
}

impl Ticks {
    fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap();
        let cores = stat.lines().next().unwrap();
        let ticks: Vec<u64> = cores.split_whitespace().skip(1).take(8).map(|ticks| ticks.parse().unwrap()).collect();
        Self { stolen: ticks[7], all: ticks.iter().sum() }
    }

    fn since(&self) -> Self {
        let now = Self::now();
        Self { stolen: now.stolen - self.stolen, all: now.all - self.all }
    }

    fn share(&self) -> f64 {
        100.0 * self.stolen as f64 / self.all.max(1) as f64
    }
}

async fn measure(times: usize, one: impl AsyncFn()) -> Vec<u128> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let started = Instant::now();
        one().await;
        took.push(started.elapsed().as_micros());
    }
    took
}

/// The victims of an attack.
struct Victims {
    beespace: Beespace,
    decent: Policy,
    /// A push that was built already: with a different body it is stored again, and nothing else follows.
    push: Delivery,
    sent: AtomicU64,
}

impl Victims {
    async fn of(gogs: &FakeGogs) -> Self {
        gogs.create_repository(REPO).await.unwrap();
        // A host has call slots for policies only if one is bound.
        let bound = "[[policy]]\nname = \"images\"\nplugin = \"policy-images\"\nsettings = { registries = [\"docker.io\"] }\n";
        let beespace = Beespace::start(gogs, &format!("[engine]\nkind = \"dummy\"\n{bound}")).await.unwrap();
        beespace.enable(REPO).await.unwrap();
        gogs.push(REPO, "main", &[(".beespace.yml", ONE_STEP)], "Fill cells").await.unwrap();
        beespace.wait_until_finished(REPO, 1).await.unwrap();
        let push = gogs.wait_until_delivered().await.unwrap().into_iter().rfind(|one| one.event == "push").unwrap();
        let decent = guest_build::load_policy(&beespace.app.host, guest_build::policy_guest(&[])).await.unwrap();
        Self { beespace, decent, push, sent: AtomicU64::new(0) }
    }

    async fn round(&self) -> Seen {
        let begun = Ticks::now();
        let client = self.beespace.admin().unwrap();
        let decisions = measure(DECISIONS, async || drop(self.decent.evaluate(request()).await.result.unwrap())).await;
        let pages = measure(PAGES, async || assert_eq!(client.get("/").await.unwrap().status, 200)).await;
        let caller = self.beespace.anonymous();
        let deliveries = measure(DELIVERIES, async || self.deliver(&caller).await).await;
        self.beespace
            .wait_for("all deliveries to be processed", async || {
                Ok(self.beespace.app.store.read()?.queue_entries(Queue::Delivery)?.is_empty().then_some(()))
            })
            .await
            .unwrap();
        Seen { took: [decisions, pages, deliveries], ticks: begun.since() }
    }

    async fn deliver(&self, caller: &Client) {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let delivery = self.push.with_new_content(number);
        let path = delivery.url.strip_prefix(&self.beespace.url).unwrap();
        let mut post = caller.request(Method::POST, path).header("X-Gogs-Delivery", number.to_string());
        for (name, value) in &delivery.headers {
            if ["Content-Type", "X-Gogs-Event", "X-Gogs-Signature"].contains(name) {
                post = post.header(*name, value);
            }
        }
        assert_eq!(caller.send(post.body(delivery.body.clone())).await.unwrap().status, 202);
    }
}

/// Callers that request decisions of the hostile policy without a pause.
struct Attack {
    over: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Attack {
    fn start(hostile: &Policy) -> Self {
        let attack = Self { over: Arc::default(), calls: Arc::default() };
        for build in 0..HOSTILE {
            let (hostile, over, calls) = (hostile.clone(), attack.over.clone(), attack.calls.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    // One build holds only a part of the call slots.
                    let mut request = request();
                    request.context.build_number = Some(build);
                    hostile.evaluate(request).await.result.unwrap_err();
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        attack
    }

    /// Waits until each caller has had a result.
    async fn is_on(&self) {
        while self.calls.load(Ordering::Relaxed) < HOSTILE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Stops the attack and returns the number of its calls.
    async fn stop(self, victims: &Victims) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        while victims.beespace.app.host.call_slots(Kind::Policy).used > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.calls.load(Ordering::Relaxed)
    }
}

/// Busy loops of another process, one per core, at the lowest priority.
struct Busy(Vec<Child>);

impl Busy {
    fn start() -> Self {
        let cores = std::thread::available_parallelism().unwrap().get();
        let begin = || Command::new("chrt").args(["--idle", "0", "sh", "-c", "while :; do :; done"]).spawn().unwrap();
        Self((0..cores).map(|_| begin()).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` only checks that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let gogs = FakeGogs::start().await.unwrap();
    let victims = Victims::of(&gogs).await;
    victims.round().await;

    let (mut quiet, mut beside) = (Seen::default(), Seen::default());
    for _ in 0..ROUNDS {
        quiet.add(victims.round().await);
        let busy = Busy::start();
        beside.add(victims.round().await);
        drop(busy);
    }
    println!("cores that others keep busy, with nothing hostile");
    compare(&quiet, &beside);
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for (what, code) in ATTACKS.iter().filter(|(what, _)| what.contains(&wanted)) {
        let hostile = guest_build::policy_guest(&[(";; evaluate", code)]);
        let hostile = guest_build::load_policy(&victims.beespace.app.host, hostile).await.unwrap();
        let (mut quiet, mut attacked, mut calls) = (Seen::default(), Seen::default(), 0);
        for _ in 0..ROUNDS {
            quiet.add(victims.round().await);
            let attack = Attack::start(&hostile);
            attack.is_on().await;
            attacked.add(victims.round().await);
            calls += attack.stop(&victims).await;
        }
        println!("{HOSTILE} {what} at a time, {calls} of them ended by a budget");
        compare(&quiet, &attacked);
    }
}

fn compare(quiet: &Seen, attacked: &Seen) {
    println!("what        quiet p50  p99 (us)   attacked p50  p99 (us)   ratio of p99");
    for (kind, what) in ASKED.iter().enumerate() {
        let (quiet, attacked) = (quiet.of(kind), attacked.of(kind));
        let ratio = attacked.1 as f64 / quiet.1.max(1) as f64;
        println!("{what:10} {:10} {:9} {:14} {:9} {ratio:14.2}", quiet.0, quiet.1, attacked.0, attacked.1);
    }
    println!("taken by the hypervisor: {:.1} % {:25.1} %", quiet.ticks.share(), attacked.ticks.share());
}
