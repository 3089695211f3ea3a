//! Corrupted input for everything that reads untrusted data. Each target has seeds in `tests/fixtures/fuzz/TARGET/`, among them
//! every input that once caused a failure. All seeds are replayed, then mutated.
//!
//! CI runs a bounded number of cases. `FUZZ_SECONDS=600 cargo test --workspace --test it fuzz::` runs each target for that long.
//! `SEED=…` repeats a run. A failure prints the seed and saves the input; add it to the folder of the target.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use beespace::log::{LogEvent, LogStore};
use beespace_core::digest::{Digest, Document};
use beespace_core::event::{EventKind, Repository};
use beespace_core::gogs::{EVENTS, parse};
use beespace_core::ids::RepositoryId;
use beespace_core::ids::StepNumber;
use beespace_core::mask::Secrets;
use beespace_core::output::Stream;
use beespace_core::pipeline::eval_when::{ChangedPaths, Facts, StageConditions, pipeline_matches};
use beespace_core::pipeline::{self, Choice, Conditions, Pipeline, SourceFile, When};
use beespace_core::plan::StepPlan;
use beespace_core::policy::patch::{apply, first_ignored_path};
use beespace_core::policy::pointer::{PathGrant, Pointer};
use beespace_core::policy::{PatchKind, PatchOp, VerdictOutcome};
use beespace_core::time::Timestamp;
use beespace_core::{baseline_policy, trigger, verify};
use beespace_tests::seeded_rng::SeededRng;
use futures::StreamExt as _;
use serde_json::Value;
use sha2::Digest as _;

use crate::log::STEP;

/// No input takes as long on any machine unless its reader does not terminate.
const SLOW: Duration = Duration::from_secs(120);

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The seeds of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = fixtures().join("fuzz").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Replays the seeds and then mutations of them, for this many cases or for `FUZZ_SECONDS`. `run` returns whether its reader
/// accepts the input. Each of the `good` seeds must be accepted; otherwise the checks of accepted input would never run.
fn fuzz(target: &str, good: &[Vec<u8>], broken: &[Vec<u8>], cases: u64, dictionary: &[&str], run: impl Fn(&[u8]) -> bool) {
    assert!(!good.is_empty(), "{target} has no seeds");
    let seeds = [good, broken].concat();
    let mut rng = SeededRng::from_env();
    let seconds = std::env::var("FUZZ_SECONDS").ok().map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
    let (started, mut slowest, mut done, mut accepted) = (Instant::now(), Duration::ZERO, 0, 0_u64);
    let goes_on = |done| seconds.map_or(done < cases, |most| started.elapsed() < most);
    while done < seeds.len() as u64 || goes_on(done) {
        let whole = usize::try_from(done).ok().and_then(|place| seeds.get(place)).cloned();
        let input = whole.unwrap_or_else(|| {
            let (one, other) = (rng.index(seeds.len()), rng.index(seeds.len()));
            rng.corrupt(&seeds[one], dictionary, &seeds[other])
        });
        let began = Instant::now();
        let Ok(is_accepted) = catch_unwind(AssertUnwindSafe(|| run(&input))) else {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{target}"));
            std::fs::write(&kept, &input).unwrap();
            panic!("{target}, seed {}, case {done}; the input is saved in {}", rng.seed, kept.display());
        };
        let is_good = done < good.len() as u64;
        assert!(is_accepted || !is_good, "{target}: this seed is refused: {}", String::from_utf8_lossy(&input));
        accepted += u64::from(is_accepted);
        slowest = slowest.max(began.elapsed());
        assert!(slowest < SLOW, "{target}, seed {}, case {done}: {slowest:?} for {} bytes", rng.seed, input.len());
        done += 1;
    }
    let took = started.elapsed();
    println!("{target}: {done} cases, {accepted} accepted, in {took:?}, the slowest {slowest:?}, seed {}", rng.seed);
}

