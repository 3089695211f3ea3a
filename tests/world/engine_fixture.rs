//! One open stage on some engine, and containers that behave the same on every engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use beespace::engine::dummy::Dummy;
use beespace::engine::{Engine, EngineError, Launch, Output};
use beespace_core::exit::Exit;
use beespace_core::ids::{BuildId, DecisionId, StageId, StageNumber, StepId, StepNumber};
use beespace_core::output::{OutputOffsets, Stream};
use beespace_core::plan::{Container, StepPlan};
use beespace_core::policy::{Approved, Decision, Point, Ruling};
use beespace_core::time::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::docker;

/// A time limit that no test reaches unless something hangs.
const LONG_SECONDS: u32 = 5 * 60;

pub struct EngineFixture {
    pub engine: Arc<dyn Engine>,
    pub image: String,
    pub stage: StageId,
}

impl EngineFixture {
    pub async fn dummy() -> Self {
        Self::on(Arc::new(Dummy::new()), "any".to_owned()).await
    }

    pub async fn docker() -> Self {
        Self::on(docker::shared_engine().await.unwrap(), docker::test_image().await.unwrap()).await
    }

    pub async fn on(engine: Arc<dyn Engine>, image: String) -> Self {
        let stage = StageId { build: BuildId(Uuid::now_v7()), stage: StageNumber(1) };
        engine.open(stage).await.unwrap();
        Self { engine, image, stage }
    }

    pub fn step(&self, number: u16) -> StepId {
        StepId { build: self.stage.build, stage: self.stage.stage, step: StepNumber(number), attempt: 1 }
    }

    /// A container that is controlled by `OUTPUT`, `SLEEP`, `OOM`, `EXIT_CODE` and `FAIL_START`: the dummy engine reads them, and
    /// on Docker a script does.
    pub fn controllable_container(&self, wishes: &[(&str, &str)]) -> Container {
        let mut container = self.shell_container(
            "[ -z \"$OUTPUT\" ] || echo \"$OUTPUT\"\n[ -z \"$SLEEP\" ] || sleep \"${SLEEP%s}\"\n[ -z \"$OOM\" ] || tail \
             /dev/zero\nexit \"${EXIT_CODE:-0}\"",
        );
        container.env = wishes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        container.limits.memory_bytes = Some(32 << 20);
        if container.env.contains_key("FAIL_START") {
            container.script = None;
            container.entrypoint = Some(vec!["/no/such/program".to_owned()]);
        }
        container
    }

    /// A container that runs a script.
    pub fn shell_container(&self, script: &str) -> Container {
        let mut container: Container = serde_json::from_value(serde_json::json!({ "id": "step", "image": self.image })).unwrap();
        container.script = Some(script.to_owned());
        container
    }

    pub fn launch(&self, step: u16, mut container: Container) -> Launch {
        container.limits.timeout_seconds.get_or_insert(LONG_SECONDS);
        Launch {
            step: self.step(step),
            container: container.id.clone(),
            plan: Arc::new(approved_plan(container, self.stage)),
            image: None,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
        }
    }

    /// Runs a container to its end and collects the output.
    pub async fn run(&self, launch: Launch) -> (Exit, CollectedOutput) {
        let (sender, receiver) = mpsc::channel(8);
        let run = self.engine.run(launch, sender, CancellationToken::new());
        let (exit, gathered) = tokio::join!(run, collect_output(receiver));
        (exit.unwrap(), gathered)
    }

    pub async fn shell_output(&self, step: u16, script: &str) -> String {
        let (exit, gathered) = self.run(self.launch(step, self.shell_container(script))).await;
        assert!(exit.is_success(), "{exit:?}: {gathered:?}");
        gathered.stdout
    }

    pub async fn adopt(&self, launch: Launch, stored: OutputOffsets) -> Result<(Exit, CollectedOutput), EngineError> {
        let (sender, receiver) = mpsc::channel(8);
        let adopt = self.engine.adopt(launch, stored, sender, CancellationToken::new());
        let (exit, gathered) = tokio::join!(adopt, collect_output(receiver));
        Ok((exit?, gathered))
    }

    pub async fn destroy(self) {
        self.engine.destroy(self.stage).await.unwrap();
        assert!(!self.engine.inventory().await.unwrap().contains(&self.stage));
    }
}

/// The output by stream, in the order in which it arrived.
#[derive(Debug, Default, Clone)]
pub struct CollectedOutput {
    pub stdout: String,
    pub stderr: String,
    pub host: String,
}

pub async fn collect_output(mut receiver: mpsc::Receiver<Output>) -> CollectedOutput {
    let mut bytes: [Vec<u8>; 3] = Default::default();
    while let Some(output) = receiver.recv().await {
        bytes[match output.stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
            Stream::Host => 2,
        }]
        .extend_from_slice(&output.bytes);
    }
    let [stdout, stderr, host] = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    CollectedOutput { stdout, stderr, host }
}

/// A plan of one container, approved by a chain without policies.
pub fn approved_plan(container: Container, stage: StageId) -> Approved<StepPlan> {
    let plan = StepPlan { step: "test".to_owned(), containers: vec![container], ..StepPlan::default() };
    let decision = Decision {
        id: DecisionId(Uuid::now_v7()),
        point: Point::StepAdmit,
        stage,
        step: Some(plan.step.clone()),
        subject_before: plan.digest(),
        subject: plan.digest(),
        evaluations: Vec::new(),
        ruling: Ruling::Allowed,
        rules: None,
        decided_at: Timestamp(0),
    };
    Approved::new(plan, &decision, None).unwrap()
}
