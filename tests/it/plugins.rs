//! The bundled plugins, loaded and called by the host. Each folder under `tests/fixtures/plugins/PLUGIN/` is a case.
//!
//! `settings.json` binds the plugin, `input.json` is the input, `expected.json` the expected result.
//! `UPDATE=1 cargo test --workspace --test it plugins` writes the expected results. Review the difference before you commit it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use beespace_core::digest::Document;
use beespace_core::policy::Point;
use beespace_core::step_type::Directive;
use beespace_core::{build_admission, pipeline, plan};
use beespace_tests::guest_build;
use beespace_wasm::{
    BindingSpec, BoxFuture, Host, Limits, PlanError, PluginDiagnostic, PolicyRequest, RoundEnd, SourceEntry, SourceError,
    SourceFiles, SourceKind, StepInput,
};
use globset::GlobBuilder;
use serde::Deserialize;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A component built by `plugins/build`: a plugin (`plugins/NAME`) or a test guest (`guests/NAME`).
pub(crate) fn component(name: &str) -> Vec<u8> {
    let path = root().join("target").join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run plugins/build", path.display()))
}

/// The cases of a plugin, by name.
pub(crate) fn cases(plugin: &str) -> Vec<(String, PathBuf)> {
    let folder = root().join("tests/fixtures/plugins").join(plugin);
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases.into_iter().map(|case| (case.file_name().unwrap().to_string_lossy().into_owned(), case)).collect()
}

