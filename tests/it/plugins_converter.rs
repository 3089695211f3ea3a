//! A converter written in Rust, called by the host: `tests/guests/converter-min`.

use beespace_core::pipeline::Pipeline;
use beespace_tests::guest_build;
use beespace_wasm::{BindingSpec, ConvertError, Converter, Limits, PIPELINES_SCHEMA, SourceFile};
use serde_json::json;

use crate::plugins;

async fn converter() -> Converter {
    let spec = BindingSpec::new("min", json!({}), Limits::converter());
    guest_build::host().load_converter(plugins::component("guests/converter-min"), spec).await.unwrap()
}

fn file(text: &str) -> Vec<SourceFile> {
    vec![SourceFile { path: ".min".to_owned(), content: text.as_bytes().to_vec() }]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_converter_recognises_its_files_and_converts_them() {
    let converter = converter().await;
    assert_eq!(converter.detect(vec!["README.md".to_owned()]).await.result.unwrap(), 0);
    assert_eq!(converter.detect(vec![".min".to_owned()]).await.result.unwrap(), 100);
    let converted = converter.convert(guest_build::context(), file("rust:1: cargo test\n")).await.result.unwrap();
    assert_eq!(converted.pipelines.schema, PIPELINES_SCHEMA);
    let pipelines: Vec<Pipeline> = serde_json::from_str(&converted.pipelines.json).unwrap();
    assert_eq!(pipelines[0].steps.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_converter_reports_what_it_does_not_understand_with_its_line() {
    let failed = converter().await.convert(guest_build::context(), file("rust: a\nwhat\n")).await.result.unwrap_err();
    let ConvertError::Files(problems) = failed else { panic!("{failed}") };
    assert_eq!(problems[0].to_string(), ".min:2:1: expected `image: command`");
}