const JSON: &[&str] = &["null", "true", "{}", "[]", "\"\"", "\"\\ud800\"", "[[[[[[[[", ",", ":", "\"id\":", "1.5", "-0", "\u{0}"];

#[test]
fn deliveries() {
    let mut inputs = seeds("delivery");
    let recorded = std::fs::read_to_string(fixtures().join("gogs/deliveries-v0.14.3.jsonl")).unwrap();
    let body =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["raw_json"].as_str().map(|json| json.as_bytes().to_vec());
    inputs.extend(recorded.lines().filter_map(body));
    let dictionary =
        [JSON, &["refs/heads/", "refs/tags/", "0000000000000000000000000000000000000000", "--upload-pack=x"]].concat();
    fuzz("delivery", &inputs, &[], 2_000, &dictionary, |input| {
        let mut is_accepted = false;
        for event in EVENTS {
            let body = verify::restore(input.to_vec(), Digest::of(input)).unwrap();
            let happening = match parse(event, &body) {
                Ok(happening) => happening,
                Err(error) => {
                    assert_eq!(error.reason.code, "malformed-payload");
                    continue;
                }
            };
            is_accepted = true;
            let hook = RepositoryId(1);
            let repository = Repository {
                id: hook,
                name: "ada/hive".parse().unwrap(),
                default_branch: "main".to_owned(),
                is_private: true,
                html_url: String::new(),
            };
            for telling in [trigger::DeliveryRepeat::First, trigger::DeliveryRepeat::Repeated] {
                let decided = trigger::decide(&happening, &repository, telling, None);
                let other = happening.get().repository_id() != hook;
                assert!(
                    !other || !matches!(decided, trigger::TriggerDecision::Build(..)),
                    "another repository's body is never built"
                );
            }
        }
        is_accepted
    });
}

#[test]
fn pipeline_files() {
    let (mut good, mut broken) = (seeds("pipeline"), Vec::new());
    for case in std::fs::read_dir(fixtures().join("pipeline")).unwrap() {
        let case = case.unwrap().path();
        // A case with several files has a folder in its place.
        let Ok(file) = std::fs::read(case.join("pipeline.yml")) else { continue };
        let into = if case.join("expected.json").exists() { &mut good } else { &mut broken };
        if file.len() < 4_096 {
            into.push(file);
        }
    }
    let dictionary =
        ["steps:", "- ", "&x ", "*x", "<<: *x", "when: ", "needs: [", "]", "{", "}", "|\n", "!t ", "---\n", "\t", "${{ a }}"];
    let read = |input: &[u8]| pipeline::read_files(&[SourceFile { path: "f", bytes: input }]);
    fuzz("pipeline", &good, &broken, 4_000, &dictionary, |input| match read(input) {
        Ok(pipelines) => {
            for located in pipelines {
                let again: Pipeline = serde_json::from_str(&located.pipeline.document().json).unwrap();
                assert_eq!(again, located.pipeline, "the normal form reads back");
            }
            true
        }
        Err(problems) => {
            assert!(!problems.is_empty() && problems.len() <= 101);
            false
        }
    });
}