pub(crate) fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compares the result of each case with the expected one. Fails after all cases were compared.
pub(crate) fn compare(plugin: &str, came: Vec<(PathBuf, Value)>) {
    assert!(!came.is_empty(), "{plugin} has no case");
    let mut wrong = Vec::new();
    for (case, value) in came {
        let text = serde_json::to_string_pretty(&value).unwrap() + "\n";
        let file = case.join("expected.json");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if expected != text {
            wrong.push(format!("{}:\n{}", case.display(), similar::TextDiff::from_lines(&expected, &text).unified_diff()));
        }
        let files = std::fs::read_dir(&case).unwrap().count();
        assert_eq!(files, 3, "{}: settings.json, input.json and expected.json, and nothing else", case.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The initial memory of the policy and its tables suffice for a decision; growing it would take longer than much of the rest.
/// This limit allows no further page.
const BEGINS_WITH: usize = 1_400 << 10;
const PAGE: usize = 64 << 10;

fn images(settings: Value, memory_bytes: usize) -> BindingSpec {
    BindingSpec::new("images", settings, Limits { memory_bytes, ..Limits::policy() })
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_images_never_grows_its_memory_in_its_cases() {
    let with_a_page_less = images(json!({ "forbidden_tags": ["latest"] }), BEGINS_WITH - PAGE);
    let error = guest_build::host().load_policy(component("plugins/policy-images"), with_a_page_less).await.unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyInput {
    point: Point,
    subject: Value,
}

async fn policy_answers(host: &Host, settings: Value, input: PolicyInput) -> Value {
    let policy = match host.load_policy(component("plugins/policy-images"), images(settings, BEGINS_WITH)).await {
        Ok(policy) => policy,
        Err(error) => return json!({ "not_loaded": error.to_string() }),
    };
    assert!(policy.applies_at(input.point), "{:?}", input.point);
    let schema = match input.point {
        Point::BuildAdmit => build_admission::SCHEMA,
        Point::PipelineAdmit => pipeline::SCHEMA,
        Point::StepAdmit => plan::SCHEMA,
    };
    let request = PolicyRequest {
        point: input.point,
        context: guest_build::context(),
        event: Document::new("beespace.event/v1", &json!({})),
        subject: Document::new(schema, &input.subject),
        previous: None,
    };
    match policy.evaluate(request).await.result {
        Ok(verdict) => serde_json::to_value(verdict).unwrap(),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_images_matches_its_cases() {
    let host = guest_build::host();
    let mut came = Vec::new();
    for (_, case) in cases("policy-images") {
        let input: PolicyInput = serde_json::from_value(read(&case.join("input.json"))).unwrap();
        // The subject must be one of ours; otherwise the case proves nothing.
        match input.point {
            Point::BuildAdmit => drop(build_admission::BuildSubject::deserialize(&input.subject).unwrap()),
            Point::PipelineAdmit => drop(pipeline::Pipeline::deserialize(&input.subject).unwrap()),
            Point::StepAdmit => drop(plan::StepPlan::deserialize(&input.subject).unwrap()),
        }
        let value = policy_answers(&host, read(&case.join("settings.json")), input).await;
        came.push((case, value));
    }
    compare("policy-images", came);
}

/// A list of paths and sizes instead of a repository.
struct Listed(BTreeMap<String, u64>);

impl SourceFiles for Listed {
    fn list_paths<'a>(&'a self, glob: &'a str, after: Option<&'a str>) -> BoxFuture<'a, Result<Vec<SourceEntry>, SourceError>> {
        Box::pin(async move {
            let glob = GlobBuilder::new(glob).literal_separator(true).build().unwrap().compile_matcher();
            let entries =
                self.0.iter().filter(|(path, _)| glob.is_match(path) && after.is_none_or(|after| path.as_str() > after));
            let entry = |(path, size): (&String, &u64)| SourceEntry { path: path.clone(), kind: SourceKind::File, size: *size };
            Ok(entries.take(1_000).map(entry).collect())
        })
    }

    fn read<'a>(&'a self, _path: &'a str, _offset: u64, _length: u32) -> BoxFuture<'a, Result<Vec<u8>, SourceError>> {
        Box::pin(async { Err(SourceError::Denied) })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckInput {
    with: Value,
    event: Value,
    /// Path to size.
    files: BTreeMap<String, u64>,
}

async fn check_answers(host: &Host, settings: Value, input: CheckInput) -> Value {
    let spec = BindingSpec::new("check", settings, Limits::step_type());
    let step_type = host.load_step_type(component("plugins/step-check"), spec).await.unwrap();
    let step_input = StepInput {
        step: "rules".to_owned(),
        context: guest_build::context(),
        event: Document::new("beespace.event/v1", &input.event),
        params: input.with,
        upstream: Vec::new(),
        secret_names: Vec::new(),
        source: Arc::new(Listed(input.files)),
    };
    let plan = match step_type.make_plan(step_input.clone()).await.result {
        Ok(plan) => plan,
        Err(PlanError::Params(problems)) => {
            return json!({ "with": problems.iter().map(PluginDiagnostic::to_string).collect::<Vec<_>>() });
        }
        Err(PlanError::Plugin(error)) => return json!({ "error": error.to_string() }),
    };
    assert!(plan.containers.is_empty(), "a check needs no container");
    match step_type.react(step_input, &plan, RoundEnd::Exited(Vec::new())).await.result {
        Ok(Directive::Done(conclusion)) => json!({ "summary": plan.summary, "conclusion": conclusion }),
        Ok(Directive::Run(plan)) => json!({ "another_round": plan }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn step_check_matches_its_cases() {
    let host = guest_build::host();
    let mut came = Vec::new();
    for (_, case) in cases("step-check") {
        let input: CheckInput = serde_json::from_value(read(&case.join("input.json"))).unwrap();
        let value = check_answers(&host, read(&case.join("settings.json")), input).await;
        came.push((case, value));
    }
    compare("step-check", came);
}

#[tokio::test(flavor = "multi_thread")]
async fn step_check_sees_every_file_of_a_large_repository() {
    let files = (0..2_500).map(|number| (format!("data/{number:04}.bin"), if number == 2_499 { 2_000 } else { 10 })).collect();
    let input = CheckInput { with: json!({ "max_file_size": "1kB" }), event: json!({ "commits": [] }), files };
    let came = check_answers(&guest_build::host(), json!({}), input).await;
    assert_eq!(came["conclusion"]["outputs"], json!({ "problems": 1 }), "{came}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bundled_plugin_is_embedded_and_has_a_manifest() {
    let folders = std::fs::read_dir(root().join("plugins")).unwrap().map(|entry| entry.unwrap().path());
    let names: Vec<String> = folders
        .filter(|folder| folder.join("manifest.json").exists())
        .map(|folder| folder.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(names.len() >= 3, "{names:?}");
    for name in names {
        let bytes = component(&format!("plugins/{name}"));
        assert_eq!(beespace::plugins::bundled(&name), Some(bytes.as_slice()), "{name} is not in the binary as it was built");
        let manifest = beespace_wasm::Manifest::of_component(&bytes).unwrap();
        assert_eq!(manifest.name, name);
        assert!(!manifest.description.is_empty(), "{name} has no description");
        for schema in [manifest.config_schema, manifest.params_schema].into_iter().flatten() {
            let properties = schema["properties"].as_object().cloned().unwrap_or_default();
            for (key, property) in properties {
                assert!(property["description"].is_string(), "{name}: {key} is not described");
            }
            assert_eq!(schema["additionalProperties"], json!(false), "{name}: a slip of the pen must be an error");
        }
    }
}
