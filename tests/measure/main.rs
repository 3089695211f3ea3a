//! The speed of a complete Beespace: a release build in front of a fake Gogs and Docker, measured from outside, next to the bare
//! engine and git in the same run. Started by `tests/bench`.

mod baseline;
mod decisions;
mod report;
mod scale;
mod server;
mod webhook;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use beespace_tests::docker;
use beespace_tests::gogs::FakeGogs;
use futures::StreamExt as _;
use report::{Report, percentile};
use serde_json::{Value, json};
use server::{Server, wait_for};

const REPO: &str = "ada/hive";

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().context("expected the path of a release build of beespace")?;
    let (mut figures, part) = (Report::default(), arguments.next());
    let program = Path::new(&program);
    match part.as_deref() {
        Some("scale") => scale::measure(program, &mut figures).await?,
        Some("policies") => decisions::measure(program, &FakeGogs::start().await?, &mut figures).await?,
        part => figures = measure_all(program, part).await?,
    }
    println!("{}\n{}", figures.table(), figures.json());
    Ok(())
}

/// Measures a complete server with Docker, or a `part` of it.
async fn measure_all(program: &Path, part: Option<&str>) -> Result<Report> {
    let image = docker::test_image().await?;
    let gogs = FakeGogs::start().await?;
    gogs.create_repository(REPO).await?;
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target/plugins");
    let plugins = plugins.display();
    let settings = format!(
        "[engine]\nkind = \"docker\"\n[[policy]]\nname = \"images\"\nplugin = \"{plugins}/policy-images.wasm\"\n\
         settings = {{ forbidden_tags = [\"never\"] }}\n[[step]]\nname = \"check\"\nplugin = \"{plugins}/step-check.wasm\"\n"
    );
    let server = Server::new(program, &gogs, &settings)?;
    let mut world = World { gogs, server, image, figures: Report::default(), builds: 0 };
    let measured = world.measure(part).await;
    // After a failure, too: a killed server would leave prefetched containers in the engine.
    world.server.stop().await?;
    measured?;
    decisions::measure(program, &world.gogs, &mut world.figures).await?;
    Ok(world.figures)
}

struct World {
    gogs: FakeGogs,
    server: Server,
    image: String,
    figures: Report,
    builds: u64,
}

impl World {
    async fn measure(&mut self, part: Option<&str>) -> Result<()> {
        self.starts().await?;
        if part == Some("hooks") {
            return self.hooks().await;
        }
        self.first_lines().await?;
        self.five_steps().await?;
        if part == Some("steps") {
            return Ok(());
        }
        self.without_container().await?;
        self.live_lines().await?;
        self.long_log().await?;
        self.hooks().await
    }

    async fn push(&mut self, mut steps: Value) -> Result<u64> {
        for step in steps.as_array_mut().into_iter().flatten() {
            if step.get("uses").is_none() {
                step["image"] = json!(self.image);
            }
        }
        self.builds += 1;
        let pipeline = json!({ "name": format!("p{}", self.builds), "steps": steps }).to_string();
        self.gogs.push(REPO, "main", &[(".beespace.yml", &pipeline)], &format!("Push {}", self.builds)).await?;
        Ok(self.builds)
    }

    async fn starts(&mut self) -> Result<()> {
        self.server.start().await?;
        self.server.enable(REPO).await?;
        let mut times = Vec::new();
        for _ in 0..5 {
            self.server.stop().await?;
            times.push(self.server.start().await?);
        }
        self.figures.at_most("start to ready, plugins compiled before, p50", percentile(&mut times, 0.5), "ms", 200.0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.figures.at_most("memory of an idle server", self.server.memory("VmRSS")?, "MiB", 45.0);
        Ok(())
    }

    /// From the return of `git push` to the first line of the step's program.
    async fn first_lines(&mut self) -> Result<()> {
        let (mut times, mut bare, mut clones) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..25 {
            let number = self.push(json!([{ "name": "say", "run": "test -f .beespace.yml && echo here" }])).await?;
            let begin = Instant::now();
            let client = self.server.admin()?;
            let path = format!("/api/v1/repositories/{REPO}/builds/{number}/stages/1/steps/1/log");
            wait_for("the first line", async || {
                Ok(client.get(&path).await.is_ok_and(|log| log.body.lines().any(|line| line == "here")).then_some(()))
            })
            .await?;
            times.push(begin.elapsed());
            self.server.wait_for_success(REPO, number).await?;
            clones.push(baseline::clone(&self.gogs.clone_url(REPO, self.gogs.token())?).await?);
            bare.push(baseline::first_line(&self.image).await?);
        }
        let (p50, bare, clone) = (percentile(&mut times, 0.5), percentile(&mut bare, 0.5), percentile(&mut clones, 0.5));
        self.figures.at_most("`git push` returns -> first line of the step, p50", p50, "ms", 400.0);
        self.figures.info("the same, p95", percentile(&mut times, 0.95), "ms");
        self.figures.info("bare `docker run` of the same script, p50", bare, "ms");
        self.figures.info("plain `git clone` of the repository, p50", clone, "ms");
        self.figures.info("ratio to both of them one after the other", p50 / (bare + clone), "x");
        Ok(())
    }

    async fn five_steps(&mut self) -> Result<()> {
        let mut times = Vec::new();
        for _ in 0..15 {
            let step = |number: u32| match number {
                1 => json!({ "name": "s1", "run": "true" }),
                _ => json!({ "name": format!("s{number}"), "run": "true", "needs": [format!("s{}", number - 1)] }),
            };
            let begin = Instant::now();
            let number = self.push((1..=5).map(step).collect()).await?;
            self.server.wait_for_success(REPO, number).await?;
            times.push(begin.elapsed());
        }
        self.figures.at_most("five steps of `true`, push -> finished, p50", percentile(&mut times, 0.5), "ms", 1200.0);
        Ok(())
    }

    async fn without_container(&mut self) -> Result<()> {
        let mut took = Vec::new();
        for _ in 0..10 {
            let number =
                self.push(json!([{ "name": "files", "uses": "check", "with": { "require": [".beespace.yml"] } }])).await?;
            let build = self.server.wait_for_success(REPO, number).await?;
            took.push(took_of(&build)?);
        }
        self.figures.at_most("a step without a container, start -> end, p50", percentile(&mut took, 0.5), "ms", 2.0);
        self.figures.at_most("memory after 50 builds", self.server.memory("VmRSS")?, "MiB", 55.0);
        Ok(())
    }

    /// Each line contains the time at which it was written, by the clock that the container shares with this machine; the
    /// follower records when it arrives.
    async fn live_lines(&mut self) -> Result<()> {
        let script = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); read -r up rest < /proc/uptime; echo beat $up; sleep 0.03; done";
        let number = self.push(json!([{ "name": "tick", "run": script }])).await?;
        let path = format!("/api/v1/repositories/{REPO}/builds/{number}/stages/1/steps/1/log/stream");
        let client = self.server.admin()?;
        let response = wait_for("the stream of the log", async || {
            let response = client.request(reqwest::Method::GET, &path).send().await?;
            Ok(Some(response).filter(|response| response.status().is_success()))
        })
        .await?;
        let (mut stream, mut text, mut late) = (response.bytes_stream(), String::new(), Vec::new());
        while late.len() < 100 {
            let piece = stream.next().await.context("the stream ended early")??;
            let now = uptime()?;
            text.push_str(&String::from_utf8_lossy(&piece));
            while let Some(place) = text.find('\n') {
                let line: String = text.drain(..=place).collect();
                late.extend(written_at(&line).map(|at| now.saturating_sub(at)));
            }
        }
        self.server.wait_for_success(REPO, number).await?;
        self.figures.at_most("line in the container -> line at the follower, p95", percentile(&mut late, 0.95), "ms", 100.0);
        self.figures.info("the same, p50", percentile(&mut late, 0.5), "ms");
        Ok(())
    }