/// Lines: the branch, a changed path, then patterns; `!` marks those that exclude.
#[test]
fn whens_and_globs() {
    let dictionary = ["*", "**", "/", "?", "[a-z]", "[!", "{a,b}", "{", "\\", "!", "\n", "é", "main", "src/"];
    fuzz("when", &seeds("when"), &[], 1_500, &dictionary, |input| {
        let text = String::from_utf8_lossy(input);
        let mut lines = text.lines();
        let (branch, path) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let (exclude, include): (Vec<&str>, Vec<&str>) = lines.take(50).partition(|line| line.starts_with('!'));
        let include: Vec<String> = include.into_iter().map(ToOwned::to_owned).collect();
        let exclude: Vec<String> = exclude.into_iter().map(|line| line[1..].to_owned()).collect();
        let facts = Facts {
            event: EventKind::Push,
            branch: Some(branch.to_owned()),
            tag: None,
            git_ref: String::new(),
            target: None,
            cron: None,
            changed: ChangedPaths::Known(vec![path.to_owned()]),
        };
        let when = |exclude: &[String]| {
            let choice = Some(Choice { include: include.clone(), exclude: exclude.to_vec() });
            let (branch, paths) = (choice.clone(), choice);
            [Conditions { branch, ..Conditions::default() }, Conditions { paths, ..Conditions::default() }]
                .map(|one| When(vec![one]))
        };
        let mut holds_once = false;
        for (strict, mild) in when(&exclude).iter().zip(&when(&[])) {
            let holds = pipeline_matches(Some(strict), &facts).is_ok();
            holds_once |= holds;
            let step = StageConditions::of_steps([Some(strict)], &facts);
            assert_eq!(holds, step.step_matches(StepNumber(1), &[]).is_ok(), "for a push both are alike");
            assert!(step.step_matches(StepNumber(1), &["x"]).is_err(), "not after a failure");
            assert!(!holds || pipeline_matches(Some(mild), &facts).is_ok(), "to exclude never lets more through");
        }
        holds_once
    });
}

#[derive(serde::Deserialize)]
struct Patch {
    document: Value,
    ops: Vec<PatchOp>,
    grants: Vec<String>,
}

/// The value at a JSON pointer (RFC 6901).
fn at<'a>(document: &'a Value, pointer: &Pointer) -> Option<&'a Value> {
    document.pointer(&pointer.to_string())
}

#[test]
fn patches() {
    let dictionary =
        [JSON, &["/", "/-", "~0", "~1", "~2", "/0", "/01", "\"add\"", "\"remove\"", "\"replace\"", "\"test\"", "*"]].concat();
    fuzz("patch", &seeds("patch"), &[], 6_000, &dictionary, |input| {
        let Ok(patch) = serde_json::from_slice::<Patch>(input) else { return false };
        let grants: Vec<PathGrant> = patch.grants.iter().filter_map(|grant| grant.parse().ok()).collect();
        let Ok(patched) = apply(&patch.document, &patch.ops, &grants) else { return false };
        for op in patch.ops.iter().filter(|op| op.op != PatchKind::Test) {
            let pointer: Pointer = op.path.parse().unwrap();
            assert!(grants.iter().any(|grant| grant.covers(&pointer)), "{pointer} was granted");
        }
        // Paths outside the grants are unchanged.
        for key in patch.document.as_object().into_iter().flat_map(|map| map.keys()) {
            let pointer = Pointer::new(vec![key.clone()]);
            let first =
                |grant: &&String| grant.split('/').nth(1).is_some_and(|part| part == "*" || part.contains('~') || part == key);
            if !patch.grants.iter().any(|grant| first(&grant)) {
                assert_eq!(at(&patched, &pointer), at(&patch.document, &pointer), "{pointer} was not granted");
            }
        }
        if let Ok(plan) = serde_json::from_value::<StepPlan>(patched.clone()) {
            let _ = first_ignored_path(&patched, &serde_json::to_value(&plan).unwrap());
        }
        true
    });
}

#[test]
fn plans() {
    let dictionary =
        [JSON, &["\"containers\"", "\"mounts\"", "\"limits\"", "..", "/proc", "/var/run/docker.sock", "host", "\u{1b}"]].concat();
    fuzz("plan", &seeds("plan"), &[], 4_000, &dictionary, |input| {
        let Ok(plan) = serde_json::from_slice::<StepPlan>(input) else { return false };
        let document = plan.document();
        let again: StepPlan = serde_json::from_str(&document.json).unwrap();
        assert_eq!((again.digest(), &again), (plan.digest(), &plan), "the normal form reads back");
        let verdict = baseline_policy::evaluate(&plan, &baseline_policy::StepBounds::default());
        let denies = verdict.outcome == VerdictOutcome::Deny;
        assert_eq!(denies, !verdict.findings.is_empty(), "a denial has reasons");
        assert!(Document::new("x", &serde_json::to_value(&verdict).unwrap()).json.len() < 1 << 20);
        true
    });
}

