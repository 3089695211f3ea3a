//! A store with history: builds as a server leaves them that has been running for a long time, written through the store's own
//! API.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use beespace::clock::now;
use beespace::store::Store;
use beespace::store::build::Builds as _;
use beespace::store::build_lifecycle::Prepared;
use beespace::store::delivery::{Accepted, DeliveryAction, NewDelivery};
use beespace::store::notice::{Notices as _, OrderingKey};
use beespace::store::outbox::FinishedAttempt;
use beespace::store::repository::Repository;
use beespace_core::build::{Base, Head, PipelineFile, Round, Stage, Step};
use beespace_core::digest::Digest;
use beespace_core::event::{self, Actor, Cause, Claim, Commit, Event, Push};
use beespace_core::exit::{Exit, ExitCause};
use beespace_core::ids::{BuildId, DecisionId, DeliveryId, Sha, StageId, StageNumber, StepNumber};
use beespace_core::notice::{AttemptOutcome, Receipt};
use beespace_core::pipeline::{self, Action, ParsedPipeline};
use beespace_core::plan::{self, StepPlan};
use beespace_core::policy::BASELINE_POLICY;
use beespace_core::policy::{Decision, Evaluation, Mode, Point, Ruling, Subject, Verdict, VerdictOutcome};
use beespace_core::reason::Reason;
use beespace_core::reason_code::ReasonCode;
use beespace_core::status::Status;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

/// The pipeline file of every build, with a realistic length.
pub const PIPELINE_FILE: &str = "name: check\n\nenv:\n  CARGO_TERM_COLOR: always\n\nsteps:\n  - name: format\n    image: \
                                 rust:1.95\n    run: cargo fmt --all --check\n\n  - name: test\n    image: rust:1.95\n    \
                                 run:\n      - cargo build --locked\n      - cargo test --workspace --locked\n\n  - name: \
                                 package\n    image: alpine:3.22\n    run: tar -cf out.tar target\n    \
                        when: { branch: main }\n";

/// The first builds of each repository, which end as killed: a rare status.
pub const KILLED_BUILDS: u64 = 3;
/// One of this many builds fails.
pub const FAILURE_INTERVAL: u64 = 3;
/// Builds written concurrently, so that they share commits.
const CONCURRENT_BUILDS: usize = 256;
/// The notifier of every build.
pub const NOTIFIER: &str = "chat";

/// A repository, and the commit of its builds.
#[derive(Debug, Clone)]
pub struct SeededRepository {
    pub repository: Repository,
    pub sha: String,
}

/// Writes this many builds, distributed over the repositories.
///
/// # Errors
/// The store's.
pub async fn write_builds(store: &Store, pasts: &[SeededRepository], builds: u64) -> Result<()> {
    let located = pipeline::read(".beespace.yml", PIPELINE_FILE.as_bytes()).map_err(|problems| anyhow!("{problems:?}"))?;
    store.set_notifiers([NOTIFIER]);
    let (located, begun) = (Arc::new(located), Arc::new(AtomicU64::new(0)));
    // The newest build of each repository is written last, because it becomes the last run of its branch.
    let newest = builds.saturating_sub(u64::try_from(pasts.len())?);
    let mut turns = pasts.iter().cycle().zip(0..builds);
    let older: Vec<_> = turns.by_ref().take(usize::try_from(newest)?).collect();
    let one = |(past, number): (&SeededRepository, u64)| {
        let round = number / u64::try_from(pasts.len()).unwrap_or(1);
        let one = BuildSeed { store: store.clone(), past: past.clone(), located: Arc::clone(&located), number, round };
        let begun = Arc::clone(&begun);
        async move {
            let done = tokio::spawn(one.write()).await?;
            if begun.fetch_add(1, Ordering::Relaxed) % 20_000 == 19_999 {
                eprintln!("{} builds are written", number + 1);
            }
            done
        }
    };
    stream::iter(older).map(one).buffer_unordered(CONCURRENT_BUILDS).try_collect::<()>().await?;
    stream::iter(turns).map(one).buffer_unordered(CONCURRENT_BUILDS).try_collect().await
}

/// One build, from its delivery to its notice.
struct BuildSeed {
    store: Store,
    past: SeededRepository,
    located: Arc<ParsedPipeline>,
    /// The number among all builds.
    number: u64,
    /// The number within its repository.
    round: u64,
}

impl BuildSeed {
    async fn write(self) -> Result<()> {
        let build = self.begin().await?;
        self.prepare(build).await?;
        self.run(build).await?;
        let thread = OrderingKey { binding: NOTIFIER.to_owned(), name: format!("build/{build}") };
        let notice = self.store.read()?.oldest_unfinished(&thread)?.context("no notice")?;
        let receipt = Receipt { external_id: self.number.to_string(), url: None, state: Vec::new() };
        self.store.begin_notice_attempt(notice.id).await?;
        let sent = FinishedAttempt { outcome: AttemptOutcome::Sent, receipt: Some(receipt) };
        self.store.finish_notice_attempt(notice.id, sent, now(), 0.5).await?;
        Ok(())
    }

    /// A delivery of realistic length, and its build.
    async fn begin(&self) -> Result<BuildId> {
        let event = self.event()?;
        let body = serde_json::json!({ "number": self.number, "event": &event, "filler": "x".repeat(1_500) }).to_string();
        let delivery = NewDelivery {
            id: DeliveryId(uuid::Uuid::now_v7()),
            repository: self.past.repository.id,
            forge_id: uuid::Uuid::now_v7().to_string(),
            event: "push".to_owned(),
            body: body.into_bytes(),
            received_at: now(),
        };
        let Accepted::New(id) = self.store.accept_delivery(delivery).await? else { anyhow::bail!("the delivery exists already") };
        let build = BuildId(uuid::Uuid::now_v7());
        let git_ref = event.git_ref();
        let decide = move |_: Option<&_>| DeliveryAction::Build(vec![(build, event.clone())]);
        self.store.finish_delivery(id, Some(git_ref), now(), decide).await?;
        Ok(build)
    }