    async fn long_log(&mut self) -> Result<()> {
        let script = "yes 'a line of ninety-nine letters, as programs write them by the thousand when nobody stops them, see it' \
                      | head -c 100000000";
        let before = self.server.memory("VmRSS")?;
        let number = self.push(json!([{ "name": "flood", "run": script }])).await?;
        let build = self.server.wait_for_success(REPO, number).await?;
        let took = took_of(&build)?.as_secs_f64() * 1000.0;
        let bare = baseline::discard_output(&self.image, script).await?.as_secs_f64() * 1000.0;
        self.figures.at_most("100 MB of log, beyond what a bare follower of it takes", took - bare, "ms", 1500.0);
        self.figures.info("the bare follower (docker run, output read and thrown away)", bare, "ms");
        self.figures.info("most memory during it, beyond before", self.server.memory("VmHWM")? - before, "MiB");
        let client = self.server.admin()?;
        let log = client.get(&format!("/api/v1/repositories/{REPO}/builds/{number}/stages/1/steps/1/log")).await?;
        self.figures.at_least("bytes of it that are kept, of 100,000,000", log.body.len() as f64, "", 1e8);
        drop(log);
        let path = format!("/{REPO}/{number}/1/1");
        let mut pages = Vec::new();
        for _ in 0..10 {
            let begin = Instant::now();
            let page = client.get(&path).await?;
            anyhow::ensure!(page.status.is_success(), "{}", page.status);
            pages.push(begin.elapsed());
        }
        self.figures.at_most("the page of that log, p50", percentile(&mut pages, 0.5), "ms", 200.0);
        Ok(())
    }

    async fn hooks(&mut self) -> Result<()> {
        // Otherwise the file system would write the remaining data of the long log together with the first deliveries.
        rustix::fs::sync();
        let busy = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo line $i; sleep 0.05; done";
        self.push(json!([{ "name": "busy", "run": busy }])).await?;
        let delivery = self.gogs.wait_until_delivered().await?.pop().context("no delivery")?;
        let mut times = webhook::send_at_rate(&delivery, 200, Duration::from_secs(8)).await?;
        self.figures.at_most("hook answered, 200/s, a build running, p99", percentile(&mut times, 0.99), "ms", 20.0);
        self.figures.info("the same, p50", percentile(&mut times, 0.5), "ms");
        let rate = webhook::max_throughput(&delivery, 64, Duration::from_secs(5)).await?;
        self.figures.at_least("deliveries stored durably, sustained for 5 s", rate, "/s", 1000.0);
        Ok(())
    }
}

/// The duration of the build's only step, from the server's timestamps.
fn took_of(build: &Value) -> Result<Duration> {
    let step = &build["stages"][0]["steps"][1];
    let stamp = |field: &str| {
        let text = step[field].as_str().with_context(|| format!("{field} of {step}"))?;
        anyhow::Ok(chrono::DateTime::parse_from_rfc3339(text)?)
    };
    Ok((stamp("finished_at")? - stamp("started_at")?).to_std()?)
}

/// The uptime of the machine, with a resolution of ten milliseconds.
fn uptime() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    seconds(&text).context("no uptime")
}

fn written_at(line: &str) -> Option<Duration> {
    seconds(line.split_once("beat ")?.1)
}

fn seconds(text: &str) -> Option<Duration> {
    let number = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    Duration::try_from_secs_f64(number.parse().ok()?).ok()
}
