//! What people copy from `examples/` holds.

use std::path::{Path, PathBuf};

use beespace::config::Config;
use beespace_core::environment::{self, Variable};
use beespace_core::pipeline;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples")
}

#[test]
fn the_configuration_with_every_key_is_read() {
    let text = std::fs::read_to_string(examples().join("beespace.toml")).unwrap();
    // The token lies in a file of the server's machine.
    let text = text.lines().filter(|line| !line.starts_with("token_file")).collect::<Vec<_>>().join("\n");
    let env = [("BEESPACE_GOGS__TOKEN".to_owned(), "0".repeat(40))];
    let loaded = Config::read(&text, None, env).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let config = loaded.config;
    assert_eq!((config.policies.len(), config.steps.len(), config.notifiers.len()), (1, 1, 1));
}

/// `UPDATE=1 cargo test --workspace --test it examples` writes it anew.
#[test]
fn the_list_of_variables_is_the_one_that_steps_get() {
    let mut text = "# Variables of a step\n\nEvery step gets all of them, empty where there is nothing to say. What its `env` sets wins.\n\n\
                    | variable | meaning | example |\n|---|---|---|\n"
        .to_owned();
    for Variable { name, meaning, example, .. } in environment::TABLE {
        let example = if example.is_empty() { String::new() } else { format!("`{example}`") };
        text += &format!("| `{name}` | {meaning} | {example} |\n");
    }
    let path = examples().join("variables.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text);
}

#[test]
fn every_pipeline_is_without_a_problem() {
    let mut count = 0;
    for entry in std::fs::read_dir(examples().join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        let read = pipeline::read(&path.to_string_lossy(), &std::fs::read(&path).unwrap());
        assert!(read.is_ok(), "{read:#?}");
        count += 1;
    }
    assert!(count > 0);
}
