//! `beespace config`: validates the configuration and prints it with the origin of each value.

use std::path::PathBuf;
use std::sync::Arc;

use beespace_wasm::{Host, HostOptions};
use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::{print_stderr, table};
use crate::config::{Config, InvalidConfig, Loaded};
use crate::encryption::Key;
use crate::plugins::{self, BindingError, Plugins};
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file [default: ./beespace.toml, else /etc/beespace/beespace.toml]
    #[arg(long, env = "BEESPACE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Validate all values and load all plugin bindings; print every problem
    Check(ConfigArgs),
    /// Print every key with its value, or `unset`; secrets are redacted
    Show {
        #[command(flatten)]
        args: ConfigArgs,
        /// Also print the origin of each value
        #[arg(long)]
        origin: bool,
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Debug, serde::Serialize)]
struct ConfigLine {
    key: String,
    /// None if the key is not set and has no default.
    value: Option<String>,
    origin: String,
}

impl ConfigLine {
    fn value(&self) -> String {
        self.value.clone().unwrap_or_else(|| "unset".to_owned())
    }
}

/// # Errors
/// [`Failure`] if the configuration is invalid.
pub fn run(command: &ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check(args) => check(args)?,
        ConfigCommand::Show { args, origin, output } => {
            let entries = load(args)?.entries;
            let line = |entry: crate::config::ConfigEntry| ConfigLine {
                key: entry.key,
                value: entry.value,
                origin: entry.origin.to_string(),
            };
            let lines: Vec<ConfigLine> = entries.into_iter().map(line).collect();
            if *origin {
                let row = |line: &ConfigLine| [line.key.clone(), line.value(), line.origin.clone()];
                table::print_list(*output, &lines, ["key", "value", "origin"], row)?;
            } else {
                table::print_list(*output, &lines, ["key", "value"], |line| [line.key.clone(), line.value()])?;
            }
        }
    }
    Ok(Exit::Ok)
}

/// Checks values and bindings. A wrong value does not hide what is wrong with the bindings.
fn check(args: &ConfigArgs) -> Result<(), Failure> {
    let loaded = match Config::check(args.config.as_deref(), std::env::vars()) {
        Ok(loaded) => loaded,
        Err(InvalidConfig { problems, partial }) => {
            let mut lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            if let Some(PluginCheck::Invalid(bindings)) = partial.map(|config| check_plugins(&config)).transpose()? {
                lines.extend(bindings.iter().map(ToString::to_string));
            }
            return Err(config_failure(&lines));
        }
    };
    let count = match check_plugins(&loaded.config)? {
        PluginCheck::Loaded(count) => count,
        PluginCheck::Invalid(problems) => return Err(config_failure(&problems)),
    };
    let file = loaded.path.map_or_else(|| "the environment".to_owned(), |path| path.display().to_string());
    let bindings = if count == 1 { "binding" } else { "bindings" };
    print_stderr(&format!("{file}: OK, {count} plugin {bindings} loaded"));
    print_stderr("Once the server runs, `beespace doctor` checks Gogs and the engine.");
    Ok(())
}

/// The result of loading all plugins.
enum PluginCheck {
    /// The number of bindings.
    Loaded(usize),
    Invalid(Vec<BindingError>),
}

/// Loads every plugin as the server does at startup. A temporary store and key replace the server's own, which only the server
/// may open.
fn check_plugins(config: &Config) -> Result<PluginCheck, Failure> {
    let bug = |error: &dyn std::fmt::Display| Failure::new(Exit::Bug, error.to_string());
    let scratch = tempfile::tempdir()?;
    let key = Arc::new(Key::load_or_create(&scratch.path().join("key"), None).map_err(|error| bug(&error))?);
    let options = HostOptions { report_compilation: print_stderr, ..plugins::host_options(config) };
    let host = Host::new(options).map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open(&scratch.path().join("store")).map_err(|error| bug(&error))?;
        let loaded = Plugins::load(config, &host, &store, &key).await;
        Ok(loaded.map_or_else(PluginCheck::Invalid, |plugins| PluginCheck::Loaded(plugins.all().count())))
    })
}

pub(super) fn config_failure(problems: &[impl ToString]) -> Failure {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Failure::new(Exit::Config, format!("the configuration is invalid:\n  {}", lines.join("\n  ")))
}

/// Reads the configuration.
///
/// # Errors
/// One [`Failure`] that lists every problem.
pub fn load(args: &ConfigArgs) -> Result<Loaded, Failure> {
    Config::load(args.config.as_deref(), std::env::vars()).map_err(|problems| config_failure(&problems))
}