    fn event(&self) -> Result<Event> {
        let Repository { id, name, default_branch, is_private, html_url, .. } = self.past.repository.clone();
        let after = Sha::new(&self.past.sha)?;
        let commits = vec![Commit {
            sha: after.clone(),
            message: format!("Mend what build {} found\n\nIt was the second cache after all.", self.number),
            author: ada(),
            parents: None,
        }];
        Ok(Event {
            repository: event::Repository { id, name, default_branch, is_private, html_url },
            sender: Actor::user(1, "ada"),
            cause: Cause::Push(Push {
                branch: "main".to_owned(),
                before: None,
                last_known_tip: None,
                after,
                commits,
                compare_url: None,
            }),
        })
    }

    async fn prepare(&self, id: BuildId) -> Result<()> {
        let mut build = self.store.read()?.build(id)?.context("no build")?;
        let message = format!("Mend what build {} found", self.number);
        let base = Base::Unknown("the branch is new".to_owned());
        build.head = Some(Head { sha: build.event.sha().unwrap().clone(), message, author: ada(), base });
        build.files = vec![PipelineFile {
            path: ".beespace.yml".to_owned(),
            text: PIPELINE_FILE.to_owned(),
            diagnostics: Vec::new(),
            documents: vec![(*self.located.spans).clone()],
            schedules: Vec::new(),
        }];
        let (stage, decisions) = self.stage(id);
        let prepared = Prepared::Stages { build: Box::new(build), stages: vec![stage], decisions };
        Ok(self.store.store_prepared(id, prepared, now()).await?)
    }

    /// The stage after admission.
    fn stage(&self, build: BuildId) -> (Stage, Vec<Decision>) {
        let id = StageId { build, stage: StageNumber(1) };
        let pipeline = self.located.pipeline.clone();
        let about_all = decision(id, Point::PipelineAdmit, None, &pipeline);
        let (mut decisions, mut steps) = (vec![about_all.clone()], vec![step(StepNumber::CLONE, "clone", None)]);
        for (written, number) in pipeline.steps.iter().zip(1..) {
            let Action::Image(action) = &written.action else { continue };
            let plan = plan::plan_image_step(&pipeline, written, action);
            let about = decision(id, Point::StepAdmit, Some(written.name.clone()), &plan);
            steps.push(step(StepNumber(number), &written.name, Some((plan, about.id))));
            decisions.push(about);
        }
        let stage = Stage {
            reason: Some(Reason::new(ReasonCode::Capacity, "waits for its turn")),
            ..Stage::pending(id, pipeline, Some(about_all.id), steps, now())
        };
        (stage, decisions)
    }

    /// Runs the stage from start to end.
    async fn run(&self, build: BuildId) -> Result<()> {
        let (id, at) = (StageId { build, stage: StageNumber(1) }, now());
        let start = move |stage: &mut Stage| {
            stage.status = Status::Running;
            stage.reason = None;
            stage.started_at = Some(at);
            Ok(())
        };
        self.store.change_stage(id, at, start).await?;
        let (end, status) = (at + Duration::from_secs(40), self.status());
        let finish = move |stage: &mut Stage| {
            stage.status = status;
            for step in &mut stage.steps {
                step.status = status;
                step.exits.push(exit(status));
                (step.started_at, step.finished_at) = (Some(at), Some(end));
            }
            Ok(())
        };
        self.store.change_stage(id, end, finish).await?;
        Ok(())
    }

    fn status(&self) -> Status {
        match self.round {
            round if round < KILLED_BUILDS => Status::Killed,
            round if round % FAILURE_INTERVAL == 0 => Status::Failure,
            _ => Status::Success,
        }
    }
}

fn exit(status: Status) -> Exit {
    Exit {
        container: plan::IMAGE_CONTAINER.to_owned(),
        cause: ExitCause::Exited,
        code: Some(i32::from(status != Status::Success)),
        message: String::new(),
        duration_ms: 9_000,
        output_incomplete: false,
    }
}

fn ada() -> Claim {
    Claim { name: "Ada".to_owned(), email: "ada@example.com".to_owned() }
}

fn decision<T: Subject>(stage: StageId, point: Point, step: Option<String>, subject: &T) -> Decision {
    let evaluation = |policy: &str| Evaluation {
        policy: policy.to_owned(),
        component: Some(Digest::of(policy)),
        settings: Some(Digest::of("{}")),
        mode: Mode::Enforce,
        result: Ok(Verdict { outcome: VerdictOutcome::Allow, ..Verdict::default() }),
        applied: Vec::new(),
        duration_us: 80,
    };
    let subject = subject.subject_digest();
    Decision {
        id: DecisionId(uuid::Uuid::now_v7()),
        point,
        stage,
        step,
        subject_before: subject,
        subject,
        evaluations: vec![evaluation("images"), evaluation(BASELINE_POLICY)],
        ruling: Ruling::Allowed,
        rules: None,
        decided_at: now(),
    }
}

fn step(number: StepNumber, name: &str, planned: Option<(StepPlan, DecisionId)>) -> Step {
    Step { round: planned.map(|(plan, decision)| Round::first(plan, decision)), ..Step::pending(number, name) }
}
