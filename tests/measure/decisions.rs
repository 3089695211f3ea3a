//! The cost of policies: a bundled policy, bound twenty times, evaluates pipelines of one step, where no call waits for a core,
//! and of fifty.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use beespace_tests::gogs::FakeGogs;
use serde_json::{Value, json};

use crate::report::{Report, percentile};
use crate::server::{Server, wait_for};

const REPO: &str = "ada/policies";
const POLICIES: usize = 20;
const STEPS: usize = 50;
/// With each number of steps.
const BUILDS: usize = 10;

pub(crate) async fn measure(program: &Path, gogs: &FakeGogs, figures: &mut Report) -> Result<()> {
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target/plugins/policy-images.wasm");
    let settings = (1..=POLICIES).fold("[engine]\nkind = \"dummy\"\n".to_owned(), |mut text, number| {
        let plugin = plugin.display();
        let _ = writeln!(
            text,
            "[[policy]]\nname = \"p{number}\"\nplugin = \"{plugin}\"\nsettings = {{ forbidden_tags = [\"never\"] }}"
        );
        text
    });
    gogs.create_repository(REPO).await?;
    let mut server = Server::new(program, gogs, &settings)?;
    server.start().await?;
    server.enable(REPO).await?;
    let (mut evaluations, mut chains) = (Vec::new(), Vec::new());
    for number in 1..=2 * BUILDS {
        let steps = if number <= BUILDS { 1 } else { STEPS };
        // The build is planned and admitted but not run: everything after the decisions is measured elsewhere.
        let step =
            |step: usize| json!({ "name": format!("s{step}"), "image": "busybox", "run": "true", "when": { "branch": "other" } });
        let pipeline = json!({ "name": format!("p{number}"), "steps": (1..=steps).map(step).collect::<Vec<Value>>() });
        gogs.push(REPO, "main", &[(".beespace.yml", &pipeline.to_string())], "Change the hive").await?;
        let path = format!("/api/v1/repositories/{REPO}/builds/{number}");
        let client = server.admin()?;
        wait_for("the end of a build", async || {
            let answer = client.get(&path).await?;
            Ok((answer.status.is_success() && answer.json()?["finished_at"].is_string()).then_some(()))
        })
        .await?;
        let decisions = client.get(&format!("{path}/decisions")).await?.json()?;
        let decisions = decisions.as_array().context("no decisions")?;
        anyhow::ensure!(decisions.len() == steps + 1, "{} decisions", decisions.len());
        let asked = decisions.iter().flat_map(|decision| decision["evaluations"].as_array().into_iter().flatten());
        let by_policies = asked.filter(|evaluation| evaluation["component"].is_string());
        if steps == 1 {
            evaluations.extend(by_policies.filter_map(|one| one["duration_us"].as_u64()).map(Duration::from_micros));
            continue;
        }
        let mut stamps = decisions.iter().map(|decision| {
            let text = decision["decided_at"].as_str().context("no time")?;
            anyhow::Ok(chrono::DateTime::parse_from_rfc3339(text)?)
        });
        let stamps = stamps.by_ref().collect::<Result<Vec<_>>>()?;
        let (first, last) = (stamps.iter().min().context("none")?, stamps.iter().max().context("none")?);
        chains.push((*last - *first).to_std()?);
    }
    server.stop().await?;
    anyhow::ensure!(evaluations.len() >= BUILDS * POLICIES, "{} evaluations", evaluations.len());
    figures.at_most("one policy's decision, p50", percentile(&mut evaluations, 0.5) * 1000.0, "us", 100.0);
    figures.info("the same, p99", percentile(&mut evaluations, 0.99) * 1000.0, "us");
    figures.at_most("20 policies x 50 steps, plans included, p50", percentile(&mut chains, 0.5), "ms", 100.0);
    Ok(())
}