/// The length of a frame header, and the offsets of the checksums of the body and of the header (`host/src/log/frame.rs`).
const HEADER: usize = 96;
const BODY_SUM: usize = 80;
const OWN_SUM: usize = 88;

/// Recomputes the checksums, as an attacker would; random mutations never get them right.
fn seal(file: &mut [u8]) {
    let sum = |bytes: &[u8]| <[u8; 8]>::try_from(&sha2::Sha256::digest(bytes)[..8]).unwrap();
    let mut start = 0;
    while let Some(header) = file.get(start..start + HEADER) {
        let length = usize::try_from(u32::from_le_bytes(header[8..12].try_into().unwrap())).unwrap();
        let Some(end) = (start + HEADER).checked_add(length).filter(|end| *end <= file.len()) else { return };
        let body = sum(&file[start + HEADER..end]);
        file[start + BODY_SUM..start + OWN_SUM].copy_from_slice(&body);
        let own = sum(&file[start..start + OWN_SUM]);
        file[start + OWN_SUM..start + HEADER].copy_from_slice(&own);
        start = end;
    }
}

/// The file of a log.
async fn written() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let writer = LogStore::new(dir.path()).writer(STEP, Secrets::none(), u64::MAX).await.unwrap();
    writer.write_host_line(Timestamp(5), "pulled").await.unwrap();
    for (at, stream, text) in
        [(10, Stream::Stdout, "one\ntwo\n"), (11, Stream::Stderr, "oops\n"), (12, Stream::Stdout, "no newline")]
    {
        writer.write(stream, Timestamp(at), text.to_owned()).await.unwrap();
        writer.flush().await.unwrap();
    }
    writer.finish(Timestamp(13), None).await.unwrap();
    std::fs::read(log_path(dir.path())).unwrap()
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join(STEP.build.to_string()).join(STEP.stage.to_string()).join(format!("{}.{}", STEP.step, STEP.attempt))
}

/// Reads a log in every possible way, opens it for writing and reads it again. Returns whether it had a line.
async fn read_log(file: &[u8]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = log_path(dir.path());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, file).unwrap();
    let store = LogStore::new(dir.path());
    let has_line = store.reader(STEP).line_count().await.is_ok_and(|lines| lines > 0);
    for _ in 0..2 {
        let reader = store.reader(STEP);
        let _ = (reader.line_count().await, reader.text_len().await, reader.end().await, reader.started_at().await);
        let _ =
            (reader.lines(1, 100).await, reader.tail(100).await, reader.text_offset(2).await, reader.position_before(2).await);
        let text: Vec<_> = reader.text(0, u64::MAX).take(1_000).collect().await;
        assert!(text.len() < 1_000, "a small file has no end");
        let pieces: Vec<Result<LogEvent, _>> = reader.available(0, None).take(1_000).collect().await;
        assert!(pieces.len() < 1_000, "a small file has no end");
        if let Ok(writer) = store.writer(STEP, Secrets::none(), u64::MAX).await {
            let _ = writer.write(Stream::Stdout, Timestamp(20), "more\n").await;
            let _ = writer.finish(Timestamp(21), None).await;
        }
    }
    has_line
}

#[test]
fn log_files() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let good = [runtime.block_on(written())];
    fuzz("log", &good, &seeds("log"), 150, &["BLG\u{1}", "\u{0}\u{0}\u{0}\u{0}"], |input| {
        let mut forged = input.to_vec();
        seal(&mut forged);
        runtime.block_on(read_log(&forged)) | runtime.block_on(read_log(input))
    });
}
